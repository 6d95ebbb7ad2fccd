"""Combining: the SNRs of copies add up, lost symbols add nothing, and no reception is counted twice."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_channel import gaussian, mean_near, seeded
from tiny import photo

from semcast import Link, combine, load_model, read_image
from semcast.channels.base import Received
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.frame import read_frame, read_frames, write_frame
from semcast.images import to_pixels
from semcast.modulation.analog import demodulate


def copies(
    x: torch.Tensor, count: int, name: str = "awgn", snr_db: float = 3.0, seed: int = 1, **options
) -> list[Received]:
    return [
        find_channel(name)(x, snr_db, seeded(*range(100 * i, 100 * i + len(x))), **options)
        for i in range(seed, seed + count)
    ]


def snr(received: Received) -> torch.Tensor:
    return (received.h.abs().square() / received.noise_var).expand(received.y.shape)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_copies_over_awgn_add_their_snr(count):
    x = gaussian(2, 20_000)
    y, h, noise_var = combine(copies(x, count))
    assert torch.allclose(noise_var, torch.full((2, 1), 10**-0.3 / count)) and (h == 1).all()
    assert mean_near((y - x).abs().square().flatten().double(), 10**-0.3 / count)


@pytest.mark.parametrize(
    "name, options",
    [("rayleigh", {}), ("rayleigh-fast", {}), ("rician", {"k_db": 3}), ("impulsive", {"known": "symbol"})],
)
def test_every_symbol_has_the_sum_of_its_snrs(name, options):
    x = gaussian(2, 20_000)
    received = copies(x, 3, name, **options) + copies(x, 1, snr_db=-2.0, seed=9)
    combined = combine(received)
    assert torch.allclose(snr(combined), sum(map(snr, received)), rtol=1e-4)
    y, _, noise_var = combined
    assert mean_near(((y - x).abs().square() / noise_var).flatten().double(), 1.0)  # as stated


def test_the_order_of_copies_does_not_matter_and_a_single_copy_is_returned_as_it_is():
    received = copies(gaussian(1, 100), 3, "rayleigh-fast")
    for one, other in zip(combine(received), combine(received[::-1])):
        assert torch.allclose(one, other, rtol=1e-5)
    assert combine(received[:1]) is received[0]


def test_erased_symbols_add_nothing_and_stay_erased_if_all_are():
    x = gaussian(1, 2000)
    first, second, clean = *copies(x, 2, "erasure", rate=0.5), copies(x, 3)[2]
    y, _, noise_var = combine([first, second])
    lost = first.noise_var.isinf().int() + second.noise_var.isinf().int()
    assert {0, 1, 2} == set(lost[0].tolist())
    assert torch.allclose(noise_var[lost < 2], 10**-0.3 / (2 - lost[lost < 2]), rtol=1e-5)
    assert noise_var[lost == 2].isinf().all() and not y[lost == 2].any()
    only = first.noise_var.isfinite() & second.noise_var.isinf()
    assert torch.allclose(y[only], first.y[only], rtol=1e-5)
    assert combine([first, second, clean]).noise_var.isfinite().all()
    z, noise = demodulate(combine([first, second]), 1.0, (16, 10, 25), noise_aware=True)
    assert z.isfinite().all() and noise.max() == 1
    gone = Received(torch.zeros_like(x), torch.ones(1, 1, dtype=x.dtype), torch.full((1, 1), math.inf))
    assert combine([gone, gone]).noise_var.isinf().all() and not combine([gone, gone]).y.any()


def test_noiseless_symbols_are_not_averaged_with_noisy_ones():
    x = gaussian(1, 4)
    h = torch.tensor([[2j, 0, 1e-30, 1]])
    exact = Received(h * x, h, torch.tensor([[0.0, 0.0, 0.5, 0.25]]))
    other = Received(x + 1, torch.ones(1, 1, dtype=x.dtype), torch.tensor([[1.0]]))
    y, _, noise_var = combine([exact, other])
    assert torch.allclose(noise_var, torch.tensor([[0.0, 1.0, 1.0, 0.2]])) and y.isfinite().all()
    assert torch.allclose(y - x, torch.tensor([[0.0, 1.0, 1.0, 0.2]]) + 0j, atol=1e-6)
    nothing = combine([Received(h * x, 0 * h, torch.zeros(1, 1)), other._replace(noise_var=torch.tensor([[math.inf]]))])
    assert nothing.noise_var.isinf().all() and not nothing.y.any()


def test_what_cannot_be_combined_is_refused():
    first, second = copies(gaussian(1, 24), 2)
    for receptions, message in (
        ([], "no reception to combine; give one at least"),
        (
            [first, Received(*copies(gaussian(1, 12), 1)[0])],
            "reception 1 has 24 symbols and reception 2 12; combine receptions of one picture",
        ),
        (
            [first, second, first],
            "reception 1 and reception 3 are the same reception, which counts once; leave one out",
        ),
    ):
        with pytest.raises(InputError) as error:
            combine(receptions)
        assert str(error.value) == message


def test_the_command_line_combines_receptions_and_refuses_those_of_different_transmissions(
    cli, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = ("--model", tiny_model)
    for i in (0, 1):
        Image.fromarray(photo(131, 200, seed=i)).save(f"{i}.png")
        assert cli("send", f"{i}.png", "-o", f"{i}.sem", *model)[0] == 0
    for name, sent, seed, channel in (
        ("a", 0, 1, "awgn"),
        ("b", 0, 2, "rayleigh-fast"),
        ("c", 0, 3, "erasure"),
        ("other", 1, 1, "awgn"),
    ):
        options = ("--snr", 2, "--seed", seed, "--channel", channel)
        assert cli("channel", f"{sent}.sem", "-o", f"{name}.sem", *options) == (0, "", "")
    assert cli("receive", "a.sem", "b.sem", "c.sem", "-o", "out.png", *model, "--steps", 2)[:2] == (0, "")
    link = Link(load_model(tiny_model))
    header, x = link.send(read_image("0.png"))
    parts = [
        Link(link.engine, name).propagate(x, 2, seed)
        for name, seed in (("awgn", 1), ("rayleigh-fast", 2), ("erasure", 3))
    ]
    assert np.array_equal(np.asarray(Image.open("out.png")), to_pixels(link.receive(combine(parts), header, steps=2)))
    # The same picture size and symbols, but another gain or id: different pictures differ in one of them at least.
    write_frame(tmp_path / "gain.sem", replace(header, gain=header.gain * (1 + 2**-10)), parts[1])
    write_frame(tmp_path / "id.sem", replace(header, transmission_id=header.transmission_id ^ 1), parts[1])
    cli("send", "0.png", "-o", "packet.sem", *model, "--mode", "digital", "--bytes", 60)
    receive = ("-o", "new.png", *model)
    for files, message in (
        (
            ("a.sem", "b.sem", "other.sem"),
            "a.sem and other.sem are of different transmissions; combine receptions of one",
        ),
        (("a.sem", "gain.sem"), "a.sem and gain.sem are of different transmissions; combine receptions of one"),
        (("a.sem", "id.sem"), "a.sem and id.sem are of different transmissions; combine receptions of one"),
        (("a.sem", "b.sem", "a.sem"), "a.sem and a.sem are the same reception, which counts once; leave one out"),
        (("0.sem", "0.sem"), "0.sem and 0.sem are the same reception, which counts once; leave one out"),
        (
            ("packet.sem", "packet.sem"),
            "packet.sem and packet.sem: a packet that never met a channel is complete; receive it alone",
        ),
    ):
        assert cli("receive", *files, *receive) == (2, "", f"semcast: {message}\n")
        assert not (tmp_path / "new.png").exists()


def test_combining_with_the_sent_frame_leaves_no_noise(tmp_path):
    from test_frame import HEADERS, sent

    for name, signal in (("x", sent()), ("y", copies(sent(), 1)[0])):
        write_frame(tmp_path / f"{name}.sem", HEADERS["sent"], signal)
    ((combined, header),) = read_frames([tmp_path / "y.sem", tmp_path / "x.sem"])
    assert np.array_equal(combined.y, sent()) and not combined.noise_var.any()
    assert header == read_frame(tmp_path / "x.sem")[0]


def test_only_receptions_with_the_same_noise_are_refused():
    x = torch.randn(1, 600, dtype=torch.complex64, generator=torch.Generator().manual_seed(9))
    noisy = lambda snr_db, seed: find_channel("awgn")(x, snr_db, seeded(seed))
    for other in (9.9, 9.0, 8.0):
        with pytest.raises(InputError, match="carry the same noise, so they add nothing; simulate with another --seed"):
            combine([noisy(10.0, 1), noisy(other, 1)])
    for other in (10.0, 0.0, -10.0):
        combine([noisy(10.0, 1), noisy(other, 2)])
