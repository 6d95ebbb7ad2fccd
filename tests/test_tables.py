"""The tables and plots that benchmarks/ makes of the results."""

import json

import pytest
from PIL import Image

import bench_tables
import crossing_tables
import ladder_tables
import results
import tables
from semcast.bench import records


def row_of(system: str, snr_db: float, lpips: float, **more) -> dict:
    """A made-up row of the bench."""
    fixed = {"image": "i.png", "image_sha256": "00", "channel": "awgn", "channel_options": {}, "uses_rule": "same"}
    fixed |= {"size": 96, "copies": 1, "snr_error_db": 0.0, "uses": 72, "payload_uses": 72, "side_bits": 10, "draw": 0}
    fixed |= {"lost": False, "headline": True, "versions": {"torch": "2"}, "system_version": "1", "psnr_db": 20.0}
    return fixed | {"system": system, "snr_db": snr_db, "lpips": lpips} | more


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """keep(name, rows) keeps the record of an experiment where the tables look for it."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return lambda name, rows: records.write(tmp_path / f"{name}.json", records.record(rows, name, "command"))


def test_the_table_of_a_bench_averages_draws_then_pictures(keep):
    draws = (("00", 0, 20.0), ("00", 1, 22.0), ("11", 0, 25.0))
    rows = [
        row_of("downscale", snr, 0.5, image_sha256=image, draw=draw, psnr_db=psnr + snr, lost=draw == 1)
        for snr in (1.0, 5.0, 10.0)
        for image, draw, psnr in draws
    ]
    keep("grid", rows)
    table = bench_tables.bench()
    cells = "0.500 / 0.500 / 0.500 | 24.00 / 28.00 / 33.00 | 33 / 33 / 33 % | 10 |"
    assert f"\n| `downscale` | {cells}" in table
    assert "2 pictures (centre 96x96), up to 2 draws, 72 channel uses each, awgn. " in table
    assert "`python benchmarks/measure.py grid`; protocol 1, versions and hashes: `grid.json`." in table


def test_every_rate_is_shown_with_what_was_filled_of_it(keep, monkeypatch):
    monkeypatch.setattr(bench_tables, "RATE_RATIOS", (683, 96))
    uses = {683: 54, 96: 384}
    keep(
        "rate",
        [
            row_of("downscale", snr, 1 / k, uses_rule=f"1/{ratio}", uses=k, payload_uses=k - 1, psnr_db=snr)
            for ratio, k in uses.items()
            for snr in (1.0, 10.0)
        ],
    )
    lines = bench_tables.bench_rate().splitlines()
    assert lines[2:4] == [
        "| `downscale` | 1/683 | 53 | 0.019 / 0.019 | 1.00 / 10.00 |",
        "| `downscale` | 1/96 | 383 | 0.003 / 0.003 | 1.00 / 10.00 |",
    ]


def test_the_table_and_the_plot_of_the_ladder_have_every_rate(keep):
    rows = [
        row_of(
            system, snr, lpips / uses, uses_rule=str(uses), uses=uses, payload_uses=uses - 2, psnr_db=snr, dists=0.25
        )
        for system, lpips in (("semcast-ladder", 400.0), ("linear", 800.0))
        for uses in (8192, 1152)
        for snr in (1.0, 10.0)
    ]
    keep("ladder", rows)
    lines = ladder_tables.ladder().splitlines()
    assert lines[2:4] == [
        "| 1152 (1/683) | `semcast-ladder` | 1150 | 0.347 / 0.347 | 1.00 / 10.00 | 0.250 / 0.250 |",
        "| 1152 (1/683) | `linear` | 1150 | 0.694 / 0.694 | 1.00 / 10.00 | 0.250 / 0.250 |",
    ]
    assert lines[4].startswith("| 8192 (1/96) | `semcast-ladder` | 8190 | 0.049 / 0.049 |") and len(lines) == 8
    drawn = ladder_tables.ladder_plot("lpips", 10.0)
    assert drawn.startswith("<svg") and "channel uses at 10 dB" in drawn and drawn.count("<polyline") == 2


def test_jpeg_xl_stands_beside_what_the_ladder_has_at_its_rates(keep):
    made = lambda system, uses: row_of(
        system, 10.0, 0.5, uses_rule=str(uses), uses=uses, payload_uses=uses, psnr_db=20.0, dists=0.25
    )
    both = lambda system, uses: [made(system, uses), made(system, uses) | {"snr_db": 1.0}]
    keep(
        "ladder",
        [row for system in ("semcast-ladder", "linear") for uses in (1152, 8192) for row in both(system, uses)],
    )
    keep("jpegxl", both("jpegxl:JPEGXL", 8192))
    lines = ladder_tables.jpegxl().splitlines()
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["`semcast-ladder`", "`jpegxl:JPEGXL`"]
    assert lines[4] == ""


def test_tables_of_the_stream_show_the_shortest_prefix_that_is_good_enough(keep):
    made = lambda uses, snr, lpips, **more: row_of(
        "semcast-ladder", snr, lpips, uses_rule=str(uses), uses=uses, payload_uses=uses, psnr_db=20.0, **more
    )
    rows = [made(uses, snr, 0.7 - uses / 1e5 - snr / 100) for uses in (144, 20000, 40000) for snr in (5.0, 10.0)]
    erased = {"channel": "erasure", "channel_options": {"rate": 0.5}}
    keep("prefixes", [*rows, made(40000, 10.0, 0.5, **erased)])
    lines = ladder_tables.prefixes().splitlines()
    assert lines[0] == "| channel uses | LPIPS-Alex at 5 / 10 dB | PSNR dB |"
    assert lines[2:4] == ["| 144 | 0.649 / 0.599 | 20.00 / 20.00 |", "| 40000 | 0.250 / 0.200 | 20.00 / 20.00 |"]
    assert lines[7:10] == [
        "| all arrive | 0.200 | 20.00 |",
        "| half are erased | 0.500 | 20.00 |",
        "| only half are sent | 0.400 | 20.00 |",
    ]
    lines = ladder_tables.rates().splitlines()
    assert lines[2:4] == [
        "| 5 dB | 20000 uses | 20000 uses | 20000 uses | 20000 uses | 40000 uses |",
        "| 10 dB | 144 uses | 20000 uses | 20000 uses | 20000 uses | 20000 uses |",
    ]


def crossing_of_made_up_rows() -> list[dict]:
    """LPIPS: analog 0.7 - 0.01 SNR, digital 0.85 - 0.025 SNR, which meet at 10 dB. Told too much, digital is lost."""
    rows = [row_of("mean-colour", 10.0, 0.9, lost=True)]
    for snr in (0.0, 8.0, 10.0, 12.0):
        for error in (-6.0, 0.0, 6.0):
            lost = error > 0
            rows.append(row_of("semcast", snr, 0.7 - 0.01 * snr, snr_error_db=error))
            digital = 0.9 if lost else 0.85 - 0.025 * snr
            rows.append(row_of("semcast-digital", snr, digital, snr_error_db=error, lost=lost))
        rows.append(row_of("semcast-digital-fixed", snr, 0.95 if snr < 8 else 0.6))
    return rows


def test_outage_is_a_lost_picture_or_one_no_better_than_the_mean_colour(keep, tmp_path):
    keep("crossing", crossing_of_made_up_rows())
    groups = crossing_tables.crossing_rows(results.read("crossing.json"))
    outage = {key: row["outage"] for key, (row,) in groups.items()}
    assert outage["semcast-digital", 10.0, 6.0] and not outage["semcast-digital", 10.0, 0.0]
    assert outage["semcast-digital-fixed", 0.0, 0.0]  # it arrived, and is worse than the mean colour
    assert not any(value for (system, *_), value in outage.items() if system == "semcast")
    assert crossing_tables.outage().splitlines() == [
        "| system | metric | -6 dB | 0 dB | +6 dB |",
        "|---|---|---|---|---|",
        "| analog | outage | 0 % | 0 % | 0 % |",
        "| analog | LPIPS-Alex | 0.600 | 0.600 | 0.600 |",
        "| digital | outage | 0 % | 0 % | 100 % |",
        "| digital | LPIPS-Alex | 0.600 | 0.600 | 0.900 |",
    ]
    crossing_tables.crossing_plot(tmp_path / "crossing.png")
    assert Image.open(tmp_path / "crossing.png").size == (1200, 460)


def test_where_analog_and_digital_change_places_is_said(keep):
    rows = crossing_of_made_up_rows()
    nudged = [row | {"lpips": row["lpips"] + 0.015} if row["system"] == "semcast" else row for row in rows]
    keep("crossing", nudged)  # 0.715 - 0.01 snr = 0.85 - 0.025 snr at 9 dB
    table = crossing_tables.crossing()
    assert "LPIPS-Alex 0.900, PSNR 20.00 dB. Analog has the lower LPIPS-Alex up to 9.0 dB." in table
    assert "| digital, told 6 dB too much | lost | 100 % | 100 % | 100 % | 100 % |" in table
    keep("crossing", [row | {"lpips": 0.1} if row["system"] == "semcast" else row for row in rows])
    assert "Analog has the lower LPIPS-Alex from 0 to 12 dB: the curves do not cross." in crossing_tables.crossing()


def test_curves_cross_where_straight_lines_do():
    assert crossing_tables.crossings([0, 10, 20], [1.0, 1.0, 1.0], [3.0, 2.0, 0.0]) == [15.0]
    assert crossing_tables.crossings([0, 10], [1.0, 1.0], [2.0, 3.0]) == []


def test_tables_of_missing_results_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert tables.tables()["crossing"] == "Not measured yet: `crossing.json` is missing."


def test_streets_and_photos_are_averaged_by_model(tmp_path, monkeypatch):
    names = ["semcast@start", "semcast@street", "semcast@mixed"]
    for i, data in enumerate(("street", "street_photos")):
        rows = [
            {
                "system": name,
                "image": "i",
                "image_sha256": str(image),
                "snr_db": snr,
                "draw": 0,
                "lpips": 0.1 * j + image,
                "dists": 0.2,
                "psnr_db": 20.0,
            }
            | {"delta_e": 3.0 + i, "shift_red": 2.0 * snr - 3.0, "shift_green": -1.0 * j, "shift_blue": 0.0}
            for j, name in enumerate(names)
            for image in (0, 1)
            for snr in (1.0, 10.0)
        ]
        (tmp_path / f"{data}.json").write_text(json.dumps({"systems": dict.fromkeys(names, ""), "rows": rows}))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    lines = bench_tables.street().splitlines()
    cells = "0.600 / 0.600 | 0.200 / 0.200 | 20.00 / 20.00 | 3.00 / 3.00 | +8.0, -1.0, +0.0"
    assert lines[3] == f"| street | then streets only | {cells} |"
    assert (
        lines[5].startswith("| photos | `small` of 0.1.0: photos and streets | 0.500 / 0.500 |")
        and "| 4.00 / 4.00 |" in lines[5]
    )
    assert lines[-1].startswith("2 frames of CamVid's test set, 2 Kodak photos (centre 512x512), 1 draw;")


def test_a_bench_with_labels_shows_miou(tmp_path, monkeypatch):
    row = {
        "system": "downscale",
        "image": "i",
        "image_sha256": "a",
        "snr_db": 1.0,
        "draw": 0,
        "headline": True,
        "uses": 72,
        "side_bits": 72,
        "lost": False,
    }
    row |= {name: 1.0 for name in ("lpips", "psnr_db", "lpips_vgg", "dists", "ms_ssim", "delta_e", "top1_in_top5")}
    row |= {"segments": [[1, 4], [2, 4]] + [[0, 0]] * 9, "segments_original": [[4, 4], [2, 4]] + [[0, 0]] * 9}
    row |= {"size": None, "channel": "awgn", "channel_options": {}}
    rows = [row | {"snr_db": snr} for snr in (1.0, 5.0, 10.0)]
    record = {"protocol": 1, "systems": {"downscale": ""}, "rows": rows}
    (tmp_path / "camvid.json").write_text(json.dumps(record))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    head, _, line, originals, *_ = bench_tables.bench_camvid_headline().splitlines()
    assert (
        head.endswith("| mIoU |")
        and line.endswith("| 0.38 / 0.38 / 0.38 |")
        and originals == "| the originals | | | | | | 0.75 |"
    )
