"""Arguments of `semcast demo` and `run`."""

from argparse import _SubParsersAction
from pathlib import Path

from . import values
from .shared import (
    add_channel,
    add_engine,
    add_factor,
    add_force,
    add_json,
    add_lpips,
    add_mode,
    add_model,
    add_rate,
    add_seed,
    add_steps,
)


def demo(commands: _SubParsersAction) -> None:
    p = commands.add_parser("demo", help="a bundled photo over 20, 10, 5 and 1 dB: one contact sheet, one table")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for demo.png, default: %(default)s")
    add_force(p)
    p.set_defaults(run="run.demo")


def run(commands: _SubParsersAction) -> None:
    p = commands.add_parser(
        "run", help="the whole link in one go: pictures in, received pictures and one JSON row each out"
    )
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="pictures, folders of them, or - for stdin")
    add_mode(p)
    p.add_argument(
        "--snr",
        type=values.snr,
        action="append",
        required=True,
        metavar="DB",
        help="Es/N0 per complex symbol, -30 to 60 dB; several are sent one after the other",
    )
    add_channel(p)
    where = p.add_mutually_exclusive_group()
    where.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="folder for <stem>.png, or <stem>_<SNR>dB.png if there are several; default: %(default)s",
    )
    where.add_argument("-o", "--output", type=Path, metavar="FILE", help="one picture's result, or - for stdout")
    add_json(p, "one JSON object a line")
    add_force(p)
    add_rate(p)
    add_model(p)
    add_engine(p)
    add_factor(p)
    add_steps(p)
    add_seed(p, "picture i uses SEED + i")
    add_lpips(p)
    p.add_argument("--fetch-metrics", action="store_true", help="download LPIPS weights that are missing")
    p.set_defaults(run="run.run")
