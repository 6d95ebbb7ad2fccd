#!/usr/bin/env bash
# Rate against quality: the three bandwidth ratios of DeepJSCC's networks, 1/683, 1/96 and 1/12, on photos, at 1 and 10 dB. semcast fills
# 1/384 at most. Run in the repository. LPIPS: folder of its weights; PICTURES: photos, tar files or folders. OUT/report.html plots it. Goes on
# when started again.
set -euo pipefail
USAGE="usage: [DRAWS=1] [OUT=out/bench-rate] runs/bench_rate.sh LPIPS PICTURES ..."
LPIPS=${1:?$USAGE}
shift
OUT=${OUT:-out/bench-rate}
SYSTEMS=(semcast deepjscc downscale {jpeg2000,hevc,avif}-ldpc) # vvenc needs minutes for a picture at 1/12
for ratio in 683 96 12; do
  semcast bench --systems "${SYSTEMS[@]}" --data "${@:?$USAGE}" --size 512 --lpips "$LPIPS" --out "$OUT" \
    --snr 1 10 --headline 10 --draws "${DRAWS:-1}" --channel awgn --uses "1/$ratio"
done
semcast bench report "$OUT"
for ratio in 683 96 12; do
  python benchmarks/keep.py "$OUT" --uses "1/$ratio" --out "benchmarks/results/rate_$ratio.json"
done
