"""Jobs of the radio: a picture as sound over a radio path, a frame as a file, and what a recording or a frame holds."""

import numpy as np

from ..cascade.engine import Engine
from ..channels.base import Received
from ..commands.recordings import Part, group, merge_receptions
from ..errors import InputError, Lost
from ..frame import MAGIC, noiseless, parse, to_bytes
from ..header import Header
from ..images import to_image, to_pixels
from ..link import Link
from ..modem.layout import duration_s
from ..modem.profiles import PROFILES, RATE_HZ
from ..modem.receive import find
from ..modem.reception import Reception
from ..modem.side import from_air, n_symbols, to_air
from ..modem.transmit import SYMBOLS_MAX, modulate
from ..randomness import stream
from ..signals.air import propagate
from ..signals.audio import PEAK_DBFS, decode_audio, encode_audio, set_peak, to_int16
from . import plots
from .limits import Limits
from .pictures import PNG, SVG, cost_of, picture_of, quality_of, show, steps_of
from .report import Report, Task

WAV, FRAME = "audio/wav", "application/octet-stream"
PICTURES_MAX = 4  # that are decoded from one recording
DECIMALS = 2


def signal_job(engine: Engine, limits: Limits, task: Task, report: Report) -> None:
    """A picture as a sound, over a radio path, and received from what arrives."""
    asked = task.settings
    pixels = picture_of(task, limits, report)
    show(report, "sent", pixels)
    image = to_image(pixels)
    report.progress(0.1, "making the sound")
    header, x = Link(engine).send(image, rungs=(1, asked["rungs"]))
    assert not isinstance(x, bytes)  # the link is an analog one
    if x.shape[1] > SYMBOLS_MAX:
        raise InputError(f"{x.shape[1]} symbols are more than the {SYMBOLS_MAX} of one sound; choose fewer rungs")
    profile = PROFILES[asked["profile"]]
    samples = modulate(x[0], to_air(header), profile)
    give_sound(report, "sound", samples, "semcast.wav")
    figures = cost_of(header, header.channel_uses) | {"seconds": duration_s(profile, header.channel_uses)}
    report.figures(**figures, profile=profile.name)
    report.progress(0.2, "on the air")
    random = stream(asked["seed"], "channel")
    options = {"snr3k_db": asked["snr3k_db"], "offset_hz": asked["offset_hz"]}
    arrived = propagate(samples, RATE_HZ, asked["path"], generator=random, **options)
    arrived = set_peak(arrived, PEAK_DBFS)
    give_sound(report, "arrived", arrived, "semcast-arrived.wav")
    for image_received in hear(engine, task, report, arrived, 0.25):
        report.figures(**quality_of(image, image_received))
        break


def frame_job(engine: Engine, limits: Limits, task: Task, report: Report) -> None:
    """A picture as a frame file, for another machine."""
    pixels = picture_of(task, limits, report)
    report.progress(0.3, "encoding")
    header, x = Link(engine).send(to_image(pixels), rungs=(1, task.settings["rungs"]))
    report.result("frame", to_bytes(header, x), FRAME, "semcast.sem")
    report.figures(**cost_of(header, header.channel_uses))


def decode_job(engine: Engine, limits: Limits, task: Task, report: Report) -> None:
    """A recording or a frame that was uploaded -> its pictures."""
    assert task.upload is not None
    if task.upload.startswith(MAGIC):
        return receive_frame(engine, task, report, task.upload)
    report.progress(0.05, "reading the recording")
    samples = decode_audio(task.upload, "this file", limits.recording_s)
    give_sound(report, "arrived", set_peak(samples, PEAK_DBFS), "")
    hear(engine, task, report, samples, 0.1)


def receive_frame(engine: Engine, task: Task, report: Report, data: bytes) -> None:
    header, signal = parse(data, "this frame")
    if isinstance(signal, bytes):
        raise InputError("this frame holds a digital packet, which the page does not read; use `semcast receive`")
    received = signal if isinstance(signal, Received) else noiseless(signal)
    report.figures(**cost_of(header, header.channel_uses))
    draw_symbols(report, received)
    receive(engine, task, report, [(received, header)], 0.2, 0.9)


def hear(engine: Engine, task: Task, report: Report, samples: np.ndarray, share: float) -> list[np.ndarray]:
    """Find the transmissions in samples [N] and show what they hold; those of one picture are combined.

    Returns the pictures, [1, 3, H, W] each.
    """
    about = {"seconds": len(samples) / RATE_HZ, "high_hz": plots.WATERFALL_HZ}
    report.result("waterfall", plots.waterfall(samples, RATE_HZ), PNG, about=about)
    report.progress(share, "listening for a transmission")
    found = find(samples, n_symbols)
    heard = [(one, header) for one in found if one.header and (header := from_air(one.header))]
    report.figures(transmissions=[row(one) for one in found])
    if not heard:
        damaged = "a transmission was heard, but its header is damaged" if found else "no transmission was found in it"
        raise Lost(damaged + "; send it again, louder or with less noise")
    first = heard[0][0]
    draw_symbols(report, first.received, first)
    parts = [Part(f"at {one.start / RATE_HZ:.1f} s", header, one.received) for one, header in heard]
    groups = group(parts)[:PICTURES_MAX]
    begin, pictures = share + 0.15, []
    width = (0.95 - begin) / len(groups)
    for i, same in enumerate(groups):
        now = begin + i * width
        pictures.append(receive(engine, task, report, merge_receptions(same), now, now + width))
    return pictures


def receive(
    engine: Engine, task: Task, report: Report, parts: list[tuple[Received, Header]], first: float, last: float
) -> np.ndarray:
    """The transmissions of one picture as that picture, [1, 3, H, W]."""
    steps, ((arrived, header), *others) = task.settings["steps"], parts
    tick = steps_of(report, steps, first, last)
    image = Link(engine).receive(arrived, header, steps, tick, task.settings["seed"], others)
    show(report, "received", to_pixels(image))
    return image


def draw_symbols(report: Report, received: Received, reception: Reception | None = None) -> None:
    report.result("constellation", plots.constellation(received), SVG)
    if reception:
        drawn = plots.radio_response(received, PROFILES[reception.profile])
        report.result("radio-response", drawn, PNG, about=row(reception))
    else:
        report.result("response", plots.response(received), SVG)


def row(reception: Reception) -> dict[str, float | str]:
    """What was measured of a transmission, for the page."""
    measured = reception.report._asdict() | {"start_s": reception.start / RATE_HZ, "profile": reception.profile}
    return {name: round(v, DECIMALS) if isinstance(v, float) else v for name, v in measured.items()}


def give_sound(report: Report, name: str, samples: np.ndarray, filename: str) -> None:
    report.result(name, encode_audio(to_int16(samples)), WAV, filename, {"seconds": len(samples) / RATE_HZ})
