"""Radio paths on samples against theory: SNR in 3 kHz, fading, tuning, clocks, clipping.

Tolerances are five standard errors of what is measured unless a comment says otherwise.
"""

import math

import numpy as np
import pytest
import scipy.signal

from semcast.errors import InputError
from semcast.randomness import seeded
from semcast.signals import filters, watterson
from semcast.signals.air import EFFECTS, PATHS, RadioPath, check_effects, propagate
from semcast.signals.filters import analytic, band_pass, resample
from semcast.signals.power import active_power, clip_envelope, convert
from semcast.signals.shift import from_baseband, shift, to_baseband

RATE_HZ = 8000
STANDARD = {  # ITU-R F.1487: milliseconds between the paths, and the frequency spread in Hz, of each path 2 sigma
    "watterson-lq": (0.5, 0.5),
    "watterson-lm": (2, 1.5),
    "watterson-ld": (6, 10),
    "watterson-good": (0.5, 0.1),
    "watterson-moderate": (1, 0.5),
    "watterson-poor": (2, 1),
    "watterson-nvis": (7, 1),
    "watterson-hq": (1, 0.5),
    "watterson-hm": (3, 10),
    "watterson-hd": (7, 30),
    "watterson-flutter": (0.5, 10),  # F.520
}


def cosine(frequency_hz: float, count: int = 4 * RATE_HZ, rate_hz: float = RATE_HZ, phase: float = 0.0) -> np.ndarray:
    return np.cos(2 * math.pi * frequency_hz / rate_hz * np.arange(count) + phase).astype(np.float32)


