"""From symbols to samples: OFDM, clipped to a low peak, filtered into its band."""

import numpy as np

from ..errors import InputError
from . import code
from .layout import Layout, lay_out, pilot_signs, places
from .profiles import (
    BOOST_DB,
    HEADER_BYTES,
    PREAMBLE,
    PREAMBLE_PREFIX,
    PREFIX,
    RATE_HZ,
    REPEATS,
    SPACING_HZ,
    USEFUL,
    Profile,
)

HEADROOM_DB = (
    3.0  # clip level over the payload's mean power. The envelope's peak is 4.1 to 4.6 dB over its mean in the end
)
CLIPS = 2  # clip and filter so often; filtering lets peaks grow again
EDGE_HZ = 100.0  # width of the filter's slopes, which begin 50 Hz outside the outer carriers
PEAK = 0.9  # largest sample: what resamples it later needs some room
# What that does to the payload and, being boosted, the header: gain beside the pilots, signal over distortion.
PAYLOAD_GAIN, SELF_NOISE_DB = 0.9, 17.5
HEADER_BOOST_DB, HEADER_GAIN, HEADER_NOISE_DB = 4.0, 1.065, 11.7  # more boost only adds distortion
SYMBOLS_MIN, SYMBOLS_MAX = 16, 50_000


def modulate(
    x: np.ndarray, header: bytes, profile: Profile, lead_s: float = 0.2, headroom_db: float = HEADROOM_DB
) -> np.ndarray:
    """The samples of one transmission, float32 [n] at 8 kHz within -0.9 .. 0.9.

    Args:
        x: symbols [k] complex with mean |x|^2 = 1, k from 16 to 50,000, the most important first.
        header: 13 bytes, which the receiver must be able to check, so with a checksum in them.
        lead_s: silence before and after, for radios that switch slowly.
        headroom_db: clip level over the payload's mean power. Lower gives more power from the same peak, and more
            distortion: at 3 dB it is 17.5 dB below the symbols, which is what the receiver reckons with.
    Raises:
        InputError: x or header has another size.
    """
    if not SYMBOLS_MIN <= len(x) <= SYMBOLS_MAX:
        raise InputError(f"{len(x)} symbols; the modem takes from {SYMBOLS_MIN} to {SYMBOLS_MAX}")
    if len(header) != HEADER_BYTES:
        raise InputError(f"the header has {len(header)} bytes; the modem takes {HEADER_BYTES}")
    layout = lay_out(profile, len(x))
    lead = round(lead_s * RATE_HZ)
    gain = 1.0
    for _ in range(2):  # the first time to see what the clipping takes from this payload
        values = carriers(layout, x, header, gain)
        a = np.pad(envelope(layout, values), lead)
        for _ in range(CLIPS):
            a = band_pass(clip(a, headroom_db), profile)
        gain *= PAYLOAD_GAIN / payload_gain(layout, a[lead : lead + layout.length], values / gain)
    samples = np.real(a)
    return (samples * (PEAK / np.abs(samples).max())).astype(np.float32)


def carriers(layout: Layout, x: np.ndarray, header: bytes, gain: float = 1.0) -> np.ndarray:
    """Values of the carriers in all symbols of data, [data, C] complex; those of the payload times `gain`."""
    profile, boost = layout.profile, 10 ** (HEADER_BOOST_DB / 20)
    count = profile.header_symbols * profile.carriers
    front, end = (boost * code.encode(header, count, part).reshape(-1, profile.carriers) for part in (0, 1))
    return np.concatenate([front, gain * x[places(layout, len(x))], end])


def payload_gain(layout: Layout, a: np.ndarray, values: np.ndarray) -> float:
    """By what the analytic signal a [length] carries the payload in `values` [data, C] larger than it is."""
    part = layout.profile.header_symbols
    rows = slice(part, layout.data - part)
    useful = a[(layout.data_at[rows] + PREFIX)[:, None] + np.arange(USEFUL)]
    seen = np.fft.fft(useful)[:, layout.profile.bins] * (np.sqrt(layout.profile.carriers) / USEFUL)
    return float(np.vdot(values[rows], seen).real / np.vdot(values[rows], values[rows]).real)


def envelope(layout: Layout, values: np.ndarray) -> np.ndarray:
    """The analytic signal [length] complex whose mean power is 1 where the carriers' is."""
    profile, boost = layout.profile, 10 ** (BOOST_DB / 20)
    a = np.zeros(layout.length, complex)
    a[:PREAMBLE] = boost * known_burst(profile, "pre")
    a[-PREAMBLE:] = boost * known_burst(profile, "post")
    known = boost * profile.known("pre") * pilot_signs(layout.pilots)[:, None]
    for at, symbols in ((layout.data_at, values), (layout.pilots_at, known)):
        useful = in_time(symbols, profile)
        symbol = np.concatenate([useful[:, -PREFIX:], useful], axis=1)
        a[at[:, None] + np.arange(symbol.shape[1])] = symbol
    return a


def known_burst(profile: Profile, kind: str) -> np.ndarray:
    """The preamble ("pre") or postamble ("post") as an analytic signal [704] of mean power 1."""
    useful = in_time(profile.known(kind), profile)
    return np.concatenate([useful[-PREAMBLE_PREFIX:], np.tile(useful, REPEATS)])


def in_time(values: np.ndarray, profile: Profile) -> np.ndarray:
    """Carriers [..., C] -> one period of their sum [..., 160], of the same mean power."""
    spectrum = np.zeros((*values.shape[:-1], USEFUL), complex)
    spectrum[..., profile.bins] = values
    return np.fft.ifft(spectrum) * (USEFUL / np.sqrt(profile.carriers))


def clip(a: np.ndarray, headroom_db: float) -> np.ndarray:
    return a * np.minimum(1, 10 ** (headroom_db / 20) / np.maximum(np.abs(a), 1e-12))


def band_pass(a: np.ndarray, profile: Profile) -> np.ndarray:
    """Keep the profile's band of the analytic signal a [n]; its slopes are raised cosines."""
    frequency_hz = np.fft.fftfreq(a.size, 1 / RATE_HZ)
    low, high = (SPACING_HZ * profile.bins[i] for i in (0, -1))
    outside_hz = np.maximum(low - frequency_hz, frequency_hz - high) - SPACING_HZ
    gain = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside_hz / EDGE_HZ, 0, 1))
    return np.fft.ifft(np.fft.fft(a) * gain)
