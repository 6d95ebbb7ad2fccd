"""What a user without torch does, in an environment that holds nothing but `pip install .`; `make light` runs it.

.venv-light/bin/python tests/light.py
"""

import importlib.util
import json
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
receive awgn.sem -o awgn.png
receive awgn.sem fading.sem lossy.sem -o all.png
run {PHOTO} --snr 10 --channel rician --out run
run {PHOTO} --snr 10 --channel erasure --channel-option rate=0.2 --out run --factor 1 --steps 2
send {PHOTO} -o packet.sem --mode digital --bytes 300
receive packet.sem -o packet.png
models
channels
"""
REFUSED = {
    f"run {PHOTO} --snr 10 --channel tdl-a": "channel tdl-a needs sionna: pip install 'semcast[phy]'",
    f"run {PHOTO} --snr 10 --mode digital": "the LDPC code of a packet needs sionna: pip install 'semcast[phy]'",
    f"run {PHOTO} --snr 10 --engine torch": "the engine torch needs torch and torchvision: pip install 'semcast[torch]'",
    "train --preset joint --init small --data . --out runs": "training needs torch and torchvision: pip install 'semcast[torch]'",
    "bench --smoke --out out": "bench needs torch and torchvision and torchmetrics: pip install 'semcast[bench,torch]'",
}


def main() -> None:
    assert importlib.util.find_spec("torch") is None, (
        "torch is installed here; make light sets up an environment without"
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
            if line.startswith("run "):
                row = json.loads(done.stdout)
                assert row["psnr_db"] > 15 and 0 < row["ms_ssim"] < 1, row
        for line, told in REFUSED.items():
            done = semcast_(line)
            assert (done.returncode, done.stderr) == (2, f"semcast: {told}\n"), f"{line}: {done.stderr}"
        assert len(list(Path(here).rglob("*.png"))) == 5
    print(f"without torch: {size_mb:.0f} MB installed, all commands answer")


if __name__ == "__main__":
    main()
