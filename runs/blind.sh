#!/usr/bin/env bash
# A receiver that is not told the noise, as the paper's: Stage B of `small` trained on without it, on the channels `small` was trained on,
# and measured. Half an hour on two CPU cores. Run in the repository; goes on when started again.
set -euo pipefail
USAGE="usage: [STEPS=200] [OUT=scratch/blind] runs/blind.sh DATA LPIPS KODAK"
DATA=${1:?$USAGE} LPIPS=${2:?$USAGE} KODAK=${3:?$USAGE}
OUT=${OUT:-scratch/blind}
mkdir -p "$OUT"
if [ ! -d "$OUT/start" ]; then
  rm -rf "$OUT/start.part"
  cp -r semcast/weights/small "$OUT/start.part"
  sed -i 's/"noise_aware": true/"noise_aware": false/' "$OUT/start.part/config.json"
  grep -q '"noise_aware": false' "$OUT/start.part/config.json"
  mv "$OUT/start.part" "$OUT/start"
fi
settings=()
for setting in "steps=${STEPS:-200}" lr=0.0004 warmup=30 ema=0.985 crop=128 pixel_weight=2 latent_weight=0.2 seed=13 snr_min=-3 snr_max=24 \
  fading=0.2 erasures=0.2; do settings+=(--set "$setting"); done
resume=()
if [ -d "$OUT/run/last" ]; then resume=(--resume); fi
if [ ! -f "$OUT/run/model/config.json" ]; then
  semcast train --preset fewstep --init "$OUT/start" --out "$OUT/run" --data "$DATA" --lpips "$LPIPS" "${settings[@]}" "${resume[@]}"
fi
python benchmarks/measure.py blind --kodak "$KODAK" --lpips "$LPIPS" --model blind="$OUT/run/model" --no-pages
