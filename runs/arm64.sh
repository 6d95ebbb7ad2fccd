#!/usr/bin/env bash
# semcast on an emulated 64-bit ARM processor (qemu, a Cortex-A72 as in a Raspberry Pi 4): sends and receives there and here, and says
# by how much the pictures differ. For Debian or Ubuntu on another processor, where these were called once:
#   apt-get install qemu-user-static && dpkg --add-architecture arm64 && apt-get update
# Takes minutes, and 400 MB in FOLDER. Run in the repository, with semcast installed. PIP_ARGS: for pip, e.g. an index.
set -euo pipefail
FOLDER=$(mkdir -p "${1:?usage: runs/arm64.sh FOLDER}" && cd "$1" && pwd)
VERSION=$(apt-cache depends python3:arm64 | sed -n 's/.*Depends: python\(3[.][0-9]*\):arm64$/\1/p' | head -1)
ROOT=$FOLDER/root SITE=$FOLDER/site
LIBRARIES=(libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libcrypt1 libuuid1 libgomp1)

if [ ! -e "$ROOT/usr/bin/python$VERSION" ]; then
  mkdir -p "$FOLDER/packages" "$ROOT"
  (cd "$FOLDER/packages" && apt-get download -q "python$VERSION-minimal:arm64" "libpython$VERSION-minimal:arm64" \
    "libpython$VERSION-stdlib:arm64" "${LIBRARIES[@]/%/:arm64}")
  for package in "$FOLDER"/packages/*.deb; do dpkg-deb -x "$package" "$ROOT"; done
fi
rm -rf "$SITE"
# shellcheck disable=SC2086
python -m pip install -q ${PIP_ARGS:-} --target "$SITE" --python-version "$VERSION" --implementation cp --only-binary :all: \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_26_aarch64 \
  --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
  $(python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"])')
cp -r semcast "$SITE/semcast"

# ONNX Runtime reads of these what the processor can do; qemu would show it those of this machine
mkdir -p "$ROOT/proc" "$ROOT/sys/devices/system/cpu"
printf '%s\n' 'processor : 0' 'Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid' 'CPU implementer : 0x41' \
  'CPU architecture: 8' 'CPU variant : 0x0' 'CPU part : 0xd08' 'CPU revision : 3' >"$ROOT/proc/cpuinfo"
for name in possible present online; do echo 0 >"$ROOT/sys/devices/system/cpu/$name"; done

here() { semcast "$@"; }
arm_python() {
  PYTHONHOME=$ROOT/usr PYTHONPATH=$SITE OMP_NUM_THREADS=1 \
    qemu-aarch64-static -cpu cortex-a72 -L "$ROOT" "$ROOT/usr/bin/python$VERSION" "$@"
}
there() { arm_python -m semcast "$@"; }
arm_python -c 'import platform; print(platform.machine())'
cd "$FOLDER"
python -c 'from PIL import Image; from semcast.images import PHOTO; Image.open(PHOTO).resize((128, 128)).save("photo.png")'
there send photo.png -o there.sem --force -q
here send photo.png -o here.sem --force -q
there channel there.sem --snr 5 --seed 1 -o arrived.sem --force -q
for where in here there; do
  $where receive arrived.sem -o analog-$where.png --engine onnx --force -q
  $where send photo.png --mode digital --bytes 100 -o digital-$where.sem --force -q
  $where receive digital-$where.sem -o digital-$where.png --engine onnx --force -q
done
there send photo.png -o there.wav --force -q
here receive there.wav -o radio-here.png --engine onnx --force -q
there receive there.wav -o radio-there.png --engine onnx --force -q
python - <<'END'
import numpy as np
from PIL import Image
for mode in ("analog", "digital", "radio"):
    here, there = (np.asarray(Image.open(f"{mode}-{where}.png")).astype(int) for where in ("here", "there"))
    apart = np.abs(here - there)
    print(f"{mode}: {np.mean(apart > 0):.4%} of the values differ, by {apart.max()} of 255 at most")
    assert apart.max() <= 1
END