def speechlike(count: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    """Noise of unit power between 400 and 2600 Hz, a stand-in for a modem's signal."""
    x = band_pass(seeded("signal", seed).standard_normal(count, np.float32), RATE_HZ, 400, 2600)
    return x / np.sqrt(np.mean(x**2))


def decibels(ratio: float) -> float:
    return 10 * math.log10(ratio)


def frequency_hz(samples: np.ndarray, rate_hz: float = RATE_HZ) -> np.ndarray:
    """Of a tone, from sample to sample, away from the ends."""
    turns = np.unwrap(np.angle(scipy.signal.hilbert(samples.astype(float))))
    return np.diff(turns)[1000:-1000] * rate_hz / (2 * math.pi)


# Noise


@pytest.mark.parametrize("rate_hz", [8000, 48000])
@pytest.mark.parametrize("snr3k_db", [-5, 3, 20])
def test_the_noise_in_3_khz_is_as_far_below_the_signal_as_asked(snr3k_db, rate_hz):
    x = np.zeros(20 * rate_hz, np.float32)
    x[rate_hz : 2 * rate_hz] = cosine(1500, rate_hz, rate_hz)  # of power 1/2 for one of 20 seconds
    noise = propagate(x, rate_hz, snr3k_db=snr3k_db, generator=seeded(1)) - x
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    in_3_khz = 2 * spectrum[: 3000 * 20].sum() / len(noise) ** 2
    assert 0.5 / in_3_khz * 10 ** (-snr3k_db / 10) == pytest.approx(1, abs=5 / math.sqrt(3000 * 20))
    above = 2 * spectrum[3000 * 20 :].sum() / len(noise) ** 2  # white: as dense beyond
    bins = rate_hz * 10 - 3000 * 20
    assert above / in_3_khz == pytest.approx(bins / 60000, rel=5 * math.sqrt(1 / bins + 1 / 60000))


def test_noise_comes_first_and_is_the_same_on_all_paths():
    x = speechlike(4000)
    alone = propagate(x, RATE_HZ, snr3k_db=0, generator=seeded(3)) - x
    generator = seeded(3)
    noise = generator.standard_normal(4000 + 16, np.float32)
    faded = watterson.watterson(x, RATE_HZ, 2.0, 1.0, generator)
    rest = propagate(x, RATE_HZ, "watterson-poor", snr3k_db=0, generator=seeded(3)) - faded
    scale = math.sqrt(active_power(x, RATE_HZ) * 4 / 3)
    assert np.allclose(alone, noise[:4000] * scale, atol=1e-5)
    assert np.allclose(rest, noise * scale, atol=1e-5)


def test_without_noise_and_effects_the_signal_arrives_as_it_is():
    x = speechlike()
    assert np.array_equal(propagate(x, RATE_HZ, snr3k_db=math.inf, generator=seeded(0)), x)


def test_power_is_measured_where_the_signal_is():
    burst = cosine(1000, 1600, phase=0.3)
    expected = np.mean(burst**2)
    apart = np.concatenate([np.zeros(5000), burst, np.zeros(9000), burst, np.zeros(1)]).astype(np.float32)
    assert active_power(burst, RATE_HZ) == pytest.approx(expected, rel=2e-3)  # an end may lie at a zero crossing
    assert active_power(apart, RATE_HZ) == pytest.approx(expected, rel=2e-3)
    assert active_power(apart + 1e-3, RATE_HZ) == pytest.approx(expected, rel=1e-2)  # a little hum does not matter
    assert active_power(np.zeros(9, np.float32), RATE_HZ) == 0 == active_power(np.zeros(0, np.float32), RATE_HZ)


# Fading


def test_paths_are_those_of_the_standard():
    assert {name: path[2:] for name, path in PATHS.items() if name != "awgn"} == STANDARD


@pytest.mark.parametrize("spread_hz", [0.1, 1.0, 30.0])
def test_the_spread_is_two_sigma_of_a_gaussian_spectrum(spread_hz):
    sigma = spread_hz / 2
    rate_hz, seconds = 40 * sigma, 12_000 / sigma
    count = int(rate_hz * seconds)
    white = watterson.draw_white(count, rate_hz, spread_hz, seeded(7))
    h = watterson.gain(white, 0, count, rate_hz, spread_hz)
    # A gain forgets after 1 / (2 sqrt(pi) sigma) seconds, the integral of its squared autocorrelation.
    error = 1 / math.sqrt(12_000 * 2 * math.sqrt(math.pi))
    for turns in (0.05, 0.1, 0.2, 0.3, 0.5):  # sigma tau
        lag = round(turns / sigma * rate_hz)
        measured = np.vdot(h[:-lag], h[lag:]) / (count - lag)
        assert abs(measured - math.exp(-2 * (math.pi * turns) ** 2)) < 5 * error
    spectrum = np.abs(np.fft.fft(h)) ** 2
    width = np.sqrt(np.average(np.fft.fftfreq(count, 1 / rate_hz) ** 2, weights=spectrum))
    assert 2 * width == pytest.approx(spread_hz, rel=0.02)  # a spread of sigma or of sigma sqrt(2) would be far off


def test_short_bursts_meet_a_rayleigh_envelope_that_hardly_moves():
    first, last = [], []
    for seed in range(4000):  # 0.1 s each, a hundredth of the time in which the path changes
        white = watterson.draw_white(800, RATE_HZ, 0.1, seeded("burst", seed))
        h = watterson.gain(white, 0, 800, RATE_HZ, 0.1)
        first.append(h[0])
        last.append(h[-1])
    first, last = np.array(first), np.array(last)
    power = np.abs(first) ** 2
    assert power.mean() == pytest.approx(1, abs=5 / math.sqrt(4000))
    for t in (0.01, 0.1, 1, 3):  # power is exponential
        share = 1 - math.exp(-t)
        assert np.mean(power < t) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 4000))
    assert abs(np.mean(first**2)) < 5 / math.sqrt(4000)  # circular
    moved = np.mean(np.abs(last - first) ** 2)
    assert moved == pytest.approx(2 - 2 * math.exp(-2 * (math.pi * 0.05 * 799 / 8000) ** 2), rel=5 / math.sqrt(4000))


