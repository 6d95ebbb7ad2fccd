"""Arguments of `semcast web`."""

from argparse import _SubParsersAction
from pathlib import Path

from . import values
from .shared import add_model


def web(commands: _SubParsersAction) -> None:
    p = commands.add_parser("web", help="a page for a browser: drop a photo, choose a channel, see and hear it arrive")
    p.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="default: %(default)s; any other needs a password"
    )
    p.add_argument("--port", type=values.port, default=8000, metavar="N", help="default: %(default)s; 0: any free one")
    p.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is what visitors must know")
    add_model(p)
    p.add_argument("--open", action="store_true", help="show the page in this machine's browser")
    p.set_defaults(run="web.web")
