#!/usr/bin/env bash
# Training pictures and LPIPS weights for a machine that takes small uploads only. Here: `cut` makes PARTS/in.00, in.01, ... of at most
# MIB MiB each, and all.sha256. There: gather all of them in one folder as they come, then `join` unpacks them to DEST/data and DEST/lpips
# (weights as float16, which training rounds to bfloat16 anyway) and says so; if a part is missing, nothing is unpacked.
set -euo pipefail
USAGE="usage: [MIB=24] runs/parts.sh cut DATA LPIPS PARTS    or    runs/parts.sh join PARTS DEST"
case ${1:?$USAGE} in
cut)
  DATA=${2:?$USAGE} LPIPS=${3:?$USAGE} PARTS=${4:?$USAGE}
  mkdir -p "$PARTS"
  if [ -n "$(ls -A "$PARTS")" ]; then
    echo "parts.sh: $PARTS holds something; name an empty folder" >&2
    exit 2
  fi
  mkdir -p "$PARTS/whole/lpips" "$PARTS/whole/data"
  cp -rL "$DATA" "$PARTS/whole/data/"
  python3 - "$LPIPS/lpips_vgg.safetensors" "$PARTS/whole/lpips/lpips_vgg.safetensors" <<'PYTHON'
import sys

from safetensors.torch import load_file, save_file

save_file({name: tensor.half() for name, tensor in load_file(sys.argv[1]).items()}, sys.argv[2])
PYTHON
  tar -C "$PARTS/whole" -cf "$PARTS/all.tar" data lpips
  (cd "$PARTS" && split -d -b "${MIB:-24}M" all.tar in. && sha256sum all.tar >all.sha256)
  rm -r "$PARTS/whole" "$PARTS/all.tar"
  ls -l "$PARTS"
  ;;
join)
  PARTS=${2:?$USAGE} DEST=${3:?$USAGE}
  mkdir -p "$DEST"
  cat "$PARTS"/in.* >"$DEST/all.tar"
  if ! (cd "$DEST" && sha256sum --check --quiet) <"$PARTS/all.sha256"; then
    rm "$DEST/all.tar"
    echo "parts.sh: a part is missing or damaged; there are $(ls "$PARTS"/in.* | wc -l) in $PARTS" >&2
    exit 2
  fi
  tar -C "$DEST" -xf "$DEST/all.tar"
  rm "$DEST/all.tar"
  echo "$DEST/data $DEST/lpips"
  ;;
*)
  echo "$USAGE" >&2
  exit 2
  ;;
esac
