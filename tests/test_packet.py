"""semcast in digital clothes: no bit is lost, no byte too many, the noise is told as it is, and wrong packets are refused."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import photo, tiny_cascade
from PIL import Image

from semcast import Link, load_model, packet, read_image
from semcast.channel import Received
from semcast.errors import InputError, Lost
from semcast.frame import parse, write_frame
from semcast.packet import SCALES, arrive, dct, entropy_decode, entropy_encode, groups, largest, make_basis, on_air, pack, unpack
from semcast.phy import digital
from semcast.receiver import condition
from semcast.transmitter import SIDE_BITS, Header, stamp

SHAPE = (16, 12, 12)
RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(16, 16)))[0]


def symbols(shape=SHAPE, seed: int = 0, dimensions: int = 5) -> torch.Tensor:
    """x [1, k] of unit power: smooth, and of few dimensions along BASIS, as codes are."""
    rng = np.random.default_rng(seed)
    frequency = 1 + np.add.outer(np.arange(shape[1]) ** 2, np.arange(shape[2]) ** 2)
    numbers = rng.laplace(size=shape) / frequency * 2.0 ** -np.arange(16)[:, None, None] * (np.arange(16) < dimensions)[:, None, None]
    x = packet.inverse_transform(numbers, BASIS)
    return x / x.abs().square().mean().sqrt()


# No bit is lost, no byte too many


def quantised() -> dict[str, np.ndarray]:
    wide = 2.0 ** RNG.uniform(-4, 12, size=(16, 1, 1))
    spike, edge = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    spike[3, 5, 7], edge[0] = -largest(SCALES - 1), largest(SCALES - 1)
    cases = {"zero": np.zeros(SHAPE, int), "spike": spike, "edge": edge, "one": np.ones((16, 1, 1), int)}
    cases |= {f"laplace {s}": np.rint(RNG.laplace(size=s) * wide).astype(int) for s in (SHAPE, (16, 1, 1), (16, 1, 7), (16, 64, 3))}
    return cases | {"uniform": RNG.integers(-300, 300, SHAPE)}


@pytest.mark.parametrize("name", quantised())
def test_entropy_code_gives_back_every_number(name):
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


def test_numbers_beyond_the_largest_scale_are_left_to_a_coarser_step():
    q = np.full((16, 1, 1), largest(SCALES - 1) + 1)
    assert packet.choose_scales(q) is None
    assert len(pack(symbols((16, 1, 2), dimensions=1), (16, 1, 2), BASIS, 2048)) <= 2048


def test_entropy_code_is_as_short_as_the_distribution_allows():
    """Laplace numbers of known scale: within 3 % of their entropy, the scales included."""
    q = np.rint(np.random.default_rng(1).laplace(size=(16, 64, 64)) * 3)  # P(0) = 1 - e^(-1/6), P(n) = e^(-n/3) sinh(1/6)
    zero, ratio = 1 - np.exp(-1 / 6), np.exp(-1 / 3)
    first = (1 - zero) * (1 - ratio) / 2
    bits = -zero * np.log2(zero) - 2 * sum(first * ratio**n * np.log2(first * ratio**n) for n in range(100))
    assert 0.99 * bits * q.size < 8 * len(entropy_encode(q.astype(int), packet.choose_scales(q.astype(int)))) < 1.03 * bits * q.size


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
        errors.append((y / (1 + noise_var) - x).abs().square().mean().item())
        assert len(data) >= 0.93 * size - 4 or data[0] == 255  # there is no finer step
    assert all(b <= 1.02 * a for a, b in zip(errors, errors[1:])) and errors[-1] < 0.01


def test_too_few_bytes_are_refused():
    for size in (0, 2, 15):
        with pytest.raises(InputError, match=f"^{size} bytes are too few for this picture; give more$"):
            pack(symbols(), SHAPE, BASIS, size)


# The receiver is told the truth


@pytest.mark.parametrize("size", [80, 150, 400, 650])
def test_noise_told_is_noise_made(size):
    """Over 20 codes: mean |y - x|^2 is what is told, and the MMSE estimate's error is its noise level."""
    made, told, error, level = [], [], [], []
    for seed in range(20):
        x = symbols(seed=seed)
        received = unpack(pack(x, SHAPE, BASIS, size), SHAPE, BASIS)
        code, noise = condition(received, 1.0, SHAPE, noise_aware=True)
        made.append((received.y - x).abs().square().mean() / received.noise_var)
        told.append(received.noise_var)
        error.append((torch.complex(*code.view(1, -1).chunk(2, 1)) - x).abs().square().mean() / noise.mean())
        level.append(noise)
        assert received.h.tolist() == [[1]] and noise.unique().numel() == 1
    assert torch.stack(made).mean().item() == pytest.approx(1, abs=0.05)
    assert torch.stack(error).mean().item() == pytest.approx(1, abs=0.02)


