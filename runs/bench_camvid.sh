#!/usr/bin/env bash
# The bench on CamVid's test frames, whole, with the mIoU of a segmenter that is trained first. Run in the repository. STREETS: folder
# or tar files with CamVid's train and val frames; TEST: the test frames; LABELS: folder or tar file of class maps for both
# (PNG, 0 to 10 and 11 for void); LPIPS: folder of its weights. Goes on when started again.
set -euo pipefail
USAGE="usage: [LIMIT=24] [OUT=out/bench-camvid] runs/bench_camvid.sh STREETS TEST LABELS LPIPS"
STREETS=${1:?$USAGE} TEST=${2:?$USAGE} LABELS=${3:?$USAGE} LPIPS=${4:?$USAGE}
OUT=${OUT:-out/bench-camvid}
mkdir -p "$OUT"
if [ ! -f "$OUT/segmenter.safetensors" ]; then
  python benchmarks/train_segmenter.py "$STREETS" --labels "$LABELS" --test "$TEST" --out "$OUT/segmenter.safetensors"
fi
SYSTEMS=(semcast semcast-2steps semcast-digital stage-a downscale)
if [ -f semcast/bench/weights/deepjscc-683.safetensors ]; then SYSTEMS+=(deepjscc); fi # benchmarks/train_deepjscc.py makes them
for codec in jpeg2000 hevc vvc avif; do SYSTEMS+=("$codec"-{ldpc,capacity}); done
semcast bench --systems "${SYSTEMS[@]}" --data "$TEST" --limit "${LIMIT:-24}" --labels "$LABELS" --segmenter "$OUT/segmenter.safetensors" \
  --lpips "$LPIPS" --snr 1 5 10 20 --headline 1 5 10 20 --draws 3 --out "$OUT"
semcast bench report "$OUT"
python benchmarks/keep.py "$OUT" --out benchmarks/results/bench_camvid.json
