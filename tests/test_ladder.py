"""The ladder: every run of rungs is a transmission of unit power, and what arrives of a picture adds up."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import TINY_ENHANCEMENT as ENHANCEMENT
from tiny import photo, tiny_cascade

from semcast import Link, load_model
from semcast.cascade.checkpoint import save_model
from semcast.errors import InputError
from semcast.frame import noiseless, parse, read_frame, write_frame
from semcast.header import RUNGS, Header
from semcast.images import to_image
from semcast.modulation.analog import Estimate
from semcast.modulation.ladder import merge, rungs_within, sum_up

RUNS = [(1, 3), (1, 8), (1, 9), (1, 24), (3, 20), (9, 24), (17, 17), (24, 24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ladder")
    save_model(tiny_cascade(enhancement=ENHANCEMENT), path)
    return path


@pytest.fixture(scope="module")
def link(folder) -> Link:
    return Link(load_model(folder, engine="onnx"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return to_image(photo(120, 190))


def test_both_engines_compute_the_same_layers_and_pictures(folder, link):
    torch, rng = load_model(folder, engine="torch"), np.random.default_rng(0)
    assert torch.encoder_id == link.engine.encoder_id
    x = rng.random((2, 3, 128, 192), np.float32)
    for a, b in zip(link.engine.encode_layers(x), torch.encode_layers(x), strict=True):
        assert a.shape[1:] == (16, 128 // (128 // a.shape[2]), a.shape[3]) and np.abs(a - b).max() < 1e-5 < a.std()
    assert [layer.shape for layer in link.engine.encode_layers(x)] == [(2, 16, 8, 12), (2, 16, 16, 24)]
    known = [rng.random((2, 32, 128 // s, 192 // s), np.float32) for s in (16, 8)]
    a, b = link.engine.enhance(x, known), torch.enhance(x, known)
    assert np.abs(a - b).max() < 1e-5 < np.abs(a - x).max()


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_large_pictures_are_enhanced_in_tiles_without_seams(engine, folder, monkeypatch):
    e, rng = load_model(folder, engine=engine), np.random.default_rng(1)
    assert ENHANCEMENT.reach <= 128
    x = rng.random((1, 3, 448, 384), np.float32)
    known = [rng.random((1, 32, 448 // s, 384 // s), np.float32) for s in (16, 8)]
    picture, layers = e.enhance(x, known), e.encode_layers(x)
    with monkeypatch.context() as patch:
        patch.setattr("semcast.cascade.tiles.ENHANCEMENT_TILE", 128)
        assert np.abs(e.enhance(x, known) - picture).max() < 1e-5 < picture.std()
        assert all(np.abs(a - b).max() < 1e-5 for a, b in zip(e.encode_layers(x), layers))
        patch.setattr("semcast.cascade.config.EnhancementConfig.reach", 0)
        assert np.abs(e.enhance(x, known) - picture).max() > 1e-3  # such tiles do need their surroundings


@pytest.mark.parametrize("rungs", RUNS)
def test_every_run_has_unit_power_and_the_symbols_that_its_header_says(rungs, link, image):
    header, x = link.send(image, rungs=rungs)
    assert x.dtype == np.complex64 and x.shape == (1, header.channel_uses) and header.rungs == rungs
    assert np.mean(np.abs(x) ** 2) == pytest.approx(1, abs=1e-5)
    shapes = [(120 + 8, 190 + 2)]
    assert header.layer_shapes[1:] == [(16, h // s, w // s) for h, w in shapes for s in (16, 8)]


def test_a_stream_is_its_runs_in_a_row(link, image):
    """Above the base no symbol depends on where a transmission begins or ends, so a stream may stop at any rung."""
    whole, x = link.send(image, rungs=(1, RUNGS))
    ends = np.cumsum([0, *whole.rung_uses])
    assert np.array_equal(x[:, : ends[8]], link.send(image).content)
    for first, last in ((9, 24), (1, 11), (17, 17), (12, 20)):
        assert np.array_equal(x[:, ends[first - 1] : ends[last]], link.send(image, rungs=(first, last)).content)
    for last in (2, 5):  # a part of the base has a gain of its own
        header, part = link.send(image, rungs=(1, last))
        scale = header.gain / whole.gain
        assert np.allclose(part, x[:, : ends[last]] * scale, atol=2e-3) and scale != 1
    for rung in range(9, RUNGS + 1):
        assert np.mean(np.abs(x[:, ends[rung - 1] : ends[rung]]) ** 2) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rungs", RUNS)
def test_without_noise_exactly_what_was_sent_is_known(rungs, link, image):
    whole = [known.z for known in received(link, image, (1, RUNGS))]
    for i, (z, noise) in enumerate(received(link, image, rungs)):
        sent = np.array([rungs[0] <= 8 * i + p % 8 + 1 <= rungs[1] for p in range(16)])
        assert (noise[0, sent] == 0).all() and (noise[0, ~sent] == 1).all() and not z[0, ~sent].any()
        assert np.abs(z - whole[i])[0, sent].max(initial=0) < 2e-3 * np.abs(whole[i]).max()


def received(link, image, rungs) -> list[Estimate]:
    header, x = link.send(image, rungs=rungs)
    return link.modems["analog"].demodulate(noiseless(x), header)


def test_two_parts_of_a_picture_are_as_good_as_the_whole(link, image):
    parts = [(header, noiseless(x)) for header, x in (link.send(image, rungs=r) for r in ((1, 13), (14, 24)))]
    (first, a), (second, b) = parts
    whole, x = link.send(image, rungs=(1, RUNGS))
    together = link.receive(a, first, others=[(b, second)])
    assert np.abs(together - link.receive(noiseless(x), whole)).max() < 1e-3
    assert np.abs(together - link.receive(a, first)).max() > 1e-2
    assert np.array_equal(link.receive(b, second, others=[(a, first)]), together)


def test_snrs_of_what_arrives_twice_add_up():
    rng = np.random.default_rng(2)
    z, snr = rng.standard_normal((1, 16, 40, 40)), np.array([2.0, 0.5])
    known = []
    for s in snr:
        y = z + rng.standard_normal(z.shape) / s**0.5
        known.append(Estimate((y * s / (1 + s)).astype(np.float32), np.full(z.shape, 1 / (1 + s), np.float32)))
    both = sum_up(known)
    assert both.noise == pytest.approx(np.full(z.shape, 1 / 3.5), rel=1e-5)
    assert np.square(both.z - z).mean() == pytest.approx(1 / 3.5, rel=0.03)  # as much as the noise says
    nothing = Estimate(np.zeros_like(known[0].z), np.ones_like(known[0].noise))
    alone = sum_up([known[0], nothing])
    assert np.allclose(alone.z, known[0].z, atol=1e-6) and np.allclose(alone.noise, known[0].noise, rtol=1e-5)


def test_parts_of_different_pictures_and_parts_without_a_beginning_are_refused(link, image):
    first, x = link.send(image, rungs=(1, 9))
    other, y = link.send(1 - image, rungs=(10, 24))
    with pytest.raises(InputError, match="^the transmissions are of different pictures, or of different settings"):
        link.receive(noiseless(x), first, others=[(noiseless(y), other)])
    with pytest.raises(InputError, match="^rungs above 8 refine a picture; give the transmission of its first rungs"):
        link.receive(noiseless(y), other)
    assert merge([(first, [])]) == (first, [])


def test_layers_from_another_enhancement_network_are_refused(folder, link, image, tmp_path):
    cascade = tiny_cascade(enhancement=ENHANCEMENT)
    cascade.enhancement.enc_in.weight.mul_(1.5)
    cascade.config = replace(cascade.config, understands=(f"{link.engine.encoder_id:04x}",))
    save_model(cascade, tmp_path)
    stranger = Link(load_model(tmp_path, engine="onnx"))
    assert stranger.engine.encoder_id != link.engine.encoder_id
    header, x = link.send(image)
    assert stranger.receive(noiseless(x), header).shape == image.shape  # the base is the same
    header, x = link.send(image, rungs=(1, 9))
    with pytest.raises(InputError, match="receive it with the sender's model"):
        stranger.receive(noiseless(x), header)
    plain = Link(load_model("small"))
    with pytest.raises(InputError, match="^there is no run of rungs 0 to 4"):
        plain.send(image, rungs=(0, 4))


def test_as_many_rungs_are_sent_as_the_uses_carry():
    header = Header(encoder_id=1, height=512, width=512, factor=0.75, gain=1.0)
    ends = np.cumsum(header.rung_uses).tolist()
    assert rungs_within(144, header) == (1, 1) and rungs_within(1151, header) == (1, 7)
    for last, uses in enumerate(ends, 1):
        assert rungs_within(uses, header) == (1, last)
    assert rungs_within(10**9, header) == (1, 24) and rungs_within(10**9, header, top=8) == (1, 8)
    assert rungs_within(5000, header, first=9) == (9, 12)
    with pytest.raises(InputError, match="^1000 channel uses are too few to go on from rung 9, which needs 1024$"):
        rungs_within(1000, header, first=9)
    with pytest.raises(InputError, match="none are left$"):
        rungs_within(1000, header, first=25)


# Frames and commands


@pytest.mark.parametrize("rungs", RUNS)
def test_frames_of_any_run_are_read_as_they_were_written(rungs, link, image, tmp_path):
    header, x = link.send(image, rungs=rungs)
    write_frame(tmp_path / "x.sem", header, x)
    read, y = read_frame(tmp_path / "x.sem")
    assert read == header and np.array_equal(x, y)
    data = (tmp_path / "x.sem").read_bytes()
    assert data[4] == (4 if rungs == (1, 8) else 5)
    for at in range(len(data) - 8 * header.channel_uses):  # every bit of the start is protected
        damaged = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        with pytest.raises(InputError):
            parse(damaged, "x")


def test_a_picture_grows_over_the_commands(folder, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(128, 128)).save("a.png")
    model = ("--model", str(folder))
    assert cli("send", "a.png", "-o", "a.sem", "--uses", "400", *model)[0] == 0
    row = json.loads(cli("info", "a.sem")[1])
    assert row["rungs"] == [1, 13] and row["symbols"] == 8 * 9 + 5 * 64 and row["side_bits"] == 104
    assert cli("send", "a.png", "-o", "b.sem", "--rungs", "14-24", *model)[0] == 0
    for name in "ab":
        assert cli("channel", f"{name}.sem", "--snr", "15", "-o", f"{name}y.sem", "--seed", str(ord(name)))[0] == 0
    for name, files in (("one", ["ay.sem"]), ("two", ["ay.sem", "by.sem"]), ("owt", ["by.sem", "ay.sem"])):
        assert cli("receive", *files, "-o", f"{name}.png", *model) == (0, "", "")
    pictures = {name: np.asarray(Image.open(f"{name}.png")) for name in ("one", "two", "owt")}
    assert np.array_equal(pictures["two"], pictures["owt"]) and (pictures["one"] != pictures["two"]).any()
    assert cli("receive", "by.sem", "-o", "x.png", *model)[0] == 2
    code, out, _ = cli("run", "a.png", "--snr", "15", "--rungs", "1-24", *model)
    row = json.loads(out)
    assert code == 0 and row["rungs"] == [1, 24] and row["side_bits"] == 104
    assert row["channel_uses"] == row["payload_uses"] == 8 * (9 + 64 + 256)


def test_quality_is_reached_with_the_fewest_rungs(folder, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(128, 128)).save("a.png")
    model = ("--model", str(folder))
    ssim = {}
    for last in (1, 8, 24):
        code, out, _ = cli("run", "a.png", "--snr", "10", "--rungs", f"1-{last}", *model, "--force")
        ssim[last] = json.loads(out)["ssim"]
    wanted = min(ssim.values()) * 0.99
    code, _, err = cli("send", "a.png", "-o", "q.sem", "--snr", "10", "--quality", f"{wanted:.4f}", *model)
    last = json.loads(cli("info", "q.sem")[1])["rungs"][1]
    assert code == 0 and err.startswith(f"semcast: rungs 1-{last} reach ")
    code, _, err = cli("send", "a.png", "-o", "r.sem", "--snr", "10", "--quality", "0.999", *model)
    assert code == 2 and "all 24 rungs reach" in err and not (tmp_path / "r.sem").exists()


@pytest.mark.parametrize(
    "line, told",
    [
        ("--rungs 0-3", "'0-3' is no run of rungs, like 1-24 or 9-16"),
        ("--rungs 5-4", "'5-4' is no run of rungs"),
        ("--rungs 1-25", "'1-25' is no run of rungs"),
        ("--rungs x", "'x' is no run of rungs"),
        ("--uses 0", "0 must lie between 1 and 1000000000"),
        ("--uses 8", "8 channel uses are too few to go on from rung 1, which needs 9"),
        ("--quality 2", "2 must lie between 0 and 1"),
        ("--quality 0.5", "--quality holds for an SNR; give --snr DB with it"),
        ("--uses 99 --rungs 1-8", "not allowed with argument"),
        ("--mode digital --bytes 99 --uses 99", "a packet always holds the whole base"),
    ],
)
def test_rates_that_make_no_sense_are_refused_in_one_line(line, told, folder, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(128, 128)).save("a.png")
    code, out, err = cli("send", "a.png", "-o", "a.sem", *line.split(), "--model", str(folder))
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1 and not (tmp_path / "a.sem").exists()


def test_later_rungs_do_not_change_what_earlier_ones_say(link, image):
    """Any prefix of a received stream is the picture that its own transmission would have given, but for the gain."""
    for last, following in itertools.pairwise((9, 12, 17, 24)):
        short, long = (received(link, image, (1, n)) for n in (last, following))
        for a, b in zip(short, long):
            heard = a.noise == 0
            assert np.array_equal(a.z[heard], b.z[heard])
