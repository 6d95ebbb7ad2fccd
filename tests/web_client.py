"""A server of the page in a process of its own, and a client for it; for tests and the load script."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = """
import json, sys
from semcast.process import prepare
from semcast.web.limits import Limits
from semcast.web.server import listen, serve
from semcast.web.site import Config
prepare()
model, password, loopback, limits = json.loads(sys.argv[1])
bound = listen("127.0.0.1", 0)
print(bound.getsockname()[1], flush=True)
serve(Config(model=model, password=password, loopback=loopback, limits=Limits(**limits)), bound)
"""
ENDED = ("done", "refused", "cancelled", "failed")


class Answer(NamedTuple):
    """Of the server to one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server, as a context."""

    def __init__(
        self, model: Path | str, folder: Path, password: str | None = None, loopback: bool = True, **limits: Any
    ):
        env = os.environ | {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [env.get("PYTHONPATH")])])
        argument = json.dumps([str(model), password, loopback, limits])
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, argument],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=open(self.log, "w"),
            text=True,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def __enter__(self) -> "Server":
        end_s = time.monotonic() + 120
        try:
            while Client(self.port).get("/health").status != 200:
                assert time.monotonic() < end_s and self.process.poll() is None, self.log.read_text()
                time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(30)

    def metric(self, name: str) -> float:
        found = re.search(rf"^semcast_web_{name} (\S+)$", Client(self.port).get("/metrics").body.decode(), re.M)
        assert found, name
        return float(found[1])


class Client:
    """One visitor."""

    def __init__(self, port: int, password: str | None = None):
        self.port, self.headers = port, {}
        if password is not None:
            self.headers["Authorization"] = "Basic " + base64.b64encode(f":{password}".encode()).decode()

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, self.headers | (headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def enter(self) -> "Client":
        """Start a session."""
        answer = self.request("POST", "/api/session")
        assert answer.status == 200, answer
        self.headers["Cookie"] = answer.headers["set-cookie"].split(";")[0]
        return self

    def upload(self, data: bytes) -> str:
        answer = self.request("POST", "/api/uploads", data)
        assert answer.status == 201, answer
        return answer.json["upload"]

    def ask(self, kind: str, **settings: Any) -> dict[str, Any]:
        answer = self.request("POST", "/api/jobs", json.dumps({"kind": kind, "settings": settings}))
        assert answer.status == 202, answer
        return answer.json

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        return self.get(f"/api/jobs/{job['job']}").json

    def wait(self, job: dict[str, Any], *states: str) -> dict[str, Any]:
        """A job once it is in one of the states, or has ended."""
        end_s = time.monotonic() + 120
        while (now := self.look(job))["state"] not in (*states, *ENDED):
            assert time.monotonic() < end_s, now
            time.sleep(0.02)
        return now

    def run(self, kind: str, **settings: Any) -> dict[str, Any]:
        return self.wait(self.ask(kind, **settings))

    def result(self, job: dict[str, Any], name: str) -> bytes:
        found = next(result for result in job["results"] if result["name"] == name)
        answer = self.get(found["url"])
        assert answer.status == 200 and answer.headers["content-type"] == found["type"]
        return answer.body
