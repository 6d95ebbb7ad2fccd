"""Wireless channels: unit-power complex symbols in, noisy complex symbols out.

Used everywhere in this package:
    x, y       [B, K] complex   K channel uses per image; mean |x|^2 = 1 per image
    snr_db     number or [B]    Es/N0: 10 log10(mean |x|^2 / noise_var), per complex symbol, averaged over fading
    noise_var  linear           total per complex symbol, so half per real dimension; infinite where a symbol is lost
A channel never rescales x. Whatever a receiver may know of the channel is in Received, nowhere else. The order of y is
that of x: a channel with an interleaver permutes before and undoes it after.

A channel is a plain function f(x, snr_db, generators, **options) -> Received. `CHANNELS` adds what a user is told about
it: names, units, defaults and ranges of its options. All take one CPU generator per image, their only randomness, so no
image's channel depends on its batch; and all draw the noise first, so one seed gives the same noise on many channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .cascade.diffusion import draw_noise
from .errors import InputError


class Received(NamedTuple):
    """y = h x + n."""

    y: Tensor  # [B, K] complex, what the antenna sees
    h: Tensor  # [B, K] or [B, 1] complex, channel gain; all ones for AWGN
    noise_var: Tensor  # [B, K] or [B, 1] real, linear, Var(n) per complex symbol


def equalise(received: Received, mmse: bool = True) -> Tensor:
    """What x was, [B, K] complex: the MMSE estimate conj(h) y / (|h|^2 + noise_var), for x of unit power; else conj(h) y / |h|^2."""
    y, h, noise_var = received
    power = h.abs().square()
    return h.conj() * y / (power + noise_var if mmse else power).clamp_min(1e-12)


def awgn(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator]) -> Received:
    """Additive white Gaussian noise, y = x + n.

    Args:
        x: channel input, [B, K] complex, unit power per image (`transmitter.modulate`).
        snr_db: Es/N0 in dB; a number, or one value per image as [B].
        generators: one per image, the only source of randomness, so no image's noise depends on its batch.
    Raises:
        ValueError: x is not [B, K] complex, snr_db is not finite or neither a number nor [B], or a generator is missing.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    return Received(x + n, torch.ones_like(x[:, :1]), noise_var)


def white_noise(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator]) -> tuple[Tensor, Tensor]:
    """n [B, K] ~ CN(0, noise_var) and noise_var [B, 1]. Arguments and errors as in `awgn`."""
    if x.ndim != 2 or not x.is_complex():
        raise ValueError(f"x must be [B, K] complex, got {list(x.shape)} {x.dtype}")
    if len(generators) != len(x):
        raise ValueError(f"{len(x)} images need as many generators, got {len(generators)}")
    snr_db = torch.as_tensor(snr_db, dtype=torch.float32, device=x.device)
    if tuple(snr_db.shape) not in ((), (len(x),)) or not snr_db.isfinite().all():
        raise ValueError(f"snr_db must be a finite number or {len(x)} of them, got {snr_db.tolist()}")
    noise_var = (10 ** (-snr_db / 10)).expand(len(x))[:, None]  # [B, 1]
    return complex_normal(x, x.shape[1], generators, noise_var), noise_var


def complex_normal(x: Tensor, count: int, generators: Sequence[Generator], variance: float | Tensor = 1.0) -> Tensor:
    """CN(0, variance) draws [B, count] on x's device, row i from generators[i]."""
    re, im = draw_noise(x.new_empty(len(x), 2, count, dtype=torch.float32), generators).unbind(1)  # N(0, 1) each
    return torch.complex(re, im) * (torch.as_tensor(variance) / 2).sqrt()


def uniform(x: Tensor, count: int, generators: Sequence[Generator]) -> Tensor:
    """Draws [B, count] from [0, 1) on x's device, row i from generators[i]."""
    return torch.stack([torch.rand(count, generator=g) for g in generators]).to(x.device)


# Fading


def rayleigh(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator]) -> Received:
    """Flat Rayleigh block fading, y = h x + n: one gain h ~ CN(0, 1) per image, known to the receiver.

    Source: Tse & Viswanath, Fundamentals of Wireless Communication (2005), 2.4.2.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    h = complex_normal(x, 1, generators)  # [B, 1]
    return Received(h * x + n, h, noise_var)


def rayleigh_fast(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator]) -> Received:
    """As `rayleigh`, with an independent gain for every symbol: ideally interleaved fading. h is [B, K]."""
    n, noise_var = white_noise(x, snr_db, generators)
    h = complex_normal(x, x.shape[1], generators)
    return Received(h * x + n, h, noise_var)


def rician(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], k_db: float) -> Received:
    """Flat Rician block fading: h = sqrt(K / (K + 1)) + sqrt(1 / (K + 1)) CN(0, 1), E|h|^2 = 1, known to the receiver.

    Args:
        k_db: K, power of the direct path over that of all others, in dB.
    Source: Tse & Viswanath (2005), equation 2.55; the direct path's phase is 0, which a receiver that knows h cannot tell.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    k = 10 ** (k_db / 10)
    h = math.sqrt(k / (k + 1)) + math.sqrt(1 / (k + 1)) * complex_normal(x, 1, generators)
    return Received(h * x + n, h, noise_var)