def test_dct_and_klt_are_orthonormal_and_undone():
    for n in (1, 2, 12, 33):
        assert np.allclose(dct(n) @ dct(n).T, np.eye(n), atol=1e-12)
    x = torch.view_as_complex(torch.randn(1, 144, 2, generator=torch.Generator().manual_seed(0)))
    numbers = packet.transform(x, (16, 3, 6), BASIS)
    assert np.square(numbers).sum() == pytest.approx(x.abs().square().sum().item(), rel=1e-5)
    assert torch.allclose(packet.inverse_transform(numbers, BASIS), x, atol=1e-6)


def test_basis_is_the_same_at_both_ends_and_fits_the_default_model():
    cascade = tiny_cascade()
    basis = make_basis(cascade.encoder)
    assert np.allclose(basis @ basis.T, np.eye(16), atol=1e-9) and np.array_equal(basis, make_basis(tiny_cascade().encoder))
    assert (np.take_along_axis(basis, np.abs(basis).argmax(axis=1, keepdims=True), axis=1) > 0).all()
    link = Link(load_model("small"))
    x, header = link.send(torch.from_numpy(photo(256, 256)).permute(2, 0, 1)[None] / 255)
    energy = np.square(packet.transform(x, header.code_shape, link.basis)).sum(axis=(1, 2))
    assert energy[:8].sum() > 0.6 * energy.sum()  # the strongest come first, on pictures that it was not made from


# Packets that were not sent


def test_random_bytes_are_no_packet_or_a_finite_one():
    for trial in range(150):
        rng = np.random.default_rng(trial)
        data = rng.bytes(int(rng.integers(0, 200))) if trial % 3 else bytes([trial, trial]) + bytes([255 * (trial % 2)]) * trial
        try:
            received = unpack(data, SHAPE, BASIS)
        except InputError as error:
            assert str(error).startswith("the packet is ") and len(str(error).splitlines()) == 1
        else:
            assert all(part.isfinite().all() for part in received)


def sent(seed: int = 0, snr_db: float = 8.0) -> tuple[bytes, Header]:
    side = Header(7, 512, 512, 0.75, 1.0, seed)
    return packet.prepare(symbols(seed=seed), side, BASIS, snr_db=snr_db)


def test_payload_fills_what_the_channel_carries_and_arrives():
    payload, header = sent()
    mcs = digital.choose(1152, 8.0)
    assert digital.TABLE[header.scheme - 1] == mcs and len(payload) == digital.plan(1152, mcs).payload_bytes
    x = on_air(payload, header)
    assert x.shape == (1, 1152)
    clean = Received(x, torch.ones(1, 1, dtype=x.dtype), torch.full((1, 1), 1e-3))
    for got, expected in zip(arrive(clean, header, BASIS), arrive(payload, header, BASIS)):
        assert torch.equal(got, expected)
    with pytest.raises(
        Lost, match=r"^the packet was lost on the channel \(its checksum fails; it was sent with [a-z0-9/ ]+\); send it again$"
    ):
        arrive(clean._replace(y=-x), header, BASIS)


def test_a_packet_with_another_header_is_refused():
    (first, header), (second, other) = sent(0), sent(1)
    for payload, side in (
        (first, other),
        (second, header),
        (first, replace(header, gain=2.0)),
        (first[:9], header),
        (first + first, header),
    ):
        with pytest.raises(InputError, match="^the packet belongs to another transmission than its header; fetch it again$"):
            arrive(payload, side, BASIS)
    with pytest.raises(InputError, match="belongs to another transmission"):  # which no checksum of the channel can tell
        arrive(Received(on_air(second, other), torch.ones(1, 1), torch.full((1, 1), 1e-3)), replace(header, scheme=other.scheme), BASIS)
    with pytest.raises(InputError, match="^the packet was made with --bytes, for no channel; send it with --snr$"):
        on_air(first, replace(header, scheme=packet.NO_CHANNEL))


