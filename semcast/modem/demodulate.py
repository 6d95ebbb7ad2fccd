"""The carriers of one transmission: where its symbols lie in the recording, and how its clock and oscillator run.

Times of a transmission are in samples of 8 kHz from its first, as in `layout`; those of the baseband in samples of
4 kHz. `Tuning` takes the ones to the others.
"""

from typing import NamedTuple

import numpy as np

from .baseband import BASE_HZ, CENTRE_HZ
from .layout import Layout, pilot_signs
from .profiles import PREAMBLE_PREFIX, PREFIX, RATE_HZ, REPEATS, SPACING_HZ, USEFUL, Profile

SIZE = USEFUL // 2  # samples of a useful symbol at 4 kHz, and possible delays
EARLY = 3  # samples by which windows begin before the first path if there is room, as it may be earlier than it seems
CLOCK_MAX_PPM = 150.0
LEAST = 0.05  # of the strongest path's power counts as a path
OVER_NOISE = 10.0  # times the median deviation of the noise, too
SMOOTH_S = 2.0  # over which the carrier's drift is averaged


class Tuning(NamedTuple):
    """What ties a transmission to the baseband z of a recording."""

    z: np.ndarray  # [n] complex, with the carrier's offset and drift removed
    first: int  # index of z[0] in the recording
    total: int  # samples of the recording
    at: float  # where the transmission begins, by its first path
    clock: float = 1.0  # seconds by the receiver's clock in one by the transmitter's
    early: int = EARLY  # samples by which windows begin before the first path

    def position(self, ticks: np.ndarray) -> np.ndarray:
        """Where samples of the transmission are in the recording."""
        return self.at + ticks * (self.clock / 2)


