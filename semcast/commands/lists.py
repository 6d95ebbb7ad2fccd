"""`semcast channels`, `models` and `completion`: what there is, and how to bring more of it."""

import argparse
import json
from pathlib import Path

from ..cascade.models import describe as describe_model
from ..cascade.models import find_model, known_models
from ..channels.catalogue import CHANNELS, MISMATCH
from ..errors import InputError, require
from ..files import check_output
from ..signals.air import EFFECTS, PATHS
from .radio import OPTIONS, SUFFIXES

PLOTS = (".png", ".svg", ".pdf", ".jpg")


def channels(args) -> None:
    if args.plot:
        if args.plot.suffix.lower() not in PLOTS:
            raise InputError(f"cannot write {args.plot}: plots are written as {', '.join(PLOTS)}")
        check_output(args.plot, force=args.force)
        require("--plot", "matplotlib", "sionna")
        from ..channels.plot import plot

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
    print(f"\nradio paths, for signals ({SUFFIXES})")
    for path in PATHS.values():
        echoes = (
            ""
            if path.doppler_hz is None
            else f"; two paths {path.delay_ms:g} ms apart, fading at {path.doppler_hz:g} Hz"
        )
        print(f"{path.name:18s} {path.about}{echoes}")
    for flag, key in OPTIONS.items():
        print(describe_option(flag, EFFECTS[key]))
    print(f"{'':18s}e.g. semcast channel photo.wav -o arrived.wav --snr3k 10 --channel watterson-poor --offset 30")


def describe_option(key: str, option) -> str:
    return f"{'':18s}{key} = {option}{option.unit and ' '}{option.unit}  ({option.range})  {option.about}"


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
    say = lambda line: print(line, flush=True)
    if args.name == "lpips":
        require("LPIPS", "torch", "torchvision", *(() if args.sources else ("torchmetrics",)))
        from ..metrics.lpips import fetch_lpips

        print(f"LPIPS weights are in {fetch_lpips(args.sources)}; run, bench and train find them there")
        return
    require("fetching", "torch", "torchvision", "filelock", *(() if args.sources else ("huggingface_hub",)))
    from ..cascade import hub

    folder = hub.fetch(args.name, args.sources, args.revision, args.accept_license, args.decoder, say=say)
    print(f"{args.name} is in {folder}: semcast run photo.jpg --snr 10 --model {args.name}")


def export(args) -> None:
    source = find_model(args.name).folder
    assert source is not None  # `find_model` refuses a model that has not been fetched
    from ..cascade.export import export as export_model
    from ..cascade.onnx_engine import GRAPHS

    for name in GRAPHS:
        if args.out.is_dir():
            check_output(args.out / f"{name}.onnx", force=args.force)

    export_model(source, args.out, say=lambda line: print(line, flush=True))


def completion(args) -> None:
    import shtab

    from ..cli import build_parser

    parsers = [build_parser()]
    for parser in parsers:
        for action in parser._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    print(shtab.complete(parsers[0], args.shell))
