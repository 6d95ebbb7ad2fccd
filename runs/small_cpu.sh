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
# What was run, with two liberties: j2 and j3 were stopped early out of longer schedules (1700 and 1000 steps), and the
# first phases ran before small fixes that LOG.md tells of. The same commands make a model of the same kind, not the same bits.
# Stage A; then encoder and Stage B: layout and colour on small crops, then perceptual loss and channel noise; then few steps.
train autoencoder new "$OUT/a" steps=1300 crop=128 window=96 lpips_weight=0.5
train joint "$OUT/a/model" "$OUT/j1" steps=1400 crop=128 window=0 thumbnail_weight=0 latent_weight=1 warmup=50 lr_end=0.5 batch_norm_until=1 from_noise=0.85 channel_noise=false
train joint "$OUT/j1/model" "$OUT/j2" steps=300 window=96 thumbnail_weight=0 lr=0.0007 warmup=50 latent_weight=0.2 from_noise=0.7 batch_norm_until=1
train joint "$OUT/j2/model" "$OUT/j3" steps=400 window=0 thumbnail_weight=1 lr=0.001 lr_end=0.4 warmup=30 latent_weight=0.3 from_noise=0.85 batch_norm_until=1
train joint "$OUT/j3/model" "$OUT/j4" steps=1000 window=0 thumbnail_weight=1 lr=0.001 lr_end=0.3 warmup=30 latent_weight=0.3 from_noise=0.85 batch_norm_until=0.8
train joint "$OUT/j4/model" "$OUT/j5" steps=560 window=0 thumbnail_weight=1 lr=0.001 lr_end=0.05 warmup=20 latent_weight=0.5 from_noise=0.85 batch_norm_until=0 ema=0.995
train fewstep "$OUT/j5/model" "$OUT/f" steps=300 window=96 pixel_weight=3 thumbnail_weight=0.5 latent_weight=0.3 lr=0.0006 warmup=15 ema=0.99
# As shipped: matrices in bfloat16.
python - "$OUT/f/model" <<'PYTHON'
import sys
from pathlib import Path

import torch

from semcast.cascade.checkpoint import load_cascade, save_model

save_model(load_cascade(Path(sys.argv[1])), Path("semcast/weights/small"), torch.bfloat16)
PYTHON
