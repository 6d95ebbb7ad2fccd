"""Frame files: the documented layout, written out here a second time; exact round trips; malicious bytes."""

import binascii
import math
import os
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semcast.channels.base import Received
from semcast.errors import InputError
from semcast.frame import MAX_BYTES, noiseless, parse, read_frame, write_frame
from semcast.header import HEADER_BITS, SIDE_BITS, Header, stamp, unpack
from semcast.modulation.digital import NO_CHANNEL
from semcast.modulation.mcs import TABLE, plan

LAYOUT = {  # field: offset, struct code; little-endian
    "magic": (0, "4s"),
    "version": (4, "B"),
    "kind": (5, "B"),
    "reserved": (6, "H"),
    "header": (8, "12s"),
    "k": (20, "I"),
    "h_count": (24, "I"),
    "noise_count": (28, "I"),
    "payload_crc": (32, "I"),
    "start_crc": (36, "I"),
}
BITS = {  # of the header, highest first
    "header_version": 4,
    "encoder_id": 16,
    "height": 13,  # less 1
    "width": 13,  # less 1
    "factor": 7,  # in 1/128, less 64
    "scheme": 5,
    "gain": 15,  # float16
    "transmission_id": 7,
    "header_crc": 16,
}
START = 40
HEADER = Header(encoder_id=0xBEEF, height=100, width=190, factor=0.75, gain=1.25)
K = 16 * (96 // 32) * (144 // 32) // 2  # padded 128x192, shrunk to 96x144, 16 real values a stride-32 pixel


def sent(k: int = K) -> np.ndarray:
    """x [1, k] of exactly unit power per symbol."""
    return np.exp(2j * math.pi * np.random.default_rng(0).random((1, k))).astype(np.complex64)


def received(count: int) -> Received:
    """h and noise_var with one value, or one per symbol."""
    g = np.random.default_rng(1)
    h = g.standard_normal((1, count, 2), np.float32).view(np.complex64)[..., 0]
    return Received(3 * sent(), h, g.random((1, count), np.float32))


SIGNALS = {
    "sent": sent(),
    "received": received(1),
    "faded": received(K),
    "packet": bytes(range(60)),
    "qpsk": bytes(range(13)),
}
HEADERS = dict.fromkeys(SIGNALS, stamp(HEADER, sent())) | {
    "packet": stamp(replace(HEADER, scheme=NO_CHANNEL), SIGNALS["packet"]),
    "qpsk": stamp(replace(HEADER, scheme=4), SIGNALS["qpsk"]),  # qpsk 2/3
}


@pytest.fixture(params=SIGNALS)
def frame(request, tmp_path) -> bytes:
    """The bytes of a valid frame of each kind."""
    write_frame(tmp_path / "valid.sem", HEADERS[request.param], SIGNALS[request.param])
    return (tmp_path / "valid.sem").read_bytes()


def fields(data: bytes) -> dict:
    """All fields of a frame, those of its header as the numbers that its bits hold."""
    found = {name: struct.unpack_from("<" + code, data, offset)[0] for name, (offset, code) in LAYOUT.items()}
    bits = iter(f"{int.from_bytes(found['header'], 'big'):096b}")
    return found | {name: int("".join(next(bits) for _ in range(count)), 2) for name, count in BITS.items()}


def packed(values: dict) -> bytes:
    """The header's 12 bytes from the numbers of its bits, with the right CRC."""
    bits = "".join(f"{values[name]:0{count}b}" for name, count in BITS.items())
    data = int(bits[:80], 2).to_bytes(10, "big")
    return data + binascii.crc_hqx(data, 0).to_bytes(2, "big")


def id_of(values: dict, content: bytes) -> int:
    """The transmission_id of a header's numbers and what is sent."""
    return zlib.crc32(content, zlib.crc32(packed(values | {"transmission_id": 0}))) % 128


def edited(data: bytes, payload: bytes | None = None, **changes) -> bytes:
    """The frame with other field values or another payload, and all checksums made right again."""
    data = bytearray(data[:START] + (data[START:] if payload is None else payload))
    changes = {"payload_crc": zlib.crc32(data[START:])} | changes
    values = fields(data) | changes
    if values["kind"] != 1 and "transmission_id" not in changes:
        values["transmission_id"] = id_of(values, data[START:])
    values["header"] = packed(values)
    for name, (offset, code) in LAYOUT.items():
        struct.pack_into("<" + code, data, offset, values[name])
    struct.pack_into("<I", data, START - 4, zlib.crc32(data[: START - 4]))
    return bytes(data)


def with_sample(data: bytes, index: int, value: float) -> bytes:
    """The frame with float32 number `index` of its payload replaced."""
    payload = np.frombuffer(data[START:], "<f4").copy()
    payload[index] = value
    return edited(data, payload.tobytes())


def refusal(data: bytes) -> str | None:
    """What `parse` says against the bytes, or None when it accepts them. Any other exception fails the test."""
    tracemalloc.start()
    try:
        parse(data, "x.sem")
        return None
    except InputError as error:
        assert str(error).startswith("x.sem ") and len(str(error).splitlines()) == 1
        return str(error)
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < MAX_BYTES


@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_written_is_read_back_bit_by_bit(name, tmp_path):
    write_frame(tmp_path / "x.sem", HEADERS[name], SIGNALS[name])
    header, signal = read_frame(tmp_path / "x.sem")
    assert header == HEADERS[name] and type(signal) is type(SIGNALS[name])
    pairs = zip(signal, SIGNALS[name]) if isinstance(signal, Received) else [(signal, SIGNALS[name])]
    for ours, theirs in pairs:
        assert (
            ours == theirs if isinstance(ours, bytes) else ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        )
    write_frame(tmp_path / "again.sem", header, signal)
    assert (tmp_path / "again.sem").read_bytes() == (tmp_path / "x.sem").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.sem", "x.sem"]


@pytest.mark.parametrize("name, kind, counts", [("sent", 0, (0, 0)), ("received", 1, (1, 1)), ("faded", 1, (K, K))])
def test_layout_is_the_documented_one(name, kind, counts, tmp_path):
    write_frame(tmp_path / "x.sem", HEADERS[name], SIGNALS[name])
    data = (tmp_path / "x.sem").read_bytes()
    assert (
        fields(data)
        == {
            "magic": b"SEMC",
            "version": 4,
            "kind": kind,
            "reserved": 0,
            "header": data[8:20],
            "header_version": 4,
            "encoder_id": 0xBEEF,
            "height": 99,
            "width": 189,
            "factor": 96 - 64,  # 0.75 in 1/128
            "scheme": 0,
            "gain": 0x3D00,  # 1.25
            "transmission_id": id_of(fields(data), sent().tobytes()),
            "header_crc": binascii.crc_hqx(data[8:18], 0),
            "k": K,
            "h_count": counts[0],
            "noise_count": counts[1],
            "payload_crc": zlib.crc32(data[START:]),
            "start_crc": zlib.crc32(data[: START - 4]),
        }
    )
    assert len(data) == START + 8 * K + 8 * counts[0] + 4 * counts[1]
    y, h, noise_var = SIGNALS[name] if kind else (SIGNALS[name], np.empty((1, 0)), np.empty((1, 0)))
    numbers = [part for z in y[0].tolist() + h[0].tolist() for part in (z.real, z.imag)] + noise_var[0].tolist()
    assert data[START:] == struct.pack(f"<{len(numbers)}f", *numbers)


@pytest.mark.parametrize("name, scheme", [("packet", 31), ("qpsk", 4)])
def test_layout_of_a_packet(name, scheme, tmp_path):
    payload = SIGNALS[name]
    write_frame(tmp_path / "x.sem", HEADERS[name], payload)
    data = (tmp_path / "x.sem").read_bytes()
    values = {
        "kind": 2,
        "scheme": scheme,
        "k": len(payload),
        "h_count": 0,
        "noise_count": 0,
        "payload_crc": zlib.crc32(payload),
    }
    assert fields(data).items() >= (values | {"transmission_id": id_of(fields(data), payload)}).items()
    assert data[START:] == payload
    assert TABLE[3].modulation == "qpsk" and plan(K, TABLE[3]).payload_bytes == len(SIGNALS["qpsk"])


def test_counted_side_information_has_the_widths_of_the_file(frame):
    """What the frame knows of a transmission is the 12 bytes that `side_bits` counts.

    The rest is of the file: its magic and version, what has arrived by which means, zeros, checksums, and counts that
    follow from the header and what has arrived.
    """
    assert [*BITS.values()] == [*HEADER_BITS.values()] and [*BITS][1:] == [*HEADER_BITS][1:]
    assert 8 * struct.calcsize(LAYOUT["header"][1]) == sum(BITS.values()) == SIDE_BITS
    assert unpack(frame[8:20]) == parse(frame, "x.sem")[0]
    assert LAYOUT.keys() - {"header"} == {
        "magic", "version", "kind", "reserved", "k", "h_count", "noise_count", "payload_crc", "start_crc"
    }  # fmt: skip


def test_largest_frame_is_the_largest_picture_with_a_gain_for_every_symbol(tmp_path):
    header = Header(1, 8192, 8192, 1.0, 1.0, last_rung=24)
    x = sent(16 * (256 * 256 + 512 * 512 + 1024 * 1024) // 2)
    write_frame(tmp_path / "x.sem", header, Received(x, x, np.abs(x)))
    assert os.path.getsize(tmp_path / "x.sem") == MAX_BYTES and read_frame(tmp_path / "x.sem")[0] == header


def test_a_frame_that_passed_no_channel_has_no_noise():
    y, h, noise_var = noiseless(sent())
    assert np.array_equal(y, sent()) and h.tolist() == [[1]] and noise_var.tolist() == [[0]]


IMPOSSIBLE = [  # field, what the message blames, values; in the header, the numbers of its bits
    ("kind", "kind", (3, 255)),
    ("reserved", "reserved", (1, 65535)),
    ("header_version", "version", (0, 3, 5, 15)),
    ("scheme", "scheme", (17, 30)),
    ("height", "height", (0, 62)),
    ("width", "width", (0, 62)),
    ("factor", "factor", (65, 127)),
    ("gain", "gain", (0, 0x7C00, 0x7FFF)),  # 0, infinity and NaN
    ("height", "symbols", (299,)),  # possible, but not with this many symbols
    ("width", "symbols", (499,)),
    ("factor", "symbols", (64,)),
    ("k", "symbols", (0, 1, K - 1, 2**31, 2**32 - 1)),
    ("h_count", "h_count", (2, K - 1, 2**32 - 1)),
    ("noise_count", "noise_count", (2, K - 1, 2**32 - 1)),
]


@pytest.mark.parametrize(
    "name, blamed, value", [(name, blamed, v) for name, blamed, values in IMPOSSIBLE for v in values]
)
def test_impossible_field_is_refused_by_name_even_with_right_checksums(name, blamed, value, frame):
    if blamed == "symbols" and fields(frame)["kind"] == 2:
        blamed, value = "bytes", value if value not in (1, K - 1) or name != "k" else 2**31
        if name != "k" and fields(frame)["scheme"] == NO_CHANNEL:  # a packet suits any picture
            return
    message = refusal(edited(frame, **{name: value}))
    assert message.startswith("x.sem has an impossible header: ") and f"{blamed} = " in message


def test_version_is_checked_before_anything_that_depends_on_it(frame):
    for version in (3, 7):
        message = f"x.sem is a frame of version {version}; this semcast reads versions 4 to 6, so send it again"
        assert refusal(edited(frame, version=version) + b"more") == message


def test_a_frame_with_the_transmission_id_of_another_is_refused(frame):
    data = edited(frame, transmission_id=fields(frame)["transmission_id"] ^ 1)
    of_a_channel = fields(frame)["kind"] == 1  # y is not x, so nothing can be said
    told = "x.sem holds another transmission than its header says; send it again"
    assert refusal(data) == (None if of_a_channel else told)


@pytest.mark.parametrize("name", ["sent", "received", "faded"])
def test_impossible_samples_are_refused_even_with_right_checksums(name, tmp_path):
    write_frame(tmp_path / "x.sem", HEADERS[name], SIGNALS[name])
    frame = (tmp_path / "x.sem").read_bytes()
    for index in (0, 1, 2 * K - 1, -1):  # real and imaginary parts of y, then the last float of all
        erased = fields(frame)["kind"] and index == -1  # a noise variance may be infinite
        for value in (math.nan, -math.inf) if erased else (math.nan, math.inf, -math.inf):
            assert refusal(with_sample(frame, index, value)) == "x.sem holds NaN or infinite samples"
    if fields(frame)["kind"]:
        assert refusal(with_sample(frame, -1, -1e-9)) == "x.sem holds a negative noise variance"
    else:
        assert refusal(with_sample(frame, 0, 3e38)) == "x.sem holds samples above 1e+09; what was sent has unit power"
        assert refusal(edited(frame, bytes(8 * K))) == "x.sem was not sent with unit power (mean |x|^2 = 0)"


def test_erased_symbols_have_infinite_noise_and_survive_the_file(tmp_path):
    y, h, noise_var = received(K)
    noise_var[0, ::3] = math.inf
    write_frame(tmp_path / "x.sem", HEADER, Received(y, h, noise_var))
    assert np.array_equal(read_frame(tmp_path / "x.sem")[1].noise_var, noise_var)


def test_wrong_length_is_refused(frame):
    assert refusal(edited(frame, frame[START:] + b"more")).endswith("it is truncated or has something appended")
    for size_bytes in [*range(START + 1), *range(START, len(frame) - 1, 37), len(frame) - 1]:
        assert ("truncated" if size_bytes >= 4 else "not a semcast frame") in refusal(frame[:size_bytes])


def test_random_damage_is_always_refused(frame):
    """Checksums stay as they were: only a frame equal to the original may pass."""
    rng = np.random.default_rng(0)
    for i in range(120):
        data, at = bytearray(frame), int(rng.integers(len(frame)))
        noise = rng.bytes(int(rng.integers(1, 50)))
        if i % 6 == 0:
            for bit in rng.integers(8 * len(frame), size=int(rng.integers(1, 4))):
                data[bit // 8] ^= 1 << (bit % 8)
        elif i % 6 == 1:
            data[at:at] = noise
        elif i % 6 == 2:
            data[at : at + len(noise)] = noise
        elif i % 6 == 3:
            data[at:at] = data[at : at + len(noise)]  # a chunk twice
        elif i % 6 == 4:
            n = len(noise)
            data[at : at + 2 * n] = data[at + n : at + 2 * n] + data[at : at + n]  # chunks change places
        else:
            del data[at : at + len(noise)]
        assert (refusal(bytes(data)) is None) == (bytes(data) == frame)


@pytest.mark.parametrize("name", SIGNALS)
def test_the_head_of_one_frame_and_the_samples_of_another_are_refused(name, tmp_path):
    write_frame(tmp_path / "a.sem", HEADERS[name], SIGNALS[name])
    ours = (tmp_path / "a.sem").read_bytes()
    for other in SIGNALS:
        write_frame(tmp_path / "b.sem", HEADERS[other], SIGNALS[other])
        theirs = (tmp_path / "b.sem").read_bytes()
        assert (refusal(ours[:START] + theirs[START:]) is None) == (ours[START:] == theirs[START:])


def test_random_headers_with_right_checksums_are_refused_or_fit_their_frame(frame):
    rng, accepted = np.random.default_rng(1), 0
    for _ in range(120):
        data = bytearray(frame)
        for at in rng.integers(5, START - 8, size=int(rng.integers(1, 4))):
            data[at] = rng.integers(256)
        data = edited(bytes(data))
        if refusal(data) is None:
            accepted += 1
            header, _ = parse(data, "x.sem")
            assert fields(data)["kind"] == 2 or header.channel_uses == fields(data)["k"]
            assert header.gain > 0
    assert 0 < accepted < 120


def test_oversized_file_is_refused_unread(tmp_path):
    with open(tmp_path / "x.sem", "wb") as file:
        file.truncate(1 << 30)  # sparse
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"x\.sem has {1 << 30} bytes; the limit for a frame is {MAX_BYTES}$"):
        read_frame(tmp_path / "x.sem")
    assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    tracemalloc.stop()


def test_a_device_is_refused_unread():
    with pytest.raises(InputError, match="^/dev/null is not a file; name a frame$"):
        read_frame(Path("/dev/null"))
