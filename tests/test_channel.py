"""The channels against theory: power, distribution and independence of noise, fading and erasures.

Tolerances are five standard errors of the measured mean unless a comment says otherwise.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from semcast import randomness
from semcast.channels.base import Received
from semcast.channels.catalogue import CHANNELS, find_channel
from semcast.channels.erasure import interleaver
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.modulation.analog import demodulate

ROWS, SYMBOLS = 64, 8192
DRAWS = ROWS * SYMBOLS


def seeded(*seeds: int) -> list[np.random.Generator]:
    return [randomness.seeded(seed) for seed in seeds]


def unit_power(rows: int, symbols: int, seed: int = 0) -> torch.Tensor:
    """QPSK symbols: every |x| is 1."""
    signs = 1 - 2 * torch.randint(0, 2, (2, rows, symbols), generator=torch.Generator().manual_seed(seed)).float()
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
        (
            torch.ones(2, 4, dtype=torch.complex64),
            torch.zeros(3),
            2,
            r"snr_db must be a finite number or 2 of them, got \[0.0, 0.0, 0.0\]",
        ),
        (torch.ones(2, 4, dtype=torch.complex64), torch.zeros(2, 1), 2, "snr_db must be a finite number or 2 of them"),
    ],
)
def test_wrong_input_is_refused_by_name(x, snr_db, generators, text):
    with pytest.raises(ValueError, match=text):
        awgn(x, snr_db, seeded(*range(generators)))


def test_channels_are_found_by_name_and_an_unknown_one_is_refused_with_the_known_ones():
    x = unit_power(2, 16)
    found = find_channel("awgn")(x, 5.0, seeded(0, 1))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, awgn(x, 5.0, seeded(0, 1))))
    with pytest.raises(InputError, match="no channel is called 'rice'; there are: awgn, rayleigh, "):
        find_channel("rice")


FLAT = [name for name in CHANNELS if name[:3] not in ("tdl", "cdl")]  # the others are in test_ofdm.py
VARIANTS = [(name, {}) for name in FLAT] + [
    ("rician", {"k_db": -3}),
    ("burst-erasure", {"rate": 0.4, "burst_symbols": 3, "interleave": "no"}),
    ("packet-erasure", {"packet_symbols": 7, "interleave": "no"}),
    ("impulsive", {"known": "symbol"}),
    ("middleton", {"index": 2.0, "known": "symbol"}),
    ("clipping", {"papr_db": 0}),
]


def gaussian(rows: int, symbols: int, seed: int = 0) -> torch.Tensor:
    """CN(0, 1) symbols, scaled to unit power per row."""
    re, im = torch.randn((2, rows, symbols), generator=torch.Generator().manual_seed(seed))
    x = torch.complex(re, im)
    return x / x.abs().square().mean(dim=1, keepdim=True).sqrt()


def mean_near(values: torch.Tensor, expected: float) -> bool:
    """Is the mean of these independent values within five of its standard errors?"""
    return abs(values.double().mean().item() - expected) < 5 * values.double().std().item() / math.sqrt(values.numel())


@pytest.mark.parametrize("name, options", VARIANTS)
def test_every_channel_keeps_the_convention(name, options):
    """Shapes; a picture's channel depends only on its generator; x is not changed; noise_var is the true variance."""
    channel, x = find_channel(name), gaussian(40, 3000)
    before, state = x.clone(), torch.get_rng_state()
    y, h, noise_var = together = channel(x, 5.0, seeded(*range(40)), **options)
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())
    assert y.shape == x.shape and h.shape[1] in (1, 3000) and noise_var.shape[1] in (1, 3000)
    for i in (0, 17):
        alone = channel(x[i : i + 1], torch.tensor([5.0]), seeded(i), **options)
        assert all(torch.equal(a, b[i : i + 1]) for a, b in zip(alone, together))
    kept = noise_var.isfinite().expand_as(x)
    error = (y - h * x).abs().square() / noise_var
    assert mean_near(torch.where(kept, error, 0).sum(dim=1) / kept.sum(dim=1), 1)  # a mean per picture
    assert (y[~kept] == 0).all()


