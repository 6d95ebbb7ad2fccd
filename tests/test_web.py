"""The page's server: it computes what the library does, in turn, keeps nothing, and answers hostile requests with a sentence."""

import io
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny import photo
from web_client import Client, Server

pytest.importorskip("uvicorn", reason="the page needs the [web] extra")
from hostile import FOREIGN, PATHS, RAW, SETTINGS, hostile_files
from png_files import png

from semcast import Link, load_model
from semcast.images import encode, to_image, to_pixels
from semcast.signals.audio import encode_audio
from semcast.web import work
from semcast.web.jobs import CRASHED
from semcast.web.limits import Limits
from semcast.web.worker import TOO_LARGE

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


# Turns


def worker_of(server: Server) -> int:
    """The process that computes."""
    found = [path.read_text().split() for path in Path(f"/proc/{server.process.pid}/task").glob("*/children")]
    pids = [int(pid) for some in found for pid in some]
    return next(pid for pid in pids if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the worker is found in /proc")
def test_jobs_wait_in_turn_and_are_cancelled(client, server):
    worker = worker_of(server)
    os.kill(worker, signal.SIGSTOP)  # else a fast machine is done before the test has looked
    try:
        other = Client(server.port).enter()
        first = client.ask("link", side=1024, steps=20)
        second, third = (visitor.ask("link", side=256) for visitor in (other, client))
        assert other.look(second)["ahead"] >= 1 and client.look(third)["ahead"] > other.look(second)["ahead"] - 1
        client.request("DELETE", f"/api/jobs/{third['job']}")
        assert client.look(third)["state"] == "cancelled"
        client.wait(first, "running")
        client.request("DELETE", f"/api/jobs/{first['job']}")
    finally:
        os.kill(worker, signal.SIGCONT)
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


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the worker is found in /proc")
def test_a_worker_that_crashes_is_started_again(tiny_model, tmp_path):
    with Server(tiny_model, tmp_path) as server:
        client = Client(server.port).enter()
        long = client.ask("link", side=1024, steps=20)
        while not client.look(long)["words"]:  # until the worker has begun
            time.sleep(0.01)
        os.kill(worker_of(server), signal.SIGKILL)
        ended = client.wait(long)
        assert (ended["state"], ended["error"]) == ("refused", CRASHED)
        assert client.run("prefix", side=256)["state"] == "done"
        os.kill(worker_of(server), signal.SIGSTOP)
        early = client.wait(client.ask("prefix", side=256), "running")
        os.kill(worker_of(server), signal.SIGKILL)  # before it has begun: another one does it
        assert client.wait(early)["state"] == "done"
        os.kill(worker_of(server), signal.SIGKILL)  # while it has nothing to do
        assert client.run("prefix", side=256)["state"] == "done"
        assert server.metric("worker_restarts_total") == 3
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
