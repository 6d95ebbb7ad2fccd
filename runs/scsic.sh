#!/usr/bin/env bash
# The paper's fine-tuning of the official lite Stage B, at 512 and at 1024, and the same without channel noise as its
# ablation. Not run yet; no figure is claimed. DATA: folders, tar files, Cityscapes' or DIV2K's own layout, with weights for a
# mix (street/:0.7 photos/:0.3). Goes on where it stopped. Several GPUs: put `accelerate launch -m` in place of `python3 -m`.
set -euo pipefail
OUT=${OUT:-scratch/scsic}
for side in 512 1024; do
  for noise in true false; do
    run="$OUT/$side-noise-$noise"
    resume=()
    if [ -d "$run/last" ]; then resume=(--resume); fi
    python3 -m semcast train --preset "scsic-$side" --init stable-cascade-lite --data "$@" --out "$run" --device cuda \
      --set "channel_noise=$noise" --set recompute="${RECOMPUTE:-false}" "${resume[@]}"
  done
done
