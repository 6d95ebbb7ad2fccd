"""`semcast receive --listen`: from the sound card, until a whole transmission has been heard."""

import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..modem.detect import find_bursts
from ..modem.layout import lay_out
from ..modem.profiles import PROFILES, RATE_HZ
from ..modem.receive import find
from ..modem.reception import Reception
from ..modem.side import n_symbols
from ..signals import sound_card
from ..signals.waterfall import axis, waterfall
from .common import notice
from .recordings import check_receive, describe, known_header, show

LOOK_S = 1.0  # between searches
KEPT_S = 150.0  # of the recording; a transmission takes a minute at most
LINE_S = 0.4  # of the waterfall
SOURCE = Path("sound card")


def listen(args) -> None:
    if args.frames:
        raise InputError("--listen records from the sound card; give no files with it")
    check_receive(args)
    header = known_header(args.header)
    sound_card.check_card(args.device_in, "input")
    seconds = None if args.listen == math.inf else args.listen
    notice("listening%s; Ctrl-C stops", "" if seconds is None else f" for {seconds:g} s")
    blocks = sound_card.listen(seconds, args.device_in)
    receptions, since_s = first_whole(drawn(blocks) if sys.stderr.isatty() and not args.quiet else blocks, header)
    limit = "" if seconds is None else f" in {seconds:g} s"
    show(args, describe(SOURCE, receptions, since_s), f"no transmission was heard{limit}")


def drawn(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks, while a waterfall of them runs down stderr."""
    colour = "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
    print(axis(), file=sys.stderr)
    line = np.zeros(0, np.float32)
    for block in blocks:
        line = np.concatenate([line, block])
        if len(line) >= LINE_S * RATE_HZ:
            print(waterfall(line, colour=colour), file=sys.stderr, flush=True)
            line = line[:0]
        yield block


def first_whole(blocks: Iterable[np.ndarray], header: bytes | None) -> tuple[list[Reception], float]:
    """The first transmission that has been heard to its end; when the blocks are over, all that was heard of any.

    Returns:
        The receptions, and the time in seconds from which their beginnings count.
    """
    kept, fresh = np.zeros(0, np.float32), []
    look, dropped, busy = round(LOOK_S * RATE_HZ), 0, False
    wait = look
    for block in blocks:
        fresh.append(block)
        if sum(map(len, fresh)) < wait:
            continue
        new = sum(map(len, fresh))
        kept, fresh, wait = np.concatenate([kept, *fresh]), [], look
        old = max(len(kept) - round(KEPT_S * RATE_HZ), 0)
        kept, dropped = kept[old:], dropped + old
        if not busy and not find_bursts(kept[-new - look :]):
            continue
        found = find(kept, n_symbols, header)
        ends = {reception_end(one): one for one in found if one.header}
        if whole := [one for end, one in ends.items() if end <= len(kept)]:
            return whole, dropped / RATE_HZ
        busy = bool(ends)
        if busy:
            wait = max(min(ends) - len(kept), 0) + look // 8
    kept = np.concatenate([kept, *fresh])
    return find(kept, n_symbols, header), dropped / RATE_HZ


def reception_end(reception: Reception) -> int:
    """The sample after a transmission's last."""
    return reception.start + lay_out(PROFILES[reception.profile], reception.y.size).length
