"""Command line: parses, calls the library, prints. No maths here; heavy imports stay inside the commands."""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

from . import __version__
from .errors import InputError

SEED_MAX = 2**32 - 1
OUT_OF_MEMORY = "out of memory; use a smaller picture, or --low-memory on a GPU"
PRESETS = ("autoencoder", "code", "joint", "decode", "fewstep", "scsic-512", "scsic-1024")  # train.PRESETS, without the import


class Parser(argparse.ArgumentParser):
    """Usage errors are one line, like every other error."""

    def error(self, message):
        raise InputError(f"{message} (see `{self.prog} --help`)")


def main(argv: list[str] | None = None) -> int:
    try:
        args = build_parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except InputError as error:
        return fail(str(error))
    except BrokenPipeError:  # the reader of our output left
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except MemoryError:
        return fail(OUT_OF_MEMORY)
    except RuntimeError as error:  # torch's kinds of it, on CPU and GPU
        if "memory" not in str(error):
            raise
        return fail(OUT_OF_MEMORY)
    except OSError as error:  # a full disk, a vanished file
        return fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    return 0


def fail(message: str, code: int = 2) -> int:
    print("semcast: " + " ".join(message.split()), file=sys.stderr)
    return code


def build_parser() -> Parser:
    parser = Parser(prog="semcast", description="Send pictures over links so poor that ordinary codecs deliver nothing.")
    parser.add_argument("--version", action="version", version=f"semcast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = commands.add_parser("demo", help="a bundled photo over 20, 10, 5 and 1 dB: one contact sheet, one table")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for demo.png, default: %(default)s")
    p.set_defaults(run=demo)

    p = commands.add_parser("run", help="the whole link in one go: pictures in, received pictures and one JSON row each out")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    add_mode(p)
    add_channel(p)
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for <stem>.png, default: %(default)s")
    add_model(p)
    add_factor(p)
    add_steps(p)
    p.add_argument("--seed", type=seed, default=0, help="picture i uses SEED + i, default: %(default)s")
    p.add_argument("--lpips", type=Path, metavar="DIR", help="folder of LPIPS weights, default: $SEMCAST_LPIPS, then torch's cache")
    p.add_argument("--fetch-metrics", action="store_true", help="download LPIPS weights that are missing")
    p.set_defaults(run=run)

    p = commands.add_parser("send", help="picture -> frame file with the symbols to transmit, or with a packet of bytes")
    p.add_argument("image", type=Path, metavar="IMAGE")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="X.sem")
    add_mode(p)
    p.add_argument("--snr", type=snr, metavar="DB", help="digital: the packet fills what a channel of this SNR carries; or")
    p.add_argument("--bytes", type=size, metavar="N", help="digital: the packet has N bytes at most, 16 to 2048, for no channel")
    add_model(p)
    add_factor(p)
    p.add_argument("--seed", type=seed, default=0, help="of the receiver's noise, travels in the header, default: %(default)s")
    p.set_defaults(run=send)

    p = commands.add_parser("channel", help="frame -> the frame that arrives")
    p.add_argument("frame", type=Path, metavar="X.sem")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="Y.sem")
    add_channel(p)
    p.add_argument("--seed", type=seed, default=0, help="of the channel's noise, default: %(default)s")
    p.set_defaults(run=channel)

    p = commands.add_parser("channels", help="list the channels with their options")
    p.add_argument("--plot", type=Path, metavar="OUT.png", help="draw one realisation of each: constellation, gain, noise map")
    p.set_defaults(run=channels)

    p = commands.add_parser("receive", help="frame -> picture; several receptions of one transmission -> one better picture")
    p.add_argument("frames", type=Path, nargs="+", metavar="Y.sem")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.png")
    add_model(p)
    add_steps(p)
    p.set_defaults(run=receive)

    p = commands.add_parser("bench", help="measure systems side by side; `bench report DIR` makes tables and plots")
    p.add_argument("--list", action="store_true", help="name the systems and stop")
    p.add_argument("--smoke", action="store_true", help="a minute of everything, on two pieces of the bundled photo")
    p.add_argument("--systems", nargs="+", default=[], metavar="NAME", help="see --list; semcast@DIR is semcast with another model")
    p.add_argument("--data", type=Path, nargs="+", metavar="PATH", help="folders, tar files or pictures")
    p.add_argument("--size", type=side, metavar="S", help="centre crop of S x S pixels, default: whole pictures")
    p.add_argument("--limit", type=count, metavar="N", help="only the first N pictures")
    p.add_argument("--snr", type=snr, nargs="+", default=[1.0, 10.0, 20.0], metavar="DB", help="Es/N0, default: 1 10 20")
    p.add_argument(
        "--headline", type=snr, nargs="+", default=[1.0, 10.0, 20.0], metavar="DB", help="SNRs with the slow metrics and pictures"
    )
    p.add_argument("--channel", default="awgn", metavar="NAME", help="see `semcast channels`, default: %(default)s")
    p.add_argument("--channel-option", action="append", default=[], metavar="K=V", help="an option of the channel, can be repeated")
    p.add_argument("--uses", default="same", metavar="K", help="channel uses a picture: same as semcast (default), 1/683, or a number")
    p.add_argument("--draws", type=count, default=3, metavar="N", help="of the channel, for every picture and SNR; default: %(default)s")
    p.add_argument("--out", type=Path, metavar="DIR", help="for rows.jsonl; what is in it already is not computed again")
    p.add_argument("--workers", type=count, metavar="N", help="processes that share the work, default: one a core")
    p.add_argument("--ray", metavar="ADDRESS", help="let a Ray cluster work instead; `local` starts one here")
    p.add_argument("--device", default="cpu", help="of the networks, default: %(default)s")
    p.add_argument("--lpips", type=Path, metavar="DIR", help="folder of LPIPS weights, as in `run`")
    p.set_defaults(run=bench)
    p = p.add_subparsers(dest="action", metavar="report").add_parser("report", help="rows -> DIR/report.html, and tables as files")
    p.add_argument("folder", type=Path, metavar="DIR")
    p.set_defaults(run=bench_report)

    p = commands.add_parser("train", help="train a model, or go on training one")
    p.add_argument("--preset", choices=PRESETS, required=True, metavar="NAME", help=", ".join(PRESETS))
    p.add_argument("--data", nargs="+", action="extend", required=True, metavar="PATH[:WEIGHT]", help="folders, tar files or pictures")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    p.add_argument("--init", default="new", metavar="MODEL", help="model to start from, by name or folder; default: a new `small`")
    p.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any training setting, e.g. --set steps=500")
    p.add_argument("--lpips", type=Path, metavar="DIR", help="folder of LPIPS weights, as in `run`")
    p.add_argument("--cache", type=Path, metavar="DIR", help="keep latents of fixed crops here; scsic presets only")
    p.add_argument("--device", default="cpu", help="cpu, cuda ...; under torchrun or accelerate each process takes its own GPU")
    p.set_defaults(run=train)

    p = commands.add_parser("models", help="list the models, or fetch an official one")
    p.add_argument("--json", action="store_true", help="one JSON object a line")
    p.set_defaults(run=models)
    p = p.add_subparsers(dest="action", metavar="fetch").add_parser("fetch", help="bring an official model (see its --help)")
    p.add_argument("name", metavar="NAME", help="stable-cascade-lite or stable-cascade-big")
    p.add_argument("--from", dest="sources", type=Path, nargs="+", metavar="PATH", help="take these files or folders, not the hub's")
    p.add_argument("--decoder", choices=("ft-hq",), help="Stage A with finer grain instead of the official one")
    p.add_argument("--revision", metavar="R", help="branch, tag or commit of the hub's repository; default: main")
    p.add_argument("--accept-license", action="store_true", help="accept the terms of the weights: needed once")
    p.set_defaults(run=fetch)
    return parser


