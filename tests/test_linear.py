"""The bench's linear code: exact power, uses and side bits, the error that theory predicts, estimates under fading."""

import hashlib
import json

import numpy as np
import pytest
import scipy.fft

from semcast.bench import linear
from semcast.bench.downscale import downscale_and_send
from semcast.bench.pictures import SmokePictures
from semcast.bench.systems import find_system
from semcast.bench.unit import SIDE_BITS_MAX, check_sent
from semcast.channels.base import Received
from semcast.channels.catalogue import find_channel
from semcast.images import to_image
from semcast.randomness import seeded, stream

FACE = SmokePictures().read(0)  # uint8 [256, 256, 3]
HEADER_BITS = 16 + 16 + 24 + 8 + 16  # sides, mean colour, SNR, scale


def transmit(pixels: np.ndarray, uses: int, snr_db: float, seed: int = 0, channel: str = "awgn", **options):
    """-> (received uint8 [H, W, 3], what the harness counted). Side information travels as JSON, as in the bench."""
    sent, side = linear.send(pixels, uses, snr_db)
    facts = check_sent("linear", find_system("linear"), sent, side, uses, snr_db)
    received = find_channel(channel)(sent, snr_db, [stream(seed, "channel")], **options)
    return linear.receive(received, json.loads(json.dumps(side))), facts


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """The mean squared error of pictures in [0, 1]."""
    return float(np.mean((a / 255 - b / 255) ** 2))


def least_error(variance: np.ndarray, count: int, total: float, noise_var: float) -> float:
    """The least sum of squared errors of a linear code for `count` of these numbers: bisection for the multiplier."""
    strongest = np.sort(variance)[::-1]
    v, low, high = strongest[:count], 0.0, 1e12
    for _ in range(200):
        g = (low + high) / 2
        low, high = (g, high) if np.maximum(g * np.sqrt(v) - noise_var, 0).sum() < total else (low, g)
    p = np.maximum(low * np.sqrt(v) - noise_var, 0)
    return float((v * noise_var / (p + noise_var)).sum() + strongest[count:].sum())


@pytest.mark.parametrize("height, width", [(64, 64), (65, 130), (200, 64), (3, 70), (1, 1)])
@pytest.mark.parametrize("uses", [1, 144, 1001, 20_000])
def test_power_uses_and_side_bits_are_exact(height, width, uses):
    pixels = FACE[40 : 40 + height, 30 : 30 + width]
    received, facts = transmit(pixels, uses, 5.0)
    assert received.shape == pixels.shape and received.dtype == np.uint8
    assert facts["payload_uses"] == uses
    assert facts["power"] == pytest.approx(1, abs=1e-5)
    rows, columns = linear.reach(*pixels.shape[:2], uses)
    bands = sum((len(linear.edges(rows, n)) - 1) * (len(linear.edges(columns, n)) - 1) for n in linear.BANDS)
    assert facts["side_bits"] == HEADER_BITS + linear.DIGIT_BITS * bands <= SIDE_BITS_MAX


def test_the_largest_picture_keeps_within_the_side_bits():
    rows, columns = linear.reach(8192, 8192, 1 << 24)
    most = sum((len(linear.edges(rows, n)) - 1) * (len(linear.edges(columns, n)) - 1) for n in linear.BANDS)
    assert HEADER_BITS + linear.DIGIT_BITS * most <= SIDE_BITS_MAX


