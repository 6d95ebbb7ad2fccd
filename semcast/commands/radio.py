"""Pictures by radio: `semcast send` and `channel` where the file is a signal. Receiving: recordings.py, listening.py."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..channels.catalogue import CHANNELS
from ..errors import InputError
from ..files import STDIO, check_file, check_output
from ..signals.air import PATHS, check_effects, find_path
from ..signals.suffixes import SIGNAL_SUFFIXES, is_signal
from .common import notice

if TYPE_CHECKING:
    import numpy as np

    from ..header import Header
    from ..modem.profiles import Profile

OPTIONS = {  # of `propagate`, by the flag
    "--offset": "offset_hz",
    "--drift": "drift_hz_per_min",
    "--clock": "clock_ppm",
    "--clip": "clip_db",
    "--tone": "tone_db",
    "--tone-hz": "tone_hz",
    "--band": "band",
    "--level": "level_db",
}
SENDING = {"--lead": "lead", "--rate": "rate", "--centre": "centre", "--seconds": "seconds"}  # of `send`, signals only
SUFFIXES = ", ".join(SIGNAL_SUFFIXES)


# send


def by_radio(args) -> bool:
    """Whether a picture is to be sent as a signal, by the options of `send`."""
    asked = args.profile is not None or args.play is not None
    return asked or (args.output is not None and is_signal(args.output))


def check_send(args) -> None:
    """What can be refused before any work."""
    if not by_radio(args):
        if given := [flag for flag, name in SENDING.items() if getattr(args, name) is not None]:
            raise InputError(f"{given[0]} is for signals; give --profile, --play or -o X with one of {SUFFIXES}")
        return check_output(args.output, [args.image], args.force)
    if args.mode != "analog":
        raise InputError(
            f"a packet is not sent by radio, whose modem carries analog symbols; leave out --mode {args.mode}"
        )
    if args.output:
        check_signal_output(args.output, [args.image], args.force)
    from ..signals.audio import RATE_HZ, check_rate

    check_rate(rate := args.rate or RATE_HZ)
    if rate < RATE_HZ:
        raise InputError(f"--rate {rate} is too low for the modem, which needs {RATE_HZ} at least")
    if args.play is not None:
        from ..signals.sound_card import check_card

        check_card(args.play or None, "output")


def check_signal_output(path: Path, inputs: list[Path], force: bool) -> None:
    """As `files.check_output`, for all files that make up a signal."""
    from ..signals.files import check_signal_suffix, files_of

    check_signal_suffix(path)
    for file in files_of(path):
        check_output(file, [part for source in inputs for part in files_of(source)], force)


def profile_of(args) -> "Profile":
    """The waveform that `send` was asked for."""
    from ..modem.profiles import PROFILES

    return PROFILES[args.profile or next(iter(PROFILES))]


def send_signal(args, header: "Header", x: "np.ndarray") -> None:
    """Write and play the symbols x [1, k] as a transmission."""
    from ..modem.layout import duration_s
    from ..modem.profiles import SPACING_HZ
    from ..modem.side import to_air
    from ..modem.transmit import SYMBOLS_MAX, SYMBOLS_MIN, modulate
    from ..signals.audio import RATE_HZ
    from ..signals.files import write_signal
    from ..signals.iq import CENTRE_HZ

    profile, count = profile_of(args), x.shape[1]
    if not SYMBOLS_MIN <= count <= SYMBOLS_MAX:
        what = (
            "enlarge it" if count < SYMBOLS_MIN else "send fewer --rungs, or several runs of them one after the other"
        )
        raise InputError(
            f"{args.image} makes {count} symbols; a transmission has {SYMBOLS_MIN} to {SYMBOLS_MAX}, so {what}"
        )
    lead = {} if args.lead is None else {"lead_s": args.lead}
    samples = modulate(x[0], to_air(header), profile, **lead)
    if args.output:
        first, last = (float(SPACING_HZ * profile.bins[i]) for i in (0, -1))
        write_signal(
            args.output,
            samples,
            args.rate or RATE_HZ,
            centre_hz=CENTRE_HZ if args.centre is None else args.centre,
            band_hz=(first, last),
            label=f"semcast {profile.name}",
        )
    seconds, (low, high) = duration_s(profile, count), header.rungs
    notice("%.1f s of signal, profile %s, rungs %d-%d, %d symbols", seconds, profile.name, low, high, count)
    if args.play is not None:
        from ..signals.sound_card import play

        play(samples, args.play or None)


# channel


def check_kind(args) -> bool:
    """Whether `channel` has to do with a signal. Refuses the options of the other kind, and a missing SNR."""
    source, signal = args.frame, is_signal(args.frame) or (args.frame == STDIO and args.snr3k is not None)
    if signal:
        if args.snr is not None:
            raise InputError(f"{source} is a signal, and --snr is Es/N0 of a frame's symbols; give --snr3k DB instead")
        if args.snr3k is None:
            raise InputError(f"{source} is a signal; give --snr3k DB, its power over that of the noise in 3 kHz")
        if args.channel_option:
            raise InputError("--channel-option is for frames; `semcast channel --help` lists the options on signals")
        if args.channel in CHANNELS and args.channel not in PATHS:
            raise InputError(
                f"channel {args.channel} is for the symbols of a frame; on signals there are: {', '.join(PATHS)}"
            )
        return True
    if args.snr3k is not None:
        raise InputError(f"{source} is no signal ({SUFFIXES}), and --snr3k is for those; give --snr DB for a frame")
    if args.snr is None:
        raise InputError("give --snr DB for a frame, or --snr3k DB for a signal (see `semcast channel --help`)")
    given = [flag for flag, name in OPTIONS.items() if getattr(args, name) is not None]
    given += [flag for flag in ("--rate", "--centre") if getattr(args, SENDING[flag]) is not None]
    if given:
        raise InputError(f"{given[0]} is for signals ({SUFFIXES}); {source} is not one")
    if args.channel in PATHS and args.channel not in CHANNELS:
        raise InputError(f"channel {args.channel} is for signals ({SUFFIXES}); {source} is not one")
    if is_signal(args.output):
        raise InputError(f"{source} is a frame, and stays one; {args.output} names a signal, which `send` can write")
    return False


def signal_channel(args) -> None:
    """Send a signal over a radio path."""
    path = find_path(args.channel)
    given = {name: value for name in OPTIONS.values() if (value := getattr(args, name)) is not None}
    if "tone_hz" in given and "tone_db" not in given:
        raise InputError("--tone-hz says where a tone is; give its power, too: --tone DB")
    effects = check_effects(given)
    check_file(args.frame, "recording")
    check_signal_output(args.output, [args.frame], args.force)
    from ..randomness import stream
    from ..signals.air import propagate
    from ..signals.audio import PEAK_DBFS, RATE_HZ, check_rate
    from ..signals.files import write_signal
    from ..signals.iq import CENTRE_HZ

    check_rate(rate := args.rate or RATE_HZ)
    if (args.tone_hz or 0) >= RATE_HZ / 2:
        raise InputError(f"--tone-hz {args.tone_hz:g} lies beyond the signal, which ends at {RATE_HZ / 2:g} Hz")
    samples = read(args.frame, args)
    arrived = propagate(samples, RATE_HZ, path, snr3k_db=args.snr3k, generator=stream(args.seed, "channel"), **effects)
    centre_hz = CENTRE_HZ if args.centre is None else args.centre
    # whoever sets the level wants it kept; else the receiver has a gain control
    peak_dbfs = PEAK_DBFS if args.level_db is None else None
    write_signal(args.output, arrived, rate, centre_hz=centre_hz, peak_dbfs=peak_dbfs)


def read(path: Path, args) -> "np.ndarray":
    """A recording, as --rate and --centre say it is to be read."""
    from ..signals.audio import RATE_HZ
    from ..signals.files import read_signal

    return read_signal(path, args.rate or RATE_HZ, args.centre)


def is_recording(path: Path) -> bool:
    """Whether a file is to be read as a signal; stdin is, unless it begins like a frame."""
    if path != STDIO:
        return is_signal(path)
    check_file(path, "frame or a signal")
    from ..frame import MAGIC

    return sys.stdin.buffer.peek(len(MAGIC))[: len(MAGIC)] != MAGIC  # pyright: ignore[reportAttributeAccessIssue]


def check_frames_only(args) -> None:
    """Refuse what `receive` and `info` do with recordings, where there are only frames."""
    for flag in ("--header", "--rate", "--centre", "--pick", "--report", "--device-in"):
        if getattr(args, flag[2:].replace("-", "_"), None):
            raise InputError(f"{flag} is for recordings ({SUFFIXES} ...), and only frames were given")
    if args.command == "receive" and args.json and not args.confidence:
        raise InputError(
            "--json prints what was measured of a recording, and the errors that --confidence expects of a picture; "
            "of frames, give --confidence MAP.png with it"
        )
