"""Complex baseband, as receivers for all bands and GNU Radio record it, and the audio that it stands for.

Audio is seen as the output of an upper-sideband receiver. In baseband the audio frequency `centre_hz` lies at 0 Hz.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import check_file, write_bytes
from .audio import PEAK_DBFS, RATE_HZ, RATES_HZ, check_rate, checked, collect, set_peak, to_int16
from .filters import resample, resample_blocks
from .shift import from_baseband, to_baseband, turned

CENTRE_HZ = 1500.0
RATE_MAX_HZ = 20e6  # that is read
BYTES_MAX = 2**31  # that are written
BLOCK = 1 << 18  # samples that are read at once


class Kind(NamedTuple):
    """A way to store samples, by its name in SigMF."""

    name: str
    dtype: str  # of each number
    complex: bool
    scale: float  # full scale


KINDS = {
    kind.name: kind
    for kind in (
        Kind("cf32_le", "<f4", True, 1.0),
        Kind("ci16_le", "<i2", True, 32768.0),
        Kind("ci8", "i1", True, 128.0),
        Kind("rf32_le", "<f4", False, 1.0),
        Kind("ri16_le", "<i2", False, 32768.0),
    )
}


WRITTEN_KINDS = ("cf32_le", "ci16_le", "rf32_le", "ri16_le")


def read_cfile(path: Path, rate_hz: float = RATE_HZ, centre_hz: float = CENTRE_HZ) -> np.ndarray:
    """Read GNU Radio's complex numbers, float32 little-endian without any header, as audio [N] at RATE_HZ."""
    check_file(path, "recording")
    with open_binary(path) as file:
        return read_samples(file, path, KINDS["cf32_le"], rate_hz, centre_hz)


def write_cfile(
    path: Path,
    samples: np.ndarray,
    rate_hz: float = RATE_HZ,
    centre_hz: float = CENTRE_HZ,
    peak_dbfs: float | None = PEAK_DBFS,
) -> None:
    """Write audio [N] at RATE_HZ as complex baseband at `rate_hz`."""
    write_bytes(path, pack(samples, KINDS["cf32_le"], rate_hz, centre_hz, peak_dbfs))


def open_binary(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def pack(samples: np.ndarray, kind: Kind, rate_hz: float, centre_hz: float, peak_dbfs: float | None) -> bytes:
    """Audio [N] at RATE_HZ as bytes of a recording at `rate_hz`. The level is set as in `audio.write_audio`."""
    check_rate(rate_hz)
    if kind.name not in WRITTEN_KINDS:
        raise InputError(f"samples are not written as {kind.name}, but as {', '.join(WRITTEN_KINDS)}")
    if (size := len(samples) * rate_hz / RATE_HZ * (1 + kind.complex) * np.dtype(kind.dtype).itemsize) > BYTES_MAX:
        raise InputError(f"the recording would have {size:.0f} bytes; the limit is {BYTES_MAX}")
    signal = to_baseband(samples, RATE_HZ, centre_hz) if kind.complex else samples.astype(np.float32)
    signal = set_peak(resample(signal, RATE_HZ, rate_hz), peak_dbfs)
    numbers = signal.view(np.float32)  # real and imaginary parts in turn
    return (to_int16(numbers) if kind.dtype == "<i2" else numbers).astype(kind.dtype).tobytes()


def read_samples(
    file: BinaryIO, path: Path, kind: Kind, rate_hz: float, centre_hz: float, size: int | None = None
) -> np.ndarray:
    """Read a recording as audio, float32 [N] at RATE_HZ. Memory grows with the audio, not with the recording.

    Args:
        file: at its first sample.
        path: for the messages.
        rate_hz: of the recording. A wide one is tuned before it is made narrow, a narrow one after.
        size: bytes to read, default: to the end. Half a sample at the end is dropped.
    Raises:
        InputError: there are no samples, too many, or some that are no numbers.
    """
    if not RATES_HZ[0] <= rate_hz <= RATE_MAX_HZ:
        raise InputError(f"{path} has {rate_hz:g} samples a second; {RATES_HZ[0]} to {RATE_MAX_HZ:g} are read")
    blocks = checked(_pieces(file, kind, size), path)
    wide = kind.complex and rate_hz > RATE_HZ
    if wide:
        blocks = turned(blocks, centre_hz / rate_hz)
    signal = collect(resample_blocks(blocks, rate_hz, RATE_HZ), path, RATE_HZ)
    return from_baseband(signal, RATE_HZ, 0.0 if wide else centre_hz) if kind.complex else signal


def _pieces(file: BinaryIO, kind: Kind, size: int | None) -> Iterator[np.ndarray]:
    """The samples in pieces, float32 or complex64 with full scale at 1."""
    width = np.dtype(kind.dtype).itemsize * (1 + kind.complex)
    left = sys.maxsize if size is None else size
    while data := file.read(min(left, BLOCK * width)):
        left -= len(data)
        numbers = np.frombuffer(data[: len(data) // width * width], kind.dtype) / np.float32(kind.scale)
        yield numbers.view(np.complex64) if kind.complex else numbers
