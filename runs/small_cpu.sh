#!/usr/bin/env bash
# The shipped `small`, from nothing, on two CPU cores. Run in the repository; DATA holds tar shards or folders of photos,
# LPIPS the folder with lpips_vgg.safetensors. Every command can be interrupted and goes on when started again.
set -euo pipefail
DATA=${1:?usage: runs/small_cpu.sh DATA LPIPS [OUT]}
LPIPS=${2:?usage: runs/small_cpu.sh DATA LPIPS [OUT]}
OUT=${3:-scratch}
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=()
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  local resume=()
  if [ -d "$out/last" ]; then resume=(--resume); fi
  semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA"/*.tar --lpips "$LPIPS" "${settings[@]}" "${resume[@]}"
}
# Stage A; then encoder and Stage B: layout and colour on small crops, then perceptual loss and channel noise; then few steps.
train autoencoder new "$OUT/a" steps=1300 crop=128 window=96 lpips_weight=0.5
train joint "$OUT/a/model" "$OUT/j1" steps=1400 crop=128 window=0 warmup=50 lr_end=0.5 batch_norm_until=1 from_noise=0.85 channel_noise=false
train joint "$OUT/j1/model" "$OUT/j2" steps=1700 window=96 lr=0.0007 warmup=50 latent_weight=0.2
train fewstep "$OUT/j2/model" "$OUT/f" steps=450 window=96 latent_weight=0.2 warmup=20
echo "$OUT/f/model"
