"""The page's server: it computes what the library does, in turn, keeps nothing, and answers hostile requests with a sentence."""

import asyncio
import io
import json
import math
import os
import signal
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import photo
from PIL import Image
from web_client import Client, Server

pytest.importorskip("uvicorn", reason="the page needs the [web] extra")
from semcast import Link, load_model
from semcast.channels.base import Received
from semcast.errors import InputError
from semcast.images import encode, to_image, to_pixels
from semcast.signals.audio import encode_audio
from semcast.web import plots, rivals, settings, work
from semcast.web.job import Job
from semcast.web.jobs import CRASHED, Jobs
from semcast.web.limits import Limits
from semcast.web.metrics import Metrics
from semcast.web.overlays import overlays_of
from semcast.web.sessions import Full, Sessions
from semcast.web.worker import TOO_LARGE, Report, Task, carry_out

LIMITS = Limits()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def server(tiny_model, folder):
    with Server(tiny_model, folder, body_s=0.5, header_s=0.5, job_s=30) as running:
        yield running


@pytest.fixture
def client(server) -> Client:
    return Client(server.port).enter()


# What it computes


def test_a_photo_arrives_as_the_library_receives_it(client, tiny_model):
    pixels = photo(96, 160)
    job = client.run("link", picture=client.upload(encode(pixels)), side=256, snr_db=7.0, seed=3, channel="rayleigh")
    assert job["state"] == "done", job
    assert np.array_equal(pixels_of(client.result(job, "sent")), pixels)
    expected = Link(load_model(tiny_model), "rayleigh")(pixels, 7.0, seed=3, steps=1)
    assert np.array_equal(pixels_of(client.result(job, "received")), to_pixels(expected.image))
    figures = job["figures"]
    assert (figures["channel_uses"], figures["side_bits"]) == (expected.payload_uses, 96)
    assert figures["element_ratio"] == pytest.approx(2 * expected.payload_uses / (3 * 96 * 160))
    for name in ("constellation", "response"):
        assert client.result(job, name).startswith(b"<svg")
    for name in ("codec", "television"):
        assert pixels_of(client.result(job, name)).shape == pixels.shape


def test_a_large_photo_is_shrunk_and_kept_small(client, server):
    name = client.upload(encode(photo(900, 1300, seed=1)))
    before = server.metric("session_bytes")
    job = client.run("prefix", picture=name, side=256, rungs=2)
    assert (job["figures"]["width"], job["figures"]["height"], job["figures"]["rungs"]) == (256, 177, 2)
    assert server.metric("session_bytes") < before
    assert client.run("prefix", picture=name, side=256, rungs=2)["state"] == "done"


def test_a_sound_that_is_downloaded_is_decoded_again(client):
    job = client.run("signal", side=256, path="watterson-good", snr3k_db=25.0, offset_hz=40.0, seed=2)
    assert job["state"] == "done", job
    assert abs(job["figures"]["transmissions"][0]["offset_hz"] - 40) < 2
    sound = client.result(job, "arrived")
    again = client.run("decode", upload=client.upload(sound), seed=2)
    assert again["state"] == "done", again
    same = pixels_of(client.result(job, "received")).astype(float) - pixels_of(client.result(again, "received"))
    assert np.abs(same).mean() < 2  # the WAV has 16 bits
    for name in ("waterfall", "radio-response", "constellation"):
        assert client.result(again, name)
    quiet = client.run("decode", upload=client.upload(encode_audio(np.zeros(8000, np.int16))))
    assert (quiet["state"], quiet["error"]) == (
        "refused",
        "no transmission was found in it; send it again, louder or with less noise",
    )


def test_two_transmissions_of_a_picture_are_combined(client):
    jobs = [client.run("signal", side=256, snr3k_db=12.0, seed=seed) for seed in (1, 2)]
    sounds = [soundfile.read(io.BytesIO(client.result(job, "arrived")), dtype="int16")[0] for job in jobs]
    both = client.run("decode", upload=client.upload(encode_audio(np.concatenate(sounds))))
    assert both["state"] == "done" and len(both["figures"]["transmissions"]) == 2
    assert [result["name"] for result in both["results"]].count("received") == 1


