#!/usr/bin/env bash
# A model like the shipped `small`, on two CPU cores, about seven hours in all. It starts from random weights. The shipped model did not
# quite: its phases `encoder` and `decode` started from an earlier model of half an hour's training, whose Stage B had begun to know
# textures; it also had a few-step phase of 850 steps before `joint`, and ended with other weights of the losses (LOG.md). So the result is
# another model, and from random weights `decode` wants more steps than here.
# Run in the repository; DATA holds tar shards or folders of photos, LPIPS the folder with lpips_vgg.safetensors. Every command can be
# interrupted and goes on when started again.
set -euo pipefail
USAGE="usage: runs/small_cpu.sh DATA LPIPS [OUT]"
DATA=${1:?$USAGE} LPIPS=${2:?$USAGE}
OUT=${3:-scratch}
train() { # preset, model to start from, run folder, settings
  local preset=$1 init=$2 out=$3 settings=()
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  local resume=()
  if [ -d "$out/last" ]; then resume=(--resume); fi
  semcast train --preset "$preset" --init "$init" --out "$out" --data "$DATA" --lpips "$LPIPS" "${settings[@]}" "${resume[@]}"
}
# Stage A; the encoder alone on the linear Z; Stage B alone on that Z; both together; Stage B on its own samples.
train autoencoder new "$OUT/a" steps=1300 crop=128 window=96 lpips_weight=0.5
train encoder "$OUT/a/model" "$OUT/c"
train decode "$OUT/c/model" "$OUT/d" steps=2000 lr=0.001 lr_end=0.4
train joint "$OUT/d/model" "$OUT/j" steps=1500 lr=0.0006 lr_end=0.15 fading=0.1 erasures=0.1
train fewstep "$OUT/j/model" "$OUT/f" steps=1200 fading=0.08 erasures=0.08 adversarial_weight=0
# Both again, longer and with decoded windows, so that the encoder too learns what LPIPS sees.
channel=(snr_min=-3 snr_max=24 fading=0.08 erasures=0.08)
train joint "$OUT/f/model" "$OUT/j2" steps=4200 lr=0.0007 lr_end=0.1 "${channel[@]}" window=96 pixel_weight=2.5 thumbnail_weight=0.5 \
  latent_weight=0.3 grid_weight=40 spectrum_weight=0.1 ema=0.998
train fewstep "$OUT/j2/model" "$OUT/f2" steps=720 lr=0.0006 "${channel[@]}" pixel_weight=2 latent_weight=0.2 ema=0.985 warmup=30 adversarial_weight=0
# And again; from the second of these on, with a critic.
windows=(lr=0.0007 lr_end=0.1 "${channel[@]}" window=96 pixel_weight=2.5 thumbnail_weight=0.5 latent_weight=0.3 grid_weight=40 spectrum_weight=0.1 ema=0.998)
train joint "$OUT/f2/model" "$OUT/j3" steps=2400 seed=6 "${windows[@]}"
train joint "$OUT/j3/model" "$OUT/j4" steps=1800 seed=7 "${windows[@]}" adversarial_weight=0.04
train fewstep "$OUT/j4/model" "$OUT/f4" steps=800 seed=8 lr=0.0006 "${channel[@]}" pixel_weight=2 latent_weight=0.2 ema=0.985 warmup=30
# In 8 bits, as models ship; `--model` takes the folder.
python benchmarks/store.py "$OUT/f4/model" "$OUT/small"