@pytest.mark.parametrize("delay_ms", [0.5, 2.0, 7.0, 1.03])
def test_the_echo_comes_when_it_should_and_is_as_strong(delay_ms):
    x = np.zeros(1024, np.float32)
    x[300] = 1
    bins = np.arange(20, 492)  # of 1024: frequencies at which the analytic signal is complete
    angle = np.exp(-2j * math.pi * bins / 1024 * RATE_HZ * delay_ms / 1e3)
    basis = np.stack([np.ones(len(bins)), angle], axis=1)
    gains = []
    for seed in range(400):
        y = watterson.watterson(x, RATE_HZ, delay_ms, 0.0, seeded("echo", seed))
        response = (np.fft.fft(y[:1024]) / np.fft.fft(x))[bins]
        found, rest, *_ = np.linalg.lstsq(basis, response, rcond=None)
        assert rest < 1e-3 * np.sum(np.abs(response) ** 2)  # two paths, this far apart, explain it
        gains.append(found)
    power = np.mean(np.abs(gains) ** 2, axis=0)
    assert power == pytest.approx([0.5, 0.5], rel=5 / math.sqrt(400))
    first, second = np.array(gains).T
    assert abs(np.mean(first * second.conj())) < 5 * 0.5 / math.sqrt(400)


def test_mean_power_is_kept_over_realisations():
    x = speechlike(4000)
    ratios: list[float] = []
    for seed in range(300):
        y = watterson.watterson(x, RATE_HZ, 2.0, 1.0, seeded("power", seed))
        ratios.append(float(np.sum(y**2) / np.sum(x**2)))
    assert np.mean(ratios) == pytest.approx(1, abs=5 * np.std(ratios) / math.sqrt(300))
    assert np.std(ratios) > 0.4  # half a second of a 1 Hz path: hardly averaged


def test_fading_does_not_depend_on_how_a_signal_is_cut_into_blocks(monkeypatch):
    x = speechlike(9000)
    whole = propagate(x, RATE_HZ, "watterson-hd", snr3k_db=5, generator=seeded(2), offset_hz=30, clip_db=3)
    for module in (filters, watterson):
        monkeypatch.setattr(module, "BLOCK", 1234)
    pieces = propagate(x, RATE_HZ, "watterson-hd", snr3k_db=5, generator=seeded(2), offset_hz=30, clip_db=3)
    assert np.allclose(whole, pieces, atol=1e-6)


# Tuning and clocks


@pytest.mark.parametrize("offset_hz", [-100.0, 0.5, 37.5])
def test_the_offset_is_exact(offset_hz):
    y = shift(cosine(1500), RATE_HZ, offset_hz)
    assert frequency_hz(y).mean() == pytest.approx(1500 + offset_hz, abs=1e-3)
    assert np.abs(y - cosine(1500 + offset_hz))[400:-400].max() < 1e-3  # no mirror image


def test_drift_is_a_frequency_that_grows():
    found = frequency_hz(shift(cosine(1500, 8 * RATE_HZ), RATE_HZ, 10, drift_hz_per_min=60))
    t = (np.arange(len(found)) + 1000.5) / RATE_HZ
    assert np.abs(np.convolve(found - (1510 + t), np.ones(80) / 80, "valid")).max() < 0.02


@pytest.mark.parametrize("clock_ppm", [-100.0, 33.3, 2000.0])
def test_another_clock_reads_the_same_signal_at_other_times(clock_ppm):
    x = cosine(1000) + cosine(2600, phase=1)
    y = resample(x, 1, 1 + clock_ppm / 1e6)
    assert len(y) == pytest.approx(len(x) * (1 + clock_ppm / 1e6), abs=1)
    t = np.arange(len(y)) / (RATE_HZ * (1 + clock_ppm / 1e6))
    exact = np.cos(2 * math.pi * 1000 * t) + np.cos(2 * math.pi * 2600 * t + 1)
    assert np.abs(y - exact)[2000:-2000].max() < 2e-5  # -94 dB; 16 bits are -96 dB