def test_a_frame_goes_to_another_machine(client, server, tiny_model):
    sent = client.run("frame", side=256, rungs=8)
    other = Client(server.port).enter()
    got = other.run("decode", upload=other.upload(client.result(sent, "frame")), seed=5)
    assert got["state"] == "done", got
    link = Link(load_model(tiny_model))
    image = to_image(np.asarray(Image.open(io.BytesIO(client.result(client.run("link", side=256), "sent")))))
    header, x = link.send(image)
    expected = link.receive(work.radio.noiseless(x), header, 1, seed=5)
    assert np.array_equal(pixels_of(other.result(got, "received")), to_pixels(expected))


def test_an_overlay_is_a_result_of_the_link(tiny_model, monkeypatch):
    draw = lambda link, received, header, image: np.zeros((*image.shape[-2:], 4), np.uint8)
    monkeypatch.setitem(work.OVERLAYS, "confidence", draw)
    messages: list = []
    asked = settings.check("link", {"side": 256}, LIMITS, 8)
    asked.pop("picture")
    task = Task(1, "link", asked, None)
    assert carry_out(task, lambda: work.link_job(load_model(tiny_model), LIMITS, task, Report(messages.append))) == (
        "done",
    )
    (overlay,) = (m for m in messages if m[:2] == ("result", "confidence"))
    assert pixels_of(overlay[2]).shape == (256, 256, 4) and overlay[5] == {"overlay": True}


def test_what_glows_may_be_wrong(tiny_model):
    assert overlays_of(str(tiny_model), load_model(tiny_model)) == {}  # it has no calibration
    engine = load_model("small")
    link, draw = Link(engine), overlays_of("small", engine)["confidence"]
    image = to_image(photo(256, 320))
    header, x = link.send(image)
    opaque = []
    for snr_db in (20.0, 0.0):
        received = link.propagate(x, snr_db)
        rgba = draw(link, received, header, link.receive(received, header))
        assert rgba.shape == (256, 320, 4) and rgba.dtype == np.uint8
        assert (rgba[:32, :32] == rgba[0, 0]).all() and not (rgba == rgba[0, 0]).all()  # cells
        opaque.append(rgba[..., 3].mean())
    assert opaque[0] < opaque[1]


def test_rivals_keep_to_the_budget():
    pixels = photo(256, 256)
    small, large = (rivals.codec(pixels, uses, 10.0) for uses in (300, 8000))
    for shown, uses in ((small, 300), (large, 8000)):
        assert 0 < shown.size <= uses * np.log2(11) / 8
    error = lambda shown: np.square(shown.pixels.astype(float) - pixels).mean()
    assert error(large) < error(small)
    assert rivals.codec(pixels, 3, -20.0).size == 0
    assert rivals.jpeg(Image.fromarray(pixels), 4000)[0] <= 4000 and rivals.jpeg(Image.fromarray(pixels), 10) is None
    half = rivals.television(pixels, 18.0)
    assert half.size == 120 and (half.pixels[140:] == rivals.UNSENT).all() and (half.pixels[:100] != 128).any()


def test_a_plot_marks_lost_symbols():
    noise_var = np.where(np.arange(64) < 16, np.inf, 0.1).astype(np.float32)[None]
    received = Received(np.ones((1, 64), np.complex64), np.ones((1, 1), np.complex64), noise_var)
    assert plots.response(received).count(b"v-7") == 16
    assert b"of 48 received" in plots.constellation(received)


# Turns


