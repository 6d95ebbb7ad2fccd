#!/usr/bin/env bash
# A better `small` on one GPU: the phases of small_cpu.sh at batch 64 from the shipped weights, or from INIT. Not run on a GPU yet; no
# figure is claimed. Goes on where it stopped when started again; on a machine that forgot, with INIT the weights that came home in PARTS.
# Needs torch, torchvision, numpy, pillow, safetensors, tqdm; semcast itself need not be installed. DATA and LPIPS: see parts.sh.
# PARTS (optional): a folder that gets the latest weights, in bfloat16, as files of at most 15 MiB. The pictures are decoded once and kept in
# main memory, cropped by threads while the GPU works: `train_rate.py` says at the end what share of the time went by waiting for
# them. Lengths: 8000 and 3000 steps; JOINT and FEWSTEP set others, as for a rehearsal:
#   DEVICE=cpu BATCH=4 CROP=128 JOINT=30 FEWSTEP=20 EVERY=10 PARTS=scratch/home runs/small_gpu.sh DATA LPIPS scratch/rehearsal
set -euo pipefail
cd "$(dirname "$0")/.."
USAGE="usage: [INIT=small] [PARTS=DIR] [DEVICE=cuda] [BATCH=64] [CROP=256] [JOINT=8000] [FEWSTEP=3000] [EVERY=500] [COMPILE=false] runs/small_gpu.sh DATA LPIPS [OUT]"
DATA=${1:?$USAGE}
LPIPS=${2:?$USAGE}
OUT=${3:-scratch/gpu}
DEVICE=${DEVICE:-cuda}
export PYTHONPATH=.
PARTS=${PARTS:-}
PARTS=${PARTS%/}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
common=("batch=${BATCH:-64}" "crop=${CROP:-256}" "save_every=${EVERY:-500}" "compile=${COMPILE:-false}" adversarial_weight=0.04 grid_weight=40
  spectrum_weight=0.1 snr_min=-3 snr_max=24 fading=0.08 erasures=0.08)
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=() resume=()
  shift 3
  if [ -f "$out/model/config.json" ]; then return; fi # written last
  for setting in "${common[@]}" "$@"; do settings+=(--set "$setting"); done
  if [ -d "$out/last" ]; then resume=(--resume); fi
  python3 -m semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA" --lpips "$LPIPS" --device "$DEVICE" "${settings[@]}" \
    "${resume[@]}" &
  local job=$!
  while kill -0 $job 2>/dev/null; do # weights go home as the run goes on
    sleep "${PACE:-60}" >/dev/null 2>&1 &
    wait -n $job $! || true
    if [ -d "$out/last" ]; then home "$init" "$out" || true; fi # a checkpoint may just be replaced
  done
  wait $job
  home "$init" "$out"
  python3 benchmarks/train_rate.py "$out" --lpips "$LPIPS" --device "$DEVICE" || true # tells, and decides nothing
}
home() { # model the run started from, run folder: the averaged weights of its last checkpoint, cut into parts
  if [ -z "$PARTS" ]; then return; fi
  rm -rf "$PARTS/new"
  mkdir -p "$PARTS/new"
  python3 - "$1" "$2/last" "$PARTS/new/whole" <<'PYTHON' || return
import sys
from pathlib import Path

import torch

from semcast.cascade.checkpoint import save_model
from semcast.cascade.loading import load_model
from semcast.files import load_tensors
from semcast.training.train import with_weights

start, last, out = sys.argv[1:]
model = load_model(start, dtype="float32")
save_model(with_weights(model, load_tensors(Path(last) / "ema.safetensors")), Path(out), torch.bfloat16)
PYTHON
  tar -C "$PARTS/new" -cf - whole | split -d -b 15M - "$PARTS/new/small.tar." && rm -f "$PARTS"/small.tar.* &&
    mv "$PARTS"/new/small.tar.* "$PARTS" && rm -r "$PARTS/new"
}
# Encoder and Stage B go on from the weights there are; Stage A stays. Put the parts together again with: cat PARTS/small.tar.* | tar x
train joint "${INIT:-small}" "$OUT/j" "steps=${JOINT:-8000}" lr=0.0007 lr_end=0.1 window=96 pixel_weight=2.5 thumbnail_weight=0.5 \
  latent_weight=0.3 ema=0.998
train fewstep "$OUT/j/model" "$OUT/f" "steps=${FEWSTEP:-3000}" lr=0.0006 pixel_weight=2 latent_weight=0.2 ema=0.995
echo "$OUT/f/model"
