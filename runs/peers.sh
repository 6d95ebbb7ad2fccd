#!/usr/bin/env bash
# The networks of the learned rivals Img2Img-SC, GESCO, DIFFSC and CASC, on equal photos and with equal minutes for each, on a CPU or a GPU.
# Goes on where it stopped when started again. Run in the repository; PHOTOS are folders or tar files, separated by commas, that hold the
# labelled street scenes too and none of the pictures to be measured on; LABELS holds CamVid's labels, LPIPS is the folder of its weights.
# MINUTES is what each of the two networks of a system gets: an autoencoder, then a U-Net. Nine networks: 9 MINUTES in all, and some more
# for latents. PARTS trains only some. A rehearsal in minutes:
#   MINUTES=1 LATENTS=32 runs/peers.sh PHOTOS LABELS LPIPS scratch/rehearsal
set -euo pipefail
USAGE="usage: [MINUTES=60] [DEVICE=auto] [LATENTS=4096] [PARTS='ae8 img2img'] runs/peers.sh PHOTOS LABELS LPIPS OUT"
IFS=, read -r -a photos <<<"${1:?$USAGE}"
LABELS=${2:?$USAGE} LPIPS=${3:?$USAGE} OUT=${4:?$USAGE}
for part in ${PARTS:-maps ae8 ae16 ae32 img2img gesco diffsc16 diffsc32 casc16 casc32}; do
  python benchmarks/train_peers.py "$part" "${photos[@]}" --labels "$LABELS" --lpips "$LPIPS" --out "$OUT" --minutes "${MINUTES:-60}" \
    --device "${DEVICE:-auto}" --latents "${LATENTS:-4096}"
done
echo "export SEMCAST_PEERS=$OUT; then python benchmarks/measure.py peers peers_predictability --streets ..., see docs/peers.md"
