"""The header on the air: 96 bits, written out here a second time; what is damaged is refused."""

import math
import re
import struct
import zlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from semcast.errors import InputError
from semcast.header import HEADER_BITS, LADDER_BITS, MIXED_BITS, SIDE_BITS, Header, pack, stamp, unpack

PROTOCOL = (Path(__file__).parents[1] / "PROTOCOL.md").read_text()
HEADER = Header(encoder_id=0xBEEF, height=100, width=190, factor=0.75, gain=1.25, scheme=4, transmission_id=93)
LEGAL = {  # every value that each field can have
    "encoder_id": range(2**16),
    "height": range(64, 8193),
    "width": range(64, 8193),
    "factor": [i / 128 for i in range(64, 129)],
    "gain": np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(float).tolist(),
    "scheme": range(32),
    "transmission_id": range(128),
}


def bit_string(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


def from_bits(bits: str) -> bytes:
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def with_crc(bits: str) -> bytes:
    """Bits and their CRC-16, by long division by x^16 + x^12 + x^5 + 1."""
    rest = int(bits + 16 * "0", 2)
    for i in range(len(bits) + 15, 15, -1):
        if rest >> i & 1:
            rest ^= 0b1_0001_0000_0010_0001 << (i - 16)
    return from_bits(bits + f"{rest:016b}")


def stored(**changes: int) -> bytes:
    """HEADER with other numbers in its bits, and the right CRC."""
    numbers = {
        "version": 4,
        "encoder_id": 0xBEEF,
        "height": 99,
        "width": 189,
        "factor": 32,  # 96 - 64
        "scheme": 4,
        "gain": 0b0_01111_0100000000,  # 1.25 = 2^0 x 1.01 in binary
        "transmission_id": 93,
    } | changes
    return with_crc("".join(f"{value:0{HEADER_BITS[name]}b}" for name, value in numbers.items()))


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as error:
        unpack(data, "x")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_header_is_the_96_bits_that_are_counted():
    assert pack(HEADER) == stored() and 8 * len(pack(HEADER)) == SIDE_BITS == sum(HEADER_BITS.values()) == 96
    assert unpack(stored()) == HEADER
    rungs, packet = {"first_rung", "last_rung"}, {"packet_uses"}
    assert HEADER_BITS.keys() | rungs | packet == {field.name for field in fields(Header)} | {"version", "header_crc"}
    assert LADDER_BITS.keys() == (HEADER_BITS.keys() | rungs) - {"scheme"} and HEADER.side_bits == 96
    assert MIXED_BITS.keys() == HEADER_BITS.keys() | packet


def test_a_header_of_a_base_and_a_packet_has_112_bits():
    header = replace(HEADER, packet_uses=32 * 220)
    numbers = {"version": 6, "encoder_id": 0xBEEF, "height": 99, "width": 189, "factor": 32, "scheme": HEADER.scheme}
    numbers |= {"gain": 0b0_01111_0100000000, "packet_uses": 220, "transmission_id": HEADER.transmission_id}
    bits = "".join(f"{value:0{MIXED_BITS[name]}b}" for name, value in numbers.items())
    assert pack(header) == with_crc(bits) and 8 * len(pack(header)) == header.side_bits == 112
    assert unpack(pack(header)) == header and header.mode == "mixed"
    assert header.channel_uses == HEADER.channel_uses + 7040
    none = with_crc("".join(f"{value:0{MIXED_BITS[name]}b}" for name, value in (numbers | {"packet_uses": 0}).items()))
    assert refused(none) == "x has an impossible header: packet_uses = 0"


def test_a_header_of_other_rungs_has_104_bits_and_no_scheme():
    header = replace(HEADER, scheme=0, first_rung=9, last_rung=24, transmission_id=1000)
    numbers = {"version": 5, "encoder_id": 0xBEEF, "height": 99, "width": 189, "factor": 32, "first_rung": 8}
    numbers |= {"last_rung": 23, "gain": 0b0_01111_0100000000, "transmission_id": 1000}
    bits = "".join(f"{value:0{LADDER_BITS[name]}b}" for name, value in numbers.items())
    assert pack(header) == with_crc(bits) and unpack(pack(header)) == header
    assert 8 * len(pack(header)) == header.side_bits == sum(LADDER_BITS.values()) == 104
    for rungs in ((1, 7), (1, 24), (8, 8), (24, 24), (3, 20)):
        other = replace(header, first_rung=rungs[0], last_rung=rungs[1])
        assert unpack(pack(other)) == other


@pytest.mark.parametrize(
    "first, last, told",
    [(8, 7, "last_rung = 8"), (0, 24, "last_rung = 25"), (0, 31, "last_rung = 32"), (0, 7, "first_rung = 1")],
)
def test_impossible_rungs_are_refused_by_name(first, last, told):
    bits = bit_string(pack(replace(HEADER, scheme=0, last_rung=24)))
    at = 4 + 16 + 13 + 13 + 7
    assert refused(with_crc(bits[:at] + f"{first:05b}{last:05b}" + bits[at + 10 : -16])) == (
        f"x has an impossible header: {told}"
    )


def test_rungs_have_the_symbols_of_two_channels_of_their_layer():
    header = Header(encoder_id=1, height=500, width=512, factor=0.75, gain=1.0)
    assert header.rung_uses == [144] * 8 + [1024] * 8 + [4096] * 8
    assert replace(header, last_rung=24).channel_uses == 42112 and header.channel_uses == 1152
    assert replace(header, first_rung=8, last_rung=9).channel_uses == 144 + 1024


def test_the_example_of_the_protocol_is_right():
    (shown,) = re.findall(r"\s`((?:[0-9a-f]{2} ){11}[0-9a-f]{2})`", PROTOCOL)
    assert unpack(bytes.fromhex(shown)) == replace(HEADER, scheme=0, transmission_id=18)


@pytest.mark.parametrize("name", LEGAL)
def test_every_legal_value_is_unpacked_as_it_was_packed(name):
    for value in LEGAL[name]:
        header = replace(HEADER, **{name: value})
        assert unpack(pack(header)) == header


def test_random_headers_are_unpacked_as_they_were_packed():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        header = Header(**{name: values[rng.integers(len(values))] for name, values in LEGAL.items()})
        assert unpack(pack(header)) == header


def test_every_flip_of_one_two_or_three_bits_and_every_burst_of_16_is_refused():
    data = int.from_bytes(pack(HEADER), "big")
    flips = [1 << i for i in range(96)]
    errors = [*flips, *(a ^ b for a in flips for b in flips if a < b)]
    rng = np.random.default_rng(0)
    errors += [sum(flips[i] for i in rng.choice(96, 3, replace=False)) for _ in range(2000)]
    errors += [burst << at for at in range(81) for burst in (0x8001, 0xFFFF, *rng.integers(1, 2**16, 40).tolist())]
    for error in errors:
        assert refused((data ^ error).to_bytes(12, "big")) == "x has a damaged header (CRC mismatch); fetch it again"
    for wrong in (b"", pack(HEADER)[:-1], pack(HEADER) + b"\1"):
        assert refused(wrong) == "x has a damaged header (CRC mismatch); fetch it again"
    assert (
        refused(pack(HEADER) + b"\0") == "x has an impossible header: version = 4"
    )  # its CRC is right by construction


@pytest.mark.parametrize(
    "name, number, told",
    [
        ("version", 3, "version = 3"),
        ("version", 5, "version = 5"),
        ("height", 62, "height = 63"),
        ("width", 0, "width = 1"),
        ("factor", 65, "factor = 1.0078125"),
        ("factor", 127, "factor = 1.4921875"),
        ("gain", 0, "gain = 0.0"),
        ("gain", 0x7C00, "gain = inf"),
        ("gain", 0x7FFF, "gain = nan"),
    ],
)
def test_impossible_values_are_refused_by_name(name, number, told):
    assert refused(stored(**{name: number})) == f"x has an impossible header: {told}"


def test_whatever_is_accepted_is_packed_to_the_same_bytes():
    rng, accepted = np.random.default_rng(1), 0
    for _ in range(3000):
        data = with_crc("0100" + bit_string(rng.bytes(10))[4:])
        try:
            header = unpack(data)
        except InputError:
            continue
        accepted += 1
        assert pack(header) == data and header.height >= 64 and 0.5 <= header.factor <= 1 and 0 < header.gain < math.inf
    assert 1000 < accepted < 2000  # half of the factors are above 1


def test_the_id_depends_on_every_field_and_on_what_is_sent():
    content = bytes(range(60))
    head = stored(transmission_id=0)
    assert stamp(HEADER, content) == replace(HEADER, transmission_id=zlib.crc32(head + content) % 128)
    x = np.exp(2j * np.arange(20, dtype=np.float32)[None]).astype(np.complex64)
    numbers = struct.pack("<40f", *x.view(np.float32)[0])
    assert stamp(HEADER, x).transmission_id == zlib.crc32(head + numbers) % 128
    x_id = stamp(replace(HEADER, scheme=0), x).transmission_id
    rungs = [stamp(replace(HEADER, scheme=0, first_rung=a, last_rung=b), x) for a, b in ((1, 4), (9, 24), (1, 24))]
    assert {header.transmission_id % 128 for header in rungs} == {x_id}  # of one picture, whatever the rungs
    others = {"encoder_id": 1, "height": 101, "width": 191, "factor": 0.5, "gain": 1.5, "scheme": 0}
    ids = [stamp(replace(HEADER, **{name: value}), content).transmission_id for name, value in others.items()]
    assert stamp(HEADER, content).transmission_id not in ids
    assert stamp(replace(HEADER, transmission_id=5), content) == stamp(HEADER, content)


def test_contents_share_their_id_once_in_128():
    rng, count = np.random.default_rng(2), 20_000
    ids = np.array([stamp(HEADER, rng.bytes(50)).transmission_id for _ in range(count)])
    assert (ids[::2] == ids[1::2]).mean() == pytest.approx(1 / 128, abs=4 * (2 / 128 / count) ** 0.5)
    assert len(np.unique(ids)) == 128