def add_channel(p: Parser) -> None:
    p.add_argument("--snr", type=snr, required=True, metavar="DB", help="Es/N0 per complex symbol, -30 to 60 dB")
    p.add_argument("--channel", default="awgn", metavar="NAME", help="see `semcast channels`, default: %(default)s")
    p.add_argument("--channel-option", action="append", default=[], metavar="K=V", help="an option of the channel, can be repeated")


def add_mode(p: Parser) -> None:
    p.add_argument("--mode", choices=("analog", "digital"), default="analog", help="symbols as they are, or as coded bits; default: analog")


def add_model(p: Parser) -> None:
    p.add_argument("--model", default="small", metavar="NAME_OR_DIR", help="default: %(default)s")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...; default: %(default)s")
    p.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the receiver's networks, default: %(default)s"
    )
    p.add_argument("--low-memory", action="store_true", help="networks visit the GPU one at a time; slower")
    p.add_argument("--compile", action="store_true", help="torch.compile, on a GPU with CUDA graphs: slow first picture, fast others")


def add_factor(p: Parser) -> None:
    p.add_argument("--factor", type=factor, metavar="F", help="encoder input side / picture side, 0.5 to 1; default: the model's")


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
side, count = number(int, 64, 8192), number(int, 1, 100_000)


def demo(args) -> None:
    from . import demo as demo_module

    folder = make_folder(args.out)
    rows = demo_module.run(folder / "demo.png")
    print("snr_db  psnr_db  ms_ssim  channel_uses  side_bits")
    for row in rows:
        print(f"{row['snr_db']:6.0f}  {row['psnr_db']:7.2f}  {row['ms_ssim']:7.3f}  {row['channel_uses']:12d}  {row['side_bits']:9d}")
    print(f"{folder / 'demo.png'}: the photo as sent, and as received at each SNR")


