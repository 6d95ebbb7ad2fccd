"""What a hostile visitor sends to the page's server: files, paths, settings, headers, bytes."""

import io
import struct
import zlib

import numpy as np
import pytest
import soundfile
from png_files import chunk, png
from tiny import photo

pytest.importorskip("uvicorn", reason="the page needs the [web] extra")
from semcast.images import encode


def wav(
    rate: int = 8000, channels: int = 1, claimed: int = 0xFFFFFFF0, kind: int = 1, data: bytes = bytes(64)
) -> bytes:
    bits = 32 if kind == 3 else 16
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
    return (
        b"RIFF"
        + struct.pack("<I", claimed)
        + b"WAVEfmt \x10\0\0\0"
        + head
        + b"data"
        + struct.pack("<I", claimed)
        + data
    )


def hostile_files() -> list[bytes]:
    """Uploads that are not what they claim to be, or far more."""
    rng = np.random.default_rng(0)
    good = encode(photo(64, 96))
    jpeg = encode(photo(64, 96), ".jpg")
    files = [
        png(60_000, 60_000),
        png(2**31 - 1, 2**31 - 1),
        png(20_000, 20_000, bytes(1 << 20)),
        png(7000, 7000, bytes(50_000_000)),  # decodes to 150 MB of black, then ends early
        png(64, 64, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 9))),
        png(64, 64, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100 << 20), 9))),
        png(0, 0),
        png(64, 1, bytes(193)),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b",",
        b"BM" + struct.pack("<IHHIIiiHHI", 54, 0, 0, 54, 40, 2**30, -(2**30), 1, 24, 0) + bytes(20),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(rng.integers(0, 256, 600, np.uint8)),
        b"P6 99999999 99999999 255\n",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(64),
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"#!/bin/sh\necho\n",
        b"MZ" + bytes(100),
        b"PK\3\4" + bytes(100),
        b"%PDF-1.7\n",
        b"SEMC",
        b"SEMC\4\0\0" + bytes(80),
        b"SEMC\5" + bytes(rng.integers(0, 256, 200, np.uint8)),
        b"SEMC\xff" + bytes(80),
        wav(),
        wav(rate=1),
        wav(rate=2**31),
        wav(channels=65535),
        wav(channels=0),
        wav(kind=3, data=struct.pack("<8f", *[float("nan")] * 8)),
        wav(kind=3, data=struct.pack("<8f", *[1e38] * 8)),
        wav(kind=77),
        wav(data=b""),
        b"fLaC" + bytes(60),
        b"OggS" + bytes(rng.integers(0, 256, 300, np.uint8)),
        b"ID3\4" + bytes(rng.integers(0, 256, 300, np.uint8)),
        bytes(1),
        bytes(1000),
        b"\xff\xd8\xff" * 100,
        b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(100),
    ]
    silence = io.BytesIO()  # an hour of silence in a few kilobytes
    soundfile.write(silence, np.zeros(3600 * 8000, np.int16), 8000, "PCM_16", format="FLAC")
    files.append(silence.getvalue())
    files += [good[: len(good) * i // 20] for i in range(1, 20)] + [jpeg[: len(jpeg) * i // 20] for i in range(1, 20)]
    for i in range(24):  # bits turned over in a picture and in a JPEG
        broken = bytearray((good, jpeg)[i % 2])
        for at in rng.integers(0, len(broken), 1 + 4 * i):
            broken[at] ^= 1 << int(rng.integers(8))
        files.append(bytes(broken))
    return files


PATHS = [
    *(
        "/static/../site.py",
        "/static/..%2fsite.py",
        "/static/%2e%2e/site.py",
        "/static/..%5csite.py",
        "/static//etc/passwd",
    ),
    *("/../../etc/passwd", "/static/index.html%00.js", "/static/%c0%ae%c0%ae/site.py", "/.git/config", "//etc/passwd"),
    *("/api/results/../../jobs", "/api/results/%2fetc%2fpasswd", "/api/jobs/..%2f..%2f", "/static/" + "a" * 5000),
    *("/static/file:///etc/passwd", "/api/results/%0d%0aset-cookie:a=b", "/static/index.html/..", "/?file=/etc/passwd"),
    *("/static/.", "/static/", "/api", "/api/", "/api/uploads", "/robots.txt", "/static/page.css%20", "/server-status"),
]
SETTINGS = [
    *(b"", b"{", b"[]", b"null", b"1", b'"link"', b"\xff\xfe", b"[" * 9000, b'{"kind":"link","kind":1}', b"{" * 5000),
    *(b'{"kind":"../../etc/passwd"}', b'{"kind":["link"]}', b'{"kind":{"a":1}}', b'{"kind":"link","settings":[]}'),
    *(b'{"kind":"link","more":1}', b'{"kind":"link","settings":{"picture":"../../etc/passwd"}}'),
    *(b'{"kind":"link","settings":{"picture":["sample"]}}', b'{"kind":"decode","settings":{}}'),
    *(b'{"kind":"decode","settings":{"upload":"sample"}}', b'{"kind":"decode","settings":{"upload":"/etc/passwd"}}'),
    *(
        b'{"kind":"link","settings":{"side":%s}}' % v
        for v in (b"513", b"1e9", b"-1", b'"512"', b"true", b"[512]", b"null")
    ),
    *(
        b'{"kind":"link","settings":{"snr_db":%s}}' % v
        for v in (b"NaN", b"Infinity", b"1e400", b"1" + b"0" * 400, b'"1"')
    ),
    *(b'{"kind":"link","settings":{"seed":%s}}' % v for v in (b"-1", b"4294967296", b"1.5", b"1e3", b"false")),
    *(b'{"kind":"link","settings":{"steps":%s}}' % v for v in (b"0", b"21", b"1000000")),
    *(b'{"kind":"link","settings":{"rungs":%s}}' % v for v in (b"0", b"25", b"[1,24]")),
    *(
        b'{"kind":"link","settings":{"channel":%s}}' % v
        for v in (b'"os:system"', b'"tests.planted:CHANNEL"', b'"../awgn"', b'["awgn"]', b"{}")
    ),
    b'{"kind":"link","settings":{"channel":"rician","options":{"k_db":"__import__"}}}',
    b'{"kind":"link","settings":{"channel":"rician","options":{"k_db":1e999}}}',
    b'{"kind":"link","settings":{"channel":"rician","options":[1]}}',
    b'{"kind":"link","settings":{"channel":"rician","options":{"k_db":{"a":1}}}}',
    b'{"kind":"signal","settings":{"path":"os:system"}}',
    b'{"kind":"signal","settings":{"profile":"x"}}',
    b'{"kind":"signal","settings":{"channel":"awgn"}}',
    b'{"kind":"link","settings":{"__proto__":1}}',
]
FOREIGN = [  # headers of requests that another site's page makes, or that are no browser's
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://[::"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.nip.io"},
    {"Host": "[::"},
    {"Host": ""},
]
RAW = [  # bytes on the socket
    b"\0" * 100,
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n\r\n",
]
