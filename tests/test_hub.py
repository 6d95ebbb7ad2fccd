"""Fetching the official networks from a hub that fails in every way."""

import errno
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from official_files import LITE, fetch, same, write

from semcast import load_model
from semcast.cascade import hub, models
from semcast.errors import InputError, brings
from semcast.link import Link

COMMIT, OTHER_COMMIT = "1" * 40, "2" * 40


class Hub(ThreadingHTTPServer):
    """The part of the hub's protocol that a fetch needs: repository information, and files by redirect with ranges."""

    daemon_threads = False  # `server_close` waits for them

    def __init__(self, files: dict[tuple[str, str], bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.claims = {}  # (repo, file): what the hub says instead of the file's true size or hash
        self.cuts = {}  # file: bytes after which the connection drops, once
        self.down = set()  # files answered with 503
        self.served = []  # (file, first byte)

    def info(self, repo: str, commit: str) -> dict:
        siblings = []
        for (owner, file), data in self.files.items():
            if owner == repo:
                lfs = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
                lfs |= self.claims.get(file, {})
                siblings.append({"rfilename": file, "size": lfs["size"], "blobId": "b", "lfs": lfs})
        return {"id": repo, "sha": commit, "siblings": siblings}


class Handler(BaseHTTPRequestHandler):  # HTTP/1.0: the connection ends with the answer
    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", **headers) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0].removeprefix("/")
        if asked := re.fullmatch(r"api/models/(\w[\w-]*/[\w-]+)/revision/(\w+)", path):
            commit = {"main": COMMIT, "v2": OTHER_COMMIT}.get(asked[2])
            if commit is None:
                return self.answer(404, X_Error_Code="RevisionNotFound")
            return self.answer(200, json.dumps(server.info(asked[1], commit)).encode())
        if asked := re.fullmatch(r"([\w-]+/[\w-]+)/resolve/(\w{40})/(.+)", path):
            return self.answer(302, Location=f"/cdn/{asked[1]}/{asked[3]}")
        _, owner, repo, file = path.split("/")
        if file in server.down:
            return self.answer(503)
        data = server.files[f"{owner}/{repo}", file]
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        server.served.append((file, start))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        stop = server.cuts.pop(file, len(data))
        self.wfile.write(data[start:stop])


@pytest.fixture
def server(original, official_weights, tmp_path, home, monkeypatch):
    from huggingface_hub import constants

    files = {(hub.REPO, path.name): path.read_bytes() for path in original.iterdir()}
    finer = {k: v * 2 for k, v in official_weights["stage_a"].items()}
    write(tmp_path / "finer.safetensors", finer)
    files[hub.DECODERS["ft-hq"]] = (tmp_path / "finer.safetensors").read_bytes()
    server = Hub(files)
    server.finer = finer
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 512)  # what is lost of a cut connection
    yield server
    server.shutdown()
    server.server_close()


STAGE_B = hub.FILES[LITE]["stage_b"]


def test_fetching_records_the_origin_of_every_file(server, official_weights, home):
    said = []
    folder = fetch(say=said.append)
    del said[0]  # the terms
    assert same(folder, official_weights)
    source = json.loads((folder / "source.json").read_text())
    for part, file in hub.FILES[LITE].items():
        data = server.files[hub.REPO, file]
        assert source[part] == {
            **{"repo": hub.REPO, "revision": COMMIT, "file": file},
            **{"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        }
    size_mib = len(server.files[hub.REPO, STAGE_B]) / 2**20
    assert said[1] == f"stage_b  {size_mib:7.1f} MiB  {hub.REPO}/{STAGE_B} at {COMMIT[:12]}"
    assert said[3].startswith("to get ") and len(said) == 4
    assert sorted(p.name for p in folder.parent.iterdir()) == [LITE, f"{LITE}.lock"]
    image = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    assert np.isfinite(Link(load_model(LITE))(image, 10.0).image).all()


def test_files_that_are_here_are_not_fetched_again(server, official_weights, home, monkeypatch):
    folder = fetch()
    server.served.clear()
    with monkeypatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nobody answers there, but this needs no network
        assert fetch() == folder
        with pytest.raises(
            InputError, match=f"cannot ask the hub for {hub.REPO}: .*; check the network, or use --from"
        ):
            fetch(revision="v2")
    fetch(decoder="ft-hq")
    assert server.served == [("stage_a_ft_hq.safetensors", 0)]
    assert same(folder, official_weights | {"stage_a": server.finer})
    assert json.loads((folder / "source.json").read_text())["stage_a"]["repo"] == "madebyollin/stage-a-ft-hq"
    server.served.clear()
    fetch(revision="v2", decoder="ft-hq")
    assert not server.served  # other commit, same files
    assert json.loads((folder / "source.json").read_text())["stage_b"]["revision"] == OTHER_COMMIT
    (folder / "stage_b.safetensors").unlink()
    fetch(revision="v2", decoder="ft-hq")
    assert server.served == [(STAGE_B, 0)]


def test_a_revision_or_file_the_hub_does_not_have_is_named(server, home):
    with pytest.raises(InputError) as error:
        fetch(revision="gone")
    assert str(error.value) == f"{hub.REPO} has no revision 'gone'"
    del server.files[hub.REPO, STAGE_B]
    with pytest.raises(InputError) as error:
        fetch()
    found = f"{hub.REPO} at revision main has no {STAGE_B} with a SHA-256"
    assert str(error.value) == f"{found}; use another --revision, or --from"
    assert not server.served


def test_a_cut_connection_is_resumed_at_once(server, official_weights):
    server.cuts[STAGE_B] = 5000
    assert same(fetch(), official_weights)
    first, second = [start for file, start in server.served if file == STAGE_B]
    assert first == 0 < second <= 5000


def test_an_interrupted_fetch_is_resumed_where_it_stopped(server, official_weights, home, monkeypatch):
    server.cuts[STAGE_B] = 5000
    sizes = [len(server.files[hub.REPO, file]) for file in hub.FILES[LITE].values()]

    def drop(*args, **kwargs):  # the reconnection fails
        server.down.add(STAGE_B)

    import huggingface_hub.file_download as client

    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=drop))
    with pytest.raises(InputError) as error:
        fetch()
    message = rf"{STAGE_B} stopped at (\d+) of {sizes[1]} bytes \(.*503.*\); repeat the command, .*"
    stopped = int(re.fullmatch(message, str(error.value))[1])
    assert 0 < stopped <= 5000
    assert not models.known_models()[LITE].folder
    server.down.clear()
    server.served.clear()
    said = []
    assert same(fetch(say=said.append), official_weights)
    assert (STAGE_B, stopped) in server.served and ("effnet_encoder.safetensors", 0) not in server.served
    assert said[-1] == f"to get   {(sizes[1] - stopped + sizes[2]) / 2**20:7.1f} MiB"


def test_a_wrong_hash_removes_the_file(server, official_weights, home):
    right = server.files[hub.REPO, STAGE_B]
    server.claims[STAGE_B] = {"sha256": hashlib.sha256(right).hexdigest()}
    server.files[hub.REPO, STAGE_B] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(InputError) as error:
        fetch()
    wrong = f"its SHA-256 is not {hashlib.sha256(right).hexdigest()}"
    assert str(error.value) == f"{STAGE_B} arrived damaged: {wrong}; it was removed, repeat the command"
    kept = [hashlib.sha256(server.files[hub.REPO, "effnet_encoder.safetensors"]).hexdigest()]
    assert [p.name for p in (home / "models" / f"{LITE}.partial").iterdir()] == kept
    server.files[hub.REPO, STAGE_B] = right
    assert same(fetch(), official_weights)


def test_a_disk_too_small_is_refused_before_the_first_byte(server, home):
    server.claims[STAGE_B] = {"size": 10**17}
    with pytest.raises(
        InputError,
        match=r"\.partial has \d+ MiB free, 95367\d+ MiB are needed; free some or point SEMCAST_HOME to another",
    ):
        fetch()
    assert not server.served


def test_a_full_disk_gives_one_line_and_keeps_what_has_arrived(server, official_weights, home, monkeypatch):
    import huggingface_hub.file_download as client

    def fill(url, file, **_):
        file.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(client, "http_get", fill)
        with pytest.raises(InputError) as error:
            fetch()
    remedy = "free some, or point SEMCAST_HOME to another disk, and repeat the command; what has arrived is kept"
    assert str(error.value) == f"no space left for {home / 'models' / LITE}: {remedy}"
    [partial] = (home / "models" / f"{LITE}.partial").iterdir()
    data = server.files[hub.REPO, "effnet_encoder.safetensors"]
    partial.write_bytes(data[:4])
    assert same(fetch(), official_weights)
    assert ("effnet_encoder.safetensors", 4) in server.served


def test_without_the_hub_package_the_remedy_is_named(home, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    remedy = re.escape(f"fetching needs huggingface_hub: {brings('official')}")
    with pytest.raises(InputError, match=f"^{remedy}$"):
        fetch()
    code, out, err = cli("models", "fetch", LITE, "--accept-license")
    assert (code, out) == (2, "") and re.fullmatch(f"semcast: {remedy}\n", err)