@pytest.mark.parametrize("uses, snr_db", [(2000, 1.0), (2000, 20.0), (8000, 1.0), (8000, 10.0)])
def test_the_error_is_what_theory_allows(uses, snr_db):
    """Pictures of normal coefficients with a spectrum like photos'.

    Sampling moves the error by about 2 %, and a spectrum that is estimated from the picture, in digits, costs about as
    much.
    """
    side, generator, ratios = 192, seeded("linear"), []
    frequency = np.hypot(*np.meshgrid(np.arange(side), np.arange(side)))
    variance = np.stack([share * (4 + frequency) ** -2.2 for share in (1.0, 0.1, 0.03)])
    variance[:, 0, 0] = 0  # the mean colour is side information
    variance *= 3 * side**2 * 0.06**2 / variance.sum()
    for _ in range(2):
        coefficients = np.sqrt(variance) * generator.standard_normal(variance.shape)
        turned = scipy.fft.idctn(coefficients, axes=(1, 2), norm="ortho")
        image = np.moveaxis(np.tensordot(linear.turn().T, turned, 1), 0, -1) + 0.5
        pixels = np.rint(255 * image).astype(np.uint8)
        rounding = 2 * image.size / 12 / 255**2  # at both ends
        expected = least_error(variance.ravel(), 2 * uses, uses, 0.5 * 10 ** (-snr_db / 10)) + rounding
        ratios.append(squared_error(transmit(pixels, uses, snr_db)[0], pixels) * image.size / expected)
    assert 0.96 < np.mean(ratios) < 1.06


@pytest.mark.parametrize("noise_var", [1e-4, 0.1, 3.0])
def test_no_other_power_is_better(noise_var):
    generator = seeded("power")
    variance = np.sort(generator.lognormal(sigma=3, size=300))[::-1]
    power = linear.allot(np.sqrt(variance), 150, noise_var)
    assert power.min() >= 0 and power.sum() == pytest.approx(150)
    error = lambda p: float((variance * noise_var / (np.pad(p, (0, 300 - len(p))) + noise_var)).sum())
    assert error(power) == pytest.approx(least_error(variance, 300, 150, noise_var), rel=1e-9)
    for _ in range(100):
        other = np.pad(power, (0, 300 - len(power))) * generator.lognormal(sigma=0.1, size=300)
        other[generator.integers(300)] += 0.01
        assert error(150 * other / other.sum()) >= error(power)


@pytest.mark.parametrize("uses, snr", [(50, 80), (5000, 80), (5000, 160)])
def test_copies_share_the_power_of_a_coefficient(uses, snr):
    variance = seeded("copies").lognormal(sigma=2, size=(3, 20, 30))
    chosen, deviation, amplitude, which = linear.plan(variance, uses, snr)
    strongest = np.sqrt(np.sort(variance.ravel())[::-1][: 2 * uses])
    power = linear.allot(strongest, uses, 0.5 * 10 ** -((snr / 4 - 20) / 10))
    assert np.array_equal(deviation, strongest[: len(power)]) and np.array_equal(
        deviation, np.sqrt(variance.flat[chosen])
    )
    assert np.bincount(which, amplitude[which] ** 2) == pytest.approx(power)
    assert len(which) == 2 * uses and np.ptp(np.bincount(which)) <= 1


def test_more_symbols_and_more_snr_are_never_worse():
    errors = np.array(
        [
            [
                np.mean([squared_error(transmit(FACE, k, snr_db, seed)[0], FACE) for seed in range(2)])
                for k in (64, 512, 4096)
            ]
            for snr_db in (-5.0, 1.0, 10.0, 20.0)
        ]
    )
    assert (np.diff(errors, axis=0) < 0).all() and (np.diff(errors, axis=1) < 0).all()


def test_better_than_a_shrunk_picture():
    for uses, snr_db in ((288, 10.0), (2048, 1.0), (8192, 20.0)):
        shrunk = downscale_and_send(to_image(FACE), uses, snr_db, stream(0, "channel"))
        rival = float(np.mean((shrunk - to_image(FACE)) ** 2))
        assert squared_error(transmit(FACE, uses, snr_db)[0], FACE) < 0.8 * rival


