#!/usr/bin/env bash
# `small` on one domain, as the paper does with Cityscapes: Stage B alone, SNR 1 to 20 dB. The loss is that of the few-step phase, because
# `small` is a few-step receiver. Trained on street scenes only, and on streets mixed with photos, which undoes the rise of the
# colour error (`delta_e`) that the first has on photos. Half an hour on two CPU cores. Run in the repository; goes on where it stopped.
#   STREET, PHOTOS: what to train on, folders or tar files. STREET_TEST, KODAK: what to measure on. LPIPS: folder of its weights.
set -euo pipefail
USAGE="usage: [STEPS=400] [OUT=scratch/street] runs/small_street.sh STREET PHOTOS STREET_TEST KODAK LPIPS"
STREET=${1:?$USAGE} PHOTOS=${2:?$USAGE} STREET_TEST=${3:?$USAGE} KODAK=${4:?$USAGE} LPIPS=${5:?$USAGE}
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
python benchmarks/measure.py street street_photos --streets "$STREET_TEST" --kodak "$KODAK" --lpips "$LPIPS" \
  --model start=semcast/weights/small --model street="$OUT/street/model" --model mixed="$OUT/mixed/model" --no-pages
