"""The scripts of long jobs: their syntax and usage, and splitting training data into parts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

RUNS = Path(__file__).parent.parent / "runs"
ENVIRONMENT = os.environ | {"MIB": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("script", sorted(RUNS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse_and_state_their_usage(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    assert f"`runs/{script.name}" in (RUNS / "README.md").read_text()
    if "usage:" in script.read_text():
        done = subprocess.run(["bash", script], capture_output=True, text=True)
        assert done.returncode and f"runs/{script.name}" in done.stderr and len(done.stderr.splitlines()) == 1


def test_parts_are_joined_completely_or_not_at_all(tmp_path):
    data, lpips, parts = tmp_path / "photos", tmp_path / "weights", tmp_path / "parts"
    data.mkdir(), lpips.mkdir()
    (data / "a.tar").write_bytes(np.random.default_rng(0).bytes(1_500_000))
    save_file({"lin0.weight": torch.rand(1, 64, 1, 1)}, lpips / "lpips_vgg.safetensors")
    script = lambda *words: subprocess.run(
        ["bash", RUNS / "parts.sh", *words], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert script("cut", data, lpips, parts).returncode == 0
    assert sorted(path.name for path in parts.iterdir()) == ["all.sha256", "in.00", "in.01"]
    assert max(path.stat().st_size for path in parts.iterdir()) == 1 << 20
    assert script("join", parts, tmp_path / "there").stdout.split() == [
        str(tmp_path / "there" / name) for name in ("data", "lpips")
    ]
    assert (tmp_path / "there" / "data" / "photos" / "a.tar").read_bytes() == (data / "a.tar").read_bytes()
    weights = [
        load_file(folder / "lpips_vgg.safetensors")["lin0.weight"] for folder in (lpips, tmp_path / "there" / "lpips")
    ]
    assert torch.equal(weights[0].half(), weights[1])
    assert script("cut", data, lpips, parts).returncode == 2  # it overwrites nothing
    (parts / "in.01").unlink()
    done = script("join", parts, tmp_path / "elsewhere")
    assert (
        done.returncode == 2
        and "a part is missing or damaged" in done.stderr
        and not list((tmp_path / "elsewhere").iterdir())
    )
