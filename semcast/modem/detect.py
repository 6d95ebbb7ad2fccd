"""Find preambles and postambles in a recording of any length.

First, cheaply and for all offsets at once: the known symbol repeats after 20 ms, so the signal correlates with itself in
a profile's band. Where it does, the preamble and the postamble are correlated with it at all offsets of up to 200 Hz.
"""

import functools
from typing import NamedTuple

import numpy as np

from .baseband import BASE_HZ, CENTRE_HZ, baseband, cut, power
from .profiles import PREAMBLE, PROFILES, RATE_HZ, SPACING_HZ, USEFUL, Profile
from .transmit import known_burst

LAG = USEFUL // 2  # all lengths here are in samples at 4 kHz
TEMPLATE = PREAMBLE // 2
PAIRS = TEMPLATE - LAG  # of samples one period apart within a preamble
STEP = 4  # between looks
LOOK_MIN = 10.0  # noise alone deserves a closer look with probability exp(-10); see `freedom`
OFFSET_MAX_HZ = 200
SEGMENT = 1024
TURN_HZ = 10.0  # how far the self-correlation may be wrong about the offset
BEFORE = 300  # of the segment, before the supposed beginning
SEEN_MIN = 21.0  # noise alone is taken for a burst with probability exp(-21) per delay, offset and template
CHUNK = 60 * BASE_HZ  # of the recording at a time
OVERLAP = 2 * SEGMENT


class Burst(NamedTuple):
    """A preamble or postamble that was found."""

    kind: str  # "pre" or "post"
    profile: Profile
    at: float  # its first sample at 4 kHz
    offset_hz: float
    score: float  # share of the received power in the profile's band that it explains


