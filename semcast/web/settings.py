"""The settings of a job, as a page sends them: checked once, in the server, before the job waits for its turn."""

from collections.abc import Callable, Mapping
from typing import Any

from ..channels.catalogue import CHANNELS, Channel, find_channel
from ..errors import InputError, missing
from ..header import SEED_MAX
from ..signals.air import PATHS
from .limits import Limits

SAMPLE = "sample"  # in place of an upload: the photo that ships with semcast
PROFILES = ("fast", "narrow")  # of modem.profiles
Check = Callable[[str, Any], Any]


def number(low: float, high: float) -> Check:
    """A check for a number within these bounds."""

    def check(name: str, value: Any) -> float:
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        if not (fine and low <= value <= high):  # refuses NaN too
            raise InputError(f"{name} must be a number between {low:g} and {high:g}")
        return float(value)

    return check


def whole(low: int, high: int) -> Check:
    """A check for a whole number within these bounds."""

    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InputError(f"{name} must be a whole number between {low} and {high}")
        return value

    return check


def word(*allowed: Any) -> Check:
    """A check for one out of some values."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int) or value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(map(str, allowed))}")
        return value

    return check


def token(name: str, value: Any) -> str:
    """A check for the name of an upload."""
    if not isinstance(value, str) or not 1 <= len(value) <= 64:
        raise InputError(f"{name} names nothing that was uploaded")
    return value


def channels() -> dict[str, Channel]:
    """The channels whose packages are installed."""
    return {name: channel for name, channel in CHANNELS.items() if not missing(*channel.needs)}


def offered(limits: Limits, top: int) -> dict[str, Any]:
    """What the page puts into its controls; top: the last rung of the model."""
    options = lambda channel: {
        key: {"default": o.default, "allowed": list(o.allowed), "unit": o.unit, "about": o.about}
        for key, o in channel.own.items()
    }
    found = {name: {"about": channel.about, "options": options(channel)} for name, channel in channels().items()}
    shown = {name: getattr(limits, name) for name in ("upload_bytes", "sides", "steps", "recording_s")}
    paths = {name: path.about for name, path in PATHS.items()}
    return {"top": top, "channels": found, "paths": paths, "limits": shown}


def fields(limits: Limits, top: int) -> dict[str, dict[str, tuple[Check, Any]]]:
    """Of each kind of job: its settings, how each is checked, and its default; None must be given."""
    receiver = {"steps": (whole(1, limits.steps), 1), "seed": (whole(0, SEED_MAX), 0)}
    picture = {
        "picture": (token, SAMPLE),
        "side": (word(*limits.sides), 512),
        "rungs": (whole(1, top), min(8, top)),
        **receiver,
    }
    symbols = picture | {
        "channel": (word(*channels()), "awgn"),
        "options": (lambda name, value: value, {}),
        "snr_db": (number(-30, 60), 10.0),
    }
    radio = picture | {
        "profile": (word(*PROFILES), PROFILES[0]),
        "path": (word(*PATHS), "awgn"),
        "snr3k_db": (number(-30, 60), 10.0),
        "offset_hz": (number(-500, 500), 0.0),
    }
    return {
        "link": symbols,
        "prefix": symbols,
        "signal": radio,
        "frame": picture,
        "decode": {"upload": (token, None), **receiver},
    }


def check(kind: Any, given: Any, limits: Limits, top: int) -> dict[str, Any]:
    """The settings of a job of this kind, those that are not given at their defaults.

    Args:
        top: the last rung of the model.
    Raises:
        InputError: the kind or a setting is unknown, or a value is not allowed.
    """
    kinds = fields(limits, top)
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"a job is one of {', '.join(kinds)}")
    if not isinstance(given, Mapping):
        raise InputError("the settings of a job are an object")
    allowed = kinds[kind]
    if unknown := [name for name in given if name not in allowed]:
        raise InputError(f"a {kind} job has no setting {str(unknown[0])[:40]!r}")
    settings = {}
    for name, (checked, default) in allowed.items():
        value = given.get(name, default)
        if value is None:
            raise InputError(f"a {kind} job needs {name}")
        settings[name] = checked(name, value)
    if "options" in settings:
        settings["options"] = check_options(settings["channel"], settings["options"])
    return settings


def check_options(channel: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(value, int | float | str) for value in given.values()):
        raise InputError("the options of a channel are an object of numbers and words")
    return find_channel(channel).check(given)