def test_jobs_wait_in_turn_and_are_cancelled(client, server):
    other = Client(server.port).enter()
    first = client.ask("link", side=1024, steps=20)
    second, third = (visitor.ask("link", side=256) for visitor in (other, client))
    assert other.look(second)["ahead"] >= 1 and client.look(third)["ahead"] > other.look(second)["ahead"] - 1
    client.request("DELETE", f"/api/jobs/{third['job']}")
    assert client.look(third)["state"] == "cancelled"
    client.wait(first, "running")
    client.request("DELETE", f"/api/jobs/{first['job']}")
    assert client.wait(first)["state"] == "cancelled"
    assert other.wait(second)["state"] == "done"
    assert client.request("DELETE", f"/api/jobs/{second['job']}").status == 404  # of another session


def test_what_takes_too_long_is_stopped(tiny_model, tmp_path):
    with Server(tiny_model, tmp_path, job_s=0.05, session_jobs=2, queue=2) as server:
        client = Client(server.port).enter()
        jobs = [client.ask("link", side=1024, steps=20) for _ in range(2)]
        answer = client.request("POST", "/api/jobs", json.dumps({"kind": "link"}))
        assert answer.status == 503 and "2 jobs of yours" in answer.json["error"]
        ended = [client.wait(job) for job in jobs]
        assert {job["state"] for job in ended} == {"refused"} and "longer than 0.05 s" in ended[0]["error"]
        assert server.metric("worker_restarts_total") >= 1