@pytest.mark.parametrize("block", [filters.BLOCK, 1234])
def test_baseband_and_back_is_the_same_signal(block, monkeypatch):
    monkeypatch.setattr(filters, "BLOCK", block)
    x = speechlike()
    z = to_baseband(x, RATE_HZ, 1500)
    assert np.abs(from_baseband(z, RATE_HZ, 1500) - x)[400:-400].max() < 1e-3
    frequencies = np.fft.fftfreq(len(z), 1 / RATE_HZ)
    power = np.abs(np.fft.fft(z)) ** 2
    assert power[np.abs(frequencies) < 1200].sum() > 0.999 * power.sum()


def test_the_analytic_signal_agrees_with_scipy():
    x = speechlike() * np.hanning(RATE_HZ)  # an abrupt end would have power near zero, where a short filter has none
    expected = scipy.signal.hilbert(np.pad(x, 4000))[4000:-4000]
    assert np.abs(analytic(x, RATE_HZ, 0, len(x)) - expected).max() < 2e-4
    assert np.array_equal(analytic(x, RATE_HZ, -9999, -8000), np.zeros(1999))  # nothing is far before the start


# The two stations


def test_a_transmitter_limits_its_envelope():
    x = cosine(1900) + cosine(2000)
    envelope = 2 * np.abs(cosine(50))  # of two equal tones; its mean square is 2
    y = clip_envelope(x, RATE_HZ, 1.0)
    expected = x * np.minimum(1, math.sqrt(2) * 10**0.05 / np.maximum(envelope, 1e-9))
    assert np.abs(y - expected)[400:-400].max() < 2e-3  # 0.2 % of the amplitude: the filter's ripple and float32
    assert np.abs(y - x).max() > 0.4
    assert np.allclose(clip_envelope(x, RATE_HZ, 60.0), x, atol=1e-6)


def test_a_filter_lets_its_band_through():
    x = cosine(1500)
    send = lambda samples: propagate(samples, RATE_HZ, snr3k_db=math.inf, generator=seeded(0), band=(300, 2700))
    assert np.abs(send(x) - x)[400:-400].max() < 1e-3
    for frequency in (150, 2900, 3500):
        assert np.abs(send(cosine(frequency)))[400:-400].max() < 1e-3


def test_a_tone_has_its_frequency_and_power():
    x = speechlike(4 * RATE_HZ)
    y = propagate(x, RATE_HZ, snr3k_db=math.inf, generator=seeded(0), tone_db=-6, tone_hz=1812)
    tone = y - x
    assert decibels(np.mean(tone**2) / np.mean(x**2)) == pytest.approx(-6, abs=0.05)
    assert np.median(frequency_hz(tone)) == pytest.approx(1812, abs=0.1)


def test_level_and_converter():
    x = speechlike()
    send = lambda **options: propagate(x, RATE_HZ, snr3k_db=math.inf, generator=seeded(0), **options)
    assert np.allclose(send(level_db=-40), x / 100)
    coarse = send(level_db=-40, adc_bits=16)
    assert np.array_equal(coarse * 32768, np.round(coarse * 32768))
    assert np.abs(coarse - x / 100).max() <= 0.5 / 32768 + 1e-8
    assert send(level_db=20, adc_bits=16).max() == 32767 / 32768
    assert send(level_db=20, adc_bits=16).min() == -1
    assert np.array_equal(convert(np.float32([0.3, -2, 2]), 2), np.float32([0.5, -1, 0.5]))


