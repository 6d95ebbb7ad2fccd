"""Whole runs of the bench: by the command line, in processes that are killed, on a Ray cluster."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import photo

from semcast.bench.ends import Ends
from semcast.bench.harness import FEATURES, bench, read_features, read_rows
from semcast.bench.systems import SYSTEMS
from semcast.bench.unit import Setting
from semcast.bench.workers import pool

pytestmark = pytest.mark.usefixtures("planted_path")


@pytest.mark.slow
def test_smoke_and_report_by_the_command_line(cli, tmp_path):
    out = tmp_path / "out"
    command = [
        "bench",
        "--smoke",
        "--out",
        out,
        "--systems",
        "semcast-1step",
        "downscale",
        "avif-capacity",
        "--workers",
        "2",
    ]
    code, text, error = cli(*command)
    assert code == 0, error
    assert json.loads(text) == {"out": str(out / "rows.jsonl"), "rows": 12, "new": 12}
    before = (out / "rows.jsonl").read_bytes()
    assert json.loads(cli(*command)[1])["new"] == 0 and (out / "rows.jsonl").read_bytes() == before

    headline = [row for row in read_rows(out / "rows.jsonl") if row["headline"]]
    if headline[0]["top5_overlap"] is not None:
        assert read_features(out / FEATURES).keys() == {
            row[k] for row in headline for k in ("image_sha256", "received_sha256")
        }

    assert cli("bench", "report", out)[1].strip() == str(out / "report.html")
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*(?![\"']data:)|@import|url\(", page)
    assert (
        page.count("<svg") >= 4 and page.count("data:image/webp;base64,") == 8
    )  # the original and 3 systems, 2 pictures, one headline SNR
    table = (out / "tables.md").read_text()
    rows = list(csv.DictReader((out / "summary.csv").open()))
    mean = next(r for r in rows if (r["system"], r["snr_db"], r["metric"]) == ("downscale", "10", "psnr_db"))
    assert f"{float(mean['mean']):.2f} ±" in table and mean["pictures"] == "2"
    measured = [
        r["psnr_db"] for r in read_rows(out / "rows.jsonl") if (r["system"], r["snr_db"]) == ("downscale", 10.0)
    ]
    assert float(mean["mean"]) == pytest.approx(np.mean(measured), rel=1e-5)
    assert (
        (out / "tables.tex").read_text().count(r"\begin{tabular}") == len(re.findall(r"^\| system", table, re.M)) >= 6
    )


def test_list_and_mistakes(cli, tmp_path, bench_data):
    listed = cli("bench", "--list")[1]
    assert [line.split()[0] for line in listed.splitlines()] == list(SYSTEMS)
    assert {"semcast", "jpeg2000", "hevc", "vvc", "avif", "downscale"} <= {name.split("-")[0] for name in SYSTEMS}
    folder = tmp_path / "photos"
    for argv, error in (
        (["--out", tmp_path], "--systems is missing"),
        (["--systems", "webp", "--data", folder, "--out", tmp_path], "no system is called 'webp'"),
        (["--systems", "vvc-finite", "--data", folder, "--out", tmp_path, "--channel", "rayleigh"], "a bound for awgn"),
        (
            ["--systems", "downscale", "--data", folder, "--out", tmp_path, "--size", "512"],
            "--size 512 cannot be cut out",
        ),
        (["--systems", "planted:KEPT", "--data", folder, "--out", tmp_path], "is a dict, not"),
        (["--systems", "downscale", "downscale", "--data", folder, "--out", tmp_path], "named twice"),
        (["report", tmp_path / "none"], "holds no rows"),
    ):
        code, _, message = cli("bench", *argv)
        assert code == 2 and error in message and message.count("\n") == 1, message


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's list of processes")
def test_a_killed_bench_leaves_no_process_behind(tmp_path):
    for i in range(2):
        Image.fromarray(photo(96, 96, seed=i)).save(tmp_path / f"{i}.png")
    command = ["bench", "--systems", "downscale", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    command += [
        "--snr",
        "10",
        "--headline",
        "1",
        "--draws",
        "5000",
        "--workers",
        "2",
    ]  # units of work last for a minute
    run = subprocess.Popen(
        [sys.executable, "-m", "semcast", *command], start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    try:
        while len(processes_of(run.pid)) < 7:  # the harness, two workers, and a sender and a receiver of each
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        run.kill()
        run.wait()
        while alive := processes_of(run.pid):
            assert time.monotonic() < deadline, f"{alive} are left"
            time.sleep(0.05)
    finally:
        for pid in processes_of(run.pid):
            os.kill(pid, signal.SIGKILL)


def processes_of(group: int) -> list[int]:
    """Those of a process group that are not dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended just now
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_worker_loses_nothing(bench_data, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="clusters need the [ray] extra")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("SEMCAST_TEST_MARK", str(tmp_path / "mark"))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # with its 15, workers wait minutes for a core that others use
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 1 << 27}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    run = lambda: bench(
        ["planted:KILLER"], bench_data, [10.0, 20.0], 1, tmp_path / "out", Setting(headline=()), ray=cluster.address
    )
    try:
        assert run() == (4, 4)
        assert (tmp_path / "mark").exists()  # a worker was killed
        rows = read_rows(tmp_path / "out" / "rows.jsonl")
        assert len({(row["image_sha256"], row["snr_db"]) for row in rows}) == len(rows) == 4
        assert run() == (4, 0)
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_the_first_call_of_a_worker_is_not_timed(bench_data, tmp_path, monkeypatch):
    """Sender and receiver burn 0.3 s when they are first called, as if they loaded networks."""
    with Ends() as fresh:
        bench(["planted:LOADING"], bench_data, [10.0], 1, tmp_path, Setting(), ends=fresh)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 2 and all(row["send_ms"] < 100 and row["receive_ms"] < 100 for row in rows)


@pytest.mark.slow
def test_runs_share_a_pool(bench_data, tmp_path):
    """What a worker has loaded serves the next run too, and the rows are those of this process."""
    run = lambda out, snr_db, **how: bench(["downscale"], bench_data, [snr_db], 1, tmp_path / out, Setting(), **how)
    with pool(1) as executor:
        worker = executor.submit(os.getpid).result()
        for snr_db in (5.0, 10.0):
            assert run("shared", snr_db, workers=2, executor=executor) == (2, 2)
        assert executor.submit(os.getpid).result() == worker
    with Ends() as ends:
        for snr_db in (5.0, 10.0):
            assert run("alone", snr_db, ends=ends) == (2, 2)
    quality = lambda out: sorted(
        (r["image"], r["snr_db"], r["psnr_db"]) for r in read_rows(tmp_path / out / "rows.jsonl")
    )
    assert quality("shared") == quality("alone")
