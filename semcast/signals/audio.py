"""Sound files and raw samples: read at any rate, written as 16 bits.

Inside semcast a signal is float32 [N], one channel, at RATE_HZ, with full scale at 1.
"""

import io
import sys
from collections.abc import Iterable, Iterator
from logging import getLogger
from pathlib import Path

import numpy as np
import soundfile

from ..errors import InputError
from ..files import STDIO, check_file, write_bytes
from .filters import resample, resample_blocks
from .suffixes import WRITTEN

RATE_HZ = 8000
HOURS_MAX = 6.0  # that are held in memory: 660 MiB
RATES_HZ = (4000, 768_000)  # that are read and written
CHANNELS_MAX = 64
SIZE_MAX = 1e9  # of a sample; full scale is 1
BLOCK_S = 1.0
PEAK_DBFS = -1.0  # of what is written, so that a filter behind it may ring a little
RAW = "raw 16-bit samples at 8000 Hz, one channel, little-endian"  # what - means

notice = getLogger("semcast").warning


def read_audio_blocks(path: Path, rate_hz: float = RATE_HZ) -> Iterator[np.ndarray]:
    """Read a recording piece by piece, float32 [about a second at `rate_hz`] each, in bounded memory.

    WAV, FLAC, Ogg and what else libsndfile knows, at any rate. Of several channels the strongest one is taken: a mean
    would bring in the noise of an unused input, and opposite phases would cancel. "-" reads stdin, see RAW.

    Raises:
        InputError: it is missing, empty, no sound file, or holds samples that are no numbers. A file that ends early is
            read up to there, with a line in the log.
    """
    check_file(path, "recording")
    pieces, from_hz = (_stdin(), RATE_HZ) if path == STDIO else _sound_file(path)
    yield from resample_blocks(checked(pieces, path), from_hz, rate_hz)


def decode_audio(data: bytes, name: str, seconds_max: float, rate_hz: float = RATE_HZ) -> np.ndarray:
    """A sound file in memory -> float32 [N] at `rate_hz`; see `read_audio_blocks`.

    Args:
        name: for messages.
    Raises:
        InputError: as there, or it is longer than `seconds_max`.
    """
    pieces, from_hz = _sound(data, name)
    kept, count = [], 0
    for block in resample_blocks(checked(pieces, name), from_hz, rate_hz):
        kept.append(block)
        count += len(block)
        if count > seconds_max * rate_hz:
            raise InputError(f"{name} is longer than {seconds_max:g} s; cut it up")
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)


def checked(pieces: Iterable[np.ndarray], name: Path | str) -> Iterator[np.ndarray]:
    """The pieces of a recording. Raises InputError at samples that are no numbers, and if there are none at all."""
    count = 0
    for piece in pieces:
        count += len(piece)
        if not (np.abs(piece) < SIZE_MAX).all():  # also refuses NaN
            raise InputError(f"{name} holds samples that are no numbers, or huge; write it again, as 16-bit WAV")
        yield piece
    if not count:
        raise InputError(f"{name} holds no samples; was the recording stopped at once?")


def collect(blocks: Iterable[np.ndarray], path: Path, rate_hz: float) -> np.ndarray:
    """The blocks of a signal in one piece. Raises InputError if that would be longer than HOURS_MAX."""
    kept, count = [], 0
    for block in blocks:
        kept.append(block)
        count += len(block)
        if count > HOURS_MAX * 3600 * rate_hz:
            raise InputError(f"{path} is longer than {HOURS_MAX:g} hours, which do not fit into memory; cut it up")
    return np.concatenate(kept) if kept else np.zeros(0, np.float32)


def _stdin() -> Iterator[np.ndarray]:
    """Raw samples from stdin, as they come; a half sample at the end is dropped."""
    rest, first = b"", True
    while data := sys.stdin.buffer.read1(2 * RATE_HZ):  # pyright: ignore[reportAttributeAccessIssue]
        data = rest + data
        if first and data[:4] in (b"RIFF", b"fLaC", b"OggS"):
            raise InputError(f"stdin holds a sound file, and - reads {RAW}; give the file by its name")
        first, whole = False, len(data) // 2 * 2
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], "<i2") / np.float32(32768)


def _sound_file(path: Path) -> tuple[Iterator[np.ndarray], int]:
    """The strongest channel of a file, piece by piece, and its rate."""
    if not path.stat().st_size:
        raise InputError(f"{path} is empty; was the recording stopped at once?")
    if path.suffix.lower() == ".raw":
        raise InputError(f"{path} does not say how it was sampled; - reads {RAW}, so pipe it into -")
    return _sound(path, str(path))


