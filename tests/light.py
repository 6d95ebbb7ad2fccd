"""What a user without torch does, in an environment that holds nothing but `pip install .`; `make light` runs it.

.venv-light/bin/python tests/light.py
"""

import importlib.util
import json
import re
import site
import subprocess
import sys
import tempfile
from pathlib import Path

import semcast

MAX_MB = 250  # installed, without the installers that every environment has
INSTALLERS = ("pip", "setuptools", "pkg_resources", "wheel", "_distutils_hack")
PHOTO = Path(semcast.__file__).parent / "assets" / "astronaut.jpg"
COMMANDS = f"""
demo --out .
send {PHOTO} -o sent.sem
channel sent.sem -o awgn.sem --snr 10
channel sent.sem -o fading.sem --snr 10 --channel rayleigh-fast --seed 1
channel sent.sem -o lossy.sem --snr 10 --channel packet-erasure --seed 2
receive awgn.sem -o awgn.png --confidence map.png
receive awgn.sem fading.sem lossy.sem -o all.png
run {PHOTO} --snr 10 --channel rician --out run/rician
run {PHOTO} --snr 10 --channel erasure --channel-option rate=0.2 --out run/erasure --factor 1 --steps 2
send {PHOTO} -o packet.sem --mode digital --bytes 300
receive packet.sem -o packet.png
run {PHOTO} --snr 5 10 --out run/both --quiet
info sent.sem
compare {PHOTO} run/rician/astronaut.png
completion bash
models
models export small --out exported
channels
"""
REFUSED = {
    f"run {PHOTO} --snr 10 --channel tdl-a": r"channel tdl-a needs sionna: pip install '.*\[phy\]'",
    f"run {PHOTO} --snr 10 --mode digital": r"the LDPC code of a packet needs sionna: pip install '.*\[phy\]'",
    f"run {PHOTO} --snr 10 --engine torch": r"the engine torch needs torch and torchvision: pip install '.*\[torch\]' \(.*",
    "train --preset joint --init small --data . --out runs": r"training needs torch and torchvision: pip install .*",
    "bench --smoke --out out": r"bench needs torch and torchvision and torchmetrics: pip install '.*\[bench,torch\]' .*",
    "web": r"semcast web needs starlette and uvicorn: pip install '.*\[web\]'",
    "models fetch lpips": r"LPIPS needs torch and torchvision and torchmetrics: pip install .*",
}


def main() -> None:
    for name in ("torch", "onnx"):
        assert importlib.util.find_spec(name) is None, (
            f"{name} is installed here; make light sets up an environment without"
        )
    folder = Path(site.getsitepackages()[0])
    files = [p for p in folder.rglob("*") if p.is_file() and not p.relative_to(folder).parts[0].startswith(INSTALLERS)]
    size_mb = sum(p.stat().st_size for p in files) / 1e6
    assert size_mb <= MAX_MB, f"{size_mb:.0f} MB are installed"
    with tempfile.TemporaryDirectory() as here:
        semcast_ = lambda line: subprocess.run(
            [sys.executable, "-m", "semcast", *line.split()], cwd=here, capture_output=True, text=True, check=False
        )
        for line in filter(None, COMMANDS.splitlines()):
            done = semcast_(line)
            assert done.returncode == 0, f"{line}: {done.stderr}"
            for row in map(json.loads, done.stdout.splitlines() if line.startswith("run ") else ()):
                assert row["psnr_db"] > 15 and 0 < row["ms_ssim"] < 1, row
        for line, told in REFUSED.items():
            done = semcast_(line)
            assert done.returncode == 2 and re.fullmatch(f"semcast: {told}\n", done.stderr), f"{line}: {done.stderr}"
        assert len(list(Path(here).rglob("*.png"))) == 9
    print(f"without torch: {size_mb:.0f} MB installed, all commands answer")


if __name__ == "__main__":
    main()
