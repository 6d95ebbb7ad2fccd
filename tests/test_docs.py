"""README and PROTOCOL say what the code does: their commands run, their tables are computed, their links exist."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import photo

from semcast.bench import records
from semcast.bench.systems import family, find_system
from semcast.cli import build_parser, main
from semcast.errors import brings
from semcast.frame import VERSION
from semcast.header import HEADER_BITS, LADDER_BITS, SIDE_BITS, Header
from semcast.images import PHOTO
from semcast.metrics.lpips import LPIPS
from semcast.modulation.reply import AGAIN, MORE, round_snr, wish_at

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


@pytest.mark.slow
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
    assert all(Image.open(f"out/photo_{snr}dB.png").size == (128, 96) for snr in (5, 10, 20))
    assert all((folder / "runs" / run / "model" / "config.json").exists() for run in "ab")


def test_readme_python_runs(folder, capsys):
    for block in blocks("python"):
        exec(compile(block, "README", "exec"), {})
    assert "72 channel uses" in capsys.readouterr().out  # 96x128 -> padded 128x128 -> 96x96 -> 16x3x3 -> 72
    assert Image.open("received.png").size == (128, 96)


def test_tables_are_computed_from_the_result_files():
    import results
    import tables

    for path in tables.DOCUMENTS:
        text = path.read_text()
        assert text.count("<!-- table ") == text.count("<!-- end ") > 0, path
        assert tables.filled(text) == text, f"{path} is stale: run python benchmarks/tables.py --write"
    assert (results.RESULTS / "grid.json").exists()
    for metric, path in tables.PLOTS.items():
        assert path.read_text() == tables.bench_plot(metric), (
            f"{path} is stale: run python benchmarks/tables.py --write"
        )


def test_links_and_rooms_exist():
    documents = [
        "README.md",
        "CONTRIBUTING.md",
        "PROTOCOL.md",
        "docs/results.md",
        "docs/peers.md",
        "docs/web.md",
        "semcast/weights/small/MODEL_CARD.md",
    ]
    for document in (ROOT / name for name in documents):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
    tree = README.split("## The rooms")[1].split("```")[1]
    files = {path.name for room in ("semcast", "benchmarks", "tests") for path in (ROOT / room).rglob("*.py")}
    for word in re.findall(r"[\w./]+\.py", tree):
        assert Path(word).name in files, word
    rooms = {path.parent.name for path in (ROOT / "semcast").glob("*/__init__.py")}
    assert rooms == {name for name in re.findall(r"^  (\w+)/  ", tree, re.M)} - {"weights"}
    assert sum(1 for _ in README.splitlines()) < 155


def test_the_house_keeps_its_shape():
    modules = list((ROOT / "semcast").glob("*.py"))
    assert len(modules) < 16, "a new concept wants a room, not a sixteenth module at top level"
    assert sum(1 for _ in (ROOT / "semcast" / "link.py").read_text().splitlines()) < 60


def test_protocol_counts_the_side_information_the_code_counts():
    table = PROTOCOL.split("## Side information")[1].split("## The frame file")[0]
    rows = re.findall(r"^\| ([\w, ]+) \| ([\d +]+) \|", table, re.M)
    bits = {
        name: count for names, counts in rows for name, count in zip(names.split(", "), map(int, counts.split(" + ")))
    }
    assert [*bits.items()] == [*HEADER_BITS.items()]  # in the order of the bits on the air
    assert f"| **{SIDE_BITS}** |" in table and SIDE_BITS <= 96
    assert f"the {SIDE_BITS} bits above" in PROTOCOL
    assert f"\nVersion {VERSION}. " in PROTOCOL and f"| version, {VERSION} |" in PROTOCOL


def test_protocol_counts_the_bits_of_the_ladder():
    table = PROTOCOL.split("## The ladder")[1].split("## Side information")[0]
    bits = {}
    for names, counts in re.findall(r"^\| ([\w, ]+) \| ([\d +]+)[,;:|]", table, re.M)[-8:]:
        bits |= dict(zip(names.split(", "), map(int, re.findall(r"\d+", counts))))
    bits |= {"header_crc": 16} if "| header_crc | 16 |" in table else {}
    assert {name: bits[name] for name in LADDER_BITS} == LADDER_BITS
    assert f"| together | {sum(LADDER_BITS.values())} |" in table
    header = Header(0, 512, 512, 0.75, 1.0)
    shown = [int(uses) for uses in re.findall(r"\| (\d+) \|$", table, re.M)[:3]]
    assert shown == header.rung_uses[::8]


def test_results_are_of_the_model_that_ships():
    results = ROOT / "benchmarks" / "results"
    shown = 0
    for path in results.glob("*.json"):
        systems = json.loads(path.read_text()).get("systems", {})
        for name, version in systems.items():
            if family(name) in ("semcast", "stage") and "@" not in name:
                assert version == find_system(name).version(), f"{path.name}: run python benchmarks/measure.py"
                shown += 1
    assert shown >= 17


def test_which_mode_to_send_is_what_was_measured():
    """What docs/results.md says of the stream, of mode mixed and of AVIF over LDPC."""
    rows = records.read(ROOT / "benchmarks" / "results" / "ladder.json")["rows"]

    def measured(system: str, metric: str, uses: int, snr_db: float) -> float:
        found = [row for row in rows if (row["system"], row["uses_rule"], row["snr_db"]) == (system, str(uses), snr_db)]
        return fmean(row[metric] for row in found)

    mixed_from = {1.0: 32768, 10.0: 16384}
    for snr_db in (1.0, 10.0):
        for uses in (4096, 8192, 16384, 32768):
            stream, mixed, avif = (
                {metric: measured(system, metric, uses, snr_db) for metric in ("lpips", "dists", "psnr_db")}
                for system in ("semcast-ladder", "semcast-mixed", "avif-ldpc")
            )
            assert mixed["lpips"] < avif["lpips"], (snr_db, uses)
            assert (mixed["dists"] < avif["dists"]) == ((snr_db, uses) != (1.0, 4096))
            assert 0.5 < avif["psnr_db"] - mixed["psnr_db"] < 1.25
            assert (mixed["lpips"] < stream["lpips"]) == (uses >= mixed_from[snr_db])
            assert stream["lpips"] < avif["lpips"] or (snr_db == 10 and uses > 8192)


def test_the_rule_for_replies_is_right_nine_times_in_ten():
    rows = json.loads((ROOT / "benchmarks" / "results" / "asking.json").read_text())["rows"]
    wishes = [wish_at(row["last_rung"], round_snr(row["snr_db"])) for row in rows]
    better = [min((AGAIN, MORE), key=lambda way: row[f"{way}_lpips"]) for row in rows]
    assert len(rows) == 200 and np.mean(np.array(wishes) == np.array(better)) >= 0.9


def test_the_picture_gets_better_with_every_prefix_of_the_stream():
    record = records.read(ROOT / "benchmarks" / "results" / "prefixes.json")
    rows = [row for row in record["rows"] if row["channel"] == "awgn"]
    prefixes = sorted({row["uses"] for row in rows if row["snr_db"] == 1.0})
    assert len(prefixes) == 12
    for snr_db in (1.0, 5.0, 10.0, 20.0):
        for metric, sign in (("lpips", -1), ("psnr_db", 1)):
            means = [
                sign * fmean(row[metric] for row in rows if (row["snr_db"], row["uses"]) == (snr_db, uses))
                for uses in prefixes
            ]
            assert np.all(np.diff(means) > 0), (snr_db, metric)


@pytest.mark.parametrize(
    "argv, code",
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["channels"], 0),
        (["models"], 0),
        (["web", "--help"], 0),
        (["web", "--host", "0.0.0.0"], 2),
        (["run", "missing.png", "--snr", "10"], 2),
        (["send", "missing.png", "-o", "x.sem"], 2),
        (["receive", "missing.sem", "-o", "x.png"], 2),
        (["train", "--preset", "joint", "--data", "missing", "--out", "out"], 2),
        (["run", str(PHOTO), "--snr", "10", "--model", "missing"], 2),
    ],
)
def test_what_needs_no_network_answers_without_torch(argv, code, tmp_path):
    """Within half a second of processor time; a test that is not timed sees whether torch was imported."""
    program = "import sys; from semcast.cli import main\ntry: code = main(sys.argv[1:])\nexcept SystemExit as e: code = e.code\n"
    program += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\nsys.exit(code)"
    result = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == (1 if code else 0)


def test_a_missing_extra_is_refused_without_torch(tmp_path):
    program = "import sys; import semcast.errors as e; e.missing = lambda *p: [x for x in p if x == 'sionna']\n"
    program += (
        "from semcast.cli import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    argv = ["run", str(PHOTO), "--snr", "10", "--channel", "tdl-a"]
    result = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (result.returncode, result.stderr) == (
        2,
        f"semcast: channel tdl-a needs sionna: {brings('phy')}\n",
    )


def test_the_flags_are_a_contract():
    """Frozen on purpose: changing one is a decision, not an accident."""
    commands = next(a for a in build_parser()._actions if a.dest == "command").choices
    flags = {
        name: sorted(s for a in p._actions for s in a.option_strings if s.startswith("--"))
        for name, p in commands.items()
    }
    model, channel = (
        ["--compile", "--device", "--dtype", "--engine", "--low-memory", "--model"],
        ["--channel", "--channel-option", "--snr"],
    )
    flags = {name: [flag for flag in found if flag not in ("--help", "--quiet")] for name, found in flags.items()}
    assert flags == {
        "demo": ["--force", "--out"],
        "run": sorted(
            ["--out", "--output", "--force", "--json", "--factor", "--steps", "--seed", "--lpips", "--fetch-metrics"]
            + ["--mode", "--rungs", "--uses", "--quality", *model, *channel]
        ),
        "send": sorted(
            ["--output", "--force", "--factor", "--mode", "--snr", "--bytes", "--reply", *model]
            + ["--rungs", "--uses", "--quality", "--seconds", "--profile", "--play", "--lead", "--rate", "--centre"]
        ),
        "channel": sorted(
            ["--output", "--force", "--seed", *channel, "--snr3k", "--offset", "--drift", "--clock", "--clip"]
            + ["--tone", "--tone-hz", "--band", "--level", "--rate", "--centre"]
        ),
        "channels": ["--force", "--plot"],
        "receive": sorted(
            ["--output", "--force", "--steps", "--seed", *model, "--pick", "--header", "--report", "--json"]
            + ["--rate", "--centre", "--listen", "--device-in", "--reply", "--wish", "--confidence"]
        ),
        "info": ["--centre", "--header", "--json", "--rate"],
        "compare": ["--json", "--lpips"],
        "completion": [],
        "bench": sorted(
            [
                "--list",
                "--smoke",
                "--systems",
                "--data",
                "--size",
                "--limit",
                "--snr",
                "--headline",
                "--uses",
                "--draws",
            ]
            + ["--copies", "--snr-error", "--channel", "--channel-option", "--out", "--workers", "--ray", "--device"]
            + ["--lpips", "--labels", "--segmenter"]
        ),
        "train": sorted(
            ["--preset", "--data", "--out", "--init", "--resume", "--other-data", "--strict", "--set"]
            + ["--lpips", "--cache", "--device"]
        ),
        "models": ["--json"],
        "web": ["--host", "--model", "--open", "--password-file", "--port"],
    }
