#!/usr/bin/env bash
# The networks of the learned rivals Img2Img-SC, GESCO, DIFFSC and CASC, on equal photos and with equal minutes for each, on a CPU or a GPU.
# Goes on where it stopped when started again. Run in the repository; PHOTOS are folders or tar files, separated by commas, that hold the
# labelled street scenes too and none of the pictures to be measured on; LABELS holds CamVid's labels.
# MINUTES, of processor time on a CPU, is what each network gets: the three autoencoders, then the six U-Nets. 9 MINUTES in all, and some
# more for latents. PARTS trains only some. A rehearsal in minutes:
#   MINUTES=1 LATENTS=32 runs/peers.sh PHOTOS LABELS scratch/rehearsal
set -euo pipefail
USAGE="usage: [MINUTES=60] [DEVICE=auto] [LATENTS=2048] [PARTS='ae8 img2img'] runs/peers.sh PHOTOS LABELS OUT"
IFS=, read -r -a photos <<<"${1:?$USAGE}"
LABELS=${2:?$USAGE} OUT=${3:?$USAGE}
for part in ${PARTS:-maps stage_a ae8 ae16 ae32 img2img gesco diffsc16 diffsc32 casc16 casc32}; do
  python benchmarks/train_peers.py "$part" "${photos[@]}" --labels "$LABELS" --out "$OUT" --minutes "${MINUTES:-60}" \
    --device "${DEVICE:-auto}" --latents "${LATENTS:-2048}"
done
echo "export SEMCAST_PEERS=$OUT; then python benchmarks/measure.py peers peers_predictability --streets ..., see docs/peers.md"
