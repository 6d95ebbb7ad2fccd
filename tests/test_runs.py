"""The scripts of long jobs: their syntax and usage; the parts of the GPU job, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = Path(__file__).parent.parent / "runs"
ENVIRONMENT = os.environ | {"MIB": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("script", sorted(RUNS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse_and_state_their_usage(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    assert f"`runs/{script.name}" in (RUNS / "README.md").read_text()
    if "usage:" in script.read_text():
        done = subprocess.run(["bash", script], capture_output=True, text=True)
        assert done.returncode and f"runs/{script.name}" in done.stderr and len(done.stderr.splitlines()) == 1
