"""Arguments of `semcast bench` and `train`."""

from argparse import _SubParsersAction
from pathlib import Path

from ..training.config import PRESETS
from . import values
from .shared import add_channel, add_lpips


def bench(commands: _SubParsersAction) -> None:
    p = commands.add_parser("bench", help="measure systems side by side; `bench report DIR` makes tables and plots")
    p.add_argument("--list", action="store_true", help="name the systems and stop")
    p.add_argument("--smoke", action="store_true", help="a minute of everything, on two pieces of the bundled photo")
    p.add_argument(
        "--systems",
        nargs="+",
        default=[],
        metavar="NAME",
        help="see --list; `all` are those that can run here; semcast@DIR is semcast with another model",
    )
    p.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="folders, tar files or pictures, or a data set's name in the folder that SEMCAST_DATA names",
    )
    p.add_argument("--size", type=values.side, metavar="S", help="centre crop of S x S pixels, default: whole pictures")
    p.add_argument("--limit", type=values.count, metavar="N", help="only N pictures, evenly spread over all")
    p.add_argument(
        "--snr", type=values.snr, nargs="+", default=[1.0, 10.0, 20.0], metavar="DB", help="Es/N0, default: 1 10 20"
    )
    p.add_argument(
        "--headline",
        type=values.snr,
        nargs="+",
        default=[1.0, 10.0, 20.0],
        metavar="DB",
        help="SNRs whose first draw has the slow metrics and pictures",
    )
    add_channel(p)
    p.add_argument(
        "--copies",
        type=values.count,
        default=1,
        metavar="N",
        help="receptions of one transmission, combined; default: 1",
    )
    p.add_argument(
        "--snr-error",
        type=values.snr,
        default=0.0,
        metavar="DB",
        help="the SNR that both ends believe in, less the true one; default: 0",
    )
    p.add_argument(
        "--uses",
        default="same",
        metavar="K",
        help="channel uses a picture: same as semcast (default), 1/683, or a number",
    )
    p.add_argument(
        "--draws",
        type=values.count,
        default=3,
        metavar="N",
        help="of the channel, for every picture and SNR; default: %(default)s",
    )
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="for rows.jsonl; what is in it already is not computed again"
    )
    p.add_argument(
        "--workers", type=values.count, metavar="N", help="processes that share the work, default: one a core"
    )
    p.add_argument("--ray", metavar="ADDRESS", help="let a Ray cluster work instead; `local` starts one here")
    p.add_argument(
        "--device",
        default="cpu",
        help="of the networks, default: %(default)s; a GPU would be shared by all workers, each with its own networks, "
        "and times would be theirs together, so give --workers 1 with it",
    )
    add_lpips(p)
    p.add_argument(
        "--labels", type=Path, metavar="PATH", help="classes of the pixels (CamVid's), folder or tar of PNG; for mIoU"
    )
    p.add_argument(
        "--segmenter", type=Path, metavar="FILE", help="its weights, from benchmarks/train_segmenter.py; for mIoU"
    )
    p.set_defaults(run="long.bench")
    p = p.add_subparsers(dest="action", metavar="report").add_parser(
        "report", help="rows -> DIR/report.html, and tables as files"
    )
    p.add_argument("folder", type=Path, metavar="DIR")
    p.set_defaults(run="long.bench_report")


def train(commands: _SubParsersAction) -> None:
    p = commands.add_parser("train", help="train a model, or go on training one")
    p.add_argument("--preset", choices=tuple(PRESETS), required=True, metavar="NAME", help=", ".join(PRESETS))
    p.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH[:WEIGHT]",
        help="folders, tar files or pictures",
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    p.add_argument(
        "--init", default="new", metavar="MODEL", help="model to start from, by name or folder; default: a new `small`"
    )
    p.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    p.add_argument("--other-data", action="store_true", help="resume with other pictures than the run had")
    p.add_argument("--strict", action="store_true", help="stop at a picture that cannot be read; default: skip it")
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any training setting, e.g. --set steps=500"
    )
    add_lpips(p)
    p.add_argument("--cache", type=Path, metavar="DIR", help="keep latents of fixed crops here; scsic presets only")
    p.add_argument(
        "--device", default="auto", help="as in `run`; under torchrun or accelerate each process takes its own GPU"
    )
    p.set_defaults(run="long.train")
