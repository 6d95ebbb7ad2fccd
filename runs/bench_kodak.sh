#!/usr/bin/env bash
# The bench on the 24 Kodak photos: every system, the whole SNR grid, 3 draws. Run in the repository with KODAK the folder of
# the photos and LPIPS the one with lpips_alex.safetensors and lpips_vgg.safetensors. Goes on when started again.
# OUT/rows.jsonl is the result, OUT/report.html shows it. Two CPU cores need some hours, most of them for vvenc and metrics.
set -euo pipefail
KODAK=${1:?usage: runs/bench_kodak.sh KODAK LPIPS [OUT]}
LPIPS=${2:?usage: runs/bench_kodak.sh KODAK LPIPS [OUT]}
OUT=${3:-out/bench-kodak}
SYSTEMS=(semcast semcast-2steps semcast-1step semcast-digital stage-a downscale)
if [ -f semcast/bench/weights/deepjscc-683.safetensors ]; then SYSTEMS+=(deepjscc); fi # benchmarks/train_deepjscc.py makes them
for codec in jpeg2000 hevc vvc avif; do SYSTEMS+=("$codec"-{ldpc,fixed,capacity,finite}); done
semcast bench --systems "${SYSTEMS[@]}" --data "$KODAK" --size 512 --lpips "$LPIPS" --out "$OUT" \
  --snr -5 0 1 5 10 15 20 --headline 1 10 20 --draws 3 --channel awgn --uses same
semcast bench report "$OUT"
python benchmarks/keep.py "$OUT" --out benchmarks/results/bench_kodak.json