# Erasures: a lost symbol has y = 0 and noise_var = inf


def erasure(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], rate: float) -> Received:
    """AWGN; every symbol is lost with probability `rate`, independently, and the receiver knows which."""
    return erase(awgn(x, snr_db, generators), uniform(x, x.shape[1], generators) < rate)


def burst_erasure(
    x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], rate: float, burst_symbols: float, interleave: str
) -> Received:
    """AWGN; symbols are lost in bursts, by a two-state Markov chain started in its stationary state.

    Args:
        rate: of lost symbols, in the long run.
        burst_symbols: mean length of a burst, which is geometric; the gaps' mean is burst_symbols (1 - rate) / rate.
        interleave: "yes" spreads the bursts over the latent (`interleaver`).
    Source: Gilbert 1960, "Capacity of a burst-noise channel", with everything lost in the bad state.
    """
    received, count = awgn(x, snr_db, generators), x.shape[1]
    u = uniform(x, count + 1, generators).double()  # [B, K + 1]: the first state, then the length of each run
    bad = ((u[:, :1] < rate).long() + torch.arange(count, device=x.device)) % 2  # [B, runs]
    end = torch.tensor([max(rate / (1 - rate), 1e-12), 1.0], dtype=torch.float64, device=x.device) / burst_symbols
    runs = (torch.log1p(-u[:, 1:]) / torch.log1p(-end[bad])).ceil().clamp(1, count)  # geometric
    at = torch.arange(count, device=x.device, dtype=torch.float64).expand(len(x), -1).contiguous()
    lost = bad.gather(1, torch.searchsorted(runs.cumsum(dim=1), at, right=True)) == 1
    return erase(received, deinterleave(lost) if interleave == "yes" else lost)


def packet_erasure(
    x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], rate: float, packet_symbols: int, interleave: str
) -> Received:
    """AWGN; packets of `packet_symbols` consecutive symbols arrive or are lost as a whole, with probability `rate`.

    The last packet may be shorter. Without interleaving a packet is a stretch of the latent, with it a sprinkling.
    """
    received, count = awgn(x, snr_db, generators), x.shape[1]
    packets = uniform(x, -(-count // packet_symbols), generators) < rate  # [B, packets]
    lost = packets.repeat_interleave(packet_symbols, dim=1)[:, :count]
    return erase(received, deinterleave(lost) if interleave == "yes" else lost)


def erase(received: Received, lost: Tensor) -> Received:
    """Take the symbols where lost [B, K] is true away."""
    y, h, noise_var = received
    return Received(y.masked_fill(lost, 0), h, torch.where(lost, math.inf, noise_var))


@lru_cache(maxsize=64)
def interleaver(count: int) -> Tensor:
    """The order [count] in which symbols are sent: the i-th symbol on the air is x[order[i]].

    Known to both ends and free: order sorts s_1 .. s_count, s_i = (6364136223846793005 s_(i-1) + 1442695040888963407)
    mod 2^64 with s_0 = count. Source of the constants: Knuth's MMIX generator.
    """
    state, keys = count, []
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        keys.append(state)
    return torch.tensor(sorted(range(count), key=keys.__getitem__))


def deinterleave(sent: Tensor) -> Tensor:
    """Values [B, K] in the order on the air -> in the order of x."""
    out = torch.empty_like(sent)
    out[:, interleaver(sent.shape[1]).to(sent.device)] = sent
    return out


# Noise that is not Gaussian. Its average power is what snr_db says.


def impulsive(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], rate: float, impulse_db: float, known: str) -> Received:
    """Bernoulli-Gaussian noise: white noise, with probability `rate` joined by an impulse `impulse_db` stronger.

    Args:
        impulse_db: mean power of an impulse over that of the white noise alone.
        known: what the receiver is told: "average", the mean noise power, or "symbol", that of each symbol.
    Source: Ghosh 1996, "Analysis of the effect of impulse noise on multicarrier and single carrier QAM systems".
    """
    n, noise_var = white_noise(x, snr_db, generators)
    impulse = 10 ** (impulse_db / 10)
    scale = (1 + impulse * (uniform(x, x.shape[1], generators) < rate)) / (1 + rate * impulse)  # mean 1
    return scaled_noise(x, n, noise_var, scale, known)


def middleton(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], index: float, ratio_db: float, known: str) -> Received:
    """Middleton class A noise: a Poisson(index) number m of impulses overlap, the variance is (m / index + ratio) / (1 + ratio).

    Args:
        index: A, mean number of overlapping impulses; small is spiky, large is Gaussian.
        ratio_db: Gamma, power of the Gaussian part over that of the impulses.
        known: as in `impulsive`.
    Source: Middleton 1977, "Statistical-physical models of electromagnetic interference".
    """
    n, noise_var = white_noise(x, snr_db, generators)
    ratio = 10 ** (ratio_db / 10)
    rates = torch.full((x.shape[1],), index)
    count = torch.stack([torch.poisson(rates, generator=g) for g in generators]).to(x.device)  # [B, K]
    return scaled_noise(x, n, noise_var, (count / index + ratio) / (1 + ratio), known)


