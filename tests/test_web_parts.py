"""The parts of the page's server without a server: jobs, results, sessions, settings, the command `semcast web`."""

import asyncio
import io
import math
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import photo

pytest.importorskip("uvicorn", reason="the page needs the [web] extra")
from semcast import Link, load_model
from semcast.channels.base import Received
from semcast.errors import InputError
from semcast.images import to_image
from semcast.web import plots, rivals, settings, work
from semcast.web.jobs import Jobs
from semcast.web.limits import Limits
from semcast.web.metrics import Metrics
from semcast.web.overlays import overlays_of
from semcast.web.report import Report, Task
from semcast.web.session import Job
from semcast.web.sessions import Full, Sessions
from semcast.web.worker import carry_out

LIMITS = Limits()


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
    assert np.asarray(Image.open(io.BytesIO(overlay[2]))).shape == (256, 256, 4) and overlay[5] == {"overlay": True}


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


def test_figures_that_json_cannot_say_are_null():
    messages: list = []
    Report(messages.append).figures(psnr_db=math.inf, rows=[{"snr_db": math.nan, "name": "x"}], uses=3)
    assert messages == [("figures", {"psnr_db": None, "rows": [{"snr_db": None, "name": "x"}], "uses": 3})]


def test_a_guess_of_the_wait_comes_from_the_jobs_before():
    sessions = Sessions(LIMITS, lambda session: None)
    jobs = Jobs(None, LIMITS, Metrics())  # pyright: ignore
    jobs.sessions, jobs.usual_s["link"] = sessions, 3.0
    made = [Job(sessions.start(), "link", {"side": side}, None, "") for side in (512, 1024, 512)]
    for job in made:
        jobs.add(job)
    assert [job.ahead for job in made] == [0, 1, 2] and [job.wait_s for job in made] == [0, 3, 15]


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


def test_settings_are_checked_once_for_all():
    checked = settings.check("link", {"channel": "rician", "options": {"k_db": "3"}}, LIMITS, 24)
    assert checked["options"]["k_db"] == 3.0 and checked["rungs"] == 8 and checked["side"] == 512
    with pytest.raises(InputError, match="has no option 'rate'"):
        settings.check("link", {"channel": "awgn", "options": {"rate": 0.1}}, LIMITS, 24)
    with pytest.raises(InputError, match="a link job has no setting 'model'"):
        settings.check("link", {"model": "/etc/passwd"}, LIMITS, 24)


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
