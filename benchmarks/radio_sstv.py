"""Slow-scan television, Robot 36, for radio.py."""

import functools
import math

import numpy as np
from PIL import Image
from pysstv.color import Robot36

from radio_signals import SIDE, Sent
from semcast.modem.profiles import RATE_HZ
from semcast.signals.filters import analytic, band_pass, resample

COLUMNS, LINES = 320, 240
ENCODER_HZ = 48000  # at 8 kHz pysstv's pixels would have 1 or 2 samples; the signal is made at this rate
BLACK_HZ, WHITE_HZ = 1500.0, 2300.0
# Robot 36, seconds: leader and VIS code; a line; what precedes its brightness and its colour; how long these take
START_S, LINE_S, LUMA_S, CHROMA_S = 0.91, 0.15, (0.012, 0.088), (0.106, 0.044)
BANDS_HZ = ((300.0, 2700.0), (1100.0, 2600.0), (1300.0, 2500.0))
WINDOWS = (3, 5, 9, 15, 25, 41)  # samples over which the discriminator averages
SHIFTS_S = (0.0, 0.001, 0.002)  # of the lines, for the two echoes of watterson-poor


def send_sstv(pixels: np.ndarray, pnr_db: float = 0.0, channel: str = "") -> Sent:
    small = Image.fromarray(pixels).resize((COLUMNS, LINES), Image.Resampling.LANCZOS)
    samples = robot36(small.tobytes())
    return Sent(samples, 0.5, len(samples) / RATE_HZ, small, f"{COLUMNS}x{LINES} pixels")


@functools.lru_cache(maxsize=1)
def robot36(picture: bytes) -> np.ndarray:
    """Samples of a picture of 320x240 pixels."""
    image = Image.frombytes("RGB", (COLUMNS, LINES), picture)
    return resample(np.fromiter(Robot36(image, ENCODER_HZ, 16).gen_values(), np.float32), ENCODER_HZ, RATE_HZ)


def receive_sstv(samples: np.ndarray, sent: Image.Image) -> np.ndarray:
    """Robot 36 by an FM discriminator that knows where lines begin. `sent` chooses filter, window and shift."""
    best, least = None, math.inf
    original = np.asarray(sent, float)
    for band_hz in BANDS_HZ:
        a = analytic(band_pass(samples, RATE_HZ, *band_hz), RATE_HZ, 0, len(samples))
        turn = np.append(a[1:] * a[:-1].conj(), 0)  # its angle is the frequency half a sample later
        for window in WINDOWS:
            smooth = np.convolve(turn, np.hanning(window + 2), "same")
            for shift_s in SHIFTS_S:
                picture = scan(smooth, START_S + shift_s)
                error = float(np.mean((np.asarray(picture, float) - original) ** 2))
                if error < least:
                    best, least = picture, error
    assert best is not None
    return np.asarray(best.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def scan(turn: np.ndarray, start_s: float) -> Image.Image:
    """The picture of 320x240 pixels in a discriminator's output, complex [N], whose first line begins at `start_s`."""
    place = lambda at_s, length_s: (
        start_s + LINE_S * np.arange(LINES)[:, None] + at_s + length_s * (np.arange(COLUMNS) + 0.5) / COLUMNS
    )
    at = np.stack([place(*LUMA_S), place(*CHROMA_S)]) * RATE_HZ - 0.5  # [2, LINES, COLUMNS]
    hz = np.angle(np.interp(at, np.arange(len(turn)), turn)) * (RATE_HZ / (2 * math.pi))
    luma, chroma = np.clip(255 * (hz - BLACK_HZ) / (WHITE_HZ - BLACK_HZ), 0, 255)
    red, blue = (np.repeat(chroma[first::2], 2, axis=0) for first in (0, 1))  # a line sends one of them, for two lines
    return Image.fromarray(np.stack([luma, blue, red], axis=2).round().astype(np.uint8), "YCbCr").convert("RGB")