def test_damaged_mixed_and_doubled_frames_of_packets_are_refused(tmp_path):
    (first, header), (second, other) = sent(0), sent(1)
    write_frame(tmp_path / "a.sem", header, first)
    write_frame(tmp_path / "b.sem", other, second)
    a, b = ((tmp_path / f"{name}.sem").read_bytes() for name in "ab")
    rng = np.random.default_rng(0)
    bad = [a + a, a + b, a[:44] + b[44:], b[:44] + a[44:], a[:44] + a[44:][::-1], a[44:] + a[:44], a[:-1], a + b"\0"]
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
    "channel", [("--snr", 9), ("--snr", 9, "--channel", "rician", "--channel-option", "k_db=30")], ids=["awgn", "rician"]
)
def test_three_programs_equal_one_run(channel, cli, tiny_model, here):
    model = ("--model", tiny_model)
    code, out, _ = cli("run", "a.png", *channel, "--mode", "digital", *model, "--steps", 2, "--seed", 3)
    row = json.loads(out)
    assert code == 0 and (row["mode"], row["lost"], row["side_bits"]) == ("digital", False, SIDE_BITS + 24)
    assert row["channel_uses"] == row["payload_uses"] == 336 and row["scheme"] == str(digital.choose(336, 9))
    assert row["payload_bytes"] == digital.plan(336, digital.choose(336, 9)).payload_bytes
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--snr", 9, *model, "--seed", 3) == (0, "", "")
    assert cli("channel", "x.sem", "-o", "y.sem", *channel, "--seed", 3) == (0, "", "")
    assert cli("receive", "y.sem", "-o", "b.png", *model, "--steps", 2)[:2] == (0, "")
    assert cli("receive", "x.sem", "-o", "c.png", *model, "--steps", 2)[:2] == (0, "")  # no bit was lost, so no channel is the same
    assert Image.open("b.png").tobytes() == Image.open("out/a.png").tobytes() == Image.open("c.png").tobytes()
    link = Link(load_model(tiny_model))
    payload, header = link.send_packet(read_image("a.png"), snr_db=9, seed=3)
    assert len(payload) == row["payload_bytes"] and stamp(header, payload) == header


def test_a_lost_packet_is_reported_as_its_mean_colour(cli, tiny_model, here):
    model = ("--model", tiny_model)
    mean = np.rint(np.asarray(Image.open("a.png")).mean(axis=(0, 1)))
    for snr, told, scheme in ((9, ("--channel", "erasure", "--channel-option", "rate=0.5"), True), (-25, (), False)):
        code, out, err = cli("run", "a.png", "--snr", snr, *told, "--mode", "digital", *model, "--steps", 2)
        row = json.loads(out)
        assert code == 0 and row["lost"] and (row["scheme"] is not None) == scheme and row["psnr_db"] > 5
        assert np.abs(np.asarray(Image.open("out/a.png")) - mean).max() <= 1
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--snr", 15, *model)[0] == 0
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 8)[0] == 0
    code, out, err = cli("receive", "y.sem", "-o", "b.png", *model)
    assert (code, out) == (2, "") and err.startswith("semcast: the packet was lost on the channel (its checksum fails; ")
    assert err.count("\n") == 1 and not (here / "b.png").exists()
    for seed in (1, 2, 3, 4, 5):  # each of them lost; together they are not
        assert cli("channel", "x.sem", "-o", f"{seed}.sem", "--snr", 9, "--seed", seed)[0] == 0
        assert cli("receive", f"{seed}.sem", "-o", "b.png", *model)[0] == 2
    assert cli("receive", *(f"{seed}.sem" for seed in (1, 2, 3, 4, 5)), "-o", "b.png", *model, "--steps", 2)[0] == 0


def test_a_packet_of_a_given_size_is_a_small_file(cli, tiny_model, here):
    model = ("--model", tiny_model)
    assert cli("send", "a.png", "-o", "x.sem", "--mode", "digital", "--bytes", 200, *model) == (0, "", "")
    assert 44 < (here / "x.sem").stat().st_size <= 44 + 200
    assert cli("receive", "x.sem", "-o", "b.png", *model, "--steps", 2)[:2] == (0, "")
    assert Image.open("b.png").size == (200, 300)
    told = "semcast: the packet was made with --bytes, for no channel; send it with --snr\n"
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 9) == (2, "", told)


def test_mistakes_are_one_line(cli, tiny_model, here):
    send = ("send", "a.png", "-o", "x.sem", "--model", tiny_model)
    either = "give either --snr or --bytes with --mode digital, and neither without: analog symbols suit any channel"
    for argv, message in (
        (("--mode", "digital"), either),
        (("--mode", "digital", "--snr", 3, "--bytes", 99), either),
        (("--snr", 3), either),
        (("--bytes", 99, "--mode", "analog"), either),
        (("--mode", "digital", "--bytes", 15), "argument --bytes: 15 must lie between 16 and 2048 (see `semcast send --help`)"),
        (("--mode", "digital", "--bytes", 2049), "argument --bytes: 2049 must lie between 16 and 2048 (see `semcast send --help`)"),
        (
            ("--mode", "digital", "--snr", -20),
            "336 channel uses at -20 dB carry 0 bytes, too few for a packet; raise --snr or send analog",
        ),
    ):
        assert cli(*send, *argv) == (2, "", f"semcast: {message}\n")
    assert not (here / "x.sem").exists()


def test_a_missing_library_is_no_loss(cli, tiny_model, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    code, out, err = cli("run", "a.png", "--snr", 9, "--mode", "digital", "--model", tiny_model)
    assert (code, out) == (2, "") and err.splitlines()[-1].startswith("semcast: this needs constriction (")
    assert err.endswith("): pip install 'semcast[phy]'\n")