def find_bursts(samples: np.ndarray) -> list[Burst]:
    """All of them, in the order of time."""
    total, found = len(samples) // 2, []
    for first in range(-OVERLAP // 2, total, CHUNK):
        z = baseband(samples, first, min(first + CHUNK, total) + OVERLAP)
        for profile in PROFILES.values():
            band = in_band(z, profile)
            for at, turn_hz in candidates(band, profile):
                if burst := match(cut(band, at - BEFORE, at - BEFORE + SEGMENT), profile, turn_hz):
                    found.append(burst._replace(at=burst.at + at - BEFORE + first))
    kept = []
    for burst in sorted(found, key=lambda burst: -burst.score):
        heard = min(burst.at + TEMPLATE, total) - max(burst.at, 0)
        if heard > 3 * LAG and all(abs(burst.at - other.at) > TEMPLATE for other in kept):
            kept.append(burst)
    return sorted(kept, key=lambda burst: burst.at)


def in_band(z: np.ndarray, profile: Profile) -> np.ndarray:
    """The part of z [n] where the carriers of a profile may be."""
    low, high = (SPACING_HZ * profile.bins[i] - CENTRE_HZ for i in (0, -1))
    frequency_hz = np.fft.fftfreq(z.size, 1 / BASE_HZ).astype(np.float32)
    return np.fft.ifft(np.fft.fft(z) * ((frequency_hz > low - OFFSET_MAX_HZ) & (frequency_hz < high + OFFSET_MAX_HZ)))


def freedom(profile: Profile, size: int) -> float:
    """How many independent numbers `size` samples of `in_band` hold.

    A normalised correlation of so much noise exceeds c with probability exp(-freedom c^2).
    """
    return size / BASE_HZ * (SPACING_HZ * (profile.carriers - 1) + 2 * OFFSET_MAX_HZ)


def candidates(z: np.ndarray, profile: Profile) -> list[tuple[int, float]]:
    """Where z [n] correlates with itself one period later: likely beginnings of bursts.

    With each comes by how many Hz the carriers lie beside multiples of 50 Hz.
    """
    pairs = sums(z[LAG:] * z[:-LAG].conj())
    total = sums(power(z))
    total = total[: pairs.size] + total[LAG // STEP :][: pairs.size]
    strength = 2 * np.abs(pairs) / np.maximum(total, 1e-30)
    reach = TEMPLATE // STEP
    padded = np.pad(strength, (0, -strength.size % reach)).reshape(-1, reach)
    best = padded.argmax(axis=1) + reach * np.arange(len(padded))
    value = padded.max(axis=1)
    beaten = np.zeros(value.size, bool)  # a neighbour stands less than a burst away and higher
    close = np.diff(best) < reach * 3 // 4
    beaten[:-1] |= close & (value[1:] > value[:-1])
    beaten[1:] |= close & (value[:-1] >= value[1:])
    good = best[(value**2 * freedom(profile, PAIRS) > LOOK_MIN) & ~beaten]
    return [(STEP * int(i), float(np.angle(pairs[i]) / (2 * np.pi) * SPACING_HZ)) for i in good]


def sums(values: np.ndarray) -> np.ndarray:
    """Sums of PAIRS consecutive values, begun at every STEP-th."""
    steps = values[: values.size // STEP * STEP].reshape(-1, STEP).sum(axis=1)
    total = np.cumsum(steps, dtype=np.promote_types(values.dtype, np.float64))
    reach = PAIRS // STEP
    return total[reach:] - total[:-reach]


def match(z: np.ndarray, profile: Profile, turn_hz: float) -> Burst | None:
    """The burst in a segment [1024] that explains most of its power, if any does significantly.

    Its `at` counts from z[0]; its offset is about `turn_hz` and a multiple of 50 Hz.
    """
    bin_hz = BASE_HZ / SEGMENT
    shifts = np.arange(-round(OFFSET_MAX_HZ / bin_hz), round(OFFSET_MAX_HZ / bin_hz) + 1)
    beside_hz = (shifts * bin_hz - turn_hz + SPACING_HZ / 2) % SPACING_HZ - SPACING_HZ / 2
    shifts = shifts[np.abs(beside_hz) < TURN_HZ]
    shifted = np.fft.fft(z)[(np.arange(SEGMENT) + shifts[:, None]) % SEGMENT].astype(np.complex64)  # [offsets, 1024]
    energy = np.cumsum(np.pad(power(z), (1, 0)), dtype=float)
    least = max(1e-6 * energy[-1], 1e-30)  # a difference of sums is not exactly 0 in silence
    energy = np.maximum(energy[TEMPLATE:] - energy[:-TEMPLATE], least)
    best = None
    for kind in ("pre", "post"):
        template = np.fft.fft(template_of(profile, kind), SEGMENT).conj().astype(np.complex64)
        overlap = np.fft.ifft(shifted * template, axis=1)[:, : energy.size]
        score = power(overlap) / energy
        row, at = np.unravel_index(score.argmax(), score.shape)
        if best is None or score[row, at] > best.score:
            best = Burst(kind, profile, float(at), float(shifts[row] * bin_hz), float(score[row, at]))
    if best is None or best.score * freedom(profile, TEMPLATE) < SEEN_MIN:
        return None
    return best._replace(offset_hz=fine_offset(z, best))


def fine_offset(z: np.ndarray, burst: Burst) -> float:
    """The offset again, between the bins: the peak of the spectrum of z times the conjugate template."""
    at = int(burst.at)
    product = z[at : at + TEMPLATE] * template_of(burst.profile, burst.kind).conj()
    turning = np.exp(-2j * np.pi * np.arange(TEMPLATE) / BASE_HZ * (burst.offset_hz + np.arange(-6, 7)[:, None]))
    value = np.abs(turning @ product)
    peak = int(np.clip(value.argmax(), 1, 11))
    left, middle, right = value[peak - 1 : peak + 2]
    return burst.offset_hz + peak - 6 + 0.5 * (left - right) / min(left - 2 * middle + right, -1e-12)


@functools.cache
def template_of(profile: Profile, kind: str) -> np.ndarray:
    """A burst at 4 kHz around 0 Hz, complex [352] of unit energy."""
    burst = known_burst(profile, kind)
    template = (burst * np.exp(-2j * np.pi * CENTRE_HZ / RATE_HZ * np.arange(burst.size)))[::2]
    return template / np.linalg.norm(template)
