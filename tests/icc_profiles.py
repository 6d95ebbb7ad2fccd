"""ICC profiles for tests, made by hand: of displays, of grey and of a printer."""

import struct

import numpy as np

from semcast.formats import colour

P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def icc(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04)."""
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\5test\0" + bytes(79), b"cprt": b"text\0\0\0\0none\0", **tags}
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    d50 = struct.pack(">3i", 63190, 65536, 54061)
    head = struct.pack(">I4sI4s4s4s12s4s", at + len(body), b"none", 0x02400000, kind, space, pcs, bytes(12), b"acsp")
    return (head + bytes(28) + d50).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def curve(of) -> bytes:
    values = np.rint(of(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + values.tobytes()


def matrix_profile(primaries, of) -> bytes:
    """Of an RGB display; primaries as in `colour`, adapted to D50."""
    white = [63190 / 65536, 1, 54061 / 65536]
    x, y = primaries[0], primaries[1]
    mine, bradford = np.array([x / y, 1, (1 - x - y) / y]), colour.BRADFORD
    xy = np.reshape(primaries[2:], (3, 2))
    base = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(3), (1 - xy.sum(1)) / xy[:, 1]]).T
    adapt = np.linalg.inv(bradford) @ np.diag(bradford @ white / (bradford @ mine)) @ bradford
    columns = adapt @ base @ np.diag(np.linalg.solve(base, mine))
    tags = {b"wtpt": xyz(white)} | {n + b"XYZ": xyz(columns[:, i]) for i, n in enumerate((b"r", b"g", b"b"))}
    return icc(b"RGB ", tags | {n + b"TRC": curve(of) for n in (b"r", b"g", b"b")})


def grey_profile(of) -> bytes:
    return icc(b"GRAY", {b"wtpt": xyz([0.9642, 1, 0.8249]), b"kTRC": curve(of)})


def cmyk_profile() -> bytes:
    """Of a printer on warm paper: lightness falls with each ink, by a table of two points an ink (mft1)."""
    points = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = 240 * np.prod(1 - points * [0.35, 0.45, 0.1, 0.85], axis=1)
    a = 128 + 60 * (points[:, 1] - points[:, 0]) * (1 - points[:, 3])
    b = 135 + 70 * (points[:, 2] - points[:, 0]) * (1 - points[:, 3])
    table = np.stack([light, a.clip(0, 255), b.clip(0, 255)], -1).round().astype(np.uint8)
    straight = bytes(range(256))
    lut = b"mft1\0\0\0\0" + struct.pack(">4B9i", 4, 3, 2, 0, *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    tags = {b"A2B0": lut + straight * 4 + table.tobytes() + straight * 3, b"wtpt": xyz([0.9642, 1, 0.8249])}
    return icc(b"CMYK", tags, b"Lab ", b"prtr")


RGB_PROFILES = {
    "Display P3": matrix_profile(P3, colour.srgb_curve),
    "Adobe RGB": matrix_profile(ADOBE, colour.power(2.19921875)),
    "gamma 1.8": matrix_profile(colour.SRGB, colour.power(1.8)),
    "ProPhoto": matrix_profile((0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), colour.power(1.8)),
}