def run(args) -> None:
    from . import images, metrics, packet
    from .channel import channel_uses
    from .errors import Lost
    from .lpips import load_lpips
    from .transmitter import SIDE_BITS, check_sides

    stems = [path.stem for path in args.images]
    if twice := sorted({s for s in stems if stems.count(s) > 1}):
        raise InputError(f"two pictures would be written to {args.out / twice[0]}.png; run them with different --out")
    if args.seed + len(stems) - 1 > SEED_MAX:
        raise InputError(f"seed {args.seed} + {len(stems) - 1} is above {SEED_MAX}")
    for path in args.images:  # before minutes of work, not after
        check_sides(*images.read_image(path).shape[-2:])
        if (args.out / f"{path.stem}.png").resolve() == path.resolve():
            raise InputError(f"{path} would be overwritten by what is received of it; choose another --out")
    digital = args.mode == "digital"
    link = load_link(args)
    folder = make_folder(args.out)
    lpips = {}
    for network in ("alex", "vgg"):
        try:
            lpips[network] = load_lpips(network, args.lpips, args.fetch_metrics)
        except InputError as error:
            print(f"semcast: {'lpips' if network == 'alex' else 'lpips_vgg'} is null: {error}", file=sys.stderr)
    for i, path in enumerate(args.images):
        image = images.read_image(path)
        start = time.perf_counter()
        x, header = link.send(image.to(args.device), args.factor, args.seed + i)
        payload, lost = None, False
        sent = arrived = time.perf_counter()
        try:
            if digital:
                payload, header = packet.prepare(x, header, link.basis, snr_db=args.snr)
                x = packet.on_air(payload, header)
            sent = time.perf_counter()
            received = link.transmit(x, args.snr, args.seed + i)
            arrived = time.perf_counter()
            received = move(link.unpack(received, header), args.device)
            with progress_bar(args.steps or link.cascade.config.steps, path.name) as tick:
                result = link.receive(received, header, args.steps, tick).cpu()
        except Lost:
            lost, result = True, packet.mean_colour(image)
        end = time.perf_counter()
        images.write_image(folder / f"{path.stem}.png", result)
        quality = metrics.measure(image, result, lpips)
        if quality["ms_ssim"] is None:
            print(f"semcast: ms_ssim of {path} is null: it needs sides of at least {metrics.MS_SSIM_SIDE_MIN} pixels", file=sys.stderr)
        uses = channel_uses(args.channel, x.shape[1], **link.options)
        row = {
            "image": str(path),
            "width": header.width,
            "height": header.height,
            "channel_uses": uses,
            "payload_uses": x.shape[1],
            "bandwidth_ratio": uses / (3 * header.height * header.width),
            "element_ratio": 2 * uses / (3 * header.height * header.width),
            "side_bits": SIDE_BITS + (packet.SIDE_BITS if digital else 0),
            "mode": args.mode,
            "scheme": str(packet.find_scheme(header)) if payload else None,
            "payload_bytes": len(payload) if payload else None,
            "lost": lost,
            "channel": args.channel,
            "channel_options": link.options,
            "snr_db": args.snr,
            "seed": args.seed + i,
            **quality,
            "encode_ms": (sent - start) * 1e3,
            "decode_ms": (end - arrived) * 1e3,
            "model": link.cascade.config.name,
            "factor": header.factor,
            "steps": args.steps or link.cascade.config.steps,
        }
        print(json.dumps(row, allow_nan=False, separators=(",", ":")), flush=True)


