#!/usr/bin/env bash
# The SNR-blind receiver, as the paper's: Stage B of `small` trained on without being told the noise, on the channels `small` was trained on,
# and measured beside it. Run in the repository; goes on when started again.
set -euo pipefail
USAGE="usage: [STEPS=200] [DRAWS=10] [OUT=scratch/blind] runs/blind.sh DATA LPIPS PICTURES"
DATA=${1:?$USAGE} LPIPS=${2:?$USAGE} PICTURES=${3:?$USAGE}
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
python benchmarks/robust.py "$PICTURES" --model "$OUT/run/model" --blind --crop 512 --draws "${DRAWS:-10}" --lpips "$LPIPS" \
  --out benchmarks/results/robust_blind.json
