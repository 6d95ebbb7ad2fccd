#!/usr/bin/env bash
# Every classical codec over every link on the whole SNR grid, 3 draws, with semcast, DeepJSCC and plain downscaling beside them: 24 photos
# take two AVX2 cores about 85 minutes, half of it VGG16 for LPIPS-VGG and DISTS at the headline SNRs. Run in the repository. LPIPS: folder of its
# weights. PICTURES: photos or a folder. Goes on when started again.
set -euo pipefail
USAGE="usage: [OUT=out/bench-grid] runs/bench_grid.sh LPIPS PICTURES ..."
LPIPS=${1:?$USAGE}
shift
OUT=${OUT:-out/bench-grid}
SYSTEMS=(semcast deepjscc downscale)
for codec in jpeg2000 hevc vvc avif; do SYSTEMS+=("$codec"-{ldpc,fixed,capacity,finite}); done
semcast bench --systems "${SYSTEMS[@]}" --data "${@:?$USAGE}" --size 512 --lpips "$LPIPS" --out "$OUT" \
  --snr -5 0 1 5 10 15 20 --headline 1 5 10 --draws 3 --channel awgn --uses same
semcast bench report "$OUT"
python benchmarks/keep.py "$OUT" --out benchmarks/results/bench_grid.json
