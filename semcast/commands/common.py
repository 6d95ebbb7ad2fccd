"""What several commands share: checks before work, the loaded link, LPIPS, progress, names of files."""

import contextlib
import json
import shutil
import sys
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from ..cascade.models import find_model
from ..channels.catalogue import find_channel
from ..errors import InputError, missing, require
from ..files import STDIO

if TYPE_CHECKING:
    from ..link import Link

notice = getLogger("semcast").warning  # a line on stderr, unless --quiet is given
FEW_USES = 64  # channel uses below which a user is told that next to nothing is sent


def program() -> str:
    """How the user calls this semcast: its name, or its path where the shell would not find it."""
    called, found = Path(sys.argv[0]), shutil.which("semcast")
    on_path = found is not None and Path(found).resolve() == called.resolve()
    return str(called) if called.name == "semcast" and not on_path else "semcast"


def check_link(args) -> None:
    """What can be refused without importing torch: model, channel and packages that are not there."""
    model = find_model(args.model)
    find_channel(getattr(args, "channel", "awgn")).parse(getattr(args, "channel_option", []))
    if args.mode == "mixed" or (args.mode == "digital" and args.command == "run"):
        require("the LDPC code of a packet", "sionna")
    if args.mode == "mixed":
        from ..cascade.config import load_config
        from ..modulation.avif import require_avif
        from ..transmitter import check_restorer

        require_avif()
        assert model.folder is not None  # `find_model` refuses a model that is not here
        check_restorer(load_config(model.folder))


def load_link(args) -> "Link":
    from ..cascade.engine import load_model
    from ..link import Link

    name = getattr(args, "channel", "awgn")
    options = find_channel(name).parse(getattr(args, "channel_option", []))
    if args.compile and args.device in ("auto", "cpu"):
        notice("--compile on a CPU: the first picture takes minutes")
    engine = load_model(args.model, args.device, args.dtype, args.low_memory, args.compile, args.engine)
    return Link(engine, name, getattr(args, "mode", "analog"), **options)


def check_metrics(args) -> None:
    """What asking for LPIPS needs, before any work."""
    if args.lpips or getattr(args, "fetch_metrics", False):
        require("LPIPS", "torch", "torchvision")
    if args.lpips and not args.lpips.is_dir():
        raise InputError(f"--lpips names a folder of weights; {args.lpips} is not a folder")


def load_metrics(folder: Path | None, fetch: bool = False) -> dict:
    """The LPIPS networks whose weights are here, by name; a line on stderr says why they are not."""
    from ..metrics.measure import NO_LPIPS, has_lpips

    if missing("torch", "torchvision") or not (folder or fetch or has_lpips()):
        notice("%s", NO_LPIPS)
        return {}
    from ..metrics.lpips import load_lpips

    lpips, lacking = {}, []
    for network in ("alex", "vgg"):
        try:
            lpips[network] = load_lpips(network, folder, fetch)
        except InputError as error:
            lacking.append(str(error))
    if lacking:
        notice("%s", "; ".join(dict.fromkeys(lacking)))
    return lpips


def hint_at_size(name: str, height: int, width: int, uses: int) -> None:
    """A line on stderr for a picture so small that next to nothing is sent."""
    if 0 < uses < FEW_USES:
        notice(
            "%s is %dx%d pixels, so that only %d symbols are sent and little arrives; enlarge it to 256 or more",
            name,
            width,
            height,
            uses,
        )


def show_row(row: dict, as_json: bool) -> None:
    """Print it as one JSON object, as always where stdout is no terminal, or a line for each value that is known."""
    if as_json or not sys.stdout.isatty():
        print(json.dumps(row, allow_nan=False, separators=(",", ":")))
        return
    for name, value in row.items():
        if value is not None:
            print(f"{name:16s} {value:.4g}" if isinstance(value, float) else f"{name:16s} {value}")


def stem_of(path: Path) -> str:
    return "stdin" if path == STDIO else path.stem


@contextlib.contextmanager
def progress_bar(total: int | None, name: str, unit: str = "step", quiet: bool = False):
    """Yields a function (finished steps, of how many) -> None; a bar on stderr when a person is watching."""
    from tqdm import tqdm

    def tick(done: int, total: int | None = None) -> None:
        bar.total = total or bar.total
        bar.update(done - bar.n)

    with tqdm(total=total, desc=name, unit=unit, leave=False, disable=quiet or None) as bar:
        yield tick
