"""Arguments of `semcast send`, `channel`, `receive`, `info` and `compare`."""

from argparse import _SubParsersAction
from pathlib import Path

from ..modulation.reply import WISHES
from . import radio, values
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


def send(commands: _SubParsersAction) -> None:
    p = commands.add_parser(
        "send",
        help="picture -> frame file with the symbols to transmit, or with a packet of bytes; or a signal for radios",
    )
    p.add_argument("image", type=Path, metavar="IMAGE", help="or - for stdin")
    p.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="X",
        help="X.sem, a frame, or X.wav, .flac, .sigmf-meta, .sigmf, .cfile, a signal; or - for stdout",
    )
    add_force(p)
    add_mode(p)
    p.add_argument(
        "--snr",
        type=values.snr,
        metavar="DB",
        help="of the channel: what a packet is made for in modes digital and mixed, or what --quality holds for",
    )
    p.add_argument(
        "--bytes",
        type=values.size,
        metavar="N",
        help="digital: the packet has N bytes at most, 16 to 2048, for no channel",
    )
    add_rate(p).add_argument(
        "--seconds",
        type=values.seconds,
        metavar="S",
        help="as many rungs as a signal of S seconds carries, --lead not counted",
    )
    p.add_argument(
        "--reply",
        type=Path,
        metavar="R",
        help="go on as the receiver wishes: the same rungs again, or the next ones, by default for as many channel uses",
    )
    add_model(p)
    add_engine(p)
    add_factor(p)
    radio.add_sending(p)
    p.set_defaults(run="transmission.send")


def channel(commands: _SubParsersAction) -> None:
    p = commands.add_parser("channel", help="frame -> the frame that arrives; signal -> the signal that arrives")
    p.add_argument("frame", type=Path, metavar="X", help="a frame or a signal, or - for stdin")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="Y", help="or - for stdout")
    add_force(p)
    p.add_argument("--snr", type=values.snr, metavar="DB", help="frames: Es/N0 per complex symbol, -30 to 60 dB")
    p.add_argument(
        "--snr3k",
        type=values.snr3k,
        metavar="DB",
        help="signals: power of the signal over that of the noise in 3 kHz, or inf",
    )
    add_channel(p)
    add_seed(p, "of the channel's noise")
    radio.add_effects(p)
    p.set_defaults(run="transmission.channel")


def receive(commands: _SubParsersAction) -> None:
    p = commands.add_parser(
        "receive",
        help="frame or recording -> picture; several receptions of one transmission -> one better picture",
    )
    p.add_argument(
        "frames",
        type=Path,
        nargs="*",
        metavar="Y",
        help="frames, recordings (WAV, FLAC, SigMF, cfile ...), or - for stdin",
    )
    p.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT.png",
        help=".png, .jpg, .webp or .avif; or - for stdout",
    )
    add_force(p)
    add_model(p)
    add_engine(p)
    add_steps(p)
    add_seed(p, "of the receiver's noise")
    p.add_argument(
        "--reply", type=Path, metavar="R", help="write what arrived and what is wished, 8 bytes for `send --reply R`"
    )
    p.add_argument("--wish", choices=WISHES, help="of the reply; default: again or more, whichever promises more")
    p.add_argument(
        "--confidence",
        type=Path,
        metavar="MAP.png",
        help="a map of the error to expect in every cell of 32x32 pixels: black is sure; with --json the numbers",
    )
    p.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: what was measured of recordings, and the errors that --confidence expects",
    )
    radio.add_receiving(p)
    p.set_defaults(run="transmission.receive")


def info(commands: _SubParsersAction) -> None:
    p = commands.add_parser("info", help="what a frame or a reply holds, or which transmissions a recording")
    p.add_argument("frame", type=Path, metavar="X", help="a frame, a reply or a recording, or - for stdin")
    add_json(p, "JSON")
    radio.add_air_header(p)
    radio.add_file_rate(p)
    p.set_defaults(run="transmission.info")


def compare(commands: _SubParsersAction) -> None:
    p = commands.add_parser("compare", help="how near one picture is to another: PSNR, SSIM, MS-SSIM, LPIPS")
    p.add_argument("original", type=Path, metavar="A")
    p.add_argument("other", type=Path, metavar="B")
    add_json(p, "one JSON object")
    add_lpips(p)
    p.set_defaults(run="transmission.compare")
