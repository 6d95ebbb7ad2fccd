#!/usr/bin/env bash
# The paper's ablation with networks of the size of `small`: one encoder trained without noise and then frozen; Stage B trained on it with
# noise, without noise, and without noise but then fine-tuned by the paper's recipe (squared error, SNR 1 to 20 dB). The receivers `clean`
# and `tuned` are not told the noise, as in the paper; `noisy` is. About an hour on two CPU cores. Run in the repository; goes on when
# started again.
set -euo pipefail
USAGE="usage: runs/ablation.sh DATA LPIPS KODAK [INIT] [OUT]"
DATA=${1:?$USAGE} LPIPS=${2:?$USAGE} KODAK=${3:?$USAGE}
INIT=${4:-small} # Stage A and the first weights of the others; `encoder` and `decode` overwrite what they knew of noise
OUT=${5:-scratch/ablation}
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=() resume=()
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  if [ -d "$out/last" ]; then resume=(--resume); fi
  semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA" --lpips "$LPIPS" "${settings[@]}" "${resume[@]}"
}
decode=(steps=800 lr=0.001 lr_end=0.4 warmup=30 ema=0.995)
train encoder "$INIT" "$OUT/encoder"
train decode "$OUT/encoder/model" "$OUT/noisy" "${decode[@]}"
train decode "$OUT/encoder/model" "$OUT/clean" "${decode[@]}" channel_noise=false fading=0 erasures=0
if [ ! -d "$OUT/blind" ]; then # the same weights, a receiver that is not told the noise
  rm -rf "$OUT/blind.part"
  cp -r "$OUT/clean/model" "$OUT/blind.part"
  sed -i 's/"noise_aware": true/"noise_aware": false/' "$OUT/blind.part/config.json"
  grep -q '"noise_aware": false' "$OUT/blind.part/config.json"
  mv "$OUT/blind.part" "$OUT/blind"
fi
tune=(steps=600 lr=0.0003 batch=8 crop=256 ema=0.99 condition_drop=0)
train scsic-512 "$OUT/blind" "$OUT/tuned" "${tune[@]}"
train scsic-512 "$OUT/noisy/model" "$OUT/noisy-tuned" "${tune[@]}" # as many steps as the tuned one
python benchmarks/measure.py ablation --kodak "$KODAK" --lpips "$LPIPS" --model noisy="$OUT/noisy-tuned/model" \
  --model clean="$OUT/blind" --model tuned="$OUT/tuned/model" --no-pages
