"""The channels by name: a description of each and its options with defaults and ranges. Imports no torch.

A channel's function is named here and imported when it is first called. `--channel package.module:NAME` uses a
`Channel` from a module of your own; CONTRIBUTING.md shows an example.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, load_object, require

if TYPE_CHECKING:
    from numpy.random import Generator

    from .base import Array, Received


class Option(NamedTuple):
    """An option of a channel."""

    default: float | int | str
    allowed: tuple  # (lowest, highest) for a number, else the allowed words
    unit: str
    about: str

    def __str__(self) -> str:
        return self.default if isinstance(self.default, str) else f"{self.default:g}"

    @property
    def range(self) -> str:
        return " | ".join(self.allowed) if isinstance(self.default, str) else "{:g} .. {:g}".format(*self.allowed)


MISMATCH = Option(
    0.0, (-30, 30), "dB", "SNR that the receiver assumes minus the true one; at 3 dB it is told half the noise_var"
)


@dataclass(frozen=True)
class Channel:
    """A channel function with its name and options; calling it checks the options."""

    name: str
    function: "str | Callable[..., Received]"  # "module:function" is imported at the first call
    about: str
    own: Mapping[str, Option] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments of the function that a user cannot set
    overhead: str | Callable[..., int] | None = None  # f(k, **options) -> complex uses for k symbols; None: k uses
    needs: tuple[str, ...] = ()  # optional packages

    @property
    def options(self) -> dict[str, Option]:
        return {**self.own, "snr_mismatch_db": MISMATCH}

    @property
    def example(self) -> str:
        shown = [f" --channel-option {key}={option}" for key, option in list(self.own.items())[:1]]
        return f"semcast run photo.jpg --snr 10 --channel {self.name}{''.join(shown)}"

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Check the given values, numbers or text, and return the values of all options.

        Raises:
            InputError: an option is unknown, or a value is not allowed.
        """
        if unknown := [key for key in options if key not in self.options]:
            raise InputError(f"channel {self.name!r} has no option {unknown[0]!r}; it has: {', '.join(self.options)}")
        return {key: check_value(key, options.get(key, option.default), option) for key, option in self.options.items()}

    def parse(self, texts: Sequence[str]) -> dict[str, Any]:
        """As `check`, for texts "NAME=VALUE". Raises InputError also if a package of the channel is not installed."""
        if bad := [text for text in texts if "=" not in text]:
            raise InputError(
                f"channel option {bad[0]!r}: write NAME=VALUE, where NAME is one of {', '.join(self.options)}"
            )
        require(f"channel {self.name}", *self.needs)
        return self.check(dict(text.split("=", 1) for text in texts))

    def __call__(self, x: "Array", snr_db: "float | Array", generators: "Sequence[Generator]", **options) -> "Received":
        """Send x [B, K] over the channel; see base.py. Options that are not given take their defaults."""
        options = self.check(options)
        mismatch_db = options.pop("snr_mismatch_db")
        received = _resolve(self.function)(x=x, snr_db=snr_db, generators=generators, **self.fixed, **options)
        return received._replace(noise_var=received.noise_var * 10 ** (-mismatch_db / 10))

    def uses(self, k: int, options: Mapping[str, Any]) -> int:
        """Complex channel uses for k symbols, including pilots, cyclic prefix and empty places."""
        own = {key: value for key, value in self.check(options).items() if key in self.own}
        return _resolve(self.overhead)(k, **own) if self.overhead else k


@functools.cache
def _resolve(function: str | Callable) -> Callable:
    if not isinstance(function, str):
        return function
    return load_object(function, Callable)  # pyright: ignore[reportArgumentType]  # for typeshed Callable is no class


def check_value(key: str, value: Any, option: Option) -> float | int | str:
    """Convert a value to the type of the option's default and check its range."""
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
    if not low <= number <= high:  # also refuses NaN
        raise InputError(f"channel option {key} = {value} must lie between {low:g} and {high:g}")
    return number


