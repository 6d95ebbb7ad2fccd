#!/usr/bin/env bash
# The paper's fine-tuning of the official lite Stage B, at 512 and at 1024, and its ablations: without channel noise, and with
# a code of [16, 32, 32] (`factor` 1). Not run yet; no figure is claimed. DATA: folders, tar files, Cityscapes' or DIV2K's own layout, with weights for a
# mix (street/:0.7 photos/:0.3). Goes on where it stopped. Several GPUs: put `accelerate launch -m` in place of `python3 -m`.
set -euo pipefail
OUT=${OUT:-scratch/scsic}
for side in 512 1024; do
  for arm in channel_noise=true channel_noise=false factor=1; do
    run="$OUT/$side-$arm"
    resume=()
    if [ -d "$run/last" ]; then resume=(--resume); fi
    python3 -m semcast train --preset "scsic-$side" --init stable-cascade-lite --data "$@" --out "$run" --device cuda \
      --set "$arm" --set recompute="${RECOMPUTE:-false}" "${resume[@]}"
  done
done
