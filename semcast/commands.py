"""What the commands do: a function each, which calls the library and prints. No maths here.

`args` are what cli.py parsed. Importing torch takes seconds, so the library is imported inside the functions.
"""

import contextlib
import json
import sys
from pathlib import Path

from .errors import InputError

SEED_MAX = 2**32 - 1


def demo(args) -> None:
    from . import demo as demo_module

    folder = make_folder(args.out)
    rows = demo_module.run(folder / "demo.png")
    print("snr_db  psnr_db  ms_ssim  channel_uses  side_bits")
    for row in rows:
        print(f"{row['snr_db']:6.0f}  {row['psnr_db']:7.2f}  {row['ms_ssim']:7.3f}  {row['channel_uses']:12d}  {row['side_bits']:9d}")
    print(f"{folder / 'demo.png'}: the photo as sent, and as received at each SNR")


def run(args) -> None:
    from . import images, metrics
    from .roundtrip import describe, round_trip

    check_run(args)
    link = load_link(args)
    folder = make_folder(args.out)
    lpips = load_metrics(args)
    for i, path in enumerate(args.images):
        image = images.read_image(path)
        bar = progress_bar(args.steps or link.cascade.config.steps, path.name)
        trip = round_trip(link, image, args.snr, args.seed + i, args.mode == "digital", args.factor, args.steps, args.device, bar)
        images.write_image(folder / f"{path.stem}.png", trip.image)
        quality = metrics.measure(image, trip.image, lpips)
        if quality["ms_ssim"] is None:
            print(f"semcast: ms_ssim of {path} is null: it needs sides of at least {metrics.MS_SSIM_SIDE_MIN} pixels", file=sys.stderr)
        print(json.dumps(describe(trip, link, path, quality), allow_nan=False, separators=(",", ":")), flush=True)


def check_run(args) -> None:
    """Before minutes of work, not after."""
    from .images import read_image
    from .transmitter import check_sides

    stems = [path.stem for path in args.images]
    if twice := sorted({s for s in stems if stems.count(s) > 1}):
        raise InputError(f"two pictures would be written to {args.out / twice[0]}.png; run them with different --out")
    if args.seed + len(stems) - 1 > SEED_MAX:
        raise InputError(f"seed {args.seed} + {len(stems) - 1} is above {SEED_MAX}")
    for path in args.images:
        check_sides(*read_image(path).shape[-2:])
        if (args.out / f"{path.stem}.png").resolve() == path.resolve():
            raise InputError(f"{path} would be overwritten by what is received of it; choose another --out")


def load_metrics(args) -> dict:
    """The LPIPS networks whose weights are here, by name; stderr says why another is not."""
    from .lpips import load_lpips

    lpips = {}
    for network in ("alex", "vgg"):
        try:
            lpips[network] = load_lpips(network, args.lpips, args.fetch_metrics)
        except InputError as error:
            print(f"semcast: {'lpips' if network == 'alex' else 'lpips_vgg'} is null: {error}", file=sys.stderr)
    return lpips


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


def receive(args) -> None:
    from . import frame, images
    from .link import move

    header, signal = frame.read_frames(args.frames)
    check_folder(args.output)
    link = load_link(args)
    received = move(link.unpack(signal, header), args.device)
    with progress_bar(args.steps or link.cascade.config.steps, args.frames[0].name) as tick:
        images.write_image(args.output, link.receive(received, header, args.steps, tick))


def bench(args) -> None:
    from .bench import harness, systems, workers
    from .bench.pictures import Pictures, SmokePictures
    from .bench.unit import Setting
    from .channel import find_channel
    from .memory import keep_freed_memory

    if args.list:
        for name, system in systems.SYSTEMS.items():
            print(f"{name:18s} {system.about}")
        return
    needed = {"--systems": args.smoke or args.systems, "--data": args.smoke or args.data, "--out": args.out}
    if (args.labels is None) != (args.segmenter is None):
        raise InputError("--labels and --segmenter go together: mIoU needs both")
    if lacking := [flag for flag, value in needed.items() if not value]:
        raise InputError(f"{lacking[0]} is missing (see `semcast bench --help`)")
    options = find_channel(args.channel).parse(args.channel_option)
    if args.smoke:
        shorten(args)
    setting = Setting(
        channel=args.channel,
        options=tuple(options.items()),
        uses=args.uses,
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
        rows, new = harness.bench(args.systems, pictures, snrs, args.draws, folder, setting, processes, args.ray, progress=tick)
    print(json.dumps({"out": str(folder / harness.ROWS), "rows": rows, "new": new}))


def shorten(args) -> None:
    """Systems, SNRs and draws of `bench --smoke`."""
    from .bench import harness, systems

    given = args.systems
    args.systems = given or [name for name in harness.SMOKE if not systems.missing(name)]
    args.snr, args.draws, args.headline = harness.SMOKE_SNRS_DB, 1, harness.SMOKE_SNRS_DB[-1:]
    if left_out := [name for name in harness.SMOKE if name not in args.systems and not given]:
        print(f"semcast: without {', '.join(left_out)}: pip install 'semcast[bench,phy]' brings what they need", file=sys.stderr)


def bench_report(args) -> None:
    from .bench.report import report

    print(report(args.folder))


def train(args) -> None:
    import os

    import torch

    from .cascade.model import Cascade, small_config
    from .data import Photos
    from .lpips import load_lpips
    from .memory import keep_freed_memory
    from .models import check_device, load_model, pick_device
    from .presets import PRESETS, with_settings
    from .train import train as train_model

    config = with_settings(PRESETS[args.preset], args.set)
    if args.init == "new" and config.phase not in ("autoencoder", "code"):
        raise InputError(f"--preset {args.preset} trains a model that has learnt before; name it with --init (small, a folder ...)")
    device = pick_device(args.device)
    device = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device
    check_device(device)
    keep_freed_memory()
    photos = Photos(args.data)
    torch.manual_seed(config.seed)
    cascade = Cascade(small_config()) if args.init == "new" else load_model(args.init, dtype="float32")
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


def load_link(args):
    from .channel import find_channel
    from .link import Link
    from .models import load_model, pick_device

    args.device, name = pick_device(args.device), getattr(args, "channel", "awgn")
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
