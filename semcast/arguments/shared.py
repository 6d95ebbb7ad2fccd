"""Arguments that several commands have, each written once."""

from argparse import ArgumentParser, _MutuallyExclusiveGroup
from pathlib import Path

from ..cascade.config import ENGINES
from ..header import BASE, RUNGS
from . import values


def add_quiet(p: ArgumentParser) -> None:
    p.add_argument("-q", "--quiet", action="store_true", help="no notices and no progress, only errors")


def add_force(p: ArgumentParser) -> None:
    p.add_argument("--force", action="store_true", help="replace files that exist")


def add_json(p: ArgumentParser, what: str) -> None:
    p.add_argument("--json", action="store_true", help=f"{what}, as always where stdout is no terminal")


def add_lpips(p: ArgumentParser) -> None:
    p.add_argument(
        "--lpips",
        type=Path,
        metavar="DIR",
        help="folder of LPIPS weights, default: $SEMCAST_LPIPS, then those that were fetched, then torch's cache",
    )


def add_channel(p: ArgumentParser) -> None:
    p.add_argument("--channel", default="awgn", metavar="NAME", help="see `semcast channels`, default: %(default)s")
    p.add_argument(
        "--channel-option", action="append", default=[], metavar="K=V", help="an option of the channel, can be repeated"
    )


def add_mode(p: ArgumentParser) -> None:
    p.add_argument(
        "--mode",
        choices=("analog", "digital", "mixed"),
        default="analog",
        help="symbols as they are, coded bits, or the base as symbols and then, for all of --uses, the picture itself as "
        "coded bits for --snr; default: analog",
    )


def add_model(p: ArgumentParser) -> None:
    p.add_argument("--model", default="small", metavar="NAME_OR_DIR", help="see `semcast models`, default: %(default)s")


def add_engine(p: ArgumentParser) -> None:
    p.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="onnx, or torch where it is installed and there is a GPU or a processor with bf16; default: %(default)s",
    )
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ...; default: the GPU where there is one")
    p.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the receiver's networks, default: %(default)s",
    )
    p.add_argument("--low-memory", action="store_true", help="networks visit the GPU one at a time; slower")
    p.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile, on a GPU with CUDA graphs: slow first picture, fast others",
    )


def add_factor(p: ArgumentParser) -> None:
    p.add_argument(
        "--factor",
        type=values.factor,
        metavar="F",
        help="encoder input side / picture side, 0.5 to 1; default: the model's",
    )


def add_steps(p: ArgumentParser) -> None:
    p.add_argument("--steps", type=values.steps, metavar="N", help="diffusion steps, 1 to 1000; default: the model's")


def add_seed(p: ArgumentParser, about: str) -> None:
    p.add_argument("--seed", type=values.seed, default=0, help=f"{about}, default: %(default)s")


def add_rate(p: ArgumentParser) -> _MutuallyExclusiveGroup:
    group = p.add_mutually_exclusive_group()
    group.add_argument(
        "--rungs",
        type=values.span,
        metavar="A-B",
        help=f"which of the {RUNGS} rungs to send: 1-{BASE[1]} is the base, the default; those above refine it",
    )
    group.add_argument("--uses", type=values.uses, metavar="N", help="as much as N channel uses carry")
    group.add_argument(
        "--quality",
        type=values.quality,
        metavar="Q",
        help="as few rungs as give this MS-SSIM, 0 to 1, at the SNR: it is tried",
    )
    return group
