"""Store a trained model as it ships: weights in 8 bits.

    python benchmarks/store.py runs/f/model semcast/weights/small --understands dc0d
    python benchmarks/store.py OLD semcast/weights/small --same     the same weights as before, whose figures hold

The encoder's id changes with its weights; --understands names encoders whose frames the new model can receive.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from scripts import script, summary
from semcast.bench.ours import model_version
from semcast.cascade.checkpoint import load_cascade, save_model
from semcast.cascade.torch_engine import TorchEngine


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("source", type=Path, help="folder of the trained model")
    p.add_argument("target", type=Path, help="folder to write")
    p.add_argument("--understands", nargs="*", default=[], metavar="ID", help="other encoders, four hex digits each")
    p.add_argument("--same", action="store_true", help="only the storage changes: measured figures stay valid")
    args = p.parse_args()
    cascade = load_cascade(args.source)
    known = sorted(
        {*cascade.config.understands, *args.understands, *([f"{TorchEngine(cascade).encoder_id:04x}"] * args.same)}
    )
    version = model_version(str(args.source)).split()[-1] if args.same else ""
    cascade.config = replace(cascade.config, understands=tuple(known), same_as=version)
    save_model(cascade, args.target, torch.int8)
    size = sum(path.stat().st_size for path in args.target.glob("*.safetensors"))
    stored = TorchEngine(load_cascade(args.target)).encoder_id
    print(f"{args.target}: {size / 2**20:.1f} MiB, encoder {stored:04x}, understands {', '.join(known) or 'no other'}")


if __name__ == "__main__":
    script(main)
