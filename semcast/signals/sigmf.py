"""SigMF recordings: samples, and a JSON file that says what they are. Version 1.2 of the specification.

A recording NAME is the pair NAME.sigmf-meta and NAME.sigmf-data, or both in the tar archive NAME.sigmf. What comes from
outside is not trusted: sizes, types and names are checked, and no file outside the recording's folder is opened.

Source: https://sigmf.org
"""

import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import check_file, read_bytes, write_bytes
from .audio import PEAK_DBFS, RATE_HZ
from .iq import CENTRE_HZ, KINDS, WRITTEN_KINDS, Kind, open_binary, pack, read_samples
from .suffixes import ARCHIVE, DATA, META

META_BYTES_MAX = 1 << 20
MEMBERS_MAX = 64  # of an archive
CENTRE_KEY = "semcast:centre_hz"  # the audio frequency at 0 Hz


class Meta(NamedTuple):
    """What of the JSON file matters for reading."""

    kind: Kind
    rate_hz: float
    centre_hz: float
    dataset: str | None  # name of the data file, if it is not the usual one


def read_sigmf(path: Path, centre_hz: float | None = None) -> np.ndarray:
    """Read a recording, given by either file of the pair or as an archive, as audio, float32 [N] at RATE_HZ.

    Args:
        centre_hz: the audio frequency at 0 Hz of complex samples; default: what semcast wrote there, else CENTRE_HZ.
    Raises:
        InputError: a file is missing or damaged, or of a kind that is not read.
    """
    if path.suffix.lower() == ARCHIVE:
        return _read_archive(path, centre_hz)
    path = path.with_suffix(META)
    meta = parse_meta(read_bytes(path, META_BYTES_MAX, "SigMF description"), path)
    data = path.with_name(meta.dataset) if meta.dataset else path.with_suffix(DATA)
    check_file(data, "recording")
    with open_binary(data) as file:
        return _read(file, data, meta, centre_hz)


