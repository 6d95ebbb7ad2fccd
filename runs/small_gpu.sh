#!/usr/bin/env bash
# A better `small` on one GPU: the phases of small_cpu.sh at batch 64 from the
# shipped weights. Not run yet; no figure is claimed. Goes on where it stopped when started again. Needs torch, torchvision, numpy, pillow, safetensors, tqdm, torchmetrics;
# semcast itself need not be installed. PARTS (optional): a folder that gets the latest weights as files of at most 15 MiB.
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
  PYTHONPATH=. python3 -m semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA" \
    --lpips "$LPIPS" --device cuda "${settings[@]}" "${resume[@]}"
}
parts() { # model folder: its weights in bfloat16, cut into parts; put together again with cat
  if [ -z "${PARTS:-}" ]; then return; fi
  PYTHONPATH=. python3 - "$1" "$PARTS/whole" <<'PYTHON'
import sys
from pathlib import Path

import torch

from semcast.cascade.checkpoint import load_cascade, save_model

save_model(load_cascade(Path(sys.argv[1])), Path(sys.argv[2]), torch.bfloat16)
PYTHON
  tar -C "$PARTS" -cf - whole | split -b 15M - "$PARTS/small.tar." && rm -r "$PARTS/whole"
}
# Encoder and Stage B go on from the shipped weights; Stage A stays.
train joint small "$OUT/j" steps=8000 batch=64 window=128 lr=0.001 adversarial_weight=0.04 grid_weight=40 spectrum_weight=0.1 \
  factor_min=0.5 factor_max=1 save_every=500 compile=true
parts "$OUT/j/model"
train fewstep "$OUT/j/model" "$OUT/f" steps=3000 batch=64 window=128 save_every=500 compile=true
parts "$OUT/f/model"
echo "$OUT/f/model"