def send(args) -> None:
    from . import frame, images

    given = (args.snr is not None) + (args.bytes is not None)
    if given != (args.mode == "digital"):
        raise InputError("give either --snr or --bytes with --mode digital, and neither without: analog symbols suit any channel")
    image = images.read_image(args.image)
    check_folder(args.output)
    link, image = load_link(args), image.to(args.device)
    if args.mode == "digital":
        payload, header = link.send_packet(image, args.snr, args.bytes, args.factor, args.seed)
        frame.write_frame(args.output, header, payload)
    else:
        x, header = link.send(image, args.factor, args.seed)
        frame.write_frame(args.output, header, x)


def channel(args) -> None:
    from . import frame, packet
    from .channel import Received, find_channel
    from .link import stream

    simulate = find_channel(args.channel)
    options = simulate.parse(args.channel_option)
    header, signal = frame.read_frame(args.frame)
    check_folder(args.output)
    if isinstance(signal, Received):
        raise InputError(f"{args.frame} has been through a channel already; start from the frame that was sent")
    signal = packet.on_air(signal, header) if isinstance(signal, bytes) else signal
    frame.write_frame(args.output, header, simulate(signal, args.snr, [stream(args.seed, "channel")], **options))


def channels(args) -> None:
    from .channel import CHANNELS, MISMATCH

    if args.plot:
        from .phy.plot import plot

        check_folder(args.plot)
        plot(args.plot)
        print(f"{args.plot}: one realisation of each channel at 10 dB")
        return
    shown = {}  # channels of one family share their options
    for channel in CHANNELS.values():
        print(f"{channel.name:16s} {channel.about}")
        if channel.own and channel.own is not shown.get("last"):
            for key, option in channel.own.items():
                print(describe_option(key, option))
            print(f"{'':18s}e.g. {channel.example}")
        shown["last"] = channel.own
    print("every channel")
    print(describe_option("snr_mismatch_db", MISMATCH))


def describe_option(key: str, option) -> str:
    return f"{'':18s}{key} = {option}{option.unit and ' '}{option.unit}  ({option.range})  {option.about}"


def receive(args) -> None:
    from . import frame, images

    header, signal = frame.read_frames(args.frames)
    check_folder(args.output)
    link = load_link(args)
    received = move(link.unpack(signal, header), args.device)
    with progress_bar(args.steps or link.cascade.config.steps, args.frames[0].name) as tick:
        images.write_image(args.output, link.receive(received, header, args.steps, tick))


def bench(args) -> None:
    from .bench import harness, systems
    from .channel import find_channel

    if args.list:
        for name, system in systems.SYSTEMS.items():
            print(f"{name:18s} {system.about}")
        return
    needed = {"--systems": args.smoke or args.systems, "--data": args.smoke or args.data, "--out": args.out}
    if lacking := [flag for flag, value in needed.items() if not value]:
        raise InputError(f"{lacking[0]} is missing (see `semcast bench --help`)")
    options = find_channel(args.channel).parse(args.channel_option)
    names, snrs, draws, headline = args.systems, args.snr, args.draws, args.headline
    if args.smoke:
        names = names or [name for name in harness.SMOKE if not systems.missing(name)]
        snrs, draws, headline = harness.SMOKE_SNRS_DB, 1, harness.SMOKE_SNRS_DB[-1:]
        if left_out := [name for name in harness.SMOKE if name not in names and not args.systems]:
            print(f"semcast: without {', '.join(left_out)}: pip install 'semcast[bench]' brings what they need", file=sys.stderr)
    setting = harness.Setting(
        channel=args.channel,
        options=tuple(options.items()),
        uses=args.uses,
        headline=tuple(headline),
        lpips=args.lpips,
        device=args.device,
        size=args.size,
    )
    pictures = harness.SmokePictures() if args.smoke else harness.Pictures(args.data, args.size, args.limit)
    folder, workers = make_folder(args.out), args.workers or harness.default_workers()
    with progress_bar(None, folder.name, "row") as tick:
        rows, new = harness.bench(names, pictures, list(dict.fromkeys(snrs)), draws, folder, setting, workers, args.ray, progress=tick)
    print(json.dumps({"out": str(folder / harness.ROWS), "rows": rows, "new": new}))


