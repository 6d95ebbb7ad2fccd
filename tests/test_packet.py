"""The digital modem: packets decode exactly, fit their size and state their noise; wrong ones are refused."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import photo, tiny_cascade

from semcast import Link, load_model, read_image
from semcast.cascade.torch_engine import TorchEngine
from semcast.channels.base import Received
from semcast.errors import InputError, Lost, brings
from semcast.frame import CRC, HEADS, parse, write_frame
from semcast.header import SIDE_BITS, Header, Transmission, stamp
from semcast.images import mean_colour, to_image
from semcast.modulation import digital, packet
from semcast.modulation import mcs as schemes
from semcast.modulation.analog import demodulate, unflatten
from semcast.modulation.digital import NO_CHANNEL, Digital, find_scheme
from semcast.modulation.modems import on_air
from semcast.modulation.packet import (
    SCALES,
    dct,
    entropy_decode,
    entropy_encode,
    groups,
    largest,
    make_basis,
    pack,
    unpack,
)

SHAPE = (16, 12, 12)
RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(16, 16)))[0]
START = HEADS[4].size + CRC.size  # bytes of a frame before its packet


def symbols(shape=SHAPE, seed: int = 0, dimensions: int = 5) -> np.ndarray:
    """x [1, k] of unit power: smooth, and of few dimensions along BASIS, as those of a picture are."""
    rng = np.random.default_rng(seed)
    frequency = 1 + np.add.outer(np.arange(shape[1]) ** 2, np.arange(shape[2]) ** 2)
    numbers = (
        rng.laplace(size=shape)
        / frequency
        * 2.0 ** -np.arange(16)[:, None, None]
        * (np.arange(16) < dimensions)[:, None, None]
    )
    x = packet.inverse_transform(numbers, BASIS)
    return x / np.sqrt(np.mean(np.abs(x) ** 2))


# Packets decode exactly and fit their size


def quantised() -> dict[str, np.ndarray]:
    wide = 2.0 ** RNG.uniform(-4, 12, size=(16, 1, 1))
    spike, edge = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    spike[3, 5, 7], edge[0] = -largest(SCALES - 1), largest(SCALES - 1)
    cases = {"zero": np.zeros(SHAPE, int), "spike": spike, "edge": edge, "one": np.ones((16, 1, 1), int)}
    cases |= {
        f"laplace {s}": np.rint(RNG.laplace(size=s) * wide).astype(int)
        for s in (SHAPE, (16, 1, 1), (16, 1, 7), (16, 64, 3))
    }
    return cases | {"uniform": RNG.integers(-300, 300, SHAPE)}


@pytest.mark.parametrize("name", quantised())
def test_entropy_code_returns_every_number(name):
    q = quantised()[name]
    scales = packet.choose_scales(q)
    data = entropy_encode(q, scales)
    for stream in (data, data.rstrip(b"\0"), data + b"\0\0\0", data + b"more"):
        again, same = entropy_decode(stream, q.shape)
        assert np.array_equal(again, q) and np.array_equal(same, scales)
    exact = packet.squeeze(data, q, len(data))
    for room in range(len(exact), len(exact) - 4, -1):
        if shorter := packet.squeeze(data, q, room):
            assert len(shorter) <= room and np.array_equal(entropy_decode(shorter, q.shape)[0], q)
    assert packet.squeeze(data, q, len(exact) - 5) is None


def test_numbers_beyond_the_largest_scale_need_a_coarser_step():
    q = np.full((16, 1, 1), largest(SCALES - 1) + 1)
    assert packet.choose_scales(q) is None
    assert len(pack(symbols((16, 1, 2), dimensions=1), (16, 1, 2), BASIS, 2048)) <= 2048


def test_entropy_code_is_as_short_as_the_distribution_allows():
    """Laplace numbers of known scale: within 3 % of their entropy, the scales included."""
    q = np.rint(np.random.default_rng(1).laplace(size=(16, 64, 64)) * 3).astype(int)
    zero, ratio = 1 - np.exp(-1 / 6), np.exp(-1 / 3)  # P(0) = 1 - e^(-1/6), P(n) = e^(-n/3) sinh(1/6)
    first = (1 - zero) * (1 - ratio) / 2
    bits = -zero * np.log2(zero) - 2 * sum(first * ratio**n * np.log2(first * ratio**n) for n in range(100))
    assert 0.99 * bits * q.size < 8 * len(entropy_encode(q, packet.choose_scales(q))) < 1.03 * bits * q.size


def test_groups_are_octaves_of_frequency():
    at = groups((16, 12, 12))
    assert at[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3] and np.array_equal(at[0], at[0].T)
    assert groups((16, 1, 1))[3].tolist() == [[0]]
    assert groups((16, 2, 8))[3, :, 0].tolist() == [0, 2]  # the second of 2 is as high as the fifth of 8
    assert not at[packet.SMOOTH :].any()


@pytest.mark.parametrize("shape", [SHAPE, (16, 1, 1), (16, 6, 4), (16, 24, 24)], ids=str)
def test_packets_fit_their_size_and_more_bytes_are_better(shape):
    x, errors = symbols(shape), []
    for size in (40, 64, 100, 150, 333, 650, 1000, 2000):
        data = pack(x, shape, BASIS, size)
        assert len(data) <= size and pack(x, shape, BASIS, size) == data
        y, _, noise_var = unpack(data, shape, BASIS)
        errors.append(np.mean(np.abs(y / (1 + noise_var) - x) ** 2))
        assert len(data) >= 0.93 * size - 4 or data[0] == 255  # there is no finer step
    assert all(b <= 1.02 * a for a, b in zip(errors, errors[1:])) and errors[-1] < 0.01


def test_too_few_bytes_are_refused():
    for size in (0, 2, 15):
        with pytest.raises(InputError, match=f"^{size} bytes are too few for this picture; give more$"):
            pack(symbols(), SHAPE, BASIS, size)


# The stated noise is the noise that was made


@pytest.mark.parametrize("size", [80, 150, 400, 650])
def test_stated_noise_is_the_measured_one(size):
    """Over 20 packets: mean |y - x|^2 is the stated noise_var, the error of the MMSE estimate its noise level."""
    made, stated, error, level = [], [], [], []
    for seed in range(20):
        x = symbols(seed=seed)
        received = unpack(pack(x, SHAPE, BASIS, size), SHAPE, BASIS)
        z, noise = demodulate(received, 1.0, SHAPE, noise_aware=True)
        made.append(np.mean(np.abs(received.y - x) ** 2) / received.noise_var)
        stated.append(received.noise_var)
        real, imag = z.reshape(2, -1)
        error.append(np.mean(np.abs(real + 1j * imag - x) ** 2) / noise.mean())
        level.append(noise)
        assert received.h.tolist() == [[1]] and np.unique(noise).size == 1
    assert np.mean(made) == pytest.approx(1, abs=0.05)
    assert np.mean(error) == pytest.approx(1, abs=0.02)


def test_dct_and_klt_are_orthonormal_and_invertible():
    for n in (1, 2, 12, 33):
        assert np.allclose(dct(n) @ dct(n).T, np.eye(n), atol=1e-12)
    x = np.random.default_rng(0).standard_normal((1, 144, 2), np.float32).view(np.complex64)[..., 0]
    numbers = packet.transform(x, (16, 3, 6), BASIS)
    assert np.square(numbers).sum() == pytest.approx(np.sum(np.abs(x) ** 2), rel=1e-5)
    assert np.allclose(packet.inverse_transform(numbers, BASIS), x, atol=1e-6)


def test_basis_is_the_same_at_both_ends_and_fits_the_default_model():
    basis = make_basis(TorchEngine(tiny_cascade()).encode)
    assert np.allclose(basis @ basis.T, np.eye(16), atol=1e-9)
    assert np.array_equal(basis, make_basis(TorchEngine(tiny_cascade()).encode))
    assert (np.take_along_axis(basis, np.abs(basis).argmax(axis=1, keepdims=True), axis=1) > 0).all()
    link = Link(load_model("small"))
    header, x = link.send(to_image(photo(256, 256)))
    energy = np.square(packet.transform(x, header.latent_shape, link.modems["digital"].basis)).sum(axis=(1, 2))
    assert energy[:8].sum() > 0.6 * energy.sum()  # the strongest come first, on pictures that it was not made from


# Packets that were damaged, or never sent


def test_random_bytes_are_refused_or_decode_to_finite_numbers():
    for trial in range(150):
        rng = np.random.default_rng(trial)
        data = rng.bytes(int(rng.integers(0, 200)))
        if trial % 3 == 0:
            data = bytes([trial, trial]) + bytes([255 * (trial % 2)]) * trial
        try:
            received = unpack(data, SHAPE, BASIS)
        except InputError as error:
            assert str(error).startswith("the packet is ") and len(str(error).splitlines()) == 1
        else:
            assert all(np.isfinite(part).all() for part in received)


@pytest.fixture(scope="module")
def modem() -> Digital:
    """Its packets are of `symbols`, so it has their basis."""
    modem = Digital(TorchEngine(tiny_cascade()))
    modem.basis = BASIS
    return modem


def sent(modem: Digital, seed: int = 0, snr_db: float | None = 8.0) -> Transmission:
    z, header = unflatten(symbols(seed=seed), 1.0, SHAPE), Header(7, 512, 512, 0.75, 1.0)
    return modem.modulate([z], header, snr_db=snr_db)


def test_payload_fills_what_the_channel_carries_and_arrives(modem):
    header, payload = sent(modem)
    mcs = schemes.choose(1152, 8.0)
    assert schemes.TABLE[header.scheme - 1] == find_scheme(header) == mcs and header.mode == "digital"
    assert len(payload) == schemes.plan(1152, mcs).payload_bytes and header.gain == 1.0
    x = on_air(Transmission(header, payload))
    assert x.shape == (1, 1152) and np.array_equal(x, digital.symbols(payload, header))
    clean = Received(x, np.ones((1, 1), x.dtype), np.full((1, 1), 1e-3, np.float32))
    expected = demodulate(unpack(payload, SHAPE, BASIS), 1.0, SHAPE, noise_aware=True)
    for arrived in (clean, payload):
        ((z, noise),) = modem.demodulate(arrived, header)
        assert np.array_equal(z, expected[0]) and np.array_equal(noise, expected[1])
    told = f"the packet was lost on the channel (its checksum fails; it was sent with {mcs}); send it again"
    with pytest.raises(Lost, match=f"^{re.escape(told)}$"):
        modem.demodulate(clean._replace(y=-x), header)


def test_a_packet_needs_an_snr_or_a_size(modem):
    with pytest.raises(ValueError, match="^a packet needs snr_db or size_bytes$"):
        sent(modem, snr_db=None)


def test_a_packet_with_another_header_is_refused(modem):
    (header, first), (other, second) = sent(modem, 0), sent(modem, 1)
    told = "the packet belongs to another transmission than its header; fetch it again"
    for payload, side in (
        (first, other),
        (second, header),
        (first, replace(header, gain=2.0)),
        (first[:9], header),
        (first + first, header),
    ):
        with pytest.raises(InputError, match=f"^{told}$"):
            modem.demodulate(payload, side)
    # Over the channel too, where the checksum of the channel code is right.
    arrived = Received(digital.symbols(second, other), np.ones((1, 1), np.complex64), np.full((1, 1), 1e-3, np.float32))
    with pytest.raises(InputError, match=f"^{told}$"):
        modem.demodulate(arrived, replace(header, scheme=other.scheme))
    with pytest.raises(InputError, match="^the packet was made with --bytes, for no channel; send it with --snr$"):
        digital.symbols(first, replace(header, scheme=NO_CHANNEL))


def test_damaged_mixed_and_doubled_frames_of_packets_are_refused(modem, tmp_path):
    (header, first), (other, second) = sent(modem, 0), sent(modem, 1)
    write_frame(tmp_path / "a.sem", header, first)
    write_frame(tmp_path / "b.sem", other, second)
    a, b = ((tmp_path / f"{name}.sem").read_bytes() for name in "ab")
    rng = np.random.default_rng(0)
    bad = [a + a, a + b, a[:START] + b[START:], b[:START] + a[START:], a[:-1], a + b"\0"]
    bad += [a[:START] + a[START:][::-1], a[START:] + a[:START]]
    bad += [a[:at] + bytes([a[at] ^ 1 << int(rng.integers(8))]) + a[at + 1 :] for at in rng.integers(0, len(a), 60)]
    bad += [a[:at] for at in rng.integers(0, len(a), 20)]
    for data in bad:
        with pytest.raises(InputError, match="^x.sem "):
            parse(data, "x.sem")


# From end to end


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCAST_LPIPS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(300, 200)).save("a.png")
    return tmp_path


@pytest.mark.parametrize(
    "channel",
    [("--snr", 9), ("--snr", 9, "--channel", "rician", "--channel-option", "k_db=30")],
    ids=["awgn", "rician"],
)
def test_three_programs_give_the_same_picture_as_run(channel, cli, tiny_model, here):
    model = ("--model", tiny_model)
    code, out, _ = cli("run", "a.png", *channel, "--mode", "digital", *model, "--steps", 2, "--seed", 3)
    row = json.loads(out)
    assert code == 0 and (row["mode"], row["lost"], row["side_bits"]) == ("digital", False, SIDE_BITS + 24)
    assert row["channel_uses"] == row["payload_uses"] == 336 and row["scheme"] == str(schemes.choose(336, 9))
    assert row["payload_bytes"] == schemes.plan(336, schemes.choose(336, 9)).payload_bytes
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--snr", 9, *model) == (0, "", "")
    assert cli("channel", "x.sem", "-o", "y.sem", *channel, "--seed", 3) == (0, "", "")
    assert cli("receive", "y.sem", "-o", "b.png", *model, "--steps", 2, "--seed", 3)[:2] == (0, "")
    # As without a channel.
    assert cli("receive", "x.sem", "-o", "c.png", *model, "--steps", 2, "--seed", 3)[:2] == (0, "")
    assert Image.open("b.png").tobytes() == Image.open("out/a.png").tobytes() == Image.open("c.png").tobytes()
    header, payload = Link(load_model(tiny_model), mode="digital").send(read_image("a.png"), snr_db=9)
    assert len(payload) == row["payload_bytes"] and stamp(header, payload) == header


def test_a_lost_packet_is_reported_as_its_mean_colour(cli, tiny_model, here):
    model = ("--model", tiny_model)
    mean = np.rint(np.asarray(Image.open("a.png")).mean(axis=(0, 1)))
    for snr, channel, scheme in ((9, ("--channel", "erasure", "--channel-option", "rate=0.5"), True), (-25, (), False)):
        line = ("run", "a.png", "--snr", snr, *channel, "--mode", "digital", *model, "--steps", 2, "--force")
        code, out, err = cli(*line)
        row = json.loads(out)
        assert code == 3 and row["lost"] and (row["scheme"] is not None) == scheme and row["psnr_db"] > 5
        assert np.abs(np.asarray(Image.open("out/a.png")) - mean).max() <= 1
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--snr", 15, *model)[0] == 0
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 8)[0] == 0
    code, out, err = cli("receive", "y.sem", "-o", "b.png", *model)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("semcast: the packet was lost on the channel (its checksum fails; ")
    assert not (here / "b.png").exists()
    for seed in (1, 2, 3, 4, 5):  # each is lost alone; combined they arrive
        assert cli("channel", "x.sem", "-o", f"{seed}.sem", "--snr", 9, "--seed", seed)[0] == 0
        assert cli("receive", f"{seed}.sem", "-o", "b.png", *model)[0] == 3
    assert cli("receive", *(f"{seed}.sem" for seed in (1, 2, 3, 4, 5)), "-o", "b.png", *model, "--steps", 2)[0] == 0


def test_a_packet_of_a_given_size_is_a_small_file(cli, tiny_model, here):
    model = ("--model", tiny_model)
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--bytes", 200, *model) == (0, "", "")
    assert START < (here / "x.sem").stat().st_size <= START + 200
    assert cli("receive", "x.sem", "-o", "b.png", *model, "--steps", 2)[:2] == (0, "")
    assert Image.open("b.png").size == (200, 300)
    told = "semcast: the packet was made with --bytes, for no channel; send it with --snr\n"
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 9) == (2, "", told)


def test_the_link_gives_a_lost_picture_its_mean_colour(tiny_model, here):
    image = read_image("a.png")
    link = Link(load_model(tiny_model), "erasure", mode="digital", rate=0.5)
    for snr_db, was_sent in ((9, True), (-25, False)):
        result = link(image, snr_db, steps=2)
        assert result.lost and np.array_equal(result.image, np.broadcast_to(mean_colour(image), image.shape))
        assert (result.sent is not None) == (result.received is not None) == was_sent
        assert result.payload_uses == (336 if was_sent else 0)
    sent = link.send(image, snr_db=9)
    received = link.propagate(on_air(sent), 9)
    with pytest.raises(Lost, match="^the packet was lost on the channel "):
        link.receive(received, sent.header)
    told = "336 channel uses at -25 dB carry 0 bytes, too few for a packet; raise --snr or send analog"
    with pytest.raises(Lost, match=f"^{told}$"):
        link.send(image, snr_db=-25)


def test_mistakes_are_answered_in_one_line(cli, tiny_model, here):
    send = ("send", "a.png", "-o", "x.sem", "--model", tiny_model)
    either = "give either --snr or --bytes with --mode digital, and neither without: analog symbols suit any channel"
    for argv, message in (
        (("--mode", "digital"), either),
        (("--mode", "digital", "--snr", 3, "--bytes", 99), either),
        (("--snr", 3), either),
        (("--bytes", 99, "--mode", "analog"), either),
        (
            ("--mode", "digital", "--bytes", 15),
            "argument --bytes: 15 must lie between 16 and 2048 (see `semcast send --help`)",
        ),
        (
            ("--mode", "digital", "--bytes", 2049),
            "argument --bytes: 2049 must lie between 16 and 2048 (see `semcast send --help`)",
        ),
        (
            ("--mode", "digital", "--snr", -20),
            "336 channel uses at -20 dB carry 0 bytes, too few for a packet; raise --snr or send analog",
        ),
    ):
        assert cli(*send, *argv) == (2, "", f"semcast: {message}\n")
    assert not (here / "x.sem").exists()


def test_a_picture_is_not_reported_as_lost_if_a_package_is_missing(cli, tiny_model, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "sionna", None)
    told = f"the LDPC code of a packet needs sionna: {brings('phy')}"
    command = ("run", "a.png", "--snr", 9, "--mode", "digital", "--model", tiny_model)
    assert cli(*command) == (2, "", f"semcast: {told}\n")
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        Link(load_model(tiny_model), mode="digital")(read_image("a.png"), 9)
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--snr", 9, "--model", tiny_model)[0] == 0