@pytest.mark.parametrize("name", FLAT)
def test_snr_mismatch_misleads_the_receiver_and_changes_nothing_else(name):
    x = gaussian(3, 200)
    y, h, noise_var = find_channel(name)(x, 5.0, seeded(0, 1, 2))
    for mismatch_db in (-3, 10.0):
        other = find_channel(name)(x, 5.0, seeded(0, 1, 2), snr_mismatch_db=mismatch_db)
        assert torch.equal(other.y, y) and torch.equal(other.h, h)
        assert torch.allclose(other.noise_var, noise_var * 10 ** (-mismatch_db / 10))


def test_one_seed_gives_the_same_noise_on_every_flat_channel():
    x = unit_power(2, 500)
    noise = awgn(x, 3.0, seeded(0, 1)).y - x
    for name in ("rayleigh", "rayleigh-fast", "rician", "erasure"):
        y, h, noise_var = find_channel(name)(x, 3.0, seeded(0, 1))
        kept = noise_var.isfinite().expand_as(x)
        assert torch.allclose((y - h * x)[kept], noise[kept], atol=1e-6)


def kolmogorov(values: torch.Tensor, cdf) -> float:
    """sqrt(N) times the largest distance of the empirical from the given distribution; above 1.95 once in 1000."""
    expected, n = cdf(values.sort().values.double()), len(values)
    steps = torch.arange(n + 1) / n
    return math.sqrt(n) * max((steps[1:] - expected).max().item(), (expected - steps[:-1]).max().item())


@pytest.mark.parametrize("name", ["rayleigh", "rayleigh-fast"])
def test_rayleigh_gains(name):
    rows, symbols = (4000, 1) if name == "rayleigh" else (8, 4000)
    h = find_channel(name)(unit_power(rows, symbols), 10.0, seeded(*range(rows))).h
    assert mean_near(h.abs().square(), 1) and mean_near(h.real * h.imag, 0)
    assert mean_near(h.real, 0) and mean_near(h.imag, 0)
    assert kolmogorov(h.abs().flatten(), lambda r: 1 - torch.exp(-r.square())) < 1.95
    assert kolmogorov(h.angle().flatten(), lambda a: a / (2 * math.pi) + 0.5) < 1.95
    if name == "rayleigh-fast":
        assert mean_near((h[:, 1:] * h[:, :-1].conj()).real, 0)


@pytest.mark.parametrize("k_db", [-20, 0, 6, 15])
def test_rician_k(k_db):
    h = find_channel("rician")(unit_power(4000, 1), 10.0, seeded(*range(4000)), k_db=k_db).h
    k = 10 ** (k_db / 10)
    assert mean_near(h.abs().square(), 1)
    assert mean_near(h.real, math.sqrt(k / (k + 1))) and mean_near(h.imag, 0)
    assert mean_near((h - math.sqrt(k / (k + 1))).abs().square(), 1 / (k + 1))


@pytest.mark.parametrize("rate", [0, 0.1, 0.5])
@pytest.mark.parametrize("name", ["erasure", "burst-erasure", "packet-erasure"])
def test_erasure_rate(name, rate):
    noise_var = find_channel(name)(unit_power(200, 3000), 10.0, seeded(*range(200)), rate=rate).noise_var
    share = noise_var.isinf().double().mean(dim=1)
    assert mean_near(share, rate) if rate else share.max() == 0


def runs(lost: torch.Tensor) -> torch.Tensor:
    """Lengths of the runs of True in the rows of [B, K]; those cut by an end of a row are too few to matter."""
    edges = torch.nn.functional.pad(lost.int(), (1, 1)).diff(dim=1)
    return (edges == -1).nonzero()[:, 1] - (edges == 1).nonzero()[:, 1]


