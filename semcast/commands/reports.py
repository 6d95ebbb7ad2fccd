"""Report rows for the transmissions found in recordings: a row each, for programs and for people."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..channels.base import Received
from ..header import Header
from ..modem import profiles
from ..modem.layout import duration_s
from ..modem.reception import Reception

ROUND = 3  # decimals of what is measured


def row_of(path: Path, start_s: float, reception: Reception, header: Header | None) -> dict[str, Any]:
    """What is known of a transmission that was found; without a header, less."""
    about = dict.fromkeys(("header", "width", "height", "rungs", "symbols", "seconds", "noise"))
    if header and reception.header:
        about = {
            "header": reception.header.hex(),
            "width": header.width,
            "height": header.height,
            "rungs": list(header.rungs),
            "symbols": header.channel_uses,
            "seconds": round(duration_s(profiles.PROFILES[reception.profile], header.channel_uses), ROUND),
            "noise": round(noise_level(reception.received), ROUND),
        }
    measured = {
        name: round(value, ROUND) if isinstance(value, float) else value
        for name, value in reception.report._asdict().items()
    }
    return {"recording": str(path), "start_s": round(start_s, ROUND), "profile": reception.profile} | about | measured


def noise_level(received: Received) -> float:
    """Mean share of noise in the estimates of the symbols, from 0 to 1; it is 1 where nothing arrived."""
    _, h, noise_var = received
    with np.errstate(invalid="ignore"):
        level = noise_var / (np.abs(h) ** 2 + noise_var)
    return float(np.mean(np.where(np.isfinite(level), level, 1.0)))


def as_json(row: dict) -> str:
    return json.dumps(row, allow_nan=False, separators=(",", ":"))


def sentence(row: dict) -> str:
    """A row for a person."""
    words = f"{row['recording']} at {row['start_s']:.1f} s: {row['profile']}, "
    if row["header"]:
        words += f"{row['width']}x{row['height']} pixels, rungs {row['rungs'][0]}-{row['rungs'][1]}, "
    else:
        words += "header damaged, "
    return words + (
        f"Es/N0 {row['snr_db']:.1f} dB, {row['snr3k_db']:.1f} dB in 3 kHz, offset {row['offset_hz']:.1f} Hz, "
        f"clock {row['clock_ppm']:.0f} ppm, spread {row['delay_spread_ms']:.1f} ms and {row['doppler_spread_hz']:.1f} Hz, "
        f"level {row['level_dbfs']:.0f} dBFS"
    )