def _sound(source: Path | bytes, name: str) -> tuple[Iterator[np.ndarray], int]:
    """As `_sound_file`, of a file or of what one holds."""
    rate_hz, channels = _shape(source, name)
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise InputError(f"{name} has {rate_hz} samples a second; {RATES_HZ[0]} to {RATES_HZ[1]} are read")
    if channels > CHANNELS_MAX:
        raise InputError(f"{name} has {channels} channels; {CHANNELS_MAX} at most are read")
    channel = _strongest(source, name) if channels > 1 else 0
    return (piece[:, channel] for piece in _pieces(source, name)), rate_hz


def _shape(source: Path | bytes, name: str) -> tuple[int, int]:
    """Rate and number of channels."""
    with _open(source, name) as file:
        return file.samplerate, file.channels


def _open(source: Path | bytes, name: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except soundfile.LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise InputError(f"cannot read {name}: {why}; WAV, FLAC and Ogg are read, so is it a recording?") from None


def _pieces(source: Path | bytes, name: str, quiet: bool = False) -> Iterator[np.ndarray]:
    """A second of all channels after the other, float32 [n, channels]. What a header claims is never allocated."""
    with _open(source, name) as file:
        done = 0
        while True:
            try:
                piece = file.read(round(BLOCK_S * file.samplerate), "float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                why = error.error_string.rstrip(".")
                if not quiet:
                    notice("%s is damaged after %.0f s (%s); what came before is used", name, done * BLOCK_S, why)
                return
            if not len(piece):
                return
            yield piece
            done += 1


def _strongest(source: Path | bytes, name: str) -> int:
    """The channel with the most power, offsets aside."""
    count, total, squares = 0, 0.0, 0.0
    for piece in _pieces(source, name, quiet=True):
        wide = piece.astype(np.float64)
        count += len(wide)
        total += wide.sum(axis=0)
        squares += (wide**2).sum(axis=0)
    return int(np.argmax(squares - np.square(total) / max(count, 1))) if count else 0


def write_audio(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, peak_dbfs: float | None = PEAK_DBFS) -> None:
    """Write samples [N], which are at RATE_HZ, as 16 bits at `rate_hz`: WAV, FLAC, or raw on stdout for "-".

    Args:
        rate_hz: of the file; sound cards like 48000.
        peak_dbfs: the level is set so that the peak lies here. None keeps it, and clips, with a line in the log.
    Raises:
        InputError: it cannot be written, or the rate or the length is too large.
    """
    check_rate(rate_hz)
    whole = to_int16(set_peak(resample(samples, RATE_HZ, rate_hz), peak_dbfs))
    if whole.nbytes > 2**31:
        raise InputError(f"cannot write {path}: it would have {whole.nbytes} bytes; the limit is {2**31}")
    if path == STDIO:
        return write_bytes(path, whole.astype("<i2").tobytes())
    write_bytes(path, encode_audio(whole, rate_hz, WRITTEN[path.suffix.lower()]))


def encode_audio(samples: np.ndarray, rate_hz: int = RATE_HZ, kind: str = "WAV") -> bytes:
    """int16 samples [N] as a sound file of a kind that libsndfile knows, 16 bits."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, "PCM_16", format=kind)
    return file.getvalue()


def check_rate(rate_hz: float) -> None:
    """Raise InputError unless files are read and written at this rate."""
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise InputError(f"{rate_hz:g} samples a second cannot be written; {RATES_HZ[0]} to {RATES_HZ[1]} can")


def set_peak(samples: np.ndarray, peak_dbfs: float | None) -> np.ndarray:
    """Samples, real or complex, whose largest magnitude is `peak_dbfs`; silence stays silence."""
    if not np.isfinite(samples).all():
        raise ValueError("the samples are not all numbers")
    peak = float(np.abs(samples).max(initial=0.0))
    return samples if peak_dbfs is None or peak < 1e-30 else samples * np.float32(10 ** (peak_dbfs / 20) / peak)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """int16 [N]. What lies beyond full scale is clipped, and a line in the log says so."""
    scaled = np.round(samples * np.float32(32768))
    clipped = np.clip(scaled, -32768, 32767)
    if lost := int(np.count_nonzero(scaled != clipped)):
        notice("%d of %d samples are clipped at full scale; lower the level", lost, len(samples))
    return clipped.astype(np.int16)
