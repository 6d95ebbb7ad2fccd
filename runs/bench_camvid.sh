#!/usr/bin/env bash
# CamVid's test frames, whole, with the mIoU of a segmenter that is trained first, on two CPU cores for an hour. Run in the repository.
# STREETS: folder or tar files with CamVid's train and val frames; TEST: the test frames; LABELS: folder or tar file of class maps for both
# (PNG, 0 to 10 and 11 for void); LPIPS: folder of its weights. Goes on when started again.
set -euo pipefail
USAGE="usage: [OUT=out/camvid] runs/bench_camvid.sh STREETS TEST LABELS LPIPS"
STREETS=${1:?$USAGE} TEST=${2:?$USAGE} LABELS=${3:?$USAGE} LPIPS=${4:?$USAGE}
OUT=${OUT:-out/camvid}
if [ ! -f "$OUT/segmenter.safetensors" ]; then
  python benchmarks/train_segmenter.py "$STREETS" --labels "$LABELS" --test "$TEST" --out "$OUT/segmenter.safetensors"
fi
python benchmarks/measure.py camvid --streets "$TEST" --labels "$LABELS" --segmenter "$OUT/segmenter.safetensors" --lpips "$LPIPS" --no-pages
