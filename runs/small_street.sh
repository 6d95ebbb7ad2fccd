#!/usr/bin/env bash
# `small` on one domain, as the paper does with Cityscapes: Stage B alone, the squared error of its output, SNR 1 to 20 dB. Trained on
# street scenes only, and on streets mixed with photos, which is the cure for the colour cast that the first has on photos
# (`delta_e`, and the pictures of the report). Not run yet. Run in the repository; goes on where it stopped when started again.
#   STREET, PHOTOS: what to train on, folders or tar files. STREET_TEST, PHOTOS_TEST: what to measure on. LPIPS: folder of its weights.
set -euo pipefail
USAGE="usage: [STEPS=1500] [OUT=scratch/street] runs/small_street.sh STREET PHOTOS STREET_TEST PHOTOS_TEST LPIPS"
STREET=${1:?$USAGE} PHOTOS=${2:?$USAGE} STREET_TEST=${3:?$USAGE} PHOTOS_TEST=${4:?$USAGE} LPIPS=${5:?$USAGE}
STEPS=${STEPS:-1500}
OUT=${OUT:-scratch/street}
train() { # run folder, sources
  local out=$1 resume=()
  shift
  if [ -d "$out/last" ]; then resume=(--resume); fi
  if [ -d "$out/model" ]; then return; fi
  semcast train --preset scsic-512 --init small --out "$out" --data "$@" \
    --set "steps=$STEPS" --set crop=256 --set batch=8 --set condition_drop=0 --set ema=0.99 "${resume[@]}"
}
train "$OUT/street" "$STREET"
train "$OUT/mixed" "$STREET:0.7" "$PHOTOS:0.3"
for set in street photos; do
  data=$STREET_TEST
  if [ $set = photos ]; then data=$PHOTOS_TEST; fi
  semcast bench --systems semcast "semcast@$OUT/street/model" "semcast@$OUT/mixed/model" downscale --data "$data" --limit "${LIMIT:-24}" \
    --snr 1 10 20 --draws 3 --lpips "$LPIPS" --out "$OUT/bench-$set"
  semcast bench report "$OUT/bench-$set"
done