def worker_of(server: Server) -> int:
    """The process that computes."""
    found = [path.read_text().split() for path in Path(f"/proc/{server.process.pid}/task").glob("*/children")]
    pids = [int(pid) for some in found for pid in some]
    return next(pid for pid in pids if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the worker is found in /proc")
def test_a_worker_that_crashes_is_started_again(tiny_model, tmp_path):
    with Server(tiny_model, tmp_path) as server:
        client = Client(server.port).enter()
        long = client.wait(client.ask("link", side=1024, steps=20), "running")
        os.kill(worker_of(server), signal.SIGKILL)
        ended = client.wait(long)
        assert (ended["state"], ended["error"]) == ("refused", CRASHED)
        assert client.run("prefix", side=256)["state"] == "done"
        os.kill(worker_of(server), signal.SIGKILL)  # while it has nothing to do
        assert client.run("prefix", side=256)["state"] == "done"
        assert server.metric("worker_restarts_total") == 2
        last = worker_of(server)
    assert not Path(f"/proc/{last}").exists()  # it ends with the server


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_what_takes_too_much_memory_is_refused(tiny_model, tmp_path):
    with Server(tiny_model, tmp_path, worker_bytes=400 << 20) as server:
        client = Client(server.port).enter()
        large = client.upload(png(7000, 7000, bytes(7000 * 21001)))
        job = client.run("prefix", picture=large, side=256)
        assert (job["state"], job["error"]) == ("refused", TOO_LARGE)
        assert client.run("prefix", side=256)["state"] == "done"
        assert server.metric("worker_restarts_total") == 0


def test_figures_that_json_cannot_say_are_null():
    messages: list = []
    Report(messages.append).figures(psnr_db=math.inf, rows=[{"snr_db": math.nan, "name": "x"}], uses=3)
    assert messages == [("figures", {"psnr_db": None, "rows": [{"snr_db": None, "name": "x"}], "uses": 3})]


def test_a_page_hears_of_its_jobs(client):
    with socket.create_connection(("127.0.0.1", client.port), 30) as stream:
        cookie = client.headers["Cookie"]
        stream.sendall(f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
        job, heard = client.ask("prefix", side=256), b""
        while b'"state":"done"' not in heard:
            piece = stream.recv(65536)
            assert piece, heard
            heard += piece
    assert b"text/event-stream" in heard and job["job"].encode() in heard and b'"state":"running"' in heard


def test_a_guess_of_the_wait_comes_from_the_jobs_before():
    sessions = Sessions(LIMITS, lambda session: None)
    jobs = Jobs(None, LIMITS, Metrics())  # pyright: ignore
    jobs.sessions, jobs.usual_s["link"] = sessions, 3.0
    made = [Job(sessions.start(), "link", {"side": side}, None, "") for side in (512, 1024, 512)]
    for job in made:
        jobs.add(job)
    assert [job.ahead for job in made] == [0, 1, 2] and [job.wait_s for job in made] == [0, 3, 15]


# Sessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_sessions_end_when_their_pages_are_gone():
    clock, left = Clock(), []
    sessions = Sessions(LIMITS, left.append, clock)
    page, quiet = sessions.start(), sessions.start()
    sessions.keep(page, bytes(1000))
    page.streams.add(asyncio.Event())
    clock.now += LIMITS.idle_s + 1
    sessions.sweep()
    assert left == [quiet] and sessions.size_bytes == 1000
    page.streams.clear()
    page.left = clock.now
    clock.now += LIMITS.absent_s + 1
    sessions.sweep()
    assert left == [quiet, page] and not page.ended  # its jobs are cancelled, its pictures still there
    clock.now += LIMITS.gone_s
    sessions.sweep()
    assert left == [quiet, page, page, page] and page.ended and sessions.size_bytes == 0 and not sessions.open


def test_sessions_have_limits():
    limits = Limits(sessions=2, session_bytes=900, total_bytes=1500, session_uploads=2)
    sessions = Sessions(limits, lambda session: None)
    first, second = sessions.start(), sessions.start()
    for _ in range(5):
        name = sessions.keep(first, bytes(400))
    assert len(first.uploads) == 2 and name in first.uploads
    with pytest.raises(Full, match="one session"):
        sessions.keep(first, bytes(501))
    assert name in first.uploads and first.size_bytes == 800  # what is refused costs nothing
    with pytest.raises(Full, match="server's memory"):
        sessions.keep(second, bytes(701))
    assert sessions.start() and second.ended  # the empty one made room
    sessions.keep(list(sessions.open.values())[-1], b"x")
    with pytest.raises(Full, match="too many people"):
        sessions.start()


def test_who_forgets_frees_the_memory(client, server):
    client.upload(bytes(1 << 20))
    before = server.metric("session_bytes")
    job = client.ask("link", side=1024, steps=20)
    assert client.request("DELETE", "/api/session").status == 200
    assert server.metric("session_bytes") <= before - (1 << 20)
    assert client.get(f"/api/jobs/{job['job']}").status == 403
    assert "your session is over" in client.get("/api/jobs/x").json["error"]
    again = client.request("POST", "/api/session")
    assert again.status == 200 and client.headers["Cookie"] not in again.headers["set-cookie"]


def test_a_session_sees_nothing_of_another(client, server):
    job = client.run("prefix", side=256)
    other = Client(server.port).enter()
    assert other.get(job["results"][0]["url"]).status == 404
    assert other.get(f"/api/jobs/{job['job']}").status == 404
    name = client.upload(encode(photo(64, 64)))
    assert other.request("POST", "/api/jobs", json.dumps({"kind": "link", "settings": {"picture": name}})).status == 400


# Safety


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


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


def talk(port: int, data: bytes) -> bytes:
    """All that the server answers to some bytes, until it closes the connection or is silent."""
    with socket.create_connection(("127.0.0.1", port), 2) as wire:
        answer = b""
        try:
            wire.sendall(data)
            while piece := wire.recv(65536):
                answer += piece
        except (ConnectionError, TimeoutError):  # it may close before everything is sent, or keep the connection
            pass
    return answer


def test_hostile_files_and_requests_get_one_sentence(server, folder):
    files = hostile_files()
    assert len(files) + len(PATHS) + len(SETTINGS) + len(FOREIGN) + len(RAW) >= 200
    before = {path: path.stat().st_size for path in folder.rglob("*") if path.name != "log"}
    client = Client(server.port).enter()
    for data in files:
        name = client.upload(data)
        for kind, key in (("prefix", "picture"), ("decode", "upload")):
            if kind == "prefix" and data[:4] in (b"SEMC", b"RIFF", b"fLaC", b"OggS") and data[8:12] != b"WEBP":
                continue
            if kind == "decode" and data[:4] not in (b"SEMC", b"RIFF", b"fLaC", b"OggS", b"ID3\4", bytes(4)):
                continue
            rest = {"side": 256} if kind == "prefix" else {}
            job = client.run(kind, **{key: name}, **rest)
            assert job["state"] in ("refused", "done"), (data[:40], job)
            if job["state"] == "refused":
                assert job["error"] and "\n" not in job["error"] and "Traceback" not in job["error"]
    answers = [client.get(path) for path in PATHS]
    assert {a.status for a in answers if a.status != 200} <= {400, 404, 405}
    assert all(b"root:" not in a.body and b"import" not in a.body.split(b"page.js")[0] for a in answers)
    for body in SETTINGS:
        answer = client.request("POST", "/api/jobs", body)
        assert answer.status == 400 and len(answer.json["error"]) < 400, (body[:80], answer)
    for headers in FOREIGN:
        answer = client.request("POST", "/api/uploads", b"x", headers)
        assert answer.status in (400, 403, 421), (headers, answer)
    for data in RAW:
        assert b"Traceback" not in talk(server.port, data)
    assert client.run("prefix", side=256)["state"] == "done"  # it serves as before
    assert {path: path.stat().st_size for path in folder.rglob("*") if path.name != "log"} == before
    assert "Traceback" not in server.log.read_text(), server.log.read_text()[-2000:]


def test_a_photo_has_few_enough_pixels(client):
    job = client.run("prefix", picture=client.upload(png(8000, 8000, bytes(1 << 20))))
    assert job["state"] == "refused" and "8000x8000 pixels; more than 52428800 are not decoded" in job["error"]


def test_bodies_have_a_size_and_a_pace(client, server):
    cookie = client.headers["Cookie"]
    start = f"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nContent-Length: ".encode()
    with socket.create_connection(("127.0.0.1", server.port), 8) as wire:
        wire.sendall(start + b"1000\r\n\r\nslow")  # and nothing more: it is answered, not waited for
        assert b" 408 " in wire.recv(65536).splitlines()[0]
    assert b" 413 " in talk(server.port, start + b"99999999999\r\n\r\n").splitlines()[0]
    chunked = start.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n\r\n") + b"1\r\nx\r\n0\r\n\r\n"
    assert b" 411 " in talk(server.port, chunked).splitlines()[0]
    with socket.create_connection(("127.0.0.1", server.port), 8) as wire:
        wire.sendall(b"GET / HTTP/1.1\r\nHo")  # a header that never ends
        assert wire.recv(65536) == b""
    with socket.create_connection(("127.0.0.1", server.port), 8) as wire:
        assert wire.recv(65536) == b""  # nor begins
    assert client.request("POST", "/api/jobs", b" " * 20_000).status == 413


def test_every_answer_has_the_headers_of_a_safe_page(client, server):
    for answer in (
        client.get("/"),
        client.get("/static/page.js"),
        client.get("/nothing"),
        Client(server.port).get("/api/jobs/x"),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers
    answer = Client(server.port).request("POST", "/api/session")
    assert answer.json["top"] == 8 and "rician" in answer.json["channels"]
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
    behind = Client(server.port).request("POST", "/api/session", headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind.headers["set-cookie"]  # a proxy on this machine speaks HTTPS
    assert "set-cookie" not in client.request("POST", "/api/session").headers  # it has one
    html = client.get("/").body.decode()
    assert (
        "http" not in html.replace("http-equiv", "")
        and "<style" not in html
        and "onclick" not in html
        and " style=" not in html
    )


def test_a_password_is_asked_for(tiny_model, tmp_path):
    with Server(tiny_model, tmp_path, "correct horse", loopback=False) as server:
        stranger = Client(server.port)
        assert stranger.get("/health").status == 200
        for path in ("/", "/metrics", "/static/page.js", "/api/events"):
            assert stranger.get(path).status == 401
        assert Client(server.port, "wrong").get("/").status == 401
        friend = Client(server.port, "correct horse").enter()
        assert friend.get("/", Host="demo.example.org").status == 200  # through a proxy
        for odd in ("Basic", "Basic !!!", "Basic \xff", "Bearer x", "Basic " + "A" * 9000):
            assert stranger.get("/", Authorization=odd).status == 401


def test_metrics_are_prometheus_text(client, server):
    client.run("prefix", side=256)
    text = Client(server.port).get("/metrics").body.decode()
    for line in text.splitlines():
        name = line.split()[2] if line.startswith("#") else line.split("{")[0].split()[0]
        assert name.startswith("semcast_web_")
        assert line.startswith(("# HELP", "# TYPE")) or float(line.split()[-1]) >= 0
    assert 'jobs_total{kind="prefix",outcome="done"}' in text and 'job_run_seconds_bucket{le="+Inf"}' in text


# The command


@pytest.mark.parametrize(
    "argv, told",
    [
        (["--host", "0.0.0.0"], "lets others in, so a password is needed"),
        (["--host", "192.168.1.5"], "lets others in, so a password is needed"),
        (["--password-file", "short"], "holds no password: its first line must have 8 characters or more"),
        (["--password-file", "none"], "cannot read none"),
        (["--port", "70000"], "must lie between 0 and 65535"),
        (["--model", "none"], "no model 'none'"),
    ],
)
def test_mistakes_are_one_line(cli, argv, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("1234567\n")
    code, out, err = cli("web", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err


def test_a_missing_extra_is_named(cli, monkeypatch):
    monkeypatch.setattr("semcast.errors.missing", lambda *packages: [*packages])
    code, _, err = cli("web")
    assert code == 2 and "semcast web needs starlette and uvicorn: pip install" in err and "[web]" in err


def test_a_port_that_is_taken_is_named(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = cli("web", "--port", taken.getsockname()[1])
    assert code == 2 and "choose another --port" in err


def test_settings_are_checked_once_for_all():
    checked = settings.check("link", {"channel": "rician", "options": {"k_db": "3"}}, LIMITS, 24)
    assert checked["options"]["k_db"] == 3.0 and checked["rungs"] == 8 and checked["side"] == 512
    with pytest.raises(InputError, match="has no option 'rate'"):
        settings.check("link", {"channel": "awgn", "options": {"rate": 0.1}}, LIMITS, 24)
    with pytest.raises(InputError, match="a link job has no setting 'model'"):
        settings.check("link", {"model": "/etc/passwd"}, LIMITS, 24)


def test_the_documentation_names_the_limits():
    text = (Path(__file__).parents[1] / "docs" / "web.md").read_text()
    told = [
        f"| a file | {LIMITS.upload_bytes >> 20} MiB |",
        f"| a photo | {LIMITS.pixels >> 20} megapixels, shrunk to {', '.join(map(str, LIMITS.sides[:-1]))} or {LIMITS.sides[-1]} pixels |",
        f"| a recording | {LIMITS.recording_s:g} s |",
        f"| diffusion steps | {LIMITS.steps} |",
        f"| computing time of a job | {LIMITS.job_s:g} s |",
        f"| a session | {LIMITS.session_jobs} jobs on their way, {LIMITS.session_bytes >> 20} MiB |",
        f"| the server | {LIMITS.sessions} sessions, {LIMITS.queue} jobs that wait, {LIMITS.total_bytes >> 30} GiB of sessions, "
        f"{LIMITS.worker_bytes / 2**30:g} GiB for the process that computes |",
    ]
    assert [line for line in told if line not in text] == []
    assert LIMITS.total_bytes + LIMITS.worker_bytes < 4 << 30