@pytest.mark.parametrize("burst", [1, 4, 20])
def test_bursts_are_geometric_with_the_given_mean_until_interleaved(burst):
    channel, x = find_channel("burst-erasure"), unit_power(40, 20000)
    options = {"rate": 0.2, "burst_symbols": burst}
    lost = channel(x, 10.0, seeded(*range(40)), interleave="no", **options).noise_var.isinf()
    lengths = runs(lost).double()
    # The deviation of a geometric distribution is about its mean.
    assert lengths.mean().item() == pytest.approx(burst, rel=5 / math.sqrt(len(lengths)))
    assert lengths.std().item() == pytest.approx(math.sqrt(burst**2 - burst), rel=8 / math.sqrt(len(lengths)), abs=1e-9)
    spread = channel(x, 10.0, seeded(*range(40)), interleave="yes", **options).noise_var.isinf()
    assert torch.equal(spread.sum(dim=1), lost.sum(dim=1))
    assert runs(spread).double().mean().item() == pytest.approx(1 / 0.8, rel=0.02)  # as if independent
    order = interleaver(20000)
    assert torch.equal(spread[:, order], lost)  # the i-th symbol on the air is x[order[i]]


def test_the_interleaver_is_what_the_protocol_says():
    for k in (1, 8, 1152):
        state, keys = k, []
        for _ in range(k):
            state = (6364136223846793005 * state + 1442695040888963407) % 2**64
            keys.append(state)
        assert [keys[i] for i in interleaver(k).tolist()] == sorted(keys)
    protocol = (Path(__file__).parent.parent / "PROTOCOL.md").read_text()
    assert f"For k = 8 the order is {', '.join(map(str, interleaver(8).tolist()))}." in protocol


def test_packets_are_lost_as_a_whole():
    channel, options = find_channel("packet-erasure"), {"packet_symbols": 64, "interleave": "no"}
    lost = channel(unit_power(50, 1000), 10.0, seeded(*range(50)), **options).noise_var.isinf()
    packets = torch.nn.functional.pad(lost, (0, 24)).view(50, 16, 64).sum(dim=2)
    assert set(packets[:, :15].unique().tolist()) == {0, 64} and set(packets[:, 15].unique().tolist()) <= {0, 40}


def test_impulses_have_their_rate_and_power():
    x = unit_power(20, 20000)
    y, _, noise_var = find_channel("impulsive")(x, 0.0, seeded(*range(20)), rate=0.05, impulse_db=20, known="symbol")
    quiet, loud = noise_var.unique().tolist()
    assert loud / quiet == pytest.approx(101, rel=1e-4) and 0.95 * quiet + 0.05 * loud == pytest.approx(1, rel=1e-5)
    hit = noise_var == noise_var.max()
    assert mean_near(hit.float(), 0.05)
    for group, power in ((hit, loud), (~hit, quiet)):
        assert mean_near((y - x)[group].abs().square(), power)
    told = find_channel("impulsive")(x, 0.0, seeded(*range(20)), rate=0.05, impulse_db=20)
    assert torch.equal(told.y, y) and torch.equal(told.noise_var, torch.ones(20, 1))


def test_middleton_noise_is_the_mixture_of_its_definition():
    x, index, ratio_db = unit_power(20, 20000), 0.3, -10.0
    y, _, noise_var = find_channel("middleton")(
        x, 0.0, seeded(*range(20)), index=index, ratio_db=ratio_db, known="symbol"
    )
    for m in range(3):
        power = (m / index + 0.1) / 1.1
        hit = (noise_var - power).abs() < 1e-5
        assert mean_near(hit.float(), math.exp(-index) * index**m / math.factorial(m))
        assert mean_near((y - x)[hit].abs().square(), power)


