"""What the commands do: a function each, which calls the library and prints. No maths here.

`args` are what cli.py parsed. A command first checks what it can, and only then imports what takes time.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .cascade.config import small_config
from .cascade.models import describe as describe_model
from .cascade.models import find_model, known_models
from .channels.catalogue import CHANNELS, MISMATCH, find_channel
from .errors import InputError, missing, require
from .files import check_file, check_output, make_folder
from .header import SEED_MAX, SIDE_BITS, bandwidth_ratio, check_sides, round_factor
from .training.config import PHASES, PRESETS, with_settings

if TYPE_CHECKING:
    from .link import Link
    from .receiver import Reconstruction


def demo(args) -> None:
    print("loading the networks ...", file=sys.stderr, flush=True)
    from . import demo as demo_module

    folder = make_folder(args.out)
    sheet = folder / "demo.png"
    columns = {"snr_db": ".0f", "psnr_db": ".2f", "ms_ssim": ".3f", "channel_uses": "d", "side_bits": "d"}
    print("  ".join(columns), flush=True)
    for row in demo_module.run(sheet):
        print("  ".join(f"{row[name]:{len(name)}{form}}" for name, form in columns.items()), flush=True)
    print(f"{sheet}: the photo as sent, and as received at each SNR")
    print(f"Your own photo: {program()} run photo.jpg --snr 10 --out {folder}")


def program() -> str:
    """How the user calls this semcast: its name, or its path where the shell would not find it."""
    called, found = Path(sys.argv[0]), shutil.which("semcast")
    on_path = found is not None and Path(found).resolve() == called.resolve()
    return str(called) if called.name == "semcast" and not on_path else "semcast"


def run(args) -> None:
    check_run(args)
    from .images import read_image, write_image
    from .metrics.measure import measure
    from .metrics.pixels import MS_SSIM_SIDE_MIN

    for path in args.images:
        check_sides(*read_image(path).shape[-2:])
    link = load_link(args)
    link.engine.load()
    folder = make_folder(args.out)
    lpips = load_metrics(args)
    for i, path in enumerate(args.images):
        image = read_image(path)
        with progress_bar(args.steps or link.engine.config.steps, path.name) as tick:
            result = link(image, args.snr, args.seed + i, args.factor, args.steps, tick)
        write_image(folder / f"{path.stem}.png", result.image)
        quality = measure(image, result.image, lpips)
        if quality["ms_ssim"] is None:
            print(
                f"semcast: ms_ssim of {path} is null: it needs sides of at least {MS_SSIM_SIDE_MIN} pixels",
                file=sys.stderr,
            )
        row = describe(result, link, path, args, args.seed + i, quality)
        print(json.dumps(row, allow_nan=False, separators=(",", ":")), flush=True)


def check_run(args) -> None:
    """Before minutes of work, not after."""
    stems = [path.stem for path in args.images]
    if twice := sorted({s for s in stems if stems.count(s) > 1}):
        raise InputError(f"two pictures would be written to {args.out / twice[0]}.png; run them with different --out")
    if args.seed + len(stems) - 1 > SEED_MAX:
        raise InputError(f"seed {args.seed} + {len(stems) - 1} is above {SEED_MAX}")
    for path in args.images:
        check_file(path, "picture")
        if (args.out / f"{path.stem}.png").resolve() == path.resolve():
            raise InputError(f"{path} would be overwritten by what is received of it; choose another --out")
    check_link(args)


def describe(result: "Reconstruction", link: "Link", path: Path, args, seed: int, quality: dict) -> dict:
    """The row of `run`: what was sent at what cost, and how good it came back."""
    from .modulation.digital import find_scheme

    _, _, height, width = result.image.shape
    modem, sent = link.modems[link.mode], result.sent
    payload = sent.content if sent and isinstance(sent.content, bytes) else None
    uses = link.channel.uses(result.payload_uses, link.options) if sent else 0
    return {
        "image": str(path),
        "width": width,
        "height": height,
        "channel_uses": uses,
        "payload_uses": result.payload_uses,
        "bandwidth_ratio": bandwidth_ratio(uses, height, width),
        "element_ratio": 2 * bandwidth_ratio(uses, height, width),
        "side_bits": SIDE_BITS + modem.side_bits,
        "mode": link.mode,
        "scheme": str(find_scheme(sent.header)) if sent and payload else None,
        "payload_bytes": len(payload) if payload else None,
        "lost": result.lost,
        "channel": link.channel.name,
        "channel_options": link.options,
        "snr_db": args.snr,
        "seed": seed,
        **quality,
        "encode_ms": result.encode_ms,
        "decode_ms": result.decode_ms,
        "model": link.engine.config.name,
        "factor": round_factor(args.factor or link.engine.config.factor),
        "steps": args.steps or link.engine.config.steps,
    }


def load_metrics(args) -> dict:
    """The LPIPS networks whose weights are here, by name; stderr says why another is not."""
    from .metrics.measure import NO_LPIPS, has_lpips

    lpips = {}
    if missing("torch", "torchvision") or not (args.lpips or args.fetch_metrics or has_lpips()):
        if args.lpips or args.fetch_metrics:
            require("LPIPS", "torch", "torchvision")
        print(f"semcast: lpips and lpips_vgg are null: {NO_LPIPS}", file=sys.stderr)
        return lpips
    from .metrics.lpips import load_lpips

    for network in ("alex", "vgg"):
        try:
            lpips[network] = load_lpips(network, args.lpips, args.fetch_metrics)
        except InputError as error:
            print(f"semcast: {'lpips' if network == 'alex' else 'lpips_vgg'} is null: {error}", file=sys.stderr)
    return lpips


def send(args) -> None:
    given = (args.snr is not None) + (args.bytes is not None)
    if given != (args.mode == "digital"):
        raise InputError(
            "give either --snr or --bytes with --mode digital, and neither without: analog symbols suit any channel"
        )
    check_file(args.image, "picture")
    check_output(args.output)
    check_link(args)
    from .frame import write_frame
    from .images import read_image

    image = read_image(args.image)
    write_frame(args.output, *load_link(args).send(image, args.snr, args.bytes, args.factor, args.seed))


def channel(args) -> None:
    simulate = find_channel(args.channel)
    options = simulate.parse(args.channel_option)
    check_file(args.frame, "frame")
    check_output(args.output)
    from .channels.base import Received
    from .frame import read_frame, write_frame
    from .header import Transmission
    from .modulation.modems import on_air
    from .randomness import stream

    header, content = read_frame(args.frame)
    if isinstance(content, Received):
        raise InputError(f"{args.frame} has been through a channel already; start from the frame that was sent")
    x = on_air(Transmission(header, content))
    write_frame(args.output, header, simulate(x, args.snr, [stream(args.seed, "channel")], **options))


def receive(args) -> None:
    for path in args.frames:
        check_file(path, "frame")
    check_output(args.output)
    from .frame import read_frames
    from .images import write_image

    header, arrived = read_frames(args.frames)
    link = load_link(args)
    with progress_bar(args.steps or link.engine.config.steps, args.frames[0].name) as tick:
        write_image(args.output, link.receive(arrived, header, args.steps, tick))


def channels(args) -> None:
    if args.plot:
        check_output(args.plot)
        require("--plot", "matplotlib", "sionna")
        from .channels.plot import plot

        plot(args.plot)
        print(f"{args.plot}: one realisation of each channel at 10 dB")
        return
    last = None  # channels of one family share their options
    for channel in CHANNELS.values():
        print(f"{channel.name:16s} {channel.about}")
        if channel.own is not last:
            for key, option in channel.own.items():
                print(describe_option(key, option))
        print(f"{'':18s}e.g. {channel.example}")
        last = channel.own
    print("every channel")
    print(describe_option("snr_mismatch_db", MISMATCH))


def describe_option(key: str, option) -> str:
    return f"{'':18s}{key} = {option}{option.unit and ' '}{option.unit}  ({option.range})  {option.about}"


def bench(args) -> None:
    needed = {"--systems": args.smoke or args.systems, "--data": args.smoke or args.data, "--out": args.out}
    if (args.labels is None) != (args.segmenter is None):
        raise InputError("--labels and --segmenter go together: mIoU needs both")
    if not args.list and (lacking := [flag for flag, value in needed.items() if not value]):
        raise InputError(f"{lacking[0]} is missing (see `semcast bench --help`)")
    options = find_channel(args.channel).parse(args.channel_option)
    require("bench", "torch", "torchvision", "torchmetrics")
    from .bench import harness, systems, workers
    from .bench.pictures import Pictures, SmokePictures
    from .bench.unit import Setting
    from .cascade.device import keep_freed_memory

    if args.list:
        for name, system in systems.SYSTEMS.items():
            print(f"{name:18s} {system.about}")
        return
    if args.smoke:
        shorten(args)
    setting = Setting(
        channel=args.channel,
        options=tuple(options.items()),
        uses=args.uses,
        copies=args.copies,
        snr_error_db=args.snr_error,
        headline=tuple(args.headline),
        lpips=args.lpips,
        segmenter=args.segmenter,
        device=args.device,
        size=args.size,
    )
    keep_freed_memory()
    pictures = SmokePictures() if args.smoke else Pictures(args.data, args.size, args.limit, args.labels)
    folder, processes = make_folder(args.out), args.workers or workers.default_workers()
    with progress_bar(None, folder.name, "row") as tick:
        snrs = list(dict.fromkeys(args.snr))
        rows, new = harness.bench(
            args.systems, pictures, snrs, args.draws, folder, setting, processes, args.ray, progress=tick
        )
    print(json.dumps({"out": str(folder / harness.ROWS), "rows": rows, "new": new}))


def shorten(args) -> None:
    """Systems, SNRs and draws of `bench --smoke`."""
    from .bench import harness, systems

    given = args.systems
    args.systems = given or [name for name in harness.SMOKE if not systems.missing(name)]
    args.snr, args.draws, args.headline = harness.SMOKE_SNRS_DB, 1, harness.SMOKE_SNRS_DB[-1:]
    if left_out := [name for name in harness.SMOKE if name not in args.systems and not given]:
        print(
            f"semcast: without {', '.join(left_out)}: pip install 'semcast[bench]' brings what they need",
            file=sys.stderr,
        )


def bench_report(args) -> None:
    from .bench.report import report

    print(report(args.folder))


def train(args) -> None:
    config = with_settings(PRESETS[args.preset], args.set)
    phase = PHASES[config.phase]
    if args.init == "new" and not phase.starts_new:
        raise InputError(
            f"--preset {args.preset} trains a model that has learnt before; name it with --init (small, a folder ...)"
        )
    if config.optimiser == "adamw8bit":
        require("optimiser adamw8bit", "bitsandbytes")
    for source in args.data:
        if not (Path(source).exists() or Path(source.rpartition(":")[0]).exists()):
            raise InputError(f"no pictures at {source}: it is neither a folder nor a tar file nor a picture")
    start = find_model("small" if args.init == "new" else args.init).folder
    assert start is not None  # `find_model` refuses a model that has not been fetched
    require("training", "torch", "torchvision")
    from .cascade.device import keep_freed_memory
    from .cascade.loading import load_torch
    from .cascade.model import new_cascade
    from .metrics.lpips import load_lpips
    from .training.data import Photos
    from .training.processes import own_device, writes
    from .training.train import train as train_model

    device = own_device(args.device)
    keep_freed_memory()
    photos = Photos(args.data)
    cascade = new_cascade(small_config(), config.seed) if args.init == "new" else load_torch(start, dtype="float32")
    command = f"semcast train --preset {args.preset} --init {args.init} " + " ".join(f"--set {s}" for s in args.set)
    lpips = load_lpips("vgg", args.lpips) if phase.needs_lpips else None
    model = train_model(cascade, photos, config, args.out, lpips, device, args.resume, command.strip(), args.cache)
    if writes():
        print(model)


def models(args) -> None:
    rows = [describe_model(name) for name in known_models()]
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
    require("fetching", "torch", "torchvision", "filelock", *(() if args.sources else ("huggingface_hub",)))
    from .cascade import hub

    say = lambda line: print(line, flush=True)
    folder = hub.fetch(args.name, args.sources, args.revision, args.accept_license, args.decoder, say=say)
    print(f"{args.name} is in {folder}: semcast run photo.jpg --snr 10 --model {args.name}")


def export(args) -> None:
    source = find_model(args.name).folder
    assert source is not None  # `find_model` refuses a model that has not been fetched
    from .cascade.export import export as export_model

    export_model(source, args.out, say=lambda line: print(line, flush=True))


def check_link(args) -> None:
    """What can be refused without importing torch: model, channel and packages that are not there."""
    find_model(args.model)
    find_channel(getattr(args, "channel", "awgn")).parse(getattr(args, "channel_option", []))
    if args.mode == "digital" and args.command == "run":
        require("the LDPC code of a packet", "sionna")


def load_link(args) -> "Link":
    from .cascade.engine import load_model
    from .link import Link

    name = getattr(args, "channel", "awgn")
    options = find_channel(name).parse(getattr(args, "channel_option", []))
    engine = load_model(args.model, args.device, args.dtype, args.low_memory, args.compile, args.engine)
    return Link(engine, name, getattr(args, "mode", "analog"), **options)


@contextlib.contextmanager
def progress_bar(total: int | None, name: str, unit: str = "step"):
    """Yields a function (finished steps, of how many) -> None; a bar on stderr when a person is watching."""
    from tqdm import tqdm

    def tick(done: int, total: int | None = None) -> None:
        bar.total = total or bar.total
        bar.update(done - bar.n)

    with tqdm(total=total, desc=name, unit=unit, leave=False, disable=None) as bar:
        yield tick
