"""The rivals in the bench: rows, reports, mistakes, all systems at once."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peer_parts import send, street
from PIL import Image
from tiny import photo

import peer_strip
from semcast.bench.harness import bench, read_rows, runnable
from semcast.bench.peers.systems import PEERS
from semcast.bench.pictures import Pictures
from semcast.bench.report import report
from semcast.bench.systems import SYSTEMS, find_system
from semcast.bench.unit import Setting
from semcast.channels.catalogue import find_channel
from semcast.channels.noise import awgn
from semcast.randomness import seeded

PUBLISHED = {"img2img-published", "gesco-published", "diffsc-published", "casc-published"}


@pytest.fixture
def streets(tmp_path) -> tuple[Path, Path]:
    folder, labels = tmp_path / "streets", tmp_path / "truth"
    folder.mkdir(), labels.mkdir()
    Image.fromarray(photo(96, 128)).save(folder / "street_0.png")
    Image.fromarray(street(96, 128)).save(labels / "0.png")
    return folder, labels


def test_rows_of_all_rivals(peers, few_steps, streets, segmenter, tmp_path):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    find = lambda name: find_system(name)
    ends = SimpleNamespace(  # the two ends without processes of their own, which take seconds to start
        send=lambda name, *asked, **told: (*find(name).send(*asked, **told), 1.0),
        receive=lambda name, *arrived: (find(name).receive(*arrived), 1.0),
        warm=(),
    )
    setting = Setting(headline=(), lpips=tmp_path, segmenter=segmenter, uses="400")
    pictures, out = Pictures([streets[0]], labels=streets[1]), tmp_path / "out"
    run = lambda: bench(list(PEERS), pictures, [4.0, 12.0], 1, out, setting, ends=ends)
    assert run() == (18, 18) and run() == (18, 0)
    rows = read_rows(out / "rows.jsonl")
    for row in rows:
        own = {"img2img-published": 12 * 16 * 64, "gesco-published": 13 * 96 * 128 // 2}
        own |= {"diffsc-published": 192, "casc-published": 192}
        assert row["uses"] == 400 and not row["lost"]
        if row["system"] in PUBLISHED:
            assert row["payload_uses"] == own[row["system"]]
        else:
            assert 0 < row["payload_uses"] <= 400
        tolerance = 0.1 if row["system"] in {"gesco", "gesco-labels", "img2img-published"} else 1e-3
        assert row["power"] == pytest.approx(1, abs=tolerance)
        if row["system"] in ("gesco", "gesco-labels"):
            assert row["side_bits"] == 32 + 24 + 16 + 4 + 5 and row["payload_uses"] == 400
    report(out)
    page = (out / "report.html").read_text()
    assert "As published, gesco-published takes 79872." in page and page.count("As published, ") == page.count(
        "-published takes"
    )


def test_received_pictures_are_the_same_each_time(peers, few_steps):
    pixels = photo(101, 77)
    for name in ("img2img", "img2img-published", "diffsc", "casc", "gesco-published"):
        x, side, _ = send(name, pixels, 150)
        received = find_channel("rayleigh")(x, 10.0, [seeded(0)])
        first = find_system(name).receive(received, side)
        torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)
        second = find_system(name).receive(received, side)
        assert first.shape == pixels.shape and first.dtype == np.uint8 and first.std() > 0
        assert np.abs(first.astype(int) - second).max() <= 1, name


def test_what_is_sent_does_not_depend_on_the_snr_unless_it_is_a_map(peers):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    pixels = photo(96, 128)
    for name in ("img2img", "casc", "gesco-published"):
        assert np.array_equal(send(name, pixels, 200, 1.0)[0], send(name, pixels, 200, 20.0)[0])
    coarse, fine = (send("gesco-labels", pixels, 200, snr_db)[1] for snr_db in (1.0, 20.0))
    assert coarse["scale"][0] > fine["scale"][0] and coarse["scheme"] != fine["scheme"]
    nothing, side, facts = send("gesco-labels", pixels, 10, -10.0)
    assert nothing.shape == (1, 0) and side["size"][0] == 0 and facts["payload_uses"] == 0


def test_a_map_that_is_lost_is_a_lost_picture(peers, few_steps):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    x, side, _ = send("gesco-labels", photo(96, 128), 200, 15.0)
    system = find_system("gesco-labels")
    assert system.receive(awgn(x, -10.0, [seeded(0)]), side) is None
    assert system.receive(awgn(x, 20.0, [seeded(0)]), side).shape == (96, 128, 3)


def test_mistakes_are_one_line_before_any_work(cli, streets, monkeypatch, tmp_path, peer_weights):
    monkeypatch.setenv("SEMCAST_PEERS", str(tmp_path / "none"))
    run = ("bench", "--data", streets[0], "--out", tmp_path / "out", "--systems")
    for name in PEERS:
        code, _, message = cli(*run, name)
        assert code == 2 and message.count("\n") == 1 and "is missing: `runs/peers.sh" in message, message
    monkeypatch.setenv("SEMCAST_PEERS", str(peer_weights))
    for name in ("gesco", "gesco-labels", "gesco-published"):
        code, _, message = cli(*run, name)
        assert code == 2
        assert message == f"semcast: {name} needs --labels and --segmenter: it sends the classes of the pixels\n"


def test_all_systems_are_those_that_can_run(peers, segmenter, cli, streets, tmp_path, monkeypatch):
    pytest.importorskip("sionna", reason="the digital link needs the [phy] extra")
    assert runnable(Setting(segmenter=segmenter)) == (list(SYSTEMS), "")
    able, others = runnable(Setting())
    assert set(SYSTEMS) - {*able} == {"gesco", "gesco-labels", "gesco-published"}
    assert others == "gesco, gesco-labels, gesco-published (no labels)"
    monkeypatch.setenv("SEMCAST_PEERS", str(tmp_path / "none"))
    able, others = runnable(Setting(channel="rayleigh"))
    assert not {*PEERS} & {*able} and "semcast" in able and "vvc-capacity" not in able
    assert f"{', '.join(PEERS)} (no weights); " in others and others.endswith(" (bounds for awgn)")
    asked = []
    monkeypatch.setattr("semcast.bench.harness.bench", lambda systems, *_, **__: (asked.extend(systems), (0, 0))[1])
    code, _, said = cli("bench", "--systems", "all", "--channel", "rayleigh", "--data", streets[0], "--out", tmp_path)
    assert code == 0 and asked == able
    assert said == f"semcast: without {others}; `--systems NAME` says what one of them needs\n"


def test_a_data_set_has_a_name_in_the_users_folder(cli, streets, segmenter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMCAST_DATA", raising=False)
    command = ("bench", "--systems", "downscale", "--data", "camvid", "--out", "out")
    missing = "semcast: no pictures at camvid: there is no such file or folder here, and SEMCAST_DATA names "
    assert cli(*command) == (2, "", f"{missing}no folder of data\n")
    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("SEMCAST_DATA", str(tmp_path / "sets"))
    assert cli(*command) == (2, "", f"{missing}{tmp_path / 'sets'}, which has no such data set\n")

    seen = []

    def run(systems, pictures, snrs, draws, out, setting, *_, **__):
        seen.append((pictures.names, pictures.labels is not None, setting.segmenter))
        return 0, 0

    monkeypatch.setattr("semcast.bench.harness.bench", run)
    streets[0].rename(tmp_path / "sets" / "camvid")
    assert cli(*command)[0] == 0
    streets[1].rename(tmp_path / "sets" / "camvid-labels")
    assert cli(*command)[0] == 0  # labels alone are of no use
    (tmp_path / "sets" / "camvid-segmenter.safetensors").write_bytes(segmenter.read_bytes())
    assert cli(*command)[0] == 0
    assert seen[:2] == [(["street_0.png"], False, None)] * 2
    assert seen[2] == (["street_0.png"], True, tmp_path / "sets" / "camvid-segmenter.safetensors")


def test_the_strip_shows_every_system_at_every_snr(peers, few_steps, streets, tmp_path, monkeypatch):
    systems = ["downscale", "img2img", "gesco-published"]
    argv = ["peer_strip.py", streets[0], "--labels", streets[1], "--segmenter", "any", "--side", 64, "--snr", 10, 1]
    argv += ["--out", tmp_path / "strip.jpg", "--systems", *systems]
    monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
    monkeypatch.setattr("semcast.bench.harness.load_segmenter", lambda path: None)
    peer_strip.main()
    strip = np.asarray(Image.open(tmp_path / "strip.jpg"))
    assert strip.shape[1] == 8 + 4 * (64 + 8)
    tiles = [strip[34 + i * 98 : 98 + i * 98, 8 + j * 72 : 72 + j * 72].astype(int) for i in (0, 1) for j in range(4)]
    assert np.abs(tiles[0] - tiles[4]).mean() < 6  # what was sent, twice, as JPEG
    others = [np.abs(a - b).mean() for k, a in enumerate(tiles[:4]) for b in tiles[k + 1 : 4]]
    assert min(others) > 12


@pytest.mark.slow
def test_maps_reach_the_sender_in_its_own_process(peers, streets):
    from semcast.bench.ends import Ends

    pixels, truth = photo(96, 128), street(96, 128)
    with Ends() as ends:
        x, side, _ = ends.send("gesco-published", pixels, 79872, 10.0, truth=truth)
        expected, _, _ = send("gesco-published", pixels, 0)
        assert np.array_equal(x, expected) and side["classes"][1] == 12
        x, side, _ = ends.send("diffsc", pixels, 200, 10.0)
        image, _ = ends.receive("diffsc", awgn(x, 10.0, [seeded(0)]), side)
    again = find_system("diffsc").receive(awgn(x, 10.0, [seeded(0)]), side)
    assert np.abs(image.astype(int) - again).max() <= 1