def _read_archive(path: Path, centre_hz: float | None) -> np.ndarray:
    """Members are read where they lie in the archive; none is unpacked."""
    check_file(path, "recording")
    with open_binary(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                members = [member for _, member in zip(range(MEMBERS_MAX), archive, strict=False)]
        except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
            raise InputError(f"cannot read {path}: {error}; a SigMF archive is a tar file that is not packed") from None
        ordinary = [member for member in members if member.isreg() and not member.issparse()]
        meta, data = (
            next((member for member in ordinary if member.name.lower().endswith(suffix)), None)
            for suffix in (META, DATA)
        )
        if meta is None or data is None:
            raise InputError(f"{path} lacks a {META} or a {DATA} file, so it is no SigMF archive")
        if meta.size > META_BYTES_MAX:
            raise InputError(f"{path}: its description has {meta.size} bytes; the limit is {META_BYTES_MAX}")
        file.seek(meta.offset_data)
        about = parse_meta(file.read(meta.size), path)
        file.seek(data.offset_data)
        return _read(file, path, about, centre_hz, data.size)


def _read(file: BinaryIO, path: Path, meta: Meta, centre_hz: float | None, size: int | None = None) -> np.ndarray:
    centre_hz = meta.centre_hz if centre_hz is None else centre_hz
    return read_samples(file, path, meta.kind, meta.rate_hz, centre_hz, size)


def parse_meta(text: bytes, path: Path) -> Meta:
    """Check the JSON of a recording. Raises InputError, saying what is wrong with `path`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a SigMF description: {error or 'nested too deep'}") from None
    given = found.get("global") if isinstance(found, dict) else None
    if not isinstance(given, dict):
        raise InputError(f'{path} is not a SigMF description: it has no object "global"')
    name = given.get("core:datatype")
    if not isinstance(name, str) or name not in KINDS:
        raise InputError(f"{path}: core:datatype is {_shown(name)}; what is read: {', '.join(KINDS)}")
    rate_hz = _number(given.get("core:sample_rate"), "core:sample_rate", path)
    if (channels := given.get("core:num_channels", 1)) != 1:
        raise InputError(f"{path}: core:num_channels is {_shown(channels)}; one channel is read")
    centre_hz = _number(given.get(CENTRE_KEY, CENTRE_HZ), CENTRE_KEY, path)
    for capture in _objects(found.get("captures", []), "captures", path):
        if capture.get("core:header_bytes", 0) != 0:
            raise InputError(f"{path}: its data begin with a header (core:header_bytes); only bare samples are read")
    if given.get("core:trailing_bytes", 0) != 0:
        raise InputError(f"{path}: its data end with other bytes (core:trailing_bytes); only bare samples are read")
    return Meta(KINDS[name], rate_hz, centre_hz, _dataset(given.get("core:dataset"), path))


def _dataset(name: Any, path: Path) -> str | None:
    """A file name without any folder, on all systems."""
    if name is None:
        return None
    plain = isinstance(name, str) and name == PurePosixPath(name).name == PureWindowsPath(name).name
    if not plain or "\0" in name or name in ("", ".", ".."):
        raise InputError(f"{path}: core:dataset is {_shown(name)}; it must name a file in the same folder")
    return name


def _objects(value: Any, key: str, path: Path) -> list[dict]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f'{path} is not a SigMF description: "{key}" is not a list of objects')
    return value


def _number(value: Any, key: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # also refuses NaN
        raise InputError(f"{path}: {key} is {_shown(value)}, and must be a number")
    return float(value)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


def write_sigmf(
    path: Path,
    samples: np.ndarray,
    rate_hz: float = RATE_HZ,
    datatype: str = "cf32_le",
    centre_hz: float = CENTRE_HZ,
    dial_hz: float | None = None,
    when: datetime | None = None,
    band_hz: tuple[float, float] | None = None,
    label: str | None = None,
    peak_dbfs: float | None = PEAK_DBFS,
) -> None:
    """Write audio [N] at RATE_HZ as a recording: a pair of files, or one archive if the suffix is .sigmf.

    Args:
        rate_hz: of the recording.
        datatype: one of WRITTEN_KINDS.
        centre_hz: the audio frequency at 0 Hz of complex samples.
        dial_hz: the radio frequency of 0 Hz of the audio, as on the dial of an upper-sideband radio.
        when: the time of the first sample, with its time zone. None: not written, so that equal signals give equal files.
        band_hz: the audio frequencies that the signal occupies, for an annotation with `label`.
        peak_dbfs: as in `audio.write_audio`.
    Raises:
        InputError: it cannot be written, or would be too large.
    """
    if datatype not in KINDS:
        raise InputError(f"samples are not written as {datatype}, but as {', '.join(WRITTEN_KINDS)}")
    kind = KINDS[datatype]
    data = pack(samples, kind, rate_hz, centre_hz, peak_dbfs)
    middle_hz = centre_hz if kind.complex else 0.0  # the audio frequency at 0 Hz
    about: dict[str, Any] = {
        "core:datatype": datatype,
        "core:sample_rate": rate_hz,
        "core:version": "1.2.0",
        "core:num_channels": 1,
        "core:recorder": f"semcast {__version__}",
        "core:sha512": hashlib.sha512(data).hexdigest(),
    }
    if kind.complex:
        about["core:extensions"] = [{"name": "semcast", "version": "1.0.0", "optional": True}]
        about[CENTRE_KEY] = centre_hz
    capture: dict[str, Any] = {"core:sample_start": 0}
    if dial_hz is not None:
        capture["core:frequency"] = dial_hz + middle_hz
    if when is not None:
        capture["core:datetime"] = when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    annotations = []
    if band_hz or label:
        count = len(data) // (np.dtype(kind.dtype).itemsize * (1 + kind.complex))
        note: dict[str, Any] = {"core:sample_start": 0, "core:sample_count": count}
        if band_hz:
            # Edges are radio frequencies, or where the dial is not known, frequencies of the samples.
            shift_hz = -middle_hz if dial_hz is None else dial_hz
            note |= {f"core:freq_{side}_edge": hz + shift_hz for side, hz in zip(("lower", "upper"), band_hz)}
        annotations = [note | ({"core:label": label} if label else {})]
    meta = json.dumps({"global": about, "captures": [capture], "annotations": annotations}, indent=2).encode() + b"\n"
    if path.suffix.lower() == ARCHIVE:
        return write_bytes(path, _archive(path.stem, {META: meta, DATA: data}))
    write_bytes(path.with_suffix(DATA), data)  # the description comes last: where it is, the data are whole
    write_bytes(path.with_suffix(META), meta)


def _archive(stem: str, files: dict[str, bytes]) -> bytes:
    """A tar file that holds the two files in a folder and is the same every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for suffix, content in files.items():
            member = tarfile.TarInfo(f"{stem}/{stem}{suffix}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
