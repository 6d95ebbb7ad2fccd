"""`semcast bench` and `train`: hours of work, which can be interrupted and go on where they stopped."""

import json
from pathlib import Path

from ..bench.named import find_beside, find_data
from ..cascade.config import small_config
from ..cascade.models import find_model
from ..channels.catalogue import find_channel
from ..errors import InputError, brings, require
from ..files import make_folder
from ..training.config import PHASES, PRESETS, with_settings
from .common import notice


def bench(args) -> None:
    needed = {"--systems": args.smoke or args.systems, "--data": args.smoke or args.data, "--out": args.out}
    if args.data and not (args.list or args.smoke):
        find_named(args)
    if (args.labels is None) != (args.segmenter is None):
        raise InputError("--labels and --segmenter go together: mIoU needs both")
    if not args.list and (lacking := [flag for flag, value in needed.items() if not value]):
        raise InputError(f"{lacking[0]} is missing (see `semcast bench --help`)")
    options = find_channel(args.channel).parse(args.channel_option)
    require("bench", "torch", "torchvision", "torchmetrics")
    from ..bench import harness, systems, workers
    from ..bench.pictures import Pictures, SmokePictures
    from ..bench.progress import work_bar
    from ..bench.unit import Setting
    from ..cascade.device import keep_freed_memory

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
    if args.systems == ["all"]:
        args.systems, others = harness.runnable(setting)
        if others:
            notice("without %s; `--systems NAME` says what one of them needs", others)
    keep_freed_memory()
    pictures = SmokePictures() if args.smoke else Pictures(args.data, args.size, args.limit, args.labels)
    folder, processes = make_folder(args.out), args.workers or workers.default_workers()
    with work_bar(folder.name, args.quiet) as tick:
        snrs = list(dict.fromkeys(args.snr))
        rows, new = harness.bench(
            args.systems, pictures, snrs, args.draws, folder, setting, processes, args.ray, progress=tick
        )
    print(json.dumps({"out": str(folder / harness.ROWS), "rows": rows, "new": new}))


def find_named(args) -> None:
    """Replace names in `bench --data` by paths. A data set alone brings its labels and segmenter, if it has both."""
    names, args.data = args.data, [find_data(source) for source in args.data]
    if names != args.data and len(names) == 1 and not (args.labels or args.segmenter):
        labels = find_beside(str(names[0]), "-labels", "-labels.tar")
        segmenter = find_beside(str(names[0]), "-segmenter.safetensors")
        if labels and segmenter:
            args.labels, args.segmenter = labels, segmenter


def shorten(args) -> None:
    """Systems, SNRs and draws of `bench --smoke`."""
    from ..bench import harness, systems

    given = args.systems
    args.systems = given or [name for name in harness.SMOKE if not systems.missing(name)]
    args.snr, args.draws, args.headline = harness.SMOKE_SNRS_DB, 1, harness.SMOKE_SNRS_DB[-1:]
    if left_out := [name for name in harness.SMOKE if name not in args.systems and not given]:
        notice("without %s: %s brings what they need", ", ".join(left_out), brings("bench"))


def bench_report(args) -> None:
    from ..bench.report import report

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
    from ..cascade.device import keep_freed_memory
    from ..cascade.loading import load_torch
    from ..cascade.model import new_cascade
    from ..metrics.lpips import load_lpips
    from ..training.data import Photos
    from ..training.processes import own_device, writes
    from ..training.train import train as train_model

    device = own_device(args.device)
    keep_freed_memory()
    photos = Photos(args.data, strict=args.strict)
    photos.check_heads()  # before the networks are loaded
    cascade = new_cascade(small_config(), config.seed) if args.init == "new" else load_torch(start, dtype="float32")
    command = f"semcast train --preset {args.preset} --init {args.init} " + " ".join(f"--set {s}" for s in args.set)
    lpips = load_lpips("vgg", args.lpips) if phase.needs_lpips else None
    model = train_model(
        cascade,
        photos,
        config,
        args.out,
        lpips,
        device,
        args.resume,
        command.strip(),
        args.cache,
        progress=not args.quiet,
        other_data=args.other_data,
    )
    if writes():
        print(model)
