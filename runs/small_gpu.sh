#!/usr/bin/env bash
# A better `small` on one GPU: the phases of small_cpu.sh at batch 64 with the perceptual losses on whole crops.
# Not run yet; no figure is claimed. Goes on where it stopped when started again. Needs torch, torchvision, numpy, pillow,
# safetensors, tqdm; nothing is installed (PYTHONPATH is the repository).
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${1:?usage: runs/small_gpu.sh DATA LPIPS [OUT]}
LPIPS=${2:?usage: runs/small_gpu.sh DATA LPIPS [OUT]}
OUT=${3:-scratch/gpu}
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=()
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  local resume=()
  if [ -d "$out/last" ]; then resume=(--resume); fi
  PYTHONPATH=. python3 -m semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA"/*.tar \
    --lpips "$LPIPS" --device cuda "${settings[@]}" "${resume[@]}"
}
# Encoder and Stage B go on from the shipped weights; Stage A stays.
train joint small "$OUT/j" steps=12000 batch=64 window=128 thumbnail_weight=0.5 latent_weight=0.2 lr=0.001 factor_min=0.5 factor_max=1 batch_norm_until=0 save_every=500
train fewstep "$OUT/j/model" "$OUT/f" steps=4000 batch=64 window=128 thumbnail_weight=0.3 latent_weight=0.2 save_every=500
echo "$OUT/f/model"
