"""What jobs compute, in the worker: a picture over a channel, and what is shown beside it. Radio: radio.py."""

from collections.abc import Callable

import numpy as np

from ..cascade.engine import Engine
from ..images import to_image, to_pixels
from ..link import Link
from ..receiver import Reconstruction
from . import plots, radio, rivals
from .limits import Limits
from .overlays import Overlay
from .pictures import PNG, SVG, cost_of, picture_of, png, quality_of, show, steps_of
from .report import Report, Task

Job = Callable[[Engine, Limits, Task, Report], None]
OVERLAYS: dict[str, Overlay] = {}  # the page offers those that it finds among the results


def over_the_link(engine: Engine, task: Task, report: Report, image: np.ndarray) -> tuple[Link, Reconstruction]:
    """Send the picture as the settings say."""
    asked = task.settings
    link = Link(engine, asked["channel"], **asked["options"])
    report.progress(0.1, "sending the picture")
    tick = steps_of(report, asked["steps"])
    rungs = (1, asked["rungs"])
    return link, link(image, asked["snr_db"], asked["seed"], steps=asked["steps"], progress=tick, rungs=rungs)


def link_job(engine: Engine, limits: Limits, task: Task, report: Report) -> None:
    """A picture over a channel of symbols: sent, received, figures, plots, and what rivals would have shown."""
    pixels = picture_of(task, limits, report)
    show(report, "sent", pixels)
    image = to_image(pixels)
    link, result = over_the_link(engine, task, report, image)
    assert result.sent and result.received
    show(report, "received", to_pixels(result.image))
    header = result.sent.header
    for name, draw in OVERLAYS.items():
        rgba = draw(link, result.received, header, result.image)
        report.result(name, png(rgba), PNG, about={"overlay": True})
    uses = link.channel.uses(result.payload_uses, link.options)
    cost = cost_of(header, uses)
    report.figures(**cost, **quality_of(image, result.image), encode_ms=result.encode_ms, decode_ms=result.decode_ms)
    report.progress(0.8, "drawing the symbols")
    report.result("constellation", plots.constellation(result.received), SVG)
    report.result("response", plots.response(result.received), SVG)
    report.progress(0.85, "asking the rivals")
    shown = rivals.television(pixels, cost["seconds"])
    show(report, "television", shown.pixels, title=shown.name, size=shown.size)
    shown = rivals.codec(pixels, uses, task.settings["snr_db"])
    show(report, "codec", shown.pixels, title=shown.name, size=shown.size)


def prefix_job(engine: Engine, limits: Limits, task: Task, report: Report) -> None:
    """What one prefix of the stream shows."""
    pixels = picture_of(task, limits, report)
    image = to_image(pixels)
    link, result = over_the_link(engine, task, report, image)
    assert result.sent
    show(report, "received", to_pixels(result.image), rungs=task.settings["rungs"])
    uses = link.channel.uses(result.payload_uses, link.options)
    report.figures(**cost_of(result.sent.header, uses), **quality_of(image, result.image))


JOBS: dict[str, Job] = {
    "link": link_job,
    "prefix": prefix_job,
    "signal": radio.signal_job,
    "frame": radio.frame_job,
    "decode": radio.decode_job,
}
