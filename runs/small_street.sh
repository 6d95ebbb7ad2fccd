#!/usr/bin/env bash
# `small` on one domain, as the paper does with Cityscapes: Stage B alone, SNR 1 to 20 dB. The loss is that of the few-step phase, because
# `small` is a few-step receiver. Trained on street scenes only, and on streets mixed with photos, which is the cure for the colour
# cast that the first has on photos (`delta_e`, `shift_red` ...). Run in the repository; goes on where it stopped.
#   STREET, PHOTOS: what to train on, folders or tar files. STREET_TEST, PHOTOS_TEST: what to measure on. LPIPS: folder of its weights.
set -euo pipefail
USAGE="usage: [STEPS=400] [LIMIT=24] [DRAWS=3] [OUT=scratch/street] runs/small_street.sh STREET PHOTOS STREET_TEST PHOTOS_TEST LPIPS"
STREET=${1:?$USAGE} PHOTOS=${2:?$USAGE} STREET_TEST=${3:?$USAGE} PHOTOS_TEST=${4:?$USAGE} LPIPS=${5:?$USAGE}
STEPS=${STEPS:-400}
OUT=${OUT:-scratch/street}
train() { # run folder, sources
  local out=$1 resume=()
  shift
  if [ -f "$out/model/config.json" ]; then return; fi
  if [ -d "$out/last" ]; then resume=(--resume); fi
  semcast train --preset fewstep --init small --out "$out" --data "$@" --lpips "$LPIPS" --set "steps=$STEPS" --set lr=0.0004 \
    --set warmup=30 --set ema=0.98 --set snr_min=1 --set snr_max=20 --set pixel_weight=2 --set latent_weight=0.2 "${resume[@]}"
}
train "$OUT/street" "$STREET"
train "$OUT/mixed" "$STREET:0.7" "$PHOTOS:0.3"
for set in street photos; do
  data=$STREET_TEST size=()
  if [ $set = photos ]; then data=$PHOTOS_TEST size=(--size 512); fi
  semcast bench --systems semcast "semcast@$OUT/street/model" "semcast@$OUT/mixed/model" --data "$data" "${size[@]}" \
    --limit "${LIMIT:-24}" --snr 1 10 20 --draws "${DRAWS:-3}" --lpips "$LPIPS" --out "$OUT/bench-$set"
  semcast bench report "$OUT/bench-$set"
  python benchmarks/keep.py "$OUT/bench-$set" --out "benchmarks/results/street_$set.json"
done