def bench_report(args) -> None:
    from .bench.report import report

    print(report(args.folder))


def train(args) -> None:
    import os
    from dataclasses import fields, replace

    import torch

    from . import models as models_module
    from .cascade.model import Cascade, small_config
    from .data import Photos
    from .lpips import load_lpips
    from .train import PRESETS
    from .train import train as train_model

    kinds = {f.name: f.type for f in fields(PRESETS[args.preset])}
    settings = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals or name not in kinds:
            raise InputError(f"--set {text}: write NAME=VALUE with a name out of {', '.join(kinds)}")
        try:
            settings[name] = {"true": True, "false": False}[value.lower()] if kinds[name] is bool else kinds[name](value)
        except (ValueError, KeyError):
            raise InputError(f"--set {text}: {value!r} is no {kinds[name].__name__}") from None
    config = replace(PRESETS[args.preset], **settings)
    device = f"cuda:{os.environ['LOCAL_RANK']}" if args.device == "cuda" and "LOCAL_RANK" in os.environ else args.device
    models_module.check_device(device)
    photos = Photos(args.data)
    torch.manual_seed(config.seed)
    cascade = Cascade(small_config()) if args.init == "new" else models_module.load_model(args.init, dtype="float32")
    command = f"semcast train --preset {args.preset} --init {args.init} " + " ".join(f"--set {s}" for s in args.set)
    lpips = None if config.phase in ("code", "denoise") else load_lpips("vgg", args.lpips)
    model = train_model(cascade, photos, config, args.out, lpips, device, args.resume, command.strip(), args.cache)
    if os.environ.get("RANK", "0") == "0":
        print(model)


def models(args) -> None:
    from .models import describe, known_models

    rows = [describe(name) for name in known_models()]
    if args.json:
        for row in rows:
            print(json.dumps(row, separators=(",", ":")))
        return
    for row in rows:
        parts = ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in row["parts"].items())
        here = "here" if row["fetched"] else "not fetched"
        print(f"{row['name']:20s} {row['size_bytes'] / 2**20:7.1f} MiB  {here:11s}  {row['about']}")
        print(f"{'':20s} {parts}; licence: {row['licence']}")


def fetch(args) -> None:
    from . import hub

    say = lambda line: print(line, flush=True)
    folder = hub.fetch(args.name, args.sources, args.revision, args.accept_license, args.decoder, say=say)
    print(f"{args.name} is in {folder}: semcast run photo.jpg --snr 10 --model {args.name}")


def move(received, device: str):
    return type(received)(*(part.to(device) for part in received))


def load_link(args):
    from .channel import find_channel
    from .link import Link
    from .models import load_model

    name = getattr(args, "channel", "awgn")
    options = find_channel(name).parse(getattr(args, "channel_option", []))
    return Link(load_model(args.model, args.device, args.dtype, args.low_memory, args.compile), name, **options)


def make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


def check_folder(output: Path) -> None:
    """Before minutes of work, not after."""
    if not output.parent.is_dir():
        raise InputError(f"cannot write {output}: the folder {output.parent} does not exist")
    if output.is_dir():
        raise InputError(f"cannot write {output}: it is a folder")


@contextlib.contextmanager
def progress_bar(total: int | None, name: str, unit: str = "step"):
    """Yields a function (finished steps, of how many) -> None; a bar on stderr when a person is watching."""
    from tqdm import tqdm

    def tick(done: int, total: int | None = None) -> None:
        bar.total = total or bar.total
        bar.update(done - bar.n)

    with tqdm(total=total, desc=name, unit=unit, leave=False, disable=None) as bar:
        yield tick
