"""The channel against theory: the noise has the power, the shape and the independence that the SNR promises."""

import math

import pytest
import torch

from semcast.channel import awgn, find_channel
from semcast.errors import InputError

ROWS, SYMBOLS = 64, 8192
DRAWS = ROWS * SYMBOLS


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def unit_power(rows: int, symbols: int, seed: int = 0) -> torch.Tensor:
    """QPSK symbols: every |x| is 1."""
    signs = 1 - 2 * torch.randint(0, 2, (2, rows, symbols), generator=seeded(seed)[0]).float()
    return torch.complex(*signs) / math.sqrt(2)


@pytest.mark.parametrize("snr_db", [-5, 0, 1, 5, 10, 15, 20])
def test_measured_es_n0_is_the_requested_one(snr_db):
    x = unit_power(ROWS, SYMBOLS)
    noise = awgn(x, snr_db, seeded(*range(ROWS))).y - x
    ratio = x.abs().square().mean().item() / noise.abs().square().mean().item() * 10 ** (-snr_db / 10)
    # |n|^2 is exponential, so the mean of N draws has the relative standard error 1 / sqrt(N). Allow five.
    assert ratio == pytest.approx(1, abs=5 / math.sqrt(DRAWS))
    assert abs(10 * math.log10(ratio)) < 0.05


def test_noise_is_circular_with_half_its_variance_in_each_real_dimension():
    x = unit_power(ROWS, SYMBOLS)
    noise = awgn(x, 3.0, seeded(*range(ROWS))).y - x
    re, im = noise.real.double(), noise.imag.double()
    half = 10 ** (-3.0 / 10) / 2
    # Of N normal draws with variance v: the mean has standard error sqrt(v / N), the variance v sqrt(2 / N), and the
    # correlation of two independent ones 1 / sqrt(N). Kurtosis 3 has sqrt(24 / N).
    for part in (re, im):
        assert abs(part.mean().item()) < 5 * math.sqrt(half / DRAWS)
        assert part.var().item() == pytest.approx(half, rel=5 * math.sqrt(2 / DRAWS))
        assert (part**4).mean().item() / half**2 == pytest.approx(3, abs=5 * math.sqrt(96 / DRAWS))  # Var(n^4) = 96 v^4
    assert abs((re * im).mean().item()) / half < 5 / math.sqrt(DRAWS)
    assert abs((re[:, 1:] * re[:, :-1]).mean().item()) / half < 5 / math.sqrt(DRAWS)  # nor from symbol to symbol


def test_each_image_gets_its_own_snr():
    snr_db = torch.tensor([-5.0, 1.0, 10.0, 20.0])
    x = unit_power(4, 1 << 16)
    y, h, noise_var = awgn(x, snr_db, seeded(0, 1, 2, 3))
    expected = 10 ** (-snr_db.double() / 10)
    assert torch.allclose(noise_var[:, 0].double(), expected, rtol=1e-6)
    measured = (y - x).abs().square().double().mean(dim=1)
    assert torch.allclose(measured, expected, rtol=5 / math.sqrt(1 << 16))
    alone = awgn(x[2:3], 10.0, seeded(2)).y
    assert torch.equal(y[2:3], alone)  # a number and a list of numbers mean the same


def test_x_is_never_rescaled():
    x = unit_power(3, 64)
    quiet = torch.zeros_like(x)
    noise = awgn(quiet, 5.0, seeded(0, 1, 2)).y
    for scale in (1e-3, 1.0, 7.0):
        y, h, noise_var = awgn(scale * x, 5.0, seeded(0, 1, 2))
        assert torch.equal(y, scale * x + noise)  # the noise answers to snr_db alone, not to the power of x
        assert torch.equal(h, torch.ones(3, 1, dtype=x.dtype))
        assert noise_var.shape == (3, 1) and torch.allclose(noise_var, torch.tensor(10**-0.5))
    assert torch.equal(quiet, torch.zeros_like(x))  # nor changed in place


def test_generators_are_the_only_randomness():
    x = unit_power(2, 32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = awgn(x, 0.0, seeded(3, 4)).y
    torch.manual_seed(1)
    again, other = awgn(x, 0.0, seeded(3, 4)).y, awgn(x, 0.0, seeded(3, 5)).y
    assert torch.equal(first, again)
    assert torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    torch.manual_seed(0)
    awgn(x, 0.0, seeded(3, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_noise_of_an_image_does_not_depend_on_its_batch():
    x = unit_power(5, 48)
    together = awgn(x, 2.0, seeded(*range(5))).y
    alone = torch.cat([awgn(x[i : i + 1], 2.0, seeded(i)).y for i in range(5)])
    backwards = awgn(x.flip(0), 2.0, seeded(*reversed(range(5)))).y.flip(0)
    assert torch.equal(together, alone) and torch.equal(together, backwards)


@pytest.mark.parametrize(
    "x, snr_db, generators, text",
    [
        (torch.ones(2, 4), 10.0, 2, r"x must be \[B, K\] complex, got \[2, 4\] torch.float32"),
        (torch.ones(4, dtype=torch.complex64), 10.0, 4, r"x must be \[B, K\] complex, got \[4\] torch.complex64"),
        (torch.ones(2, 4, dtype=torch.complex64), 10.0, 1, "2 images need as many generators, got 1"),
        (torch.ones(2, 4, dtype=torch.complex64), 10.0, 3, "2 images need as many generators, got 3"),
        (torch.ones(2, 4, dtype=torch.complex64), math.nan, 2, "snr_db must be a finite number or 2 of them, got nan"),
        (torch.ones(2, 4, dtype=torch.complex64), math.inf, 2, "snr_db must be a finite number or 2 of them, got inf"),
        (torch.ones(2, 4, dtype=torch.complex64), torch.zeros(3), 2, r"snr_db must be a finite number or 2 of them, got \[0.0, 0.0, 0.0\]"),
        (torch.ones(2, 4, dtype=torch.complex64), torch.zeros(2, 1), 2, "snr_db must be a finite number or 2 of them"),
    ],
)
def test_wrong_input_is_refused_by_name(x, snr_db, generators, text):
    with pytest.raises(ValueError, match=text):
        awgn(x, snr_db, seeded(*range(generators)))


def test_an_unknown_channel_is_refused_with_the_known_ones():
    assert find_channel("awgn") is awgn
    with pytest.raises(InputError, match="no channel is called 'rician'; there are: awgn"):
        find_channel("rician")
