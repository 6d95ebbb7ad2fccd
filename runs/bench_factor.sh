#!/usr/bin/env bash
# `small` with codes of [16, 16, 16], [16, 12, 12] and [16, 8, 8] of a 512x512 picture (`factor` 1.0, 0.75, 0.5): the paper's ablation of
# the code's size, here without training for each. Run in the repository. PICTURES: folder or tar file; LPIPS: folder of its weights.
set -euo pipefail
USAGE="usage: [DRAWS=3] [OUT=out/bench-factor] runs/bench_factor.sh PICTURES LPIPS"
PICTURES=${1:?$USAGE} LPIPS=${2:?$USAGE}
OUT=${OUT:-out/bench-factor}
for ratio in 384 683 1536; do
  semcast bench --systems semcast --data "$PICTURES" --size 512 --lpips "$LPIPS" --snr 1 10 20 --draws "${DRAWS:-3}" \
    --uses "1/$ratio" --out "$OUT/$ratio"
  python benchmarks/keep.py "$OUT/$ratio" --out "benchmarks/results/factor_$ratio.json"
done