def test_effects_come_in_their_order():
    quiet = {"rate_hz": RATE_HZ, "snr3k_db": math.inf, "generator": seeded(0)}
    x, clock = cosine(1000), 1 + 500e-6
    y = propagate(x, offset_hz=37, drift_hz_per_min=60, clock_ppm=500, **quiet)
    assert len(y) == len(x) + 16
    # Read half a millisecond later in each second; the offset grew by 1 Hz in each of 4 seconds.
    assert frequency_hz(y)[: RATE_HZ // 10].mean() * clock == pytest.approx(1037 + 0.175, abs=0.01)
    # The tone is at the receiver: its frequency is not shifted, but the sound card's clock changes it.
    spectrum = np.abs(np.fft.rfft(propagate(x, offset_hz=37, clock_ppm=-500, tone_hz=2000, tone_db=0, **quiet)))
    found = sorted(np.argsort(spectrum)[-2:] * RATE_HZ / (len(x) - 16))
    assert found == pytest.approx([1037 / 0.9995, 2000 / 0.9995], abs=0.15)  # lines are 0.25 Hz apart
    # The noise goes through the filter, and the signal through the clipping, whose power then counts.
    noisy = propagate(x, RATE_HZ, snr3k_db=0, generator=seeded(1), band=(300, 2700)) - x
    power = np.abs(np.fft.rfft(noisy)) ** 2
    assert power[: 200 * 4].sum() + power[2800 * 4 :].sum() < 1e-3 * power.sum()
    loud = speechlike()
    clipped = clip_envelope(loud, RATE_HZ, 0.0)
    noise = propagate(loud, RATE_HZ, snr3k_db=0, generator=seeded(1), clip_db=0.0) - clipped
    ratio = np.mean(noise**2) * 3 / 4 / active_power(clipped, RATE_HZ)
    assert ratio == pytest.approx(1, abs=5 * math.sqrt(2 / RATE_HZ))
    assert active_power(clipped, RATE_HZ) < 0.8 * active_power(loud, RATE_HZ)


# Mistakes


def test_mistakes_are_named():
    x = speechlike(1000)
    with pytest.raises(InputError, match="no radio path is called 'vhf'; there are: awgn, watterson-good"):
        propagate(x, RATE_HZ, "vhf", snr3k_db=0, generator=seeded(0))
    with pytest.raises(InputError, match="silent or damaged"):
        propagate(0 * x, RATE_HZ, snr3k_db=0, generator=seeded(0))
    with pytest.raises(InputError, match="silent or damaged"):
        propagate(x * np.float32(np.nan), RATE_HZ, snr3k_db=0, generator=seeded(0))
    with pytest.raises(ValueError, match="must be \\[N\\] of floats"):
        propagate(np.zeros((2, 5)), RATE_HZ, snr3k_db=0, generator=seeded(0))
    with pytest.raises(ValueError, match="snr3k_db must be a number"):
        propagate(x, RATE_HZ, snr3k_db=math.nan, generator=seeded(0))


def test_a_path_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "valley.py").write_text(
        "from semcast.signals.air import RadioPath\nVALLEY = RadioPath('valley', 'a hill', 2.0, 1.0)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    send = lambda channel: propagate(speechlike(500), RATE_HZ, channel, snr3k_db=3, generator=seeded(0))
    expected = send("watterson-poor")
    assert np.array_equal(send(RadioPath("mine", "", 2.0, 1.0)), expected)
    assert np.array_equal(send("valley:VALLEY"), expected)


def test_options_of_a_command_line_become_arguments():
    x = speechlike(1000)
    defaults = check_effects({name: str(option.default) for name, option in EFFECTS.items()})
    plain = propagate(x, RATE_HZ, snr3k_db=math.inf, generator=seeded(0), **defaults)
    assert np.array_equal(plain, x)
    assert check_effects({"band": "ssb", "offset_hz": "30"}) == {"band": (300, 2700), "offset_hz": 30}
    with pytest.raises(InputError, match="a radio path has no option 'echo'"):
        check_effects({"echo": "1"})
    with pytest.raises(InputError, match="clock_ppm = 1e9 must lie between"):
        check_effects({"clock_ppm": "1e9"})