def scaled_noise(x: Tensor, n: Tensor, noise_var: Tensor, scale: Tensor, known: str) -> Received:
    """Noise n of the variance noise_var [B, 1] times scale [B, K]."""
    return Received(x + n * scale.sqrt(), torch.ones_like(x[:, :1]), noise_var * scale if known == "symbol" else noise_var)


def clipping(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], papr_db: float) -> Received:
    """An amplifier that cuts amplitudes (phases stay), then AWGN: y = clip(x) + n.

    Bussgang: clip(x) = h x + d with d uncorrelated with x, h = E[x* clip(x)] / E|x|^2. The receiver is told h and
    noise_var = Var(n) + Var(d), both measured on this picture's symbols; d is neither Gaussian nor independent of x.
    What is cut off is not amplified back: snr_db counts the power before the amplifier.
    Args:
        papr_db: largest |clip(x)|^2 over the mean |x|^2.
    Source: Ochiai & Imai 2002, "Performance analysis of deliberately clipped OFDM signals", equations 9 to 13.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    power = x.abs().square().mean(dim=1, keepdim=True)  # [B, 1]
    clipped = x * ((10 ** (papr_db / 10) * power).sqrt() / x.abs().clamp_min(1e-12)).clamp_max(1)
    h = (x.abs() * clipped.abs()).mean(dim=1, keepdim=True) / power.clamp_min(1e-12)
    distortion = (clipped.abs().square().mean(dim=1, keepdim=True) - h.square() * power).clamp_min(0)
    return Received(clipped + n, h.to(x.dtype), noise_var + distortion)


def ofdm(profile: str, *args, **options) -> Received:
    from .phy import ofdm  # imports Sionna when it draws

    return ofdm.transmit(profile, *args, **options)


def ofdm_uses(k: int, pilots: int, **_) -> int:
    from .phy import ofdm

    return ofdm.make_grid(k, pilots).uses


# What a user is told, and where options get their defaults and are checked


class Option(NamedTuple):
    default: float | int | str
    allowed: tuple  # (lowest, highest) of a number, or the words
    unit: str
    about: str

    def __str__(self) -> str:
        return self.default if isinstance(self.default, str) else f"{self.default:g}"

    @property
    def range(self) -> str:
        return " | ".join(self.allowed) if isinstance(self.default, str) else "{:g} .. {:g}".format(*self.allowed)


MISMATCH = Option(0.0, (-30, 30), "dB", "SNR the receiver believes in, minus the true one: at 3 it is told half the noise_var")


@dataclass(frozen=True)
class Channel:
    """A channel function by its name, callable with checked options."""

    name: str
    function: Callable[..., Received]
    about: str
    own: dict[str, Option] = field(default_factory=dict)
    count: Callable[..., int] = lambda k, **_: k  # complex uses for k symbols, overhead included

    @property
    def options(self) -> dict[str, Option]:
        return self.own | {"snr_mismatch_db": MISMATCH}

    @property
    def example(self) -> str:
        shown = [f" --channel-option {key}={option}" for key, option in list(self.own.items())[:1]]
        return f"semcast run photo.jpg --snr 10 --channel {self.name}{''.join(shown)}"

    def check(self, options: dict) -> dict:
        """Given values, numbers or text -> every option with its value.

        Raises:
            InputError: an unknown option, or a value that is not allowed.
        """
        if unknown := [key for key in options if key not in self.options]:
            raise InputError(f"channel {self.name!r} has no option {unknown[0]!r}; it has: {', '.join(self.options)}")
        return {key: check_value(key, options.get(key, option.default), option) for key, option in self.options.items()}

    def parse(self, texts: Sequence[str]) -> dict:
        """["K=V", ...] -> as `check`."""
        if bad := [text for text in texts if "=" not in text]:
            raise InputError(f"channel option {bad[0]!r}: write NAME=VALUE with a name out of {', '.join(self.options)}")
        return self.check(dict(text.split("=", 1) for text in texts))

    def __call__(self, x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator], **options) -> Received:
        options = self.check(options)
        mismatch_db = options.pop("snr_mismatch_db")
        y, h, noise_var = self.function(x, snr_db, generators, **options)
        return Received(y, h, noise_var * 10 ** (-mismatch_db / 10))


def check_value(key: str, value, option: Option):
    kind = type(option.default)
    if kind is str:
        if value not in option.allowed:
            raise InputError(f"channel option {key} = {value} must be one of {', '.join(option.allowed)}")
        return value
    try:
        number = kind(value)
        if kind is int and number != float(value):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"channel option {key} = {value} is not a {'whole ' if kind is int else ''}number") from None
    low, high = option.allowed
    if not low <= number <= high:  # refuses NaN too
        raise InputError(f"channel option {key} = {value} must lie between {low:g} and {high:g}")
    return number


RATE = Option(0.1, (0.0, 0.5), "", "share of symbols that are lost")
INTERLEAVE = Option("yes", ("yes", "no"), "", "spread what is lost over the latent")
KNOWN = Option("average", ("average", "symbol"), "", "the noise power the receiver is told: the mean, or each symbol's")
OFDM = {
    "delay_spread_ns": Option(100.0, (1.0, 1000.0), "ns", "RMS delay spread; echoes beyond the cyclic prefix, 2.3 us, do no harm here"),
    "speed_mps": Option(3.0, (0.0, 150.0), "m/s", "of the receiver; the channel changes within a picture"),
    "carrier_ghz": Option(3.5, (0.4, 100.0), "GHz", "carrier frequency"),
    "estimation": Option("ls", ("ls", "lmmse", "perfect"), "", "how the receiver learns the channel from the pilots"),
    "pilots": Option(2, (1, 4), "OFDM symbols", "out of 14, full of pilots"),
}

_ALL = [
    Channel("awgn", awgn, "white Gaussian noise"),
    Channel("rayleigh", rayleigh, "one Rayleigh gain per picture"),
    Channel("rayleigh-fast", rayleigh_fast, "one Rayleigh gain per symbol"),
    Channel("rician", rician, "one Rician gain per picture", {"k_db": Option(6.0, (-20.0, 40.0), "dB", "direct path over all others")}),
    Channel("erasure", erasure, "symbols are lost one by one", {"rate": RATE}),
    Channel(
        "burst-erasure",
        burst_erasure,
        "symbols are lost in bursts",
        {"rate": RATE, "burst_symbols": Option(20.0, (1.0, 1000.0), "symbols", "mean length of a burst"), "interleave": INTERLEAVE},
    ),
    Channel(
        "packet-erasure",
        packet_erasure,
        "packets are lost",
        {"rate": RATE, "packet_symbols": Option(64, (1, 32768), "symbols", "length of a packet"), "interleave": INTERLEAVE},
    ),
    Channel(
        "impulsive",
        impulsive,
        "rare impulses on top of white noise (Bernoulli-Gaussian)",
        {
            "rate": Option(0.02, (0.0, 0.5), "", "share of symbols hit"),
            "impulse_db": Option(20.0, (0.0, 40.0), "dB", "power of an impulse over the white noise"),
            "known": KNOWN,
        },
    ),
    Channel(
        "middleton",
        middleton,
        "overlapping impulses (Middleton class A)",
        {
            "index": Option(0.1, (0.001, 10.0), "", "mean number of overlapping impulses, A"),
            "ratio_db": Option(-10.0, (-40.0, 20.0), "dB", "Gaussian part over the impulses, Gamma"),
            "known": KNOWN,
        },
    ),
    Channel(
        "clipping",
        clipping,
        "an amplifier that clips, then white noise",
        {"papr_db": Option(3.0, (0.0, 20.0), "dB", "largest power over mean power")},
    ),
    *(
        Channel(f"{kind}-{letter}", partial(ofdm, f"{kind}-{letter}"), f"OFDM over 3GPP {kind.upper()}-{letter.upper()}", OFDM, ofdm_uses)
        for kind in ("tdl", "cdl")
        for letter in "abcde"
    ),
]
CHANNELS = {channel.name: channel for channel in _ALL}


def find_channel(name: str) -> Channel:
    """The channel of that name."""
    if name not in CHANNELS:
        raise InputError(f"no channel is called {name!r}; there are: {', '.join(CHANNELS)}")
    return CHANNELS[name]


def channel_uses(name: str, k: int, **options) -> int:
    """Complex channel uses for k symbols, pilots, cyclic prefix and empty places included."""
    channel = find_channel(name)
    return channel.count(k, **channel.check(options))
