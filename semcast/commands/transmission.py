"""`semcast send`, `channel`, `receive`: the link in three programs that share nothing but a file; `info` and `compare`."""

import json
import sys

from ..channels.catalogue import find_channel
from ..errors import InputError, Lost
from ..files import STDIO, check_file, check_output, check_suffix
from ..header import bandwidth_ratio
from . import asking
from .common import check_link, check_metrics, hint_at_size, load_link, load_metrics, notice, progress_bar, show_row
from .confidence import check_calibration, check_confidence, tell_confidence
from .radio import by_radio, check_frames_only, check_kind, check_send, is_recording, send_signal, signal_channel
from .rate import check_rate, choose_packet, choose_rungs, tell_packet


def send(args) -> None:
    if not args.output and args.play is None:
        raise InputError("the following arguments are required: -o/--output (see `semcast send --help`)")
    given = (args.snr is not None) + (args.bytes is not None)
    check_rate(args)
    reply = asking.take_reply(args)
    if args.quality is not None and not reply and (args.snr is None or args.bytes is not None):
        raise InputError("--quality holds for an SNR; give --snr DB with it")
    if args.mode == "mixed" and (args.snr is None or args.bytes is not None):
        raise InputError("--mode mixed needs --snr DB: its packet is made for an SNR")
    if given != (args.mode != "analog" or (args.quality is not None and not reply)):
        raise InputError(
            "give either --snr or --bytes with --mode digital, and neither without: analog symbols suit any channel"
        )
    check_file(args.image, "picture")
    check_send(args)
    check_link(args)
    from ..frame import write_frame
    from ..images import read_image

    image = read_image(args.image)
    try:
        link = load_link(args)
        if reply:
            rungs = asking.continue_rungs(args, link, image, reply)
            if rungs is None:
                return notice("%s has arrived well enough; nothing more is to be sent", args.image)
        else:
            rungs = choose_rungs(args, link, image, args.snr)
        packet = choose_packet(args, link, image)
        header, content = link.send(image, args.snr, args.bytes, args.factor, rungs, packet)
        tell_packet(packet, header, args.snr)
    except Lost as error:  # no scheme can carry it: nothing was lost yet
        raise InputError(str(error)) from None
    if by_radio(args) and not isinstance(content, bytes):
        send_signal(args, header, content)
    else:
        write_frame(args.output, header, content)
    if not isinstance(content, bytes):
        hint_at_size(str(args.image), header.height, header.width, header.channel_uses)


def channel(args) -> None:
    if check_kind(args):
        return signal_channel(args)
    simulate = find_channel(args.channel)
    options = simulate.parse(args.channel_option)
    check_file(args.frame, "frame")
    check_output(args.output, [args.frame], args.force)
    from ..channels.base import Received
    from ..frame import read_frame, write_frame
    from ..header import Transmission
    from ..modulation.modems import on_air
    from ..randomness import stream

    header, content = read_frame(args.frame)
    if isinstance(content, Received):
        raise InputError(f"{args.frame} has been through a channel already; start from the frame that was sent")
    x = on_air(Transmission(header, content))
    write_frame(args.output, header, simulate(x, args.snr, [stream(args.seed, "channel")], **options))


def receive(args) -> None:
    if args.frames.count(STDIO) > 1:
        raise InputError("stdin holds one frame; give - once")
    if args.listen is not None:
        from .listening import listen

        return listen(args)
    if not args.frames:
        raise InputError("name a frame or a recording, or give --listen (see `semcast receive --help`)")
    if any(is_recording(path) for path in args.frames):
        from . import recordings

        return recordings.receive(args)
    check_frames_only(args)
    for path in args.frames:
        check_file(path, "frame")
    check_output(args.output, args.frames, args.force)
    check_suffix(args.output)
    asking.check_asking(args, args.frames)
    check_confidence(args, args.frames)
    from ..frame import read_frames
    from ..images import write_image
    from ..modulation.modems import draft

    (arrived, header), *others = transmissions = read_frames(args.frames)
    if args.reply and any(header.mode != "analog" for _, header in transmissions):
        raise InputError("a packet arrives whole or is lost, so there is no --reply to it")
    link = load_link(args)
    check_calibration(args, link, [header for _, header in transmissions])
    steps = args.steps or link.engine.config.steps
    with progress_bar(steps, args.frames[0].name, quiet=args.quiet) as tick:
        image = link.receive(arrived, header, args.steps, tick, args.seed, others)
    write_image(args.output, image)
    if any(header.packet_uses for _, header in transmissions) and not draft(link.modems, transmissions):
        notice("the packet was lost; %s is the base's picture", args.output)
    if args.confidence:
        tell_confidence(args, link, transmissions, image, args.output, args.confidence)
    if args.reply:
        asking.answer(args, link, transmissions)


def info(args) -> None:
    if asking.is_reply(args.frame):
        return asking.info(args)
    if is_recording(args.frame):
        from . import recordings

        return recordings.info(args)
    check_frames_only(args)
    check_file(args.frame, "frame")
    from ..channels.base import Received
    from ..frame import read_frame
    from ..modulation.digital import find_scheme

    header, content = read_frame(args.frame)
    packet = isinstance(content, bytes)
    row = {
        "frame": str(args.frame),
        "state": "received" if isinstance(content, Received) else "sent",
        "mode": header.mode,
        "width": header.width,
        "height": header.height,
        "factor": header.factor,
        "encoder_id": f"{header.encoder_id:04x}",
        "transmission_id": header.transmission_id,
        "scheme": str(find_scheme(header)) if header.scheme else None,
        "payload_bytes": len(content) if packet else None,
        "symbols": None if packet else header.channel_uses,
        "bandwidth_ratio": None if packet else bandwidth_ratio(header.channel_uses, header.height, header.width),
        "rungs": list(header.rungs),
        "packet_uses": header.packet_uses,
        "side_bits": header.side_bits,
    }
    show_row(row, args.json)


def compare(args) -> None:
    for path in (args.original, args.other):
        check_file(path, "picture")
    check_metrics(args)
    from ..images import read_image
    from ..metrics.measure import measure

    original, other = read_image(args.original), read_image(args.other)
    if original.shape != other.shape:
        sizes = [f"{image.shape[3]}x{image.shape[2]}" for image in (original, other)]
        raise InputError(f"{args.original} is {sizes[0]} pixels and {args.other} {sizes[1]}; only equal sizes compare")
    values = measure(original, other, load_metrics(args.lpips))
    row = {"original": str(args.original), "other": str(args.other), **values}
    if args.json or not sys.stdout.isatty():
        print(json.dumps(row, allow_nan=False, separators=(",", ":")))
        return
    for name, value in values.items():
        print(f"{name:12s} {'-' if value is None else format(value, '.2f' if name == 'psnr_db' else '.4f')}")
