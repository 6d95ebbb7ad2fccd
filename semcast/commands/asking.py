"""Asking again: the reply that `semcast receive` writes, what `send` makes of one, and how `info` shows it."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import STDIO, check_file, check_output
from ..header import BASE, Header, round_factor
from ..modulation.reply import AGAIN, ENOUGH, MAGIC, SIDE_BITS, Reply, advise, read_reply, write_reply
from .common import notice, show_row
from .radio import check_frames_only
from .rate import asked_uses, least_rungs, quality_at

if TYPE_CHECKING:
    import numpy as np

    from ..channels.base import Received
    from ..link import Link

TRIAL_SNR_MAX_DB = 60.0  # at which --quality is tried where the receiver knows of no noise
NO_PACKETS = "a packet arrives whole or is lost, so there is no --reply to it"


# receive


def check_asking(args, inputs: Sequence[Path]) -> None:
    """What `receive` can refuse before any work."""
    if args.wish and not args.reply:
        raise InputError("--wish is for a reply; give --reply R with it")
    if args.reply:
        check_output(args.reply, inputs, args.force)
        if any(path and path.resolve() == args.reply.resolve() for path in (args.output, args.report)):
            raise InputError(f"--reply and another option both name {args.reply}")


def answer(args, link: "Link", transmissions: "Sequence[tuple[Received | bytes, Header]]") -> None:
    """Write the reply to what arrived of a picture."""
    from ..modulation.modems import demodulate
    from ..transmitter import top_rung

    reply = advise(*demodulate(link.modems, transmissions), top_rung(link.engine.config), args.wish)
    write_reply(args.reply, reply)
    rungs = (
        f"rungs 1-{reply.last_rung} at {reply.snr_db:.1f} dB" if reply.last_rung else "nothing from the first rung on"
    )
    notice("%s: %s; wish: %s", args.reply, rungs, reply.wish)


# send


def take_reply(args) -> Reply | None:
    """The reply that `send` is to follow, if there is one. Then --factor is what the reply says."""
    if args.reply is None:
        return None
    if args.mode != "analog":
        raise InputError(NO_PACKETS)
    if args.rungs or args.snr is not None:
        raise InputError(f"{'--rungs' if args.rungs else '--snr'} is what --reply says; leave one of them out")
    if args.reply == args.image == STDIO:
        raise InputError("stdin holds a picture or a reply; give - once")
    reply = read_reply(args.reply)
    if args.factor is not None and round_factor(args.factor) != reply.factor:
        raise InputError(f"{args.reply} is about a picture that was sent with --factor {reply.factor:g}")
    args.factor = reply.factor
    return reply


def continue_rungs(args, link: "Link", image: "np.ndarray", reply: Reply) -> tuple[int, int] | None:
    """The first and the last rung that a reply asks for of a picture [1, 3, H, W]; None if nothing more is needed.

    Raises:
        InputError: the reply is about another picture or encoder, the rungs or the channel uses are too few, or no number
            of rungs reaches --quality.
    """
    from ..modulation.ladder import rungs_within
    from ..transmitter import top_rung

    top, last = top_rung(link.engine.config), reply.last_rung
    header = link.send(image, factor=reply.factor).header
    if header.encoder_id != reply.encoder_id:
        raise InputError(
            f"{args.reply} is about encoder {reply.encoder_id:04x}, model {link.engine.config.name!r} has encoder "
            f"{header.encoder_id:04x}; send with the model of the first transmission"
        )
    if header.short_id != reply.transmission_id:
        raise InputError(f"{args.reply} is about another picture than {args.image}")
    if reply.wish == ENOUGH or (args.quality is not None and is_reached(args, link, image, reply)):
        return None
    uses = asked_uses(args, header)
    if reply.wish == AGAIN:
        return rungs_within(uses, header, top=last) if uses else (BASE[0], last)
    if last >= top:
        raise InputError(
            f"{args.reply} asks for more, and all {top} rungs have arrived; the receiver can ask for them again"
        )
    if args.quality is not None:
        return last + 1, least_rungs(args, link, image, trial_snr(args, reply), top, last)
    if not uses:  # as many as before
        uses = max(sum(header.rung_uses[:last]), header.rung_uses[last]) if last else header.channel_uses
    return rungs_within(uses, header, last + 1, top)


def is_reached(args, link: "Link", image: "np.ndarray", reply: Reply) -> bool:
    """Whether what has arrived has the quality that --quality asks for; it is tried at the reply's SNR."""
    return quality_at(args, link, image, trial_snr(args, reply), reply.last_rung) >= args.quality


def trial_snr(args, reply: Reply) -> float:
    if reply.snr_db is None:
        raise InputError(f"--quality holds for an SNR, and {args.reply} knows none; leave --quality out")
    return min(reply.snr_db, TRIAL_SNR_MAX_DB)


# info


def is_reply(path: Path) -> bool:
    """Whether a file begins like a reply. If it cannot be read, whoever reads it next says so."""
    if path == STDIO:
        check_file(path, "frame or a signal")
        return sys.stdin.buffer.peek(len(MAGIC))[: len(MAGIC)] == MAGIC  # pyright: ignore[reportAttributeAccessIssue]
    try:
        if path.is_file():  # a pipe may wait for ever
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
    except OSError:
        pass
    return False


def info(args) -> None:
    """What a reply says."""
    check_frames_only(args)
    reply = read_reply(args.frame)
    row = {
        "reply": str(args.frame),
        "wish": reply.wish,
        "last_rung": reply.last_rung,
        "snr_db": "inf" if reply.snr_db == math.inf else reply.snr_db,
        "encoder_id": f"{reply.encoder_id:04x}",
        "factor": reply.factor,
        "transmission_id": reply.transmission_id,
        "side_bits": SIDE_BITS,
    }
    show_row(row, args.json)