def test_the_estimate_is_that_of_linear_algebra():
    """Fading, noise of every strength and lost symbols, against the matrix form of the linear MMSE estimate."""
    generator, k, n = seeded("estimate"), 20, 13
    which, amplitude = np.arange(2 * k) % n, generator.uniform(0.1, 2, n)
    normal = lambda *shape: generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    y, h, noise_var = normal(1, k), normal(1, k), generator.lognormal(size=(1, k))
    noise_var[0, ::4] = np.inf
    y[0, ::4] = np.nan
    found = linear.estimate(Received(y, h, noise_var), amplitude, which)
    kept = np.flatnonzero(np.isfinite(noise_var[0]))
    parts = np.zeros((2 * k, n))
    parts[np.arange(2 * k), which] = amplitude[which]
    symbols = h[0, kept, None] * (parts[0::2] + 1j * parts[1::2])[kept]
    matrix = np.concatenate([symbols.real, symbols.imag])
    heard = np.concatenate([y[0, kept].real, y[0, kept].imag])
    noise = np.diag(np.tile(noise_var[0, kept] / 2, 2))
    assert found == pytest.approx(matrix.T @ np.linalg.solve(matrix @ matrix.T + noise, heard), rel=1e-9)


@pytest.mark.parametrize("channel", ["rayleigh-fast", "erasure"])
def test_spare_symbols_are_copies_that_help_under_fading(channel):
    """64x64 pixels are 6144 symbols. With three times as many, a lost symbol is not a lost number."""
    pixels = FACE[96:160, 96:160]
    once, often = (squared_error(transmit(pixels, k, 20.0, channel=channel)[0], pixels) for k in (6144, 3 * 6144))
    assert often < once / 6  # the power alone is worth a factor of 3


def test_a_single_colour_arrives_exactly():
    pixels = np.full((70, 64, 3), (3, 200, 77), np.uint8)
    for uses in (1, 300):
        received, facts = transmit(pixels, uses, -5.0)
        assert np.array_equal(received, pixels) and facts["power"] == pytest.approx(1)


def test_the_same_every_time():
    sent, side = linear.send(FACE, 700, 7.0)
    before = hashlib.sha256(FACE.tobytes()).hexdigest()
    again, side_again = linear.send(FACE.copy(), 700, 7.0)
    assert np.array_equal(sent, again) and side == side_again
    assert hashlib.sha256(FACE.tobytes()).hexdigest() == before
    assert np.array_equal(transmit(FACE, 700, 7.0)[0], transmit(FACE, 700, 7.0)[0])


def test_digits_tell_the_spectrum():
    """A smooth spectrum, stronger across than down, comes back up to one factor: to a step at most, half a step rms."""
    rows, columns = 192, 256
    down, across = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    variance = np.stack([share * (3 + 1.5 * down + across) ** -2.4 for share in (50.0, 2.0, 0.3)])
    digits = linear.describe(np.sqrt(variance), rows, columns)
    assert linear.unpack(linear.pack(digits), linear.DIGIT_BITS * len(digits)) == digits
    error = np.log2(linear.variances(digits, rows, columns, rows, columns) / variance)
    error = (error - np.median(error)) / linear.STEP
    assert np.abs(error).max() < 1 and np.sqrt(np.mean(error**2)) < 0.5


def test_transforms_are_orthonormal():
    for count in (1, 7, 64):
        assert linear.dct(count) == pytest.approx(scipy.fft.dct(np.eye(count), axis=0, norm="ortho"), abs=1e-6)
    assert linear.turn() @ linear.turn().T == pytest.approx(np.eye(3), abs=1e-6)


def test_the_version_tells_the_constants(monkeypatch):
    assert find_system("linear").version() == linear.version()
    constants = [name for name, value in vars(linear).items() if name.isupper()]
    assert {"FORMAT", "COLOURS", "BANDS", "STEP", "REACH"} <= set(constants)
    versions = {linear.version()}
    for name in constants:
        with monkeypatch.context() as patch:
            patch.setattr(linear, name, "another")
            versions.add(linear.version())
    assert len(versions) == 1 + len(constants)
