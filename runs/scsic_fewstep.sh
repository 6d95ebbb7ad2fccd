#!/usr/bin/env bash
# A 1-, 2- and 4-step receiver at the official size: the paper's fine-tuning with Stage B turned to v (the error of epsilon is that of
# x0 times 100 where sampling starts), then Stage B on its own samples. Not run yet; no figure is claimed. DATA as for scsic.sh, LPIPS the folder
# with lpips_vgg.safetensors. Goes on where it stopped.
set -euo pipefail
LPIPS=${1:?usage: runs/scsic_fewstep.sh LPIPS DATA ...}
shift
OUT=${OUT:-scratch/scsic}
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=() resume=()
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  if [ -f "$out/model/config.json" ]; then return; fi
  if [ -d "$out/last" ]; then resume=(--resume); fi
  python3 -m semcast train --preset "$preset" --init "$init" --out "$out" --device cuda --data "${DATA[@]}" --lpips "$LPIPS" \
    "${settings[@]}" "${resume[@]}"
}
DATA=("$@")
train scsic-1024 stable-cascade-lite "$OUT/1024-v" prediction=v recompute="${RECOMPUTE:-false}"
train fewstep "$OUT/1024-v/model" "$OUT/1024-fewstep" steps=3000 batch=4 crop=1024 window=256 lr=0.00005 snr_min=1 snr_max=20 recompute="${RECOMPUTE:-false}"
