"""Mode mixed: the base as analog symbols, the picture as a packet behind it, and what the restorer makes of both."""

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from tiny import TINY_RESTORER, photo, tiny_cascade

from semcast import Link, load_model
from semcast.cascade.checkpoint import save_model
from semcast.errors import InputError
from semcast.frame import noiseless, read_frame, read_frames, write_frame
from semcast.images import to_image
from semcast.modulation import avif, mcs
from semcast.modulation.modems import draft

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
HEIGHT, WIDTH, PACKET = 120, 190, 32 * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mixed")
    save_model(tiny_cascade(restorer=TINY_RESTORER), path)
    return path


@pytest.fixture(scope="module")
def link(folder) -> Link:
    return Link(load_model(folder, engine="onnx"), mode="mixed")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return to_image(photo(HEIGHT, WIDTH))


@pytest.mark.parametrize("height, width", [(120, 190), (64, 64), (97, 131)])
def test_a_payload_is_the_same_picture_as_the_file_of_another_program(height, width):
    pixels = photo(height, width)
    payload = avif.fit(pixels, 4000)
    assert payload is not None and len(payload) <= 4000
    shown = avif.show(payload + bytes(50), height, width)
    assert avif.length(payload + bytes(50)) == len(payload)
    files = {}
    for quality in range(avif.QUALITY_MAX + 1):  # the file that Pillow writes at one of the qualities
        buffer, options = io.BytesIO(), {"advanced": {"tune": avif.TUNE}, "speed": avif.SPEED, "max_threads": 1}
        small = Image.fromarray(avif.shrunk(pixels, payload[0]))
        small.save(buffer, "AVIF", quality=quality, codec="aom", subsampling="4:2:0", **options)
        files[buffer.getvalue()[-len(payload) + 1 :]] = buffer
    assert payload[1:] in files
    decoded = np.asarray(Image.open(files[payload[1:]]).convert("RGB"))
    assert np.array_equal(shown, avif.enlarged(decoded, pixels.shape))
    assert avif.error(pixels, shown) < 100


def test_more_bytes_are_better_and_too_few_hold_nothing():
    pixels = photo(HEIGHT, WIDTH)
    found = [avif.fit(pixels, size) for size in (150, 300, 800, 2000)]
    assert all(payload is None or len(payload) <= size for payload, size in zip(found, (150, 300, 800, 2000)))
    errors = [avif.error(pixels, avif.show(payload, HEIGHT, WIDTH)) for payload in found if payload]
    assert len(errors) >= 3 and errors == sorted(errors, reverse=True) and avif.fit(pixels, 20) is None


def test_damaged_payloads_are_refused_or_give_a_picture_of_the_right_size():
    payload, rng = avif.fit(photo(HEIGHT, WIDTH), 1000), np.random.default_rng(0)
    assert payload is not None
    refused = 0
    for _ in range(150):
        data = bytearray(payload)
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[at] = rng.integers(256)
        try:
            assert avif.show(bytes(data[: rng.integers(1, len(data) + 1)]), HEIGHT, WIDTH).shape == (HEIGHT, WIDTH, 3)
        except InputError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 20
    for data in (b"", b"\0", b"\4" + payload[1:], payload[:1] + bytes(40), b"\0" + 40 * b"\xff"):
        with pytest.raises(InputError):
            avif.show(data, HEIGHT, WIDTH)


def test_a_picture_of_other_sides_is_refused_before_it_is_decoded(monkeypatch):
    payload = b"\0" + avif.encoded(photo(128, 192), 50)
    assert avif.show(payload, 128, 192).shape == (128, 192, 3)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(InputError, match="its sides are others"):
        avif.show(payload, 64, 64)
    with pytest.raises(InputError, match="its sides are others"):
        avif.show(b"\1" + payload[1:], 128, 192)


def test_base_and_packet_follow_each_other_and_every_symbol_is_counted(link, image):
    header, x = link.send(image, 10, packet=PACKET)
    base, y = Link(link.engine).send(image)
    assert header.mode == "mixed" and x.shape == (1, header.channel_uses) and x.shape[1] == y.shape[1] + PACKET
    assert np.array_equal(x[:, : y.shape[1]], y) and header.short_id == base.short_id
    assert np.mean(np.abs(x[:, y.shape[1] :]) ** 2) == pytest.approx(1, abs=0.1)
    assert mcs.TABLE[header.scheme - 1] == mcs.choose(PACKET, 10) and header.side_bits == 112


