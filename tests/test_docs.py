"""README and PROTOCOL say what the code does: their commands run, their tables are computed, their links exist."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import photo
from PIL import Image
from safetensors.torch import save_file

from semcast.bench.systems import model_version
from semcast.cascade.checkpoint import NETWORKS, fingerprint
from semcast.cli import build_parser, main
from semcast.frame import VERSION
from semcast.lpips import LPIPS
from semcast.models import load_model
from semcast.transmitter import HEADER_BITS, SIDE_BITS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "PROTOCOL.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with what the README's commands name."""
    Image.fromarray(photo(96, 128)).save(tmp_path / "photo.jpg")
    for name in ("photos", "street"):
        (tmp_path / name).mkdir()
        Image.fromarray(photo(96, 128)).save(tmp_path / name / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_commands_run(folder):
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("semcast ")]
    assert len(commands) >= 6
    for command in commands:
        argv = shlex.split(command, comments=True)[1:]
        if "stable-cascade" in command:  # gigabytes from the hub; test_official.py does the same with tiny networks
            build_parser().parse_args(argv)
            continue
        if argv[0] == "train":  # the same command, small enough for a test, with LPIPS weights of our own making
            (folder / "weights").mkdir(exist_ok=True)
            torch.manual_seed(0)
            state = {k: v.abs() if k.startswith("lin") else v for k, v in LPIPS("vgg").state_dict().items()}
            save_file(state, folder / "weights" / "lpips_vgg.safetensors")
            argv += [word for setting in ("steps=2", "batch=1", "crop=64", "window=32") for word in ("--set", setting)]
        assert main(argv) == 0, command
    assert Image.open("received.png").size == (128, 96)
    assert Image.open("out/photo.png").size == (128, 96)
    assert all((folder / "runs" / run / "model" / "config.json").exists() for run in "ab")


def test_readme_python_runs(folder, capsys):
    for block in blocks("python"):
        exec(compile(block, "README", "exec"), {})
    assert "torch.Size([1, 72])" in capsys.readouterr().out  # 96x128 -> padded 128x128 -> 96x96 -> 16x3x3 -> 72
    assert Image.open("received.png").size == (128, 96)


def test_tables_are_computed_from_the_result_files():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import records
    import tables

    for path in tables.DOCUMENTS:
        text = path.read_text()
        assert text.count("<!-- table ") == text.count("<!-- end ") > 0, path
        assert tables.filled(text) == text, f"{path} is stale: run python benchmarks/tables.py --write"
    for metric, path in tables.PLOTS.items() if (records.RESULTS / "bench_grid.json").exists() else ():
        assert path.read_text() == tables.bench_plot(metric), f"{path} is stale: run python benchmarks/tables.py --write"


def test_links_and_file_tree_exist():
    for document in (ROOT / "README.md", ROOT / "semcast/weights/small/MODEL_CARD.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
    tree = README.split("## Files")[1].split("```")[1]
    for word in re.findall(r"[\w./]+\.py", tree):
        assert list(ROOT.glob(f"**/{word}")), word
    assert sum(1 for _ in README.splitlines()) < 150


def test_protocol_counts_the_side_information_the_code_counts():
    table = PROTOCOL.split("## Side information")[1].split("## The frame file")[0]
    rows = re.findall(r"^\| ([\w, ]+) \| ([\d +]+) \|", table, re.M)
    bits = {name: count for names, counts in rows for name, count in zip(names.split(", "), map(int, counts.split(" + ")))}
    assert bits == HEADER_BITS
    assert f"| **{SIDE_BITS}** |" in table and SIDE_BITS < 190
    assert f"\nVersion {VERSION}. " in PROTOCOL and f"| version, {VERSION} |" in PROTOCOL


def test_results_are_of_the_model_that_ships():
    cascade = load_model("small")
    prints = {name: fingerprint(getattr(cascade, name))[:8] for name in NETWORKS}
    for name in ("kodak", "predictability", "robust", "crossing", "steps_1", "steps_2", "steps_4", "steps_10"):
        assert json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["networks"] == prints, name
    packets = json.loads((ROOT / "benchmarks" / "results" / "packet_gain.json").read_text())
    assert packets["networks"]["encoder"] == prints["encoder"]
    benches = [path for path in (ROOT / "benchmarks" / "results").glob("*.json") if "systems" in json.loads(path.read_text())]
    assert len(benches) >= 7
    for path in benches:
        assert json.loads(path.read_text())["systems"]["semcast"] == model_version("small"), path.name


def test_help_answers_without_loading_torch():
    code = "import sys; from semcast.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    assert "run" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_flags_are_a_contract():
    """Frozen on purpose: changing one is a decision, not an accident."""
    commands = next(a for a in build_parser()._actions if a.dest == "command").choices
    flags = {name: sorted(s for a in p._actions for s in a.option_strings if s.startswith("--")) for name, p in commands.items()}
    model, channel = ["--compile", "--device", "--dtype", "--low-memory", "--model"], ["--channel", "--channel-option", "--snr"]
    assert flags == {
        "demo": sorted(["--help", "--out"]),
        "run": sorted(["--help", "--out", "--factor", "--steps", "--seed", "--lpips", "--fetch-metrics", "--mode", *model, *channel]),
        "send": sorted(["--help", "--output", "--factor", "--seed", "--mode", "--snr", "--bytes", *model]),
        "channel": sorted(["--help", "--output", "--seed", *channel]),
        "channels": sorted(["--help", "--plot"]),
        "receive": sorted(["--help", "--output", "--steps", *model]),
        "bench": sorted(
            ["--help", "--list", "--smoke", "--systems", "--data", "--size", "--limit", "--snr", "--headline", "--uses", "--draws"]
            + ["--channel", "--channel-option", "--out", "--workers", "--ray", "--device", "--lpips", "--labels", "--segmenter"]
        ),
        "train": sorted(["--help", "--preset", "--data", "--out", "--init", "--resume", "--set", "--lpips", "--cache", "--device"]),
        "models": sorted(["--help", "--json"]),
    }
