"""Arguments of `send`, `channel`, `receive` and `info` that are about signals and recordings."""

import math
from argparse import ArgumentParser, _ActionsContainer
from pathlib import Path

from ..commands.radio import OPTIONS
from ..signals.air import EFFECTS
from . import values

PROFILES = ("fast", "narrow")  # of modem.profiles, which needs numpy; so do the modem's and the files' defaults
LEAD_S, FILE_RATE_HZ, FILE_CENTRE_HZ = 0.2, 8000, 1500


def add_sending(p: ArgumentParser) -> None:
    group = p.add_argument_group("as a signal (WAV, FLAC, SigMF, cfile)")
    group.add_argument(
        "--profile",
        choices=PROFILES,
        help="2.2 kHz wide, the default, or 1.2 kHz; with -o -, raw 16-bit samples instead of a frame",
    )
    group.add_argument(
        "--play", nargs="?", const="", metavar="DEVICE", help="on a sound card, given by part of its name"
    )
    group.add_argument(
        "--lead", type=values.lead, metavar="S", help=f"silence before and after, default: {LEAD_S:g} seconds"
    )
    add_file_rate(group)


def add_effects(p: ArgumentParser) -> None:
    group = p.add_argument_group("on signals (WAV, SigMF, cfile)")
    for flag, key in OPTIONS.items():
        option = EFFECTS[key]
        if key == "band":
            group.add_argument(flag, dest=key, choices=option.allowed, help=option.about)
        else:
            unit, allowed = option.unit.upper().replace("/", "_PER_"), values.number(float, *option.allowed)
            group.add_argument(flag, dest=key, type=allowed, metavar=unit, help=option.about)
    add_file_rate(group)


def add_receiving(p: ArgumentParser) -> None:
    group = p.add_argument_group("from recordings, which may hold several transmissions")
    group.add_argument(
        "--pick", type=values.count, metavar="N", help="only the Nth picture; default: all, as OUT-1.png, OUT-2.png ..."
    )
    add_air_header(group)
    group.add_argument("--report", type=Path, metavar="FILE", help="what was measured, a JSON object a transmission")
    add_file_rate(group)
    group.add_argument(
        "--listen",
        type=values.listening,
        nargs="?",
        const=math.inf,
        metavar="S",
        help="from the sound card, until a transmission is over, or S seconds",
    )
    group.add_argument("--device-in", metavar="NAME", help="sound card to listen to, by part of its name")


def add_file_rate(p: _ActionsContainer) -> None:
    p.add_argument(
        "--rate",
        type=values.file_rate,
        metavar="HZ",
        help=f"samples a second of what is written, and of a .cfile that is read; default: {FILE_RATE_HZ}",
    )
    p.add_argument(
        "--centre",
        type=values.centre,
        metavar="HZ",
        help=f"audio frequency at 0 Hz of complex samples, default: what a SigMF file says, or {FILE_CENTRE_HZ}",
    )


def add_air_header(p: _ActionsContainer) -> None:
    p.add_argument(
        "--header",
        metavar="FRAME_OR_HEX",
        help="of a transmission whose own is damaged: the frame that was sent, or `header` of another reception's report",
    )
