"""Command line: what may be typed, and how a mistake is answered. What a command does: commands/."""

import argparse
import math
import re
import sys
from importlib import import_module
from pathlib import Path

from . import __version__
from .cascade.config import ENGINES
from .commands.radio import OPTIONS
from .errors import InputError, Lost
from .header import BASE, RUNGS, SEED_MAX
from .modulation.reply import WISHES
from .process import prepare
from .signals.air import EFFECTS
from .training.config import PRESETS

OUT_OF_MEMORY = "out of memory; use a smaller picture, or --low-memory on a GPU"
MISTAKE, LOST, INTERRUPTED = 2, 3, 130  # exit codes
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
SHELLS = ("bash", "zsh", "tcsh")
PROFILES = ("fast", "narrow")  # of modem.profiles, which needs numpy; so do the modem's and the files' defaults
LEAD_S, FILE_RATE_HZ, FILE_CENTRE_HZ = 0.2, 8000, 1500


class Parser(argparse.ArgumentParser):
    """Usage errors are one line, like every other error; -1e1 is a number, not an option."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile("-" + NUMBER.pattern)

    def error(self, message):
        raise InputError(f"{message} (see `{self.prog} --help`)")


def spread(argv: list[str]) -> list[str]:
    """`run --snr 5 10 photo.jpg` means `run --snr 5 --snr 10 photo.jpg`; argparse would take the picture for an SNR."""
    found = []
    for argument in argv:
        follows = len(found) > 1 and found[-2] == "--snr" and argv[0] == "run"
        found += ["--snr", argument] if follows and NUMBER.match(argument) else [argument]
    return found


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    prepare(quiet=bool({"-q", "--quiet"} & set(argv)))
    try:
        args = build_parser().parse_args(spread(argv))
        module, function = args.run.split(".")
        getattr(import_module(f".commands.{module}", __package__), function)(args)
        sys.stdout.flush()
    except InputError as error:
        return fail(str(error))
    except Lost as error:
        return fail(str(error), LOST)
    except BrokenPipeError:  # the reader of our output left
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except MemoryError:
        return fail(OUT_OF_MEMORY)
    except RuntimeError as error:  # torch's kinds of it, on CPU and GPU
        if "memory" not in str(error):
            raise
        return fail(OUT_OF_MEMORY)
    except OSError as error:  # a full disk, a vanished file
        return fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    return 0


def fail(message: str, code: int = MISTAKE) -> int:
    print("semcast: " + " ".join(message.split()), file=sys.stderr)
    return code


def build_parser() -> Parser:
    parser = Parser(
        prog="semcast", description="Send pictures over links so poor that ordinary codecs deliver nothing."
    )
    parser.add_argument("--version", action="version", version=f"semcast {__version__}")
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = choices.add_parser("demo", help="a bundled photo over 20, 10, 5 and 1 dB: one contact sheet, one table")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for demo.png, default: %(default)s")
    add_force(p)
    p.set_defaults(run="run.demo")

    p = choices.add_parser(
        "run", help="the whole link in one go: pictures in, received pictures and one JSON row each out"
    )
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="pictures, folders of them, or - for stdin")
    add_mode(p)
    p.add_argument(
        "--snr",
        type=snr,
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
    p.add_argument("--json", action="store_true", help="one JSON object a line, as always where stdout is no terminal")
    add_force(p)
    add_rate(p)
    add_optimise(p)
    add_model(p)
    add_factor(p)
    add_steps(p)
    p.add_argument("--seed", type=seed, default=0, help="picture i uses SEED + i, default: %(default)s")
    add_lpips(p)
    p.add_argument("--fetch-metrics", action="store_true", help="download LPIPS weights that are missing")
    p.set_defaults(run="run.run")

    p = choices.add_parser(
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
        type=snr,
        metavar="DB",
        help="of the channel: what a packet fills in digital mode, or what --quality or --optimise holds for",
    )
    p.add_argument(
        "--bytes", type=size, metavar="N", help="digital: the packet has N bytes at most, 16 to 2048, for no channel"
    )
    add_rate(p).add_argument(
        "--seconds",
        type=seconds,
        metavar="S",
        help="as many rungs as a signal of S seconds carries, --lead not counted",
    )
    add_optimise(p)
    p.add_argument(
        "--reply",
        type=Path,
        metavar="R",
        help="go on as the receiver wishes: the same rungs again, or the next ones, by default for as many channel uses",
    )
    add_model(p)
    add_factor(p)
    p = p.add_argument_group("as a signal (WAV, FLAC, SigMF, cfile)")
    p.add_argument(
        "--profile",
        choices=PROFILES,
        help="2.2 kHz wide, the default, or 1.2 kHz; with -o -, raw 16-bit samples instead of a frame",
    )
    p.add_argument("--play", nargs="?", const="", metavar="DEVICE", help="on a sound card, given by part of its name")
    p.add_argument("--lead", type=lead, metavar="S", help=f"silence before and after, default: {LEAD_S:g} seconds")
    add_file_rate(p)
    choices.choices["send"].set_defaults(run="transmission.send")

    p = choices.add_parser("channel", help="frame -> the frame that arrives; signal -> the signal that arrives")
    p.add_argument("frame", type=Path, metavar="X", help="a frame or a signal, or - for stdin")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="Y", help="or - for stdout")
    add_force(p)
    p.add_argument("--snr", type=snr, metavar="DB", help="frames: Es/N0 per complex symbol, -30 to 60 dB")
    p.add_argument(
        "--snr3k", type=snr3k, metavar="DB", help="signals: power of the signal over that of the noise in 3 kHz, or inf"
    )
    add_channel(p)
    p.add_argument("--seed", type=seed, default=0, help="of the channel's noise, default: %(default)s")
    p = p.add_argument_group("on signals (WAV, SigMF, cfile)")
    for flag, key in OPTIONS.items():
        option = EFFECTS[key]
        if key == "band":
            p.add_argument(flag, dest=key, choices=option.allowed, help=option.about)
        else:
            unit = option.unit.upper().replace("/", "_PER_")
            p.add_argument(flag, dest=key, type=number(float, *option.allowed), metavar=unit, help=option.about)
    add_file_rate(p)
    choices.choices["channel"].set_defaults(run="transmission.channel")

    p = choices.add_parser("channels", help="list the channels with their options")
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

    p = choices.add_parser(
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
    add_steps(p)
    p.add_argument("--seed", type=seed, default=0, help="of the receiver's noise, default: %(default)s")
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
    p.add_argument("--json", action="store_true", help="what --confidence and --report say, on stdout")
    p = p.add_argument_group("from recordings, which may hold several transmissions")
    p.add_argument(
        "--pick", type=count, metavar="N", help="only the Nth picture; default: all, as OUT-1.png, OUT-2.png ..."
    )
    add_air_header(p)
    p.add_argument("--report", type=Path, metavar="FILE", help="what was measured, a JSON object a transmission")
    add_file_rate(p)
    p.add_argument(
        "--listen",
        type=listening,
        nargs="?",
        const=math.inf,
        metavar="S",
        help="from the sound card, until a transmission is over, or S seconds",
    )
    p.add_argument("--device-in", metavar="NAME", help="sound card to listen to, by part of its name")
    choices.choices["receive"].set_defaults(run="transmission.receive")

    p = choices.add_parser("info", help="what a frame or a reply holds, or which transmissions a recording")
    p.add_argument("frame", type=Path, metavar="X", help="a frame, a reply or a recording, or - for stdin")
    p.add_argument("--json", action="store_true", help="JSON, as always where stdout is no terminal")
    add_air_header(p)
    add_file_rate(p)
    p.set_defaults(run="transmission.info")

    p = choices.add_parser("compare", help="how near one picture is to another: PSNR, SSIM, MS-SSIM, LPIPS")
    p.add_argument("original", type=Path, metavar="A")
    p.add_argument("other", type=Path, metavar="B")
    p.add_argument("--json", action="store_true", help="one JSON object, as always where stdout is no terminal")
    add_lpips(p)
    p.set_defaults(run="transmission.compare")

    p = choices.add_parser("bench", help="measure systems side by side; `bench report DIR` makes tables and plots")
    p.add_argument("--list", action="store_true", help="name the systems and stop")
    p.add_argument("--smoke", action="store_true", help="a minute of everything, on two pieces of the bundled photo")
    p.add_argument(
        "--systems", nargs="+", default=[], metavar="NAME", help="see --list; semcast@DIR is semcast with another model"
    )
    p.add_argument("--data", type=Path, nargs="+", metavar="PATH", help="folders, tar files or pictures")
    p.add_argument("--size", type=side, metavar="S", help="centre crop of S x S pixels, default: whole pictures")
    p.add_argument("--limit", type=count, metavar="N", help="only N pictures, evenly spread over all")
    p.add_argument(
        "--snr", type=snr, nargs="+", default=[1.0, 10.0, 20.0], metavar="DB", help="Es/N0, default: 1 10 20"
    )
    p.add_argument(
        "--headline",
        type=snr,
        nargs="+",
        default=[1.0, 10.0, 20.0],
        metavar="DB",
        help="SNRs with the slow metrics and pictures",
    )
    p.add_argument("--channel", default="awgn", metavar="NAME", help="see `semcast channels`, default: %(default)s")
    p.add_argument(
        "--channel-option", action="append", default=[], metavar="K=V", help="an option of the channel, can be repeated"
    )
    p.add_argument(
        "--copies", type=count, default=1, metavar="N", help="receptions of one transmission, combined; default: 1"
    )
    p.add_argument(
        "--snr-error", type=snr, default=0.0, metavar="DB", help="both ends believe in so much more SNR; default: 0"
    )
    p.add_argument(
        "--uses",
        default="same",
        metavar="K",
        help="channel uses a picture: same as semcast (default), 1/683, or a number",
    )
    p.add_argument(
        "--draws",
        type=count,
        default=3,
        metavar="N",
        help="of the channel, for every picture and SNR; default: %(default)s",
    )
    p.add_argument(
        "--out", type=Path, metavar="DIR", help="for rows.jsonl; what is in it already is not computed again"
    )
    p.add_argument("--workers", type=count, metavar="N", help="processes that share the work, default: one a core")
    p.add_argument("--ray", metavar="ADDRESS", help="let a Ray cluster work instead; `local` starts one here")
    p.add_argument(
        "--device",
        default="cpu",
        help="of the networks, default: %(default)s; a GPU would be shared by all workers, each with its own networks, "
        "and times would be theirs together, so give --workers 1 with it",
    )
    p.add_argument("--lpips", type=Path, metavar="DIR", help="folder of LPIPS weights, as in `run`")
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

    p = choices.add_parser("train", help="train a model, or go on training one")
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
    p.add_argument("--lpips", type=Path, metavar="DIR", help="folder of LPIPS weights, as in `run`")
    p.add_argument("--cache", type=Path, metavar="DIR", help="keep latents of fixed crops here; scsic presets only")
    p.add_argument(
        "--device", default="auto", help="as in `run`; under torchrun or accelerate each process takes its own GPU"
    )
    p.set_defaults(run="long.train")

    p = choices.add_parser("models", help="list the models, fetch an official one or LPIPS, or export one as ONNX")
    p.add_argument("--json", action="store_true", help="one JSON object a line")
    p.set_defaults(run="lists.models")
    actions = p.add_subparsers(dest="action", metavar="fetch|export")
    p = actions.add_parser("export", help="write a model as ONNX files, for browsers, telephones and other programs")
    p.add_argument("name", metavar="NAME_OR_DIR")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files, one a graph")
    add_force(p)
    p.set_defaults(run="lists.export")
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
    p.set_defaults(run="lists.fetch")

    p = choices.add_parser("web", help="a page for a browser: drop a photo, choose a channel, see and hear it arrive")
    p.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="default: %(default)s; any other needs a password"
    )
    p.add_argument("--port", type=port, default=8000, metavar="N", help="default: %(default)s; 0: any free one")
    p.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is what visitors must know")
    p.add_argument("--model", default="small", metavar="NAME_OR_DIR", help="see `semcast models`, default: %(default)s")
    p.add_argument("--open", action="store_true", help="show the page in this machine's browser")
    p.set_defaults(run="web.web")

    p = choices.add_parser("completion", help='completion for a shell: eval "$(semcast completion bash)"')
    p.add_argument("shell", choices=SHELLS)
    p.set_defaults(run="lists.completion")
    for p in [*choices.choices.values(), *actions.choices.values()]:
        p.add_argument("-q", "--quiet", action="store_true", help="no notices and no progress, only errors")
    return parser


def add_force(p: Parser) -> None:
    p.add_argument("--force", action="store_true", help="replace files that exist")


def add_lpips(p: Parser) -> None:
    p.add_argument(
        "--lpips",
        type=Path,
        metavar="DIR",
        help="folder of LPIPS weights, default: $SEMCAST_LPIPS, then those that were fetched, then torch's cache",
    )


def add_channel(p: Parser) -> None:
    p.add_argument("--channel", default="awgn", metavar="NAME", help="see `semcast channels`, default: %(default)s")
    p.add_argument(
        "--channel-option", action="append", default=[], metavar="K=V", help="an option of the channel, can be repeated"
    )


def add_mode(p: Parser) -> None:
    p.add_argument(
        "--mode",
        choices=("analog", "digital"),
        default="analog",
        help="symbols as they are, or as coded bits; default: analog",
    )


def add_model(p: Parser) -> None:
    p.add_argument("--model", default="small", metavar="NAME_OR_DIR", help="default: %(default)s")
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


def add_factor(p: Parser) -> None:
    p.add_argument(
        "--factor", type=factor, metavar="F", help="encoder input side / picture side, 0.5 to 1; default: the model's"
    )


def add_file_rate(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--rate",
        type=file_rate,
        metavar="HZ",
        help=f"samples a second of what is written, and of a .cfile that is read; default: {FILE_RATE_HZ}",
    )
    p.add_argument(
        "--centre",
        type=centre,
        metavar="HZ",
        help=f"audio frequency at 0 Hz of complex samples, default: what a SigMF file says, or {FILE_CENTRE_HZ}",
    )


def add_air_header(p: argparse._ActionsContainer) -> None:
    p.add_argument(
        "--header",
        metavar="FRAME_OR_HEX",
        help="of a transmission whose own is damaged: the frame that was sent, or `header` of another reception's report",
    )


def add_optimise(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--optimise",
        type=steps,
        metavar="N",
        help="N steps, of seconds each, to symbols of which the receiver paints a better picture at the SNR; 1 to 1000",
    )


def add_rate(p: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    group = p.add_mutually_exclusive_group()
    group.add_argument(
        "--rungs",
        type=span,
        metavar="A-B",
        help=f"which of the {RUNGS} rungs to send: 1-{BASE[1]} is the base, the default; those above refine it",
    )
    group.add_argument("--uses", type=uses, metavar="N", help="as many rungs as N channel uses carry")
    group.add_argument(
        "--quality",
        type=quality,
        metavar="Q",
        help="as few rungs as give this MS-SSIM, 0 to 1, at the SNR: it is tried",
    )
    return group


def span(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= RUNGS:
        raise argparse.ArgumentTypeError(f"{text!r} is no run of rungs, like 1-{RUNGS} or 9-16")
    return first, last


def add_steps(p: Parser) -> None:
    p.add_argument("--steps", type=steps, metavar="N", help="diffusion steps, 1 to 1000; default: the model's")


def number(kind, low, high):
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None
        if not low <= value <= high:  # refuses NaN too
            raise argparse.ArgumentTypeError(f"{text} must lie between {low} and {high}")
        return value

    return parse


snr, factor = number(float, -30, 60), number(float, 0.5, 1)
steps, seed, size = number(int, 1, 1000), number(int, 0, SEED_MAX), number(int, 16, 2048)
uses, quality = number(int, 1, 10**9), number(float, 0, 1)
seconds, listening, lead = number(float, 0, 3600), number(float, 1, 86_400), number(float, 0, 60)
file_rate, centre, snr3k = (
    number(int, 4000, 20_000_000),
    number(float, -10_000_000, 10_000_000),
    number(float, -40, math.inf),
)
side, count, port = number(int, 64, 8192), number(int, 1, 100_000), number(int, 0, 65535)
