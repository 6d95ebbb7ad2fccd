#!/usr/bin/env bash
# Speed on a GPU, official size with random weights: the link beside diffusers' classes, and a fine-tuning step with and
# without recomputation. Not run yet; no figure is claimed. Rehearsal on a CPU: benchmarks/speed.py --official --tiny,
# benchmarks/train_speed.py --size tiny --crop 64.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=.
OUT=${OUT:-benchmarks/results}
python3 benchmarks/speed.py --out "$OUT/speed_gpu.json"
for side in 512 1024; do python3 benchmarks/train_speed.py --crop $side --out "$OUT/train_speed_$side.json"; done
python3 benchmarks/train_speed.py --crop 1024 --optimiser adamw8bit --out "$OUT/train_speed_1024_8bit.json"