def test_the_restorer_makes_the_picture_of_what_the_packet_holds(link, image):
    header, x = link.send(image, 10, packet=PACKET)
    picture = draft(link.modems, [(noiseless(x), header)])
    assert picture is not None and picture.pixels.shape == (HEIGHT, WIDTH, 3)
    assert picture.bits <= 8 * mcs.plan(PACKET, mcs.TABLE[header.scheme - 1]).payload_bytes
    base, y = Link(link.engine).send(image)
    plain = link.receive(noiseless(y), base)
    padded = np.pad(to_image(picture.pixels), ((0, 0), (0, 0), (0, 8), (0, 2)), mode="edge")
    found = link.receive(noiseless(x), header)
    assert found.shape == image.shape and not np.allclose(found, plain)
    torch_engine = load_model(link.engine.folder, engine="torch")
    rng = np.random.default_rng(1)
    base_picture = rng.random(padded.shape, np.float32)
    a, b = (e.restore(base_picture, padded, 0.3) for e in (link.engine, torch_engine))
    assert np.abs(a - b).max() < 1e-5 < np.abs(a - padded).max()
    assert np.abs(link.engine.restore(base_picture, padded, 0.1) - a).max() > 1e-5  # the rate is told


def test_large_pictures_are_restored_in_tiles_without_seams(link, monkeypatch):
    rng = np.random.default_rng(2)
    base, picture = (rng.random((1, 3, 448, 384), np.float32) for _ in range(2))
    whole = link.engine.restore(base, picture, 0.2)
    monkeypatch.setattr("semcast.cascade.tiles.ENHANCEMENT_TILE", 128)
    assert np.abs(link.engine.restore(base, picture, 0.2) - whole).max() < 1e-5


def test_a_lost_packet_leaves_the_picture_of_the_base(link, image):
    header, x = link.send(image, 15, packet=PACKET)
    arrived = link.propagate(x, 8, seed=1)
    assert draft(link.modems, [(arrived, header)]) is None
    base, y = Link(link.engine).send(image)
    only = type(arrived)(*(part[:, : y.shape[1]] if part.shape[1] > 1 else part for part in arrived))
    assert np.array_equal(link.receive(arrived, header), link.receive(only, base))
    result = link(image, 8, packet=PACKET)
    assert not result.lost


def test_where_no_picture_fits_only_the_base_is_sent(link, image):
    for snr_db, uses in ((-25, PACKET), (10, 32), (10, 0)):
        header, x = link.send(image, snr_db, packet=uses)
        assert header.mode == "analog" and x.shape[1] == header.channel_uses and header.packet_uses == 0


def test_what_cannot_be_sent_is_refused(link, image, tiny_model):
    with pytest.raises(
        InputError, match="^a packet of 33 channel uses; it must be a multiple of 32 and at most 2097120"
    ):
        link.send(image, 10, packet=33)
    for other in ("analog", "digital"):
        with pytest.raises(InputError, match="^only mode mixed sends a packet behind the base"):
            Link(link.engine, mode=other).send(image, 10, packet=PACKET)
    with pytest.raises(InputError, match="^a packet behind the base is made for an SNR; give snr_db"):
        link.send(image, packet=PACKET)
    with pytest.raises(InputError, match="^a packet follows the whole base"):
        link.send(image, 10, packet=32, rungs=(1, 4))
    with pytest.raises(InputError, match="^model 'tiny' has no network for packets behind the base; send analog"):
        Link(load_model(tiny_model), mode="mixed").send(image, 10, packet=32)
    (header, x), plain = link.send(image, 10, packet=PACKET), Link(load_model(tiny_model))
    with pytest.raises(InputError, match="^model 'tiny' has no network for packets behind the base"):
        plain.receive(noiseless(x), replace(header, encoder_id=plain.engine.encoder_id))


def test_frames_keep_what_was_sent_and_what_arrived(link, image, tmp_path):
    header, x = link.send(image, 10, packet=PACKET)
    write_frame(tmp_path / "x.sem", header, x)
    found, y = read_frame(tmp_path / "x.sem")
    assert found == header and np.array_equal(x, y)
    write_frame(tmp_path / "loud.sem", header, np.concatenate([x[:, :-PACKET], 2 * x[:, -PACKET:]], axis=1))
    with pytest.raises(InputError, match="was not sent with unit power"):
        read_frame(tmp_path / "loud.sem")
    arrived = link.propagate(x, 10)
    write_frame(tmp_path / "y.sem", header, arrived)
    found, z = read_frame(tmp_path / "y.sem")
    assert found == header and all(np.array_equal(a, b) for a, b in zip(z, arrived))


