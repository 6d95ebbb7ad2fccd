"""What the systems of radio.py share: a signal, its peak, the path that it takes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from semcast.modem.profiles import PROFILES, RATE_HZ
from semcast.randomness import seeded
from semcast.signals import air
from semcast.signals.power import active_power

SIDE = 512  # pixels of a picture
SNRS_DB = (10.0, 5.0, 0.0, -3.0)  # of semcast's signal in 3 kHz
CHANNELS = ("awgn", "watterson-poor")
PATH_S = 37.5  # how long a path is drawn
PROFILE = PROFILES["fast"]
LIMITS_S = {1: 1.11, 4: 4.44, 36: 36.0}  # on the air
LEAD_S = 0.01  # of silence at each end of one transmission


class Sent(NamedTuple):
    """A signal, and what its receiver knows."""

    samples: np.ndarray  # float32 [N] at 8 kHz
    peak: float  # power of a steady tone as strong as the envelope at its highest
    seconds: float  # on the air
    known: Any
    about: str = ""


class System(NamedTuple):
    """A sender, (pixels, pnr_db, channel) -> Sent, and a receiver, (samples, known) -> pixels, or None: lost."""

    send: Callable[[np.ndarray, float, str], Sent]
    receive: Callable[[np.ndarray, Any], np.ndarray | None]


def peak_power(samples: np.ndarray) -> float:
    """Power of a steady tone whose envelope is as high as that of samples [N] at its highest, between samples too."""
    spectrum = np.fft.rfft(samples)
    spectrum[1:] *= 2
    envelope = np.abs(np.fft.ifft(spectrum, 4 * len(samples))) * 4
    return float(envelope.max()) ** 2 / 2


def crest_db(sent: Sent) -> float:
    """Peak envelope power over mean power while active; 0 for a constant envelope."""
    return 10 * math.log10(sent.peak / active_power(sent.samples, RATE_HZ))


def over_path(sent: Sent, channel: str, pnr_db: float, *seed: int | str) -> np.ndarray:
    """What a receiver hears of a signal, float32 [N]. Equal seeds give equal fading and noise, whatever is sent."""
    padded = np.pad(sent.samples, (0, round(PATH_S * RATE_HZ) - len(sent.samples)))
    snr_db = pnr_db - crest_db(sent)
    heard = air.propagate(padded, RATE_HZ, channel, snr3k_db=snr_db, generator=seeded("radio", channel, *seed))
    return heard[: len(sent.samples) + RATE_HZ // 10]