@pytest.mark.parametrize("papr_db", [0, 3, 6])
def test_clipping_and_bussgang(papr_db):
    """For CN(0, 1) and a limit A: h = 1 - exp(-A^2) + sqrt(pi) A erfc(A) / 2, E|clip|^2 = 1 - exp(-A^2)."""
    x = gaussian(40, 20000)
    y, h, noise_var = find_channel("clipping")(x, 60.0, seeded(*range(40)), papr_db=papr_db)
    limit = 10 ** (papr_db / 20)
    clipped = y - (awgn(x, 60.0, seeded(*range(40))).y - x)
    assert clipped.abs().max().item() == pytest.approx(limit, rel=1e-4)
    inside = x.abs() < 0.999 * limit
    assert torch.allclose(clipped[inside], x[inside], atol=1e-5)
    gain = 1 - math.exp(-(limit**2)) + math.sqrt(math.pi) / 2 * limit * math.erfc(limit)
    assert mean_near(h.real, gain) and not h.imag.any()
    assert mean_near(noise_var - 1e-6, 1 - math.exp(-(limit**2)) - gain**2)
    distortion = (clipped - h * x) * x.conj()
    assert distortion.mean(dim=1).abs().max() < 1e-4  # uncorrelated with x


def test_erased_symbols_are_estimated_as_zero():
    x = gaussian(2, 72)
    for name in ("erasure", "burst-erasure", "packet-erasure"):
        received = find_channel(name)(x, 10.0, seeded(0, 1), rate=0.5)
        for noise_aware in (True, False):
            z, noise = demodulate(received, 1.0, (16, 3, 3), noise_aware)
            assert z.isfinite().all() and noise.isfinite().all()
            symbols = torch.complex(*z.flatten(1).chunk(2, dim=1))
            assert (symbols[received.noise_var.isinf()] == 0).all()
    nothing = Received(torch.zeros_like(x), torch.zeros(2, 1, dtype=x.dtype), torch.full((2, 1), math.inf))
    assert torch.equal(demodulate(nothing, 1.0, (16, 3, 3), True)[0], torch.zeros(2, 16, 3, 3))


def test_uses_count_every_overhead():
    for name in FLAT:
        assert find_channel(name).uses(1152, {}) == 1152
    tdl, cdl = find_channel("tdl-a"), find_channel("cdl-e")
    # 14 OFDM symbols of 96 subcarriers with a cyclic prefix of 9/128, 6.75, so 7 samples; 2 of the 14 are pilots
    assert tdl.uses(1152, {}) == cdl.uses(1152, {"speed_mps": 10}) == 14 * (96 + 7)
    assert tdl.uses(1152, {"pilots": 4}) == 14 * (116 + 9)  # 1152 / 10, rounded up
    assert tdl.uses(1153, {}) == 14 * (97 + 7)
    assert tdl.uses(8, {}) == 14 * (12 + 1)  # one resource block at least


def test_options_are_parsed_with_their_kinds():
    channel = find_channel("packet-erasure")
    assert channel.parse(["rate=0.25", "packet_symbols=16"]) == {
        "rate": 0.25,
        "packet_symbols": 16,
        "interleave": "yes",
        "snr_mismatch_db": 0.0,
    }
    for name, channel in CHANNELS.items():
        assert channel.name == name and channel.check({}) == channel.check(channel.check({}))
        for option in channel.options.values():
            if isinstance(option.default, str):
                assert option.default in option.allowed
            else:
                assert option.allowed[0] <= option.default <= option.allowed[1]


def test_channels_lists_names_options_units_and_examples_that_parse(cli):
    from semcast.cli import build_parser

    code, out, err = cli("channels")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 160
    for channel in CHANNELS.values():
        assert f"\n{channel.name} " in "\n" + out
        args = build_parser().parse_args(channel.example.split()[1:])
        assert f"e.g. {channel.example}\n" in out
        assert find_channel(args.channel).parse(args.channel_option) == channel.check({})
        for key, option in channel.options.items():
            assert f"{key} = {option} {option.unit}".rstrip() in out
