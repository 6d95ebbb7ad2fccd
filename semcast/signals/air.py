"""Radio paths for real samples, by name, and what else happens to a signal between two sound cards.

Imports nothing heavy before a signal is sent, so that a command line can list what there is.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..channels.catalogue import Option, check_value
from ..errors import InputError, load_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator


class RadioPath(NamedTuple):
    """A radio path: its name, and its two echoes as in `watterson.watterson`, or none."""

    name: str
    about: str
    delay_ms: float = 0.0
    doppler_hz: float | None = None  # None: a single path that does not fade


_ALL = [
    RadioPath("awgn", "white Gaussian noise alone"),
    RadioPath("watterson-good", "middle latitudes, quiet", 0.5, 0.1),
    RadioPath("watterson-moderate", "middle latitudes, moderate", 1.0, 0.5),
    RadioPath("watterson-poor", "middle latitudes, disturbed", 2.0, 1.0),
    RadioPath("watterson-nvis", "middle latitudes, disturbed, near vertical incidence", 7.0, 1.0),
    RadioPath("watterson-lq", "low latitudes, quiet", 0.5, 0.5),
    RadioPath("watterson-lm", "low latitudes, moderate", 2.0, 1.5),
    RadioPath("watterson-ld", "low latitudes, disturbed", 6.0, 10.0),
    RadioPath("watterson-hq", "high latitudes, quiet", 1.0, 0.5),
    RadioPath("watterson-hm", "high latitudes, moderate", 3.0, 10.0),
    RadioPath("watterson-hd", "high latitudes, disturbed", 7.0, 30.0),
    RadioPath("watterson-flutter", "flutter fading of ITU-R F.520", 0.5, 10.0),
]
PATHS = {path.name: path for path in _ALL}
BANDS = {"full": None, "ssb": (300.0, 2700.0)}  # of the receiver's filter, Hz

EFFECTS = {  # the options of `propagate`, as a command line takes them
    "offset_hz": Option(0.0, (-2000.0, 2000.0), "Hz", "the receiver is tuned so much too low"),
    "drift_hz_per_min": Option(0.0, (-600.0, 600.0), "Hz/min", "the offset grows by so much a minute"),
    "clock_ppm": Option(0.0, (-2000.0, 2000.0), "ppm", "the receiver's sound card takes so many more samples"),
    "clip_db": Option(math.inf, (0.0, math.inf), "dB", "the transmitter limits its envelope, over the mean power"),
    "tone_db": Option(-math.inf, (-math.inf, 60.0), "dB", "power of an interfering tone over the signal's"),
    "tone_hz": Option(1000.0, (0.0, 24000.0), "Hz", "where the tone is"),
    "band": Option("full", tuple(BANDS), "", "what the receiver's filter lets through; ssb: 300 to 2700 Hz"),
    "level_db": Option(0.0, (-120.0, 60.0), "dB", "gain before the receiver's sound card"),
    "adc_bits": Option(0, (0, 32), "bits", "of the sound card, which clips at full scale; 0: it is perfect"),
}


def find_path(name: str) -> RadioPath:
    """Return a path by its name, or the user's own by "module:NAME". Raises InputError: there is none."""
    if name in PATHS:
        return PATHS[name]
    if ":" not in name:
        raise InputError(f"no radio path is called {name!r}; there are: {', '.join(PATHS)}")
    return load_object(name, RadioPath)


def check_effects(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `propagate` from values or texts by name.

    Raises:
        InputError: an option is unknown, or a value is not allowed.
    """
    if unknown := [key for key in options if key not in EFFECTS]:
        raise InputError(f"a radio path has no option {unknown[0]!r}; it has: {', '.join(EFFECTS)}")
    values = {key: check_value(key, value, EFFECTS[key]) for key, value in options.items()}
    return values | {"band": BANDS[str(values["band"])]} if "band" in values else values


def propagate(
    samples: "np.ndarray",
    rate_hz: float,
    channel: str | RadioPath = "awgn",
    *,
    snr3k_db: float,
    generator: "Generator",
    offset_hz: float = 0.0,
    drift_hz_per_min: float = 0.0,
    clock_ppm: float = 0.0,
    clip_db: float | None = None,
    tone_db: float | None = None,
    tone_hz: float = 1000.0,
    band: tuple[float, float] | None = None,
    level_db: float = 0.0,
    adc_bits: int = 0,
) -> "np.ndarray":
    """Send samples over a radio path to another sound card.

    In this order: the transmitter clips; the path fades; the receiver is mistuned; a tone and noise come in; the
    receiver filters; its sound card runs at a rate of its own; the level is set, and the sound card clips and rounds.

    Args:
        samples: float32 [N]. Silence before and after belongs in here; noise fills it.
        channel: a name out of PATHS, or a path of your own.
        snr3k_db: power of the signal, after clipping, over that of the noise in 3 kHz. Infinite: no noise. Fading does
            not change the mean. White noise fills the whole band.
        generator: the only source of randomness. The noise is drawn first, so that it is the same on all paths.
        clip_db, tone_db: None is no clipping and no tone; so are inf and -inf.
        others: see EFFECTS; `band` is a pair in Hz.

    Returns:
        float32 [N + echo's delay, times 1 + clock_ppm / 1e6]; not limited to -1 .. 1 unless `adc_bits` is given.

    Raises:
        InputError: no path has this name, or the signal is silent, so that no SNR can be set.
    """
    import numpy as np

    from .filters import band_pass, resample
    from .power import active_power, clip_envelope, convert, noise_power, tone
    from .shift import shift
    from .watterson import watterson

    path = find_path(channel) if isinstance(channel, str) else channel
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise ValueError(f"samples must be [N] of floats, got {list(samples.shape)} {samples.dtype}")
    if math.isnan(snr3k_db) or snr3k_db == -math.inf:
        raise ValueError(f"snr3k_db must be a number, got {snr3k_db}")
    count = len(samples) + math.ceil(round(path.delay_ms / 1e3 * rate_hz, 6))
    noise = generator.standard_normal(count, np.float32)
    x = samples if clip_db is None or clip_db == math.inf else clip_envelope(samples, rate_hz, clip_db)
    power = active_power(x, rate_hz)
    if not (0 < power < math.inf):
        raise InputError("the signal is silent or damaged, so that no SNR can be set; is it the right file?")
    noise *= math.sqrt(noise_power(power, snr3k_db, rate_hz))
    if path.doppler_hz is not None:
        x = watterson(x, rate_hz, path.delay_ms, path.doppler_hz, generator)
    y = shift(x, rate_hz, offset_hz, drift_hz_per_min) + noise
    if tone_db is not None and tone_db > -math.inf:
        y += tone(count, rate_hz, tone_hz, power * 10 ** (tone_db / 10), generator)
    if band is not None:
        y = band_pass(y, rate_hz, *band)
    y = resample(y, 1.0, 1 + clock_ppm / 1e6) * np.float32(10 ** (level_db / 20))
    return convert(y, adc_bits) if adc_bits else y
