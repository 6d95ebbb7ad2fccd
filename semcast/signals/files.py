"""Signals as files of every kind, by suffix: sound, SigMF, GNU Radio. Inside they are float32 [N] at RATE_HZ."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import STDIO
from .audio import PEAK_DBFS, RATE_HZ, collect, read_audio_blocks, write_audio
from .iq import CENTRE_HZ, read_cfile, write_cfile
from .sigmf import read_sigmf, write_sigmf
from .suffixes import CFILE, DATA, META, SIGMF, SIGNAL_SUFFIXES


def read_signal(path: Path, rate_hz: float = RATE_HZ, centre_hz: float | None = None) -> np.ndarray:
    """Read a recording as audio, float32 [N] at RATE_HZ; "-" is raw samples on stdin, see `audio.RAW`.

    Args:
        rate_hz: of a .cfile, which does not say it.
        centre_hz: of complex samples: the audio frequency at their 0 Hz; default: as the file says, else CENTRE_HZ.
    Raises:
        InputError: it is missing, empty, damaged, too long, or no recording.
    """
    return collect(read_blocks(path, rate_hz, centre_hz), path, RATE_HZ)


def read_blocks(path: Path, rate_hz: float = RATE_HZ, centre_hz: float | None = None) -> Iterator[np.ndarray]:
    """As `read_signal`, in pieces of about a second. Sound takes no more memory than that; IQ is held as a whole."""
    suffix = path.suffix.lower()
    if path == STDIO or suffix not in (*SIGMF, CFILE):
        yield from read_audio_blocks(path)
        return
    if suffix == CFILE:
        whole = read_cfile(path, rate_hz, CENTRE_HZ if centre_hz is None else centre_hz)
    else:
        whole = read_sigmf(path, centre_hz)
    yield from (whole[start : start + RATE_HZ] for start in range(0, len(whole), RATE_HZ))


def write_signal(
    path: Path,
    samples: np.ndarray,
    rate_hz: int = RATE_HZ,
    *,
    datatype: str = "cf32_le",
    centre_hz: float = CENTRE_HZ,
    dial_hz: float | None = None,
    when: datetime | None = None,
    band_hz: tuple[float, float] | None = None,
    label: str | None = None,
    peak_dbfs: float | None = PEAK_DBFS,
) -> None:
    """Write audio [N] at RATE_HZ in the format of the suffix, at `rate_hz`; "-" is raw samples on stdout.

    `peak_dbfs` is described in `audio.write_audio`, the other options in `sigmf.write_sigmf`; formats that have no place
    for them ignore them.

    Raises:
        InputError: the suffix is not one of SIGNAL_SUFFIXES, or it cannot be written.
    """
    check_signal_suffix(path)
    suffix = path.suffix.lower()
    if suffix in SIGMF:
        write_sigmf(path, samples, rate_hz, datatype, centre_hz, dial_hz, when, band_hz, label, peak_dbfs)
    elif suffix == CFILE:
        write_cfile(path, samples, rate_hz, centre_hz, peak_dbfs)
    else:
        write_audio(path, samples, rate_hz, peak_dbfs)


def check_signal_suffix(path: Path) -> None:
    """Raise InputError unless signals are written in the format of this suffix; call it before minutes of work."""
    if path != STDIO and path.suffix.lower() not in SIGNAL_SUFFIXES:
        *most, last = SIGNAL_SUFFIXES
        raise InputError(f"cannot write {path}: signals are written as {', '.join(most)} or {last}")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that are written for a path: two for a SigMF pair. For checks before work."""
    return (path.with_suffix(DATA), path.with_suffix(META)) if path.suffix.lower() in (META, DATA) else (path,)
