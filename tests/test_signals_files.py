"""Signals as files: sound of every kind, complex baseband, SigMF; other programs read what we write, and we theirs."""

import io
import json
import logging
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io.wavfile
import sigmf
import soundfile

from semcast.errors import InputError
from semcast.signals import audio, iq
from semcast.signals.audio import read_audio_blocks, to_int16, write_audio
from semcast.signals.files import SIGNAL_SUFFIXES, files_of, read_blocks, read_signal, write_signal
from semcast.signals.iq import read_cfile
from semcast.signals.sigmf import META_BYTES_MAX, parse_meta, read_sigmf, write_sigmf

RATE_HZ = 8000
DASH = Path("-")


def sound(rate_hz: int = RATE_HZ, seconds: float = 1.0, tones=((700, 0.5), (1810, 0.3), (2500, 0.1))) -> np.ndarray:
    """Tones that fade in and out, so that the ends of a filter do not matter; the same sound at every rate."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    mixed = sum(level * np.sin(2 * np.pi * hz * t + hz) for hz, level in tones)
    return (mixed * np.sin(np.pi * t / seconds) ** 2).astype(np.float32)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """Equal but for a sample at the end, which resampling may add or drop."""
    count = min(len(found), len(expected))
    return abs(len(found) - len(expected)) <= 1 and np.abs(found[:count] - expected[:count]).max() < tolerance


def alike(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """Equal but for the level."""
    count = min(len(found), len(expected))
    return close(found * (found[:count] @ expected[:count] / (found @ found)), expected, tolerance)


# Sound


@pytest.mark.parametrize(
    "subtype, tolerance",
    [("PCM_U8", 1.6e-2), ("PCM_16", 4e-5), ("PCM_24", 1e-5), ("PCM_32", 1e-5), ("FLOAT", 1e-5), ("DOUBLE", 1e-5)],
)
@pytest.mark.parametrize("rate_hz", [8000, 11025, 44100, 48000])
def test_wav_of_any_rate_and_depth_is_read(rate_hz, subtype, tolerance, tmp_path):
    soundfile.write(tmp_path / "x.wav", sound(rate_hz), rate_hz, subtype)
    found = read_signal(tmp_path / "x.wav")
    assert found.dtype == np.float32
    assert close(found, sound(), tolerance)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".aiff", ".mp3"])
def test_other_kinds_of_sound_are_read(suffix, tmp_path):
    soundfile.write(tmp_path / f"x{suffix}", sound(48000, 2), 48000)
    found = read_signal(tmp_path / f"x{suffix}")
    assert len(found) == pytest.approx(16000, abs=600)  # MP3 pads
    part = found[4000:12000] / np.linalg.norm(found[4000:12000])
    assert np.correlate(sound(RATE_HZ, 2), part).max() > 0.95 * np.linalg.norm(sound(RATE_HZ, 2)[4000:12000])


def test_of_several_channels_the_strongest_is_read(tmp_path):
    x = sound()
    hum = np.full_like(x, 0.9)  # an offset is not strength
    soundfile.write(tmp_path / "x.wav", np.stack([hum, 0.01 * x, x, -0.5 * x], axis=1), RATE_HZ, "FLOAT")
    assert np.array_equal(read_signal(tmp_path / "x.wav"), x)


def test_long_files_are_read_in_short_blocks(tmp_path):
    x = sound(48000, 7.3)
    soundfile.write(tmp_path / "x.wav", np.stack([x, x], axis=1), 48000, "FLOAT")
    blocks = list(read_blocks(tmp_path / "x.wav"))
    assert len(blocks) >= 8 and max(len(block) for block in blocks) <= 1.5 * RATE_HZ
    assert close(np.concatenate(blocks), sound(RATE_HZ, 7.3), 1e-5)


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "HOURS_MAX", 1 / 3600)
    write_audio(tmp_path / "x.wav", sound(seconds=2.5))
    with pytest.raises(InputError, match="is longer than 0.000277778 hours, which do not fit into memory; cut it up"):
        read_signal(tmp_path / "x.wav")
    assert sum(len(block) for block in read_audio_blocks(tmp_path / "x.wav")) == 2.5 * RATE_HZ


@pytest.mark.parametrize("suffix, rate_hz", [(".wav", 8000), (".wav", 48000), (".flac", 44100)])
def test_written_sound_has_its_peak_at_minus_1_dbfs(suffix, rate_hz, tmp_path):
    path = tmp_path / f"x{suffix}"
    write_signal(path, 0.01 * sound(), rate_hz)
    about = soundfile.info(path)
    assert (about.samplerate, about.channels, about.subtype) == (rate_hz, 1, "PCM_16")
    found, _ = soundfile.read(path)
    assert 20 * np.log10(np.abs(found).max()) == pytest.approx(-1, abs=1e-3)
    assert alike(read_signal(path), sound(), 3e-4)
    first = path.read_bytes()
    write_signal(path, 0.01 * sound(), rate_hz)
    assert path.read_bytes() == first


def test_clipping_is_never_silent(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "semcast"):
        write_audio(tmp_path / "x.wav", np.float32([0.1, 0.2, -1.0]), peak_dbfs=None)
        assert not caplog.messages
        write_audio(tmp_path / "x.wav", np.float32([0.1, 2.0, -3.0]), peak_dbfs=None)
    assert caplog.messages == ["2 of 3 samples are clipped at full scale; lower the level"]
    assert list(scipy.io.wavfile.read(tmp_path / "x.wav")[1]) == [3277, 32767, -32768]
    assert list(to_int16(np.float32([0, 1e-5, 0.5]))) == [0, 0, 16384]


def test_silence_stays_silence(tmp_path):
    write_audio(tmp_path / "x.wav", np.zeros(100, np.float32))
    assert np.array_equal(read_signal(tmp_path / "x.wav"), np.zeros(100))
    with pytest.raises(ValueError, match="not all numbers"):
        write_audio(tmp_path / "x.wav", np.float32([np.nan]))


def test_stdin_and_stdout_are_raw_samples(tmp_path):
    program = (
        "from pathlib import Path; from semcast.signals.files import *\n"
        "write_signal(Path('-'), read_signal(Path('-')), peak_dbfs=None)"
    )
    run = lambda data: subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, timeout=60)
    data = (sound() * 32767).astype("<i2").tobytes()
    assert run(data + b"\1").stdout == data  # half a sample is dropped
    assert b"stdin holds a sound file, and - reads raw 16-bit samples at 8000 Hz" in run(b"RIFF" + data).stderr
    assert b"- holds no samples" in run(b"").stderr


def test_half_samples_between_reads_are_joined(monkeypatch):
    whole = (sound() * 32767).astype("<i2")
    pieces = [whole.tobytes()[i : i + 333] for i in range(0, 16000, 333)] + [b""]
    stdin = SimpleNamespace(buffer=SimpleNamespace(read1=lambda _: pieces.pop(0)), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert np.array_equal(read_signal(DASH), whole / np.float32(32768))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.wav", b"", "is empty"),
        ("x.wav", b"no sound at all", "Format not recognised; WAV, FLAC and Ogg are read, so is it a recording?"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "Format not recognised"),
        ("x.raw", b"\0\0", "does not say how it was sampled"),
        ("x.wav", None, "No such file"),
        ("x.cfile", None, "No such file"),
        ("x.cfile", b"", "holds no samples"),
        ("x.cfile", b"1234567", "holds no samples"),
        ("x.cfile", np.complex64([np.nan]).tobytes(), "samples that are no numbers"),
    ],
)
def test_bad_files_are_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_signal(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "samples, rate_hz, message",
    [
        ([np.nan, 0], 8000, "samples that are no numbers"),
        ([0, 2e9], 8000, "samples that are no numbers, or huge"),
        ([0, np.inf], 8000, "samples that are no numbers"),
        ([], 8000, "holds no samples"),
        ([0.1] * 9, 100, "has 100 samples a second; 4000 to 768000 are read"),
        ([[0.1] * 65] * 9, 8000, "has 65 channels; 64 at most are read"),
    ],
)
def test_bad_sound_is_one_line(samples, rate_hz, message, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array(samples, np.float32), rate_hz, "FLOAT")
    with pytest.raises(InputError, match=message):
        read_signal(tmp_path / "x.wav")


@pytest.mark.parametrize("suffix, subtype", [(".wav", "PCM_16"), (".flac", "PCM_16"), (".ogg", "VORBIS")])
def test_files_that_end_early_are_read_up_to_there(suffix, subtype, tmp_path, caplog):
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, sound(RATE_HZ, 50), RATE_HZ, subtype)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])
    found = read_signal(path)
    assert suffix != ".flac" or "x.flac is damaged after" in caplog.text
    assert 25 * RATE_HZ < len(found) <= 35 * RATE_HZ
    assert np.abs(found - sound(RATE_HZ, 50)[: len(found)]).max() < 0.1  # Vorbis is not exact


def test_a_header_that_claims_too_much_costs_nothing(tmp_path):
    write_audio(tmp_path / "x.wav", sound())
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[40:44] = b"\xf0\xff\xff\xff"  # 4 GiB of samples
    (tmp_path / "x.wav").write_bytes(data)
    assert alike(read_signal(tmp_path / "x.wav"), sound(), 4e-5)


def test_damage_never_crashes(tmp_path):
    """Random bytes changed anywhere: what is read is finite, or the message is one line."""
    generator = np.random.default_rng(0)
    originals = {}
    for suffix in (".wav", ".flac", ".ogg", ".sigmf"):
        path = tmp_path / f"x{suffix}"
        write_signal(path, sound()) if suffix != ".ogg" else soundfile.write(path, sound(), RATE_HZ)
        originals[path] = path.read_bytes()
    outcomes = []
    for path, original in originals.items():
        for _ in range(40):
            data = bytearray(original)
            for _ in range(generator.integers(1, 6)):
                data[generator.integers(min(len(data), 600))] = generator.integers(256)
            path.write_bytes(data)
            try:
                outcomes.append(np.isfinite(read_signal(path)).all())
            except InputError as error:
                assert "\n" not in str(error)
                outcomes.append(False)
    assert 0 < sum(outcomes) < len(outcomes)


def test_ffmpeg_reads_ours_and_we_read_its(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    call = lambda *words: subprocess.run([ffmpeg, "-v", "error", "-y", *map(str, words)], check=True, timeout=60)
    for suffix in (".wav", ".flac"):
        write_signal(tmp_path / f"x{suffix}", sound(), 48000)
        call("-i", tmp_path / f"x{suffix}", "-ar", 48000, "-f", "f32le", tmp_path / "x.f32")
        theirs = np.fromfile(tmp_path / "x.f32", "<f4")
        assert np.array_equal(theirs, soundfile.read(tmp_path / f"x{suffix}", dtype="float32")[0])
    # What a stream leaves: a header without sizes, in 24 bits and stereo.
    with open(tmp_path / "y.wav", "wb") as file:
        words = ["-i", tmp_path / "x.wav", "-c:a", "pcm_s24le", "-ac", 2, "-ar", 44100, "-f", "wav", "-"]
        subprocess.run([ffmpeg, "-v", "error", *map(str, words)], check=True, timeout=60, stdout=file)
    assert alike(read_signal(tmp_path / "y.wav"), sound(), 3e-3)


# Complex baseband


@pytest.mark.parametrize("rate_hz", [8000, 4000, 48000, 250_000])
@pytest.mark.parametrize("name", ["x.cfile", "x.sigmf-meta", "x.sigmf-data", "x.sigmf"])
def test_baseband_comes_back_as_sound(name, rate_hz, tmp_path):
    write_signal(tmp_path / name, sound(seconds=0.5), rate_hz, peak_dbfs=None)
    assert [file.exists() for file in files_of(tmp_path / name)] == [True] * len(files_of(tmp_path / name))
    assert close(read_signal(tmp_path / name, rate_hz), sound(seconds=0.5), 1e-3)


def test_audio_lies_above_the_centre(tmp_path):
    write_signal(tmp_path / "x.cfile", sound(tones=((1810, 1.0),)), 48000)
    z = np.fromfile(tmp_path / "x.cfile", "<c8")
    power = np.abs(np.fft.fft(z)) ** 2
    assert np.fft.fftfreq(len(z), 1 / 48000)[power.argmax()] == pytest.approx(310, abs=1)
    assert np.abs(z).max() == pytest.approx(10 ** (-1 / 20), rel=1e-4)


def test_a_wide_recording_is_tuned_and_its_neighbours_are_removed(tmp_path):
    """As from a receiver for all bands: our signal 30 kHz off the middle, others on either side of it."""
    rate_hz, x = 192_000, sound()
    t = np.arange(rate_hz) / rate_hz
    ours = np.fft.ifft(np.fft.fft(sound(rate_hz)) * 2 * (np.fft.fftfreq(rate_hz, 1 / rate_hz) > 0))  # single-sideband
    others = sum(np.exp(2j * np.pi * hz * t) for hz in (30_000 - 700, 30_000 + 5000, -30_000))
    (0.1 * (ours * np.exp(2j * np.pi * 30_000 * t) + others)).astype("<c8").tofile(tmp_path / "x.cfile")
    found = read_signal(tmp_path / "x.cfile", rate_hz, centre_hz=-30_000) * 10
    error = (found - x)[800:-800]
    assert np.abs(error).max() < 2e-3


@pytest.mark.parametrize("name", ["cf32_le", "ci16_le", "rf32_le", "ri16_le"])
def test_the_sigmf_package_accepts_and_reads_our_recordings(name, tmp_path):
    when = datetime(2026, 11, 27, 9, 5, 7, 250_000, UTC)
    write_sigmf(
        tmp_path / "x.sigmf-meta",
        sound(),
        48000,
        name,
        dial_hz=14_230_000,
        when=when,
        band_hz=(450, 2650),
        label="a picture",
    )
    theirs = sigmf.fromfile(tmp_path / "x.sigmf-meta")  # checks the hash
    theirs.validate()
    assert theirs.get_global_field("core:datatype") == name
    assert theirs.get_global_field("core:sample_rate") == 48000
    capture, note = theirs.get_captures()[0], theirs.get_annotations()[0]
    assert capture["core:frequency"] == 14_230_000 + (1500 if name.startswith("c") else 0)
    assert capture["core:datetime"] == "2026-11-27T09:05:07.250Z"
    assert (note["core:freq_lower_edge"], note["core:freq_upper_edge"]) == (14_230_450, 14_232_650)
    assert (note["core:sample_start"], note["core:sample_count"], note["core:label"]) == (0, 48000, "a picture")
    samples = theirs.read_samples()
    assert np.abs(samples).max() == pytest.approx(10 ** (-1 / 20), rel=1e-3)
    assert alike(read_sigmf(tmp_path / "x.sigmf-data"), sound(), 1e-3)
    assert np.abs(read_sigmf(tmp_path / "x.sigmf-data")).max() == pytest.approx(10 ** (-1 / 20), rel=0.05)
    if name == "rf32_le":
        assert np.array_equal(samples, np.fromfile(tmp_path / "x.sigmf-data", "<f4"))


def test_edges_without_a_dial_are_those_of_the_samples(tmp_path):
    write_sigmf(tmp_path / "x.sigmf-meta", sound(), band_hz=(450, 2650))
    theirs = sigmf.fromfile(tmp_path / "x.sigmf-meta")
    theirs.validate()
    assert theirs.get_annotations()[0]["core:freq_lower_edge"] == 450 - 1500
    assert "core:frequency" not in theirs.get_captures()[0] and "core:datetime" not in theirs.get_captures()[0]


def test_archives_are_those_of_the_sigmf_package(tmp_path):
    write_signal(tmp_path / "x.sigmf", sound())
    first = (tmp_path / "x.sigmf").read_bytes()
    theirs = sigmf.fromfile(tmp_path / "x.sigmf")
    theirs.validate()
    write_signal(tmp_path / "y.sigmf-meta", sound())
    assert np.array_equal(theirs.read_samples(), np.fromfile(tmp_path / "y.sigmf-data", "<c8"))
    sigmf.fromfile(tmp_path / "y.sigmf-meta").archive(str(tmp_path / "z.sigmf"))
    assert np.array_equal(read_signal(tmp_path / "z.sigmf"), read_signal(tmp_path / "x.sigmf"))
    write_signal(tmp_path / "x.sigmf", sound())
    assert (tmp_path / "x.sigmf").read_bytes() == first


def test_eight_bits_and_another_centre_are_read(tmp_path):
    write_signal(tmp_path / "x.sigmf-meta", sound(), centre_hz=1000.0)
    z = np.fromfile(tmp_path / "x.sigmf-data", "<f4")
    scale = 127 / np.abs(z).max()
    np.round(z * scale).astype("i1").tofile(tmp_path / "x.sigmf-data")
    about = json.loads((tmp_path / "x.sigmf-meta").read_text())
    assert about["global"]["semcast:centre_hz"] == 1000
    about["global"]["core:datatype"] = "ci8"
    (tmp_path / "x.sigmf-meta").write_text(json.dumps(about))
    found = read_signal(tmp_path / "x.sigmf-meta")
    assert alike(found, sound(), 0.03)
    off = read_signal(tmp_path / "x.sigmf-meta", centre_hz=1100.0)
    assert not alike(off, sound(), 0.3)


GOOD = {"core:datatype": "cf32_le", "core:sample_rate": 8000, "core:version": "1.2.0"}


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "is not a SigMF description"),
        (b"\xff\xfe{}", "is not a SigMF description"),
        (b"[" * 100_000, "is not a SigMF description"),
        (b"[]", 'it has no object "global"'),
        (b'{"global": 7}', 'it has no object "global"'),
        ({}, "core:datatype is null; what is read: cf32_le, ci16_le, ci8, rf32_le, ri16_le"),
        ({"core:datatype": "cf32_be"}, 'core:datatype is "cf32_be"'),
        ({"core:datatype": {"a": "b" * 1000}}, 'core:datatype is {"a": "bbb.*b\\.\\.\\.; what is read'),
        ({**GOOD, "core:sample_rate": "8000"}, 'core:sample_rate is "8000", and must be a number'),
        ({**GOOD, "core:sample_rate": float("nan")}, "core:sample_rate is NaN"),
        ({**GOOD, "core:sample_rate": 10**400}, "core:sample_rate is 1000.*, and must be a number"),
        ({**GOOD, "core:sample_rate": True}, "core:sample_rate is true"),
        ({**GOOD, "core:sample_rate": 0}, "has 0 samples a second; 4000 to 2e\\+07 are read"),
        ({**GOOD, "core:sample_rate": 1e9}, "has 1e\\+09 samples a second"),
        ({**GOOD, "core:num_channels": 2}, "core:num_channels is 2; one channel is read"),
        ({**GOOD, "core:trailing_bytes": 5}, "core:trailing_bytes"),
        ({**GOOD, "core:dataset": "../secret"}, 'core:dataset is "../secret"; it must name a file in the same folder'),
        ({**GOOD, "core:dataset": "/etc/passwd"}, "it must name a file in the same folder"),
        ({**GOOD, "core:dataset": "C:\\\\secret"}, "it must name a file in the same folder"),
        ({**GOOD, "core:dataset": ".."}, "it must name a file in the same folder"),
        ({**GOOD, "core:dataset": "a\0b"}, "it must name a file in the same folder"),
        ({**GOOD, "core:dataset": 5}, "it must name a file in the same folder"),
        ({**GOOD, "core:dataset": "absent.bin"}, "absent.bin: No such file"),
        ({**GOOD, "semcast:centre_hz": []}, "semcast:centre_hz is \\[\\], and must be a number"),
        (b" " * (META_BYTES_MAX + 1), "the limit for a SigMF description is 1048576"),
    ],
)
def test_hostile_descriptions_are_one_line(text, message, tmp_path):
    text = text if isinstance(text, bytes) else json.dumps({"global": text}).encode()
    (tmp_path / "x.sigmf-meta").write_bytes(text)
    np.zeros(9, "<c8").tofile(tmp_path / "x.sigmf-data")
    with pytest.raises(InputError, match=message) as caught:
        read_signal(tmp_path / "x.sigmf-meta")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "captures, message",
    [({}, "is not a list of objects"), ([3], "is not a list of objects"), ([{"core:header_bytes": 8}], "header_bytes")],
)
def test_hostile_captures_are_one_line(captures, message):
    with pytest.raises(InputError, match=message):
        parse_meta(json.dumps({"global": GOOD, "captures": captures}).encode(), Path("x.sigmf-meta"))


def test_hostile_archives_are_one_line(tmp_path):
    path = tmp_path / "x.sigmf"

    def archive(*members: tuple[str, bytes, bytes]) -> Path:
        with tarfile.open(path, "w") as file:
            for name, kind, content in members:
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
                file.addfile(info, io.BytesIO(content))
        return path

    meta, data = json.dumps({"global": GOOD}).encode(), np.ones(800, "<c8").tobytes()
    plain = tarfile.REGTYPE
    assert len(read_signal(archive(("a.sigmf-meta", plain, meta), ("../a.sigmf-data", plain, data)))) == 800
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.sigmf"]  # nothing is unpacked
    with pytest.raises(InputError, match="lacks a .sigmf-meta or a .sigmf-data file"):
        read_signal(archive(("a.sigmf-meta", plain, meta), ("a.sigmf-data", tarfile.SYMTYPE, b"")))
    with pytest.raises(InputError, match="its description has 1048577 bytes"):
        read_signal(archive(("a.sigmf-meta", plain, b" " * (META_BYTES_MAX + 1)), ("a.sigmf-data", plain, data)))
    with pytest.raises(InputError, match="holds no samples"):
        read_signal(archive(("a.sigmf-meta", plain, meta), ("a.sigmf-data", plain, b"")))
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="a SigMF archive is a tar file that is not packed"):
        read_signal(path)


def test_iq_takes_no_more_memory_than_its_sound(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "HOURS_MAX", 1 / 3600)
    np.zeros(48000 * 3, "<c8").tofile(tmp_path / "x.cfile")
    with pytest.raises(InputError, match="cut it up"):
        read_cfile(tmp_path / "x.cfile", 48000)
    monkeypatch.setattr(iq, "BYTES_MAX", 1000)
    with pytest.raises(InputError, match="the recording would have 64000 bytes; the limit is 1000"):
        write_signal(tmp_path / "y.cfile", sound())


def test_only_known_suffixes_and_rates_are_written(tmp_path):
    with pytest.raises(InputError, match="signals are written as .wav, .flac, .*or .cfile"):
        write_signal(tmp_path / "x.mp3", sound())
    for suffix in SIGNAL_SUFFIXES:
        with pytest.raises(InputError, match="100 samples a second cannot be written; 4000 to 768000 can"):
            write_signal(tmp_path / f"x{suffix}", sound(), 100)
        with pytest.raises(InputError, match="cannot write .*absent"):
            write_signal(tmp_path / "absent" / f"x{suffix}", sound())
    for name in ("ci8", "cf64_le"):
        with pytest.raises(InputError, match=f"not written as {name}, but as cf32_le, ci16_le, rf32_le, ri16_le"):
            write_signal(tmp_path / "x.sigmf", sound(), datatype=name)
    assert not list(tmp_path.iterdir())
