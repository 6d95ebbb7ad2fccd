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
  semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA" --lpips "$LPIPS" "${settings[@]}" "${resume[@]}"
}
# Stage A; the encoder alone on the linear code; Stage B alone on that code; both together; Stage B on its own samples.
# What was run started `code` and `decode` from an earlier model of half an hour's training, whose Stage B had begun to
# know textures, had a few-step phase of 850 steps before `joint` too, and ended with other weights of the losses (LOG.md); from nothing, as here, `decode` wants more.
train autoencoder new "$OUT/a" steps=1300 crop=128 window=96 lpips_weight=0.5
train code "$OUT/a/model" "$OUT/c"
train decode "$OUT/c/model" "$OUT/d" steps=2000 lr=0.001 lr_end=0.4
train joint "$OUT/d/model" "$OUT/j" steps=1500 lr=0.0006 lr_end=0.15 fading=0.1 erasures=0.1
train fewstep "$OUT/j/model" "$OUT/f" steps=1200 fading=0.08 erasures=0.08
# As shipped: matrices in bfloat16.
python - "$OUT/f/model" <<'PYTHON'
import sys
from pathlib import Path

import torch

from semcast.cascade.checkpoint import load_cascade, save_model

save_model(load_cascade(Path(sys.argv[1])), Path("semcast/weights/small"), torch.bfloat16)
PYTHON
