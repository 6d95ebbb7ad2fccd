"""Small plots, made with numpy: SVG that takes its colours from the page's style sheet, and PNG for maps.

Classes of the SVG's parts: plot-frame, plot-grid, plot-dots, plot-line, plot-lost, plot-text.
"""

from collections.abc import Sequence

import numpy as np

from ..channels.base import Received, equalise
from ..images import encode
from ..modem.layout import lay_out, places
from ..modem.profiles import Profile
from ..signals.waterfall import QUIET, RANGE_DB, spectrum

DOTS_MAX, COLUMNS_MAX = 2000, 480  # more symbols are thinned out
DB = -20.0, 40.0  # of the response's axis
SIZE, WIDE, TALL = 240, 480, 220  # units of the SVG
RAMP = np.array(  # from noise to the strongest, RGB
    [(13, 17, 34), (24, 44, 92), (22, 96, 130), (36, 158, 140), (150, 206, 108), (250, 226, 130), (255, 251, 235)],
    float,
)
WATERFALL_HZ, WATERFALL_ROWS, WATERFALL_COLUMNS = 3000.0, 120, 720


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> bytes:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return (head + "".join(parts) + "</svg>").encode()


def path(kind: str, commands: Sequence[str]) -> str:
    return f'<path class="{kind}" d="{"".join(commands)}"/>'


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text class="plot-text" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{words}</text>'


def constellation(received: Received) -> bytes:
    """Equalised symbols in the complex plane, those that arrived."""
    arrived = np.isfinite(np.broadcast_to(received.noise_var, received.y.shape))[0]
    x = np.asarray(equalise(received, mmse=False))[0][arrived]
    x = x[:: max(1, -(-len(x) // DOTS_MAX))]
    span = float(np.clip(np.quantile(np.abs(x), 0.98) * 1.15 if len(x) else 2, 1.5, 8))
    at = lambda values: SIZE / 2 + np.clip(values / span, -0.98, 0.98) * (SIZE / 2 - 4)
    dots = [f"M{a:.1f} {b:.1f}h0" for a, b in zip(at(x.real), at(-x.imag))]
    unit = float(at(np.array(1.0)) - SIZE / 2)
    middle = SIZE / 2
    parts = [
        path("plot-grid", [f"M4 {middle:g}H{SIZE - 4}M{middle:g} 4V{SIZE - 4}"]),
        f'<circle class="plot-grid" cx="{middle:g}" cy="{middle:g}" r="{unit:.1f}"/>',
        path("plot-dots", dots),
        text(middle + unit + 3, middle - 4, "1", "start"),
    ]
    return svg(SIZE, SIZE, f"Constellation of {len(x)} received symbols", parts)


def response(received: Received) -> bytes:
    """Gain over noise of each symbol in dB, in the order of sending; lost symbols are marked below."""
    power = np.abs(np.broadcast_to(received.h, received.y.shape)[0]) ** 2
    noise = np.broadcast_to(received.noise_var, received.y.shape)[0]
    lost = ~np.isfinite(noise)
    db = 10 * np.log10(np.maximum(power, 1e-9) / np.maximum(np.where(lost, 1, noise), 1e-9))
    count = len(db)
    picks = np.unique(np.linspace(0, count - 1, min(count, COLUMNS_MAX)).astype(int))
    left, right, top, bottom = 38.0, WIDE - 8.0, 10.0, TALL - 30.0
    x_of = lambda i: left + (right - left) * i / max(count - 1, 1)
    y_of = lambda v: bottom - (bottom - top) * (np.clip(v, *DB) - DB[0]) / (DB[1] - DB[0])
    there = picks[~lost[picks]]
    line = [
        f"{'M' if i == 0 or there[i - 1] != last else 'L'}{x_of(p):.1f} {y_of(db[p]):.1f}"
        for i, p, last in steps(there, picks)
    ]
    ticks = range(int(DB[0]), int(DB[1]) + 1, 20)
    parts = [
        path("plot-grid", [f"M{left:g} {y_of(v):.1f}H{right:g}" for v in ticks]),
        *(text(left - 5, float(y_of(v)) + 4, f"{v}", "end") for v in ticks),
        path("plot-line", line),
        path("plot-lost", [f"M{x_of(p):.1f} {bottom:g}v-7" for p in picks[lost[picks]]]),
        text((left + right) / 2, TALL - 6, f"{count} symbols, gain over noise in dB"),
    ]
    return svg(WIDE, TALL, f"Gain over noise of {count} symbols", parts)


def steps(there: np.ndarray, picks: np.ndarray):
    """Of each point that is there: its index, its symbol, and the symbol picked before it."""
    before = dict(zip(picks[1:].tolist(), picks[:-1].tolist()))
    return ((i, p, before.get(p)) for i, p in enumerate(there.tolist()))


def coloured(level: np.ndarray) -> bytes:
    """Values [H, W] from 0 to 1 as a PNG in the colours of RAMP."""
    at = np.clip(level, 0, 1) * (len(RAMP) - 1)
    low = np.minimum(at.astype(int), len(RAMP) - 2)
    share = (at - low)[..., None]
    return encode(np.rint(RAMP[low] * (1 - share) + RAMP[low + 1] * share).astype(np.uint8))


def waterfall(samples: np.ndarray, rate_hz: float) -> bytes:
    """Strength of each frequency from 0 to WATERFALL_HZ, upwards, over time; the noise is dark."""
    columns = int(np.clip(len(samples) * 80 / rate_hz, 60, WATERFALL_COLUMNS))  # 80 a second, if there is room
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    least = int(rate_hz / 20)
    power = [
        spectrum(samples[start : max(stop, start + least)], rate_hz, WATERFALL_ROWS, WATERFALL_HZ)
        for start, stop in zip(edges[:-1], edges[1:])
    ]
    db = 10 * np.log10(np.array(power).T[::-1] + 1e-12)
    floor = max(float(np.quantile(db, QUIET)), float(db.max()) - 60)
    return coloured((db - floor) / max(RANGE_DB, float(db.max()) - floor))


def radio_response(received: Received, profile: Profile) -> bytes:
    """Gain of the radio path over time and frequency, upwards, from 30 dB below the strongest."""
    count = received.h.shape[1]
    where = places(lay_out(profile, count), count)  # [symbols, carriers]
    gain = np.abs(received.h[0][where])
    again = np.bincount(where.ravel(), minlength=count)[where] > 1  # their gains are those of all copies together
    gain = np.where(again, np.roll(gain, 1, axis=1), gain)
    gain_db = 20 * np.log10(np.maximum(gain, 1e-6)).T[::-1]
    repeat = -(-WATERFALL_ROWS // len(gain_db)), max(1, 240 // gain_db.shape[1])
    return coloured(np.kron((gain_db - gain_db.max()) / 30 + 1, np.ones(repeat)))