def known_symbols(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """All known symbols: where their useful parts begin, int [P], and what they carry, complex [P, C].

    Each repetition within the preamble and postamble is one.
    """
    repeats = PREAMBLE_PREFIX + USEFUL * np.arange(REPEATS)
    at = np.concatenate([repeats, layout.pilots_at + PREFIX, layout.postamble_at + repeats])
    pre, post = (layout.profile.known(kind) for kind in ("pre", "post"))
    signs = np.concatenate([np.ones(REPEATS), pilot_signs(layout.pilots)])
    return at, np.concatenate([signs[:, None] * pre, np.tile(post, (REPEATS, 1))])


def demodulate(tuning: Tuning, profile: Profile, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carriers of the symbols whose useful parts begin at `ticks` [S].

    Returns:
        Their values [S, C] complex, noise for the parts of a recording that do not exist; and which of them were heard
        as a whole, bool [S].
    """
    exact = tuning.position(ticks) - tuning.early
    start = np.round(exact).astype(int)
    heard = (start >= 0) & (start + SIZE <= tuning.total)
    inside = np.clip(start - tuning.first, 0, tuning.z.size - SIZE)
    bins = profile.bins - CENTRE_HZ // SPACING_HZ
    values = np.fft.fft(tuning.z[inside[:, None] + np.arange(SIZE)])[:, bins % SIZE] / SIZE
    late = (start - exact - tuning.early)[:, None] * bins
    centre = CENTRE_HZ / RATE_HZ * ticks[:, None]  # turns of 1550 Hz, which is 0 Hz now, since the beginning
    return values * np.exp(2j * np.pi * (centre - late / SIZE)), heard


def observe(tuning: Tuning, layout: Layout, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The channel as the known symbols `which` show it: seconds [P] of their middles, gains [P, C]."""
    at, values = (part[which] for part in known_symbols(layout))
    seen, heard = demodulate(tuning, layout.profile, at)
    return (at[heard] + USEFUL / 2) / RATE_HZ, (seen / values)[heard]


def tune(tuning: Tuning, layout: Layout, which: np.ndarray, near_s: float) -> tuple[Tuning, float, float]:
    """Follow the carrier, the clock and the first path by the known symbols `which`.

    Args:
        near_s: when, from the beginning, the carrier is off by less than 2 Hz.

    Returns:
        The tuning, Hz by which the carrier was off on average, and the clock's error in ppm.
    """
    profile, offset_hz = layout.profile, 0.0
    for _ in range(2):
        seconds, gains = observe(tuning, layout, which)
        if len(seconds) < 2:
            return tuning, 0.0, 0.0
        track_s, track_hz = drift(seconds, gains, near_s)
        offset_hz += float(np.mean(track_hz))
        tuning = turn_back(tuning, track_s, track_hz)
        seconds, gains = observe(tuning, layout, which)
        error = clock_error(profile, seconds, gains)
        middle = tuning.at + seconds.mean() * BASE_HZ * tuning.clock  # what the gains are turned about
        gains = gains * turned(profile, error * BASE_HZ * (seconds - seconds.mean()))
        late, early = paths(profile, gains)
        clock = tuning.clock + error
        tuning = tuning._replace(at=middle - seconds.mean() * BASE_HZ * clock + late, clock=clock, early=early)
    return tuning, offset_hz, 1e6 * (tuning.clock - 1)


def drift(seconds: np.ndarray, gains: np.ndarray, near_s: float) -> tuple[np.ndarray, np.ndarray]:
    """How far the carrier is off, Hz, at the middles of the intervals between known symbols.

    From the turn of the gains between neighbours, weighted by their power and averaged over SMOOTH_S, because a fading
    path turns too. An offset beyond 3 Hz turns them by more than half a circle, which is counted on from `near_s`.
    """
    gap, turn = np.diff(seconds), np.sum(gains[1:] * gains[:-1].conj(), axis=1)
    middle = (seconds[1:] + seconds[:-1]) / 2
    near = np.exp(-0.5 * ((middle[:, None] - middle) / SMOOTH_S) ** 2)
    usual_s = np.median(gap[gap > gap.max() / 2])
    circles = np.unwrap(np.angle(near @ np.where(np.abs(gap - usual_s) < 0.1 * usual_s, turn, 0))) / (2 * np.pi)
    circles -= np.round(circles[np.abs(middle - near_s).argmin()])
    rough_hz = circles / usual_s
    rest_hz = np.angle(turn * np.exp(-2j * np.pi * rough_hz * gap)) / (2 * np.pi * gap)
    weight = near * (np.abs(turn) * gap**2)
    return middle, weight @ (rough_hz + rest_hz) / weight.sum(axis=1)


def turn_back(tuning: Tuning, seconds: np.ndarray, offset_hz: np.ndarray) -> Tuning:
    """Remove an offset that is known at some times of the transmission, with straight lines between."""
    n = tuning.first + np.arange(tuning.z.size)
    hz = np.interp((n - tuning.at) / (BASE_HZ * tuning.clock), seconds, offset_hz)
    phase = np.cumsum(hz) * (2 * np.pi / BASE_HZ)
    return tuning._replace(z=tuning.z * np.exp(-1j * phase))


def clock_error(profile: Profile, seconds: np.ndarray, gains: np.ndarray) -> float:
    """By how much the clock runs fast: the one for which the delays of the paths stay the same all the time.

    That is, for which the mean power over the delays is the most concentrated.
    """
    away = seconds - seconds.mean()
    step = 1e6 / 4 / (BASE_HZ * max(np.ptp(seconds), 0.1))  # ppm: a quarter of a sample in all
    count = int(CLOCK_MAX_PPM / step)
    if count < 1:
        return 0.0
    tries = step * np.arange(-count, count + 1)
    sharp = np.array([np.sum(delays(profile, gains * turned(profile, t * 1e-6 * BASE_HZ * away)) ** 2) for t in tries])
    peak = int(np.clip(sharp.argmax(), 1, 2 * count - 1))
    left, middle, right = sharp[peak - 1 : peak + 2]
    bent = left - 2 * middle + right
    return 1e-6 * (tries[peak] + step * (float(np.clip(0.5 * (left - right) / bent, -1, 1)) if bent < 0 else 0.0))


def turned(profile: Profile, late: np.ndarray) -> np.ndarray:
    """Factors [P, C] that make gains seen through windows that began too early by `late` [P] right."""
    bins = profile.bins - CENTRE_HZ // SPACING_HZ
    return np.exp(2j * np.pi / SIZE * late[:, None] * bins)


def delays(profile: Profile, gains: np.ndarray) -> np.ndarray:
    """Mean power [80] at each delay in samples at 4 kHz; those of 40 and more are negative ones."""
    spectrum = np.zeros((len(gains), SIZE), complex)
    spectrum[:, : profile.carriers] = gains * np.hanning(profile.carriers + 2)[1:-1]  # else a path spreads over all
    return np.mean(np.abs(np.fft.ifft(spectrum, axis=1)) ** 2, axis=0)


def paths(profile: Profile, gains: np.ndarray) -> tuple[int, int]:
    """Delay of the first path, and by how much windows can begin before it without missing the last.

    A path is a peak with a share LEAST of the highest one, and well above the noise. They all come within the prefix's
    length; if there are more, the strongest such group counts.
    """
    power = delays(profile, gains)
    power = power - np.median(power)
    noise = np.median(np.abs(power))
    peak = (power >= np.roll(power, 1)) & (power > np.roll(power, -1))
    peak &= (power >= LEAST * power.max()) & (power >= min(OVER_NOISE * noise, power.max()))
    at = np.flatnonzero(peak)
    after = (at - at[:, None]) % SIZE  # [first, other]
    group = after <= PREFIX // 2 + 1
    best = int((group @ power[at]).argmax())
    length = int(after[best, group[best]].max())
    late = int(at[best])
    return (late + SIZE // 2) % SIZE - SIZE // 2, max(0, min(EARLY, PREFIX // 2 - length))