RATE = Option(0.1, (0.0, 0.5), "", "share of lost symbols")
INTERLEAVE = Option("yes", ("yes", "no"), "", "spread the losses over the latent")
KNOWN = Option("average", ("average", "symbol"), "", "noise power that the receiver is told: the mean, or per symbol")
OFDM = {
    "delay_spread_ns": Option(
        100.0, (1.0, 1000.0), "ns", "RMS delay spread; echoes beyond the cyclic prefix (2.3 us) do no harm here"
    ),
    "speed_mps": Option(3.0, (0.0, 150.0), "m/s", "speed of the receiver; the channel changes within a picture"),
    "carrier_ghz": Option(3.5, (0.4, 100.0), "GHz", "carrier frequency"),
    "estimation": Option("ls", ("ls", "lmmse", "perfect"), "", "how the receiver estimates the channel"),
    "pilots": Option(2, (1, 4), "OFDM symbols", "how many of the 14 OFDM symbols are pilots"),
}

NOISE, FADING, ERASURE, OFDM_MODULE = (f"semcast.channels.{name}" for name in ("noise", "fading", "erasure", "ofdm"))

_ALL = [
    Channel("awgn", f"{NOISE}:awgn", "white Gaussian noise"),
    Channel("rayleigh", f"{FADING}:rayleigh", "one Rayleigh gain per picture"),
    Channel("rayleigh-fast", f"{FADING}:rayleigh_fast", "one Rayleigh gain per symbol"),
    Channel(
        "rician",
        f"{FADING}:rician",
        "one Rician gain per picture",
        {"k_db": Option(6.0, (-20.0, 40.0), "dB", "power of the direct path over all others")},
    ),
    Channel("erasure", f"{ERASURE}:erasure", "symbols are lost one by one", {"rate": RATE}),
    Channel(
        "burst-erasure",
        f"{ERASURE}:burst_erasure",
        "symbols are lost in bursts",
        {
            "rate": RATE,
            "burst_symbols": Option(20.0, (1.0, 1000.0), "symbols", "mean length of a burst"),
            "interleave": INTERLEAVE,
        },
    ),
    Channel(
        "packet-erasure",
        f"{ERASURE}:packet_erasure",
        "packets are lost",
        {
            "rate": RATE,
            "packet_symbols": Option(64, (1, 32768), "symbols", "length of a packet"),
            "interleave": INTERLEAVE,
        },
    ),
    Channel(
        "impulsive",
        f"{NOISE}:impulsive",
        "rare impulses on top of white noise (Bernoulli-Gaussian)",
        {
            "rate": Option(0.02, (0.0, 0.5), "", "share of symbols hit"),
            "impulse_db": Option(20.0, (0.0, 40.0), "dB", "power of an impulse over the white noise"),
            "known": KNOWN,
        },
    ),
    Channel(
        "middleton",
        f"{NOISE}:middleton",
        "overlapping impulses (Middleton class A)",
        {
            "index": Option(0.1, (0.001, 10.0), "", "mean number of overlapping impulses, A"),
            "ratio_db": Option(-10.0, (-40.0, 20.0), "dB", "power of the Gaussian part over the impulses, Gamma"),
            "known": KNOWN,
        },
    ),
    Channel(
        "clipping",
        f"{NOISE}:clipping",
        "an amplifier that clips, then white noise",
        {"papr_db": Option(3.0, (0.0, 20.0), "dB", "largest power over mean power")},
    ),
    *(
        Channel(
            f"{kind}-{letter}",
            f"{OFDM_MODULE}:ofdm",
            f"OFDM over 3GPP {kind.upper()}-{letter.upper()}",
            OFDM,
            fixed={"profile": f"{kind}-{letter}"},
            overhead=f"{OFDM_MODULE}:ofdm_uses",
            needs=("sionna",),
        )
        for kind in ("tdl", "cdl")
        for letter in "abcde"
    ),
]
CHANNELS = {channel.name: channel for channel in _ALL}


def find_channel(name: str) -> Channel:
    """Return a channel by its name, or the user's own by "module:NAME".

    Raises:
        InputError: there is no such channel.
    """
    if name in CHANNELS:
        return CHANNELS[name]
    if ":" not in name:
        raise InputError(f"no channel is called {name!r}; there are: {', '.join(CHANNELS)}")
    return replace(load_object(name, Channel), name=name)