def test_a_base_and_another_packet_are_joined_in_any_order(link, image, tmp_path):
    """A packet that was lost is sent again for a worse channel; the larger of those that arrive is shown."""
    sent = [link.send(image, 10, packet=PACKET), link.send(image, 6, packet=PACKET), Link(link.engine).send(image)]
    frames = [tmp_path / f"{i}.sem" for i in range(3)]
    for seed, (frame, (header, x)) in enumerate(zip(frames, sent)):
        write_frame(frame, header, link.propagate(x, 14, seed=seed))
    held = [draft(link.modems, [(noiseless(x), header)]) for header, x in sent]
    assert held[0].bits > held[1].bits and held[2] is None
    pictures = []
    for order in itertools.permutations(frames):
        transmissions = read_frames(list(order))
        assert draft(link.modems, transmissions).bits == held[0].bits
        (arrived, header), *others = transmissions
        pictures.append(link.receive(arrived, header, others=others))
    assert all(np.abs(picture - pictures[0]).max() < 1e-5 for picture in pictures)


@pytest.fixture
def here(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("SEMCAST_LPIPS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").symlink_to(folder)
    Image.fromarray(photo(HEIGHT, WIDTH)).save("a.png")
    return tmp_path


MIXED = ("--mode", "mixed", "--uses", 2000, "--snr", 10, "--model", "m")


def test_three_programs_give_the_same_picture_as_run(cli, here):
    code, out, err = cli("run", "a.png", *MIXED, "--seed", 3)
    row = json.loads(out)
    assert code == 0 and row["mode"] == "mixed" and not row["lost"] and row["packet_arrived"] is True
    assert row["channel_uses"] == row["payload_uses"] <= 2000 < row["channel_uses"] + 32 and row["side_bits"] == 112
    assert row["scheme"] and row["packet_uses"] % 32 == 0
    assert cli("send", "a.png", "-o", "x.sem", *MIXED) == (0, "", "")
    info = json.loads(cli("info", "x.sem")[1])
    assert info["mode"] == "mixed" and info["packet_uses"] == row["packet_uses"] and info["scheme"] == row["scheme"]
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 10, "--seed", 3) == (0, "", "")
    assert cli("receive", "y.sem", "-o", "b.png", "--model", "m", "--seed", 3)[:2] == (0, "")
    assert Image.open("b.png").tobytes() == Image.open("out/a.png").tobytes()


def test_a_lost_packet_is_told(cli, here):
    assert cli("send", "a.png", "-o", "x.sem", *MIXED)[0] == 0
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 2)[0] == 0
    code, out, err = cli("receive", "y.sem", "-o", "b.png", "--model", "m")
    assert code == 0 and "the packet was lost; b.png is the base's picture" in err
    code, out, err = cli("run", "a.png", *MIXED, "--channel", "erasure", "--channel-option", "rate=0.5")
    assert code == 0 and json.loads(out)["packet_arrived"] is False and "was lost at 10 dB" in err
    code, out, err = cli("run", "a.png", *MIXED[:-4], "--snr", -20, "--model", "m", "--out", "low")
    assert code == 0 and "only the base is sent" in err and json.loads(out)["packet_uses"] == 0
    assert cli("send", "a.png", "-o", "z.sem", *MIXED[:-4], "--snr", -20, "--model", "m")[0] == 0
    assert json.loads(cli("info", "z.sem")[1])["mode"] == "analog"


@pytest.mark.parametrize(
    "line, told",
    [
        (("run", "a.png", "--mode", "mixed", "--snr", 9), "--mode mixed needs --uses N: what the base leaves of N"),
        (("send", "a.png", "-o", "x.sem", "--mode", "mixed", "--uses", 900), "--mode mixed needs --snr DB"),
        (("send", "a.png", "-o", "x.sem", *MIXED[:2], "--uses", 20, *MIXED[4:]), "--uses 20: the base alone takes"),
        (("send", "a.png", "-o", "x.wav", *MIXED), "a packet is not sent by radio"),
    ],
)
def test_mistakes_are_answered_in_one_line(line, told, cli, here):
    code, out, err = cli(*line, *(() if "--model" in line else ("--model", "m")))
    assert (code, out) == (2, "") and err.startswith(f"semcast: {told}") and err.count("\n") == 1, err
