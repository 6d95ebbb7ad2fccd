"""The tables of the rivals: what they compute from rows, and that they name who wins."""

import json

import pytest

import peer_tables
import results
import tables
from semcast.bench import records
from semcast.bench.experiments import EXPERIMENTS, SLOW_PEER
from semcast.bench.peers.systems import PEERS

QUALITY = {  # of each system: LPIPS, SSIM, PSNR, pixels right of 10, KD, channel uses
    "semcast": (0.5, 0.6, 20.0, 2, 0.04, 864),
    "img2img": (0.8, 0.5, 16.0, 1, 0.08, 864),
    "gesco-labels": (0.7, 0.2, 12.0, 6, 0.05, 864),
    "img2img-published": (1.0, 0.3, 10.0, 1, 0.02, 172_800),
}


DISTANCES = [
    {"setting": "", "system": system, "snr_db": 10.0, "metric": peer_tables.KD, "mean": kd}
    for system, (*_, kd, _) in QUALITY.items()
]


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """keep(name, rows) puts the record of an experiment where the tables look for it."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return lambda name, rows: records.write(tmp_path / f"{name}.json", records.record(rows, name, "command", DISTANCES))


@pytest.fixture
def write_training(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return lambda held: (tmp_path / "peers_training.json").write_text(json.dumps(held))


def rows_of(snrs: tuple[float, ...] = peer_tables.SNRS_DB) -> list[dict]:
    """Made-up rows of the bench, one a system and SNR."""
    fixed = {"image": "i", "image_sha256": "a", "channel": "awgn", "channel_options": {}, "uses_rule": "same"}
    fixed |= {"size": None, "copies": 1, "snr_error_db": 0.0, "draw": 0, "side_bits": 48, "uses": 864, "lost": False}
    fixed |= {"versions": {"cpu": "a processor"}, "system_version": "1", "send_ms": 1.0, "receive_ms": 200.0}
    return [
        fixed
        | {"system": system, "snr_db": snr, "lpips": lpips, "ssim": ssim, "psnr_db": psnr, "payload_uses": uses}
        | {"segments": [[right, 10]] + [[0, 0]] * 10}
        for system, (lpips, ssim, psnr, right, _, uses) in QUALITY.items()
        for snr in snrs
    ]


def cells(table: str, first: str) -> list[str]:
    """The cells of the line that starts with this one."""
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_without_results_every_table_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(peer_tables, "STRIP", tmp_path / "peers.jpg")
    made = {make.__name__: tables.made(make) for make in peer_tables.TABLES}
    assert made["peer_quality"] == "Not measured yet: `peers.json` is missing."
    lacking = [name for name, table in made.items() if table.startswith(("Not measured yet", "Not made yet"))]
    assert [name for name in made if name not in lacking] == ["peer_payloads"]  # which is arithmetic


def test_payloads_are_those_of_the_paper_and_of_the_repairs():
    table = peer_tables.peer_payloads()
    assert cells(table, "`semcast`")[:3] == ["1152", "864", "1"]
    assert cells(table, "`img2img-published`") == ["262144", "172800", "228", "1/3", "2.09 %"]
    assert cells(table, "`diffsc-published`")[:4] == ["4096", "2760", "3.56", "1/192"]
    for name in ("img2img", "gesco", "gesco-labels", "diffsc", "casc"):
        assert cells(table, f"`{name}`")[0] == "1152"
    assert {*peer_tables.STEPS_OF} == {"semcast", *PEERS}
    for name, left_out in (("peers", []), ("peers_predictability", [SLOW_PEER])):
        measured = [system for run in EXPERIMENTS[name].runs for system in run.systems]
        assert sorted([*measured, *left_out]) == sorted(peer_tables.STEPS_OF)  # each once


def test_a_rival_that_wins_is_named(keep):
    keep("peers", rows_of())
    table = peer_tables.peer_winners()
    assert cells(table, "LPIPS-Alex") == ["`semcast` 0.500"] * 3
    assert cells(table, "mIoU") == ["`gesco-labels` 0.60 (semcast 0.20)"] * 3
    assert cells(table, "KD") == ["-", "-", "`semcast` 0.0400"]  # as published does not count, having more uses
    assert "semcast is the best in 10 of 13 places, a rival in 3." in table


def test_gains_are_relative_to_both_forms_of_img2img(keep):
    keep("peers", rows_of())
    table = peer_tables.peer_gains()
    assert cells(table, "LPIPS-Alex") == ["-50 %", "-38 %", "-55 %"]
    assert cells(table, "PSNR dB") == ["+100 %", "+25 %", "+23 %"]
    assert cells(table, "KD") == ["+100 %", "-50 %", "FID -43 %"]
    assert "takes 200 times the channel uses" in table


def test_quality_and_speed_have_a_dash_where_nothing_was_measured(keep):
    keep("peers", [r for r in rows_of() if r["system"] != "img2img-published" or r["snr_db"] == 10.0])
    table = peer_tables.peer_quality()
    assert cells(table, "`img2img-published`")[:3] == ["172800", "48", "- / - / 1.000"]
    assert (
        cells(table, "`semcast`")[-1] == "- / - / 0.0400" and cells(table, "`gesco-labels`")[5] == "0.60 / 0.60 / 0.60"
    )
    assert cells(peer_tables.peer_speed(), "`img2img-published`") == ["30", "1", "200", "2.34 s, 30 steps"]


def test_a_system_on_fewer_pictures_says_so(keep):
    more = [row | {"image_sha256": "b", "image": "j"} for row in rows_of() if row["system"] == "semcast"]
    keep("peers", rows_of() + more)
    last = peer_tables.peer_quality().splitlines()
    assert "`gesco-labels`: 1 of these pictures." in last and not any("`semcast`:" in line for line in last)


def test_predictability_is_mean_and_deviation_beside_the_papers(keep):
    rows = rows_of((1.0, 10.0, 20.0))
    keep("peers_predictability", [r | {"draw": d, "lpips": r["lpips"] + 0.01 * d} for r in rows for d in (-1, 0, 1)])
    table = peer_tables.peer_predictability()
    assert table.splitlines()[0] == "| system | 20 dB | 10 dB | 1 dB | transmissions |"
    assert cells(table, "`semcast`") == ["0.500 ± 0.0100"] * 3 + ["3"]
    assert cells(table, "GESCO, as the paper gives it") == ["0.401", "0.424", "0.613", "25"]


@pytest.mark.parametrize("flattened, said", [(True, "yes"), (False, "no"), (None, "too short to say")])
def test_training_says_whether_it_had_flattened(write_training, flattened, said):
    curve = [[10 * i, 9.0 * i, 1 / i] for i in range(1, 41)]
    part = {"parameters": 2_400_000, "pictures": 7, "batch": 8, "minutes": 6.0, "steps": 400, "device": "a processor"}
    part |= {"curve": curve, "fall_of_last_fifth": 0.0926, "flattened": flattened}
    write_training({"parts": {"ae8": part}})
    losses = ["0.1250", "0.0625", "0.0417", "0.0312", "0.0250"]
    assert cells(peer_tables.peer_training(), "`ae8`") == ["2.4 M", "7", "8", "6", "400", *losses, "9.3%", said]


def test_maps_fit_from_the_snr_at_which_the_link_carries_them(write_training):
    sizes = {"1": 1800.0, "4": 250.0, "8": 107.0, "32": 30.0}
    write_training({"parts": {}, "maps": {"height": 360, "width": 480, "pictures": 16, "bytes": sizes}})
    table = peer_tables.peer_maps()
    limits = [float(cells(table, size)[1].removesuffix(" dB")) for size in ("120x90", "60x45", "15x12")]
    assert limits == sorted(limits, reverse=True) and cells(table, "480x360")[1] == "never"
