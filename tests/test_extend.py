"""The recipes of CONTRIBUTING.md work: its code and commands run here as they stand, without a change to semcast."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import photo

from semcast import Link, load_model
from semcast.bench import codecs
from semcast.bench.harness import read_rows
from semcast.bench.systems import find_system
from semcast.channels import catalogue
from semcast.cli import build_parser, main
from semcast.images import to_image
from semcast.randomness import stream

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", CONTRIBUTING, re.M | re.S))


def code(section: str) -> dict[str, str]:
    """Python of a recipe by the file it belongs to."""
    return dict(re.findall(r'```python title="(.+?)"\n(.*?)```', SECTIONS[section], re.S))


def follow(section: str, *programs: str, workers: int = 1) -> None:
    """Run the commands of a recipe that call one of these, small enough for a test."""
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.S)
    for line in "".join(blocks).splitlines():
        program, command, *rest = shlex.split(line, comments=True)
        if program == "export":
            assert line == "export PYTHONPATH=."  # the fixture does
        elif program == "python":
            run_script(command, rest)
        elif command == "train":
            build_parser().parse_args([command, *rest])
        elif command in programs:
            short = {"run": ["--steps", "1"], "bench": ["--draws", "1", "--workers", str(workers)]}
            assert main([command, *rest, *([] if rest[0] == "report" else short[command])]) == 0, line


def run_script(path: str, arguments: list[str]) -> None:
    before, sys.argv = sys.argv, [path, *arguments]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a photo and the recipes' modules, which Python finds here and in processes of its own."""
    for section in ("Add a channel", "Add a codec or a rival", "Add a model"):
        for name, text in code(section).items():
            if "/" not in name:
                (tmp_path / name).write_text(text)
                monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    (tmp_path / "wrong.py").write_text("NUMBER = 1\n")
    (tmp_path / "photos").mkdir()
    for path in ("photo.jpg", "photos/a.png"):
        Image.fromarray(photo(96, 128)).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_channel_of_ones_own(folder, tiny_model, capsys):
    follow("Add a channel", "run")
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert row["channel"] == "hum:HUM" and row["channel_options"] == {"share": 0.9, "snr_mismatch_db": 0}

    link = Link(load_model(tiny_model), channel="hum:HUM", share=0.9)
    result = link(to_image(photo(96, 128)), snr_db=10, seed=3)
    hum = sys.modules["hum"]
    expected = hum.hum(result.sent.content, 10, [stream(3, "channel")], share=0.9)
    assert np.array_equal(result.received.y, expected.y) and not np.array_equal(result.received.y, result.sent.content)


@pytest.mark.slow
def test_the_same_channel_in_worker_processes_of_the_bench(folder):
    follow("Add a channel", "bench", workers=2)
    rows = read_rows(folder / "out/hum/rows.jsonl")
    assert {(row["system"], row["channel"]) for row in rows} == {("semcast", "hum:HUM"), ("downscale", "hum:HUM")}
    assert all(row["channel_options"] == {"share": 0.5, "snr_mismatch_db": 0} for row in rows)


def test_the_same_channel_built_in(folder, monkeypatch):
    import hum

    recipe = code("Add a channel")
    monkeypatch.setitem(sys.modules, "semcast.channels.hum", hum)
    monkeypatch.setitem(
        catalogue.CHANNELS, "hum", eval(recipe["semcast/channels/catalogue.py"].strip(), vars(catalogue).copy())
    )
    assert catalogue.find_channel("hum").options == hum.HUM.options
    names = {"np": np, "pytest": pytest, "stream": stream, "find_channel": catalogue.find_channel}
    exec(recipe["tests/test_channel.py"], names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test()


@pytest.mark.slow
def test_a_codec_and_a_rival_of_ones_own(folder, monkeypatch):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    monkeypatch.setitem(codecs.CODECS, "webp", None)  # taken away again after the test
    follow("Add a codec or a rival", "bench")
    rows = {row["system"]: row for row in read_rows(folder / "out/rivals/rows.jsonl")}
    assert rows.keys() == {"phases:PHASES", "webp:WEBP", "webp:BOUND"}
    assert not any(row["lost"] for row in rows.values())
    flat = np.square(photo(96, 128) - photo(96, 128).mean((0, 1))).mean()  # what the mean colour alone would give
    assert all(row["psnr_db"] > 10 * np.log10(255**2 / flat) for row in rows.values())
    assert rows["webp:BOUND"]["psnr_db"] >= rows["webp:WEBP"]["psnr_db"] - 0.5 and rows["webp:BOUND"]["payload_bits"]
    assert rows["webp:WEBP"]["system_version"].startswith("libwebp ")


@pytest.mark.slow
def test_the_rival_of_the_examples(folder, example_rivals):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    pytest.importorskip("pillow_jxl", reason="needs the [jxl] extra")
    (line,) = (
        line for line in (example_rivals / "README.md").read_text().splitlines() if line.startswith("semcast bench --s")
    )
    argv = shlex.split(line)[1:]
    argv[argv.index("--size") + 1] = "96"
    assert main([*argv, "--draws", "1", "--workers", "1"]) == 0
    rows = {row["system"]: row for row in read_rows(folder / "out/jpegxl/rows.jsonl")}
    assert rows.keys() == {"semcast", "jpegxl:JPEGXL", "avif-ldpc"}
    assert rows["jpegxl:JPEGXL"]["system_version"].startswith("pillow-jxl-plugin 1.")

    picture = photo(256, 200)
    payload, scale = codecs.fit("jpegxl", picture, 3000)
    assert 1000 < len(payload) <= 3000
    seen = codecs.show("jpegxl", payload, scale, 256, 200)
    flat = np.square(picture - picture.mean((0, 1))).mean()
    assert seen.shape == picture.shape and np.square(seen.astype(float) - picture).mean() < flat / 4


def test_a_model_of_ones_own(folder, capsys):
    follow("Add a model", "run")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in rows] == ["narrow", "narrow"]  # by its folder, then by its name
    assert (folder / "out/photo.png").read_bytes() == (folder / "out/known/photo.png").read_bytes()
    by_folder, by_name = (find_system(f"semcast@{name}").version() for name in ("narrow", "narrows:NARROW"))
    assert by_folder == by_name and by_name.startswith("narrow ")


@pytest.mark.parametrize(
    "command, kind",
    [
        ("run photo.jpg --snr 10 --channel", "semcast.channels.catalogue.Channel"),
        ("channel photo.jpg --snr 10 -o y.sem --channel", "semcast.channels.catalogue.Channel"),
        ("run photo.jpg --snr 10 --model", "semcast.cascade.models.Known"),
        ("bench --data photos --out out --channel", "semcast.channels.catalogue.Channel"),
        ("bench --data photos --out out --systems", "semcast.bench.base.System"),
    ],
)
def test_a_wrong_name_is_one_line(folder, cli, command, kind):
    flags = [] if "--systems" in command or not command.startswith("bench") else ["--systems", "downscale"]
    for name, message in (
        (
            "nowhere:NAME",
            "semcast: cannot load 'nowhere:NAME': No module named 'nowhere'; is its folder on PYTHONPATH?\n",
        ),
        ("wrong:NAME", "semcast: cannot load 'wrong:NAME': module 'wrong' has no attribute 'NAME'\n"),
        ("wrong:NUMBER", f"semcast: 'wrong:NUMBER' is a int, not a {kind}\n"),
    ):
        argv = command.split()
        assert cli(argv[0], *flags, *argv[1:], name) == (2, "", message)
