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
STEPS
