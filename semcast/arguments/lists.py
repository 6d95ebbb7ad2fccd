"""Arguments of `semcast channels`, `models` and `completion`."""

from argparse import _SubParsersAction
from pathlib import Path

from .shared import add_force, add_quiet

SHELLS = ("bash", "zsh", "tcsh")


def channels(commands: _SubParsersAction) -> None:
    p = commands.add_parser("channels", help="list the channels with their options")
    p.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=Path("channels.png"),
        metavar="OUT.png",
        help="draw one realisation of each: constellation, gain over noise, noise map; default name: %(const)s",
    )
    add_force(p)
    p.set_defaults(run="lists.channels")


def models(commands: _SubParsersAction) -> None:
    p = commands.add_parser("models", help="list the models, fetch an official one or LPIPS, or export one as ONNX")
    p.add_argument("--json", action="store_true", help="one JSON object a line")
    p.set_defaults(run="lists.models")
    actions = p.add_subparsers(dest="action", metavar="fetch|export")
    export(actions)
    fetch(actions)


def export(actions: _SubParsersAction) -> None:
    p = actions.add_parser("export", help="write a model as ONNX files, for browsers, telephones and other programs")
    p.add_argument("name", metavar="NAME_OR_DIR")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files, one a graph")
    add_force(p)
    add_quiet(p)
    p.set_defaults(run="lists.export")


def fetch(actions: _SubParsersAction) -> None:
    p = actions.add_parser("fetch", help="bring an official model, or weights of LPIPS (see its --help)")
    p.add_argument("name", metavar="NAME", help="stable-cascade-lite, stable-cascade-big, or lpips")
    p.add_argument(
        "--from",
        dest="sources",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="take these files or folders, not the hub's",
    )
    p.add_argument("--decoder", choices=("ft-hq",), help="Stage A with finer grain instead of the official one")
    p.add_argument("--revision", metavar="R", help="branch, tag or commit of the hub's repository; default: main")
    p.add_argument("--accept-license", action="store_true", help="accept the terms of the weights: needed once")
    add_quiet(p)
    p.set_defaults(run="lists.fetch")


def completion(commands: _SubParsersAction) -> None:
    p = commands.add_parser("completion", help='completion for a shell: eval "$(semcast completion bash)"')
    p.add_argument("shell", choices=SHELLS)
    p.set_defaults(run="lists.completion")
