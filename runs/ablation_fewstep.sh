#!/usr/bin/env bash
# The paper's ablation with a few-step phase in both arms: one encoder taught the linear Z without noise and then frozen; Stage B trained
# on it with noise and without, equally long. The arm without noise is not told the noise, as in the paper; the other is. An hour on two
# CPU cores. Run in the repository; goes on when started again.
set -euo pipefail
USAGE="usage: [OUT=scratch/ablation_fewstep] runs/ablation_fewstep.sh DATA LPIPS KODAK"
DATA=${1:?$USAGE} LPIPS=${2:?$USAGE} KODAK=${3:?$USAGE}
OUT=${OUT:-scratch/ablation_fewstep}
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=() resume=()
  shift 3
  if [ -f "$out/model/config.json" ]; then return; fi
  for setting in "$@"; do settings+=(--set "$setting"); done
  if [ -d "$out/last" ]; then resume=(--resume); fi
  semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA" --lpips "$LPIPS" "${settings[@]}" "${resume[@]}"
}
clean=(channel_noise=false fading=0 erasures=0)
decode=(steps=700 lr=0.001 lr_end=0.4 warmup=30 ema=0.99 crop=128 seed=11)
fewstep=(steps=350 lr=0.0006 warmup=30 ema=0.985 crop=128 pixel_weight=2 latent_weight=0.2 adversarial_weight=0 seed=12)
train encoder small "$OUT/encoder"
train decode "$OUT/encoder/model" "$OUT/clean_d" "${decode[@]}" "${clean[@]}"
train decode "$OUT/encoder/model" "$OUT/noisy_d" "${decode[@]}"
train fewstep "$OUT/clean_d/model" "$OUT/clean_f" "${fewstep[@]}" "${clean[@]}"
train fewstep "$OUT/noisy_d/model" "$OUT/noisy_f" "${fewstep[@]}" snr_min=-3 snr_max=24 fading=0.08 erasures=0.08
if [ ! -d "$OUT/blind" ]; then # the same weights, a receiver that is not told the noise
  rm -rf "$OUT/blind.part"
  cp -r "$OUT/clean_f/model" "$OUT/blind.part"
  sed -i 's/"noise_aware": true/"noise_aware": false/' "$OUT/blind.part/config.json"
  grep -q '"noise_aware": false' "$OUT/blind.part/config.json"
  mv "$OUT/blind.part" "$OUT/blind"
fi
python benchmarks/measure.py ablation_fewstep --kodak "$KODAK" --lpips "$LPIPS" --model noisy="$OUT/noisy_f/model" \
  --model clean="$OUT/blind" --no-pages
