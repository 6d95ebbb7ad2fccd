"""What the learned rivals send: exact uses and power; the laws of their diffusion and of Img2Img-SC's link."""

import math

import numpy as np
import pytest
import torch
from peer_parts import send
from tiny import photo

from semcast.bench.peers import floats, img2img, noisy_latent
from semcast.bench.peers.diffusion import add_noise, alpha_bar, ddim, ddpm, matched_time
from semcast.bench.peers.symbols import as_state, from_symbols, to_symbols
from semcast.bench.systems import find_system
from semcast.channels.base import Received, ones
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.randomness import seeded

# Laws of the diffusion


def test_the_start_is_as_noisy_as_the_channel():
    assert alpha_bar(0) == 1 and alpha_bar(1) == pytest.approx(1 - 1e-4) and alpha_bar(1000) < 5e-5
    assert np.all(np.diff([alpha_bar(t) for t in range(1001)]) < 0)
    for snr_db in np.linspace(-10, 35, 19):
        snr = 10 ** (snr_db / 10)
        assert alpha_bar(matched_time(1 / snr)) == pytest.approx(snr / (1 + snr), rel=1e-9)
    assert matched_time(0) == 0 and matched_time(1e9) == 1000


@pytest.mark.parametrize("start", [1000.0, 412.7, 3.2])
@pytest.mark.parametrize("steps", [1, 30])
def test_ddim_with_a_perfect_denoiser_returns_the_latent(start, steps):
    x0, x = (torch.from_numpy(seeded(i).standard_normal((2, 4, 5, 7))) for i in (0, 1))
    perfect = lambda x, t: (x - math.sqrt(alpha_bar(t)) * x0) / math.sqrt(1 - alpha_bar(t))
    state = math.sqrt(alpha_bar(start)) * x0 + math.sqrt(1 - alpha_bar(start)) * x
    assert torch.allclose(ddim(perfect, state, start, steps), x0, atol=1e-9)
    assert torch.equal(ddim(perfect, x0, 0.0, steps), x0)


def test_ddpm_takes_all_steps_and_its_last_is_exact():
    x0, seen = torch.full((1, 4, 3, 3), 0.7), []

    def perfect(x, t):
        seen.append((t, (x - math.sqrt(alpha_bar(t)) * x0).std().item() / math.sqrt(1 - alpha_bar(t))))
        return (x - math.sqrt(alpha_bar(t)) * x0) / math.sqrt(1 - alpha_bar(t))

    start = torch.from_numpy(seeded(0).standard_normal((1, 4, 3, 3), np.float32))
    assert torch.allclose(ddpm(perfect, start, [seeded(1)]), x0, atol=1e-3)
    assert [t for t, _ in seen] == list(range(1000, 0, -1))
    assert np.mean([std for _, std in seen]) == pytest.approx(
        1, abs=0.1
    )  # 36 numbers: each state has the noise of its t


def test_noise_of_a_sketch_has_the_strength():
    for t in (200, 600):
        x = add_noise(torch.ones(1, 4, 64, 64), t, [seeded(0)])  # 16,384 numbers
        assert x.mean().item() == pytest.approx(math.sqrt(alpha_bar(t)), abs=0.03)
        assert x.std().item() == pytest.approx(math.sqrt(1 - alpha_bar(t)), rel=0.03)


@pytest.mark.parametrize("snr_db", [1.0, 10.0, 20.0])
def test_what_is_received_is_a_state_of_the_diffusion(snr_db):
    z = torch.from_numpy(seeded(2).standard_normal((1, 8, 60, 60), np.float32))
    x, gain = to_symbols(z)
    received = awgn(x, snr_db, [seeded(3)])
    estimate, noise_var = from_symbols(received, (8, 60, 60))
    assert np.mean(np.abs(x) ** 2) == pytest.approx(1, abs=1e-5) and gain == pytest.approx(1, abs=0.02)
    assert noise_var == pytest.approx(10 ** (-snr_db / 10), rel=1e-4)
    abar = alpha_bar(matched_time(noise_var))
    rest = as_state(estimate, noise_var) - math.sqrt(abar) * gain * z
    assert rest.var().item() == pytest.approx(1 - abar, rel=0.05)  # 28,800 numbers
    assert abs((rest * z).mean().item()) < 4 * math.sqrt((1 - abar) / z.numel())
    lost = received._replace(noise_var=np.where(np.arange(x.shape[1]) % 2, received.noise_var, np.inf))
    kept = 1 / (1 + from_symbols(lost, (8, 60, 60))[1])
    assert kept == pytest.approx(0.5 / (1 + noise_var), rel=1e-3)


# Uses, power and side information


@pytest.mark.parametrize(
    "name, uses, side_bits",
    [
        ("img2img", 1152, 48),
        ("diffsc", 1152, 32),
        ("casc", 1152, 32),
        ("diffsc-published", 4096, 32),
        ("casc-published", 4096, 32),
        ("img2img-published", 262_144, 32),
        ("gesco-published", 13 * 512 * 512 // 2, 60),
    ],
)
def test_uses_are_exact_and_power_is_one(peers, name, uses, side_bits):
    x, _, facts = send(name, photo(512, 512), 1152)
    assert x.shape == (1, uses) and facts["payload_uses"] == uses and facts["side_bits"] == side_bits
    tolerance = 0.005 if name == "img2img-published" else 1e-3  # QAM: 5 standard errors
    assert facts["power"] == pytest.approx(1, abs=tolerance)


def test_uses_of_whole_street_scenes(peers):
    pixels = photo(360, 480)
    counts = {name: send(name, pixels, 864)[0].shape[1] for name in ("img2img", "diffsc", "casc", "diffsc-published")}
    assert counts == {"img2img": 864, "diffsc": 810, "casc": 810, "diffsc-published": 2760}
    assert send("img2img-published", pixels, 864)[0].shape[1] == 172_800
    assert send("gesco-published", pixels, 864)[0].shape[1] == 1_123_200


def test_the_receivers_find_the_senders_grids():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(64, 700, (200, 2)).tolist():
        uses = int(rng.integers(20, 3 * height * width // 300))
        rows, columns = img2img.grid(*img2img.cells(height, width), uses // 2)
        assert 2 * rows * columns <= uses and img2img.grid(*img2img.cells(height, width), rows * columns) == (
            rows,
            columns,
        )
        for latents in ("ae16", "ae32"):
            channels = noisy_latent.shape_of(latents)[0]
            found = noisy_latent.latent_grid(height, width, uses, latents)
            k = -(-channels * found[0] * found[1] // 2)
            assert k <= uses and noisy_latent.latent_grid(height, width, k, latents) == found
    with pytest.raises(InputError, match="4 channel uses are too few for a latent of 9 channels"):
        noisy_latent.latent_grid(64, 64, 4, "ae32")


def test_a_budget_that_a_picture_does_not_fill_is_left(peers):
    x, side, _ = send("img2img", photo(96, 128), 10_000)
    assert x.shape[1] == 12 * 16 * 4 // 2  # the whole latent, which is then not shrunk
    assert find_system("img2img").receive(awgn(x, 10.0, [seeded(0)]), side).shape == (96, 128, 3)


# The published link of Img2Img-SC


def q(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


@pytest.mark.parametrize("snr_db", [3.0, 8.0, 12.0, 15.0])
def test_bits_flip_as_the_theory_of_gray_16qam_says(snr_db):
    numbers = seeded(0).standard_normal(5000)
    bits = lambda values: np.unpackbits(np.frombuffer(values.astype(">f8").tobytes(), np.uint8))
    found = floats.receive_floats(awgn(floats.send_floats(numbers), snr_db, [seeded(1)]))
    wrong = np.mean(bits(numbers) != bits(found))
    d = math.sqrt(10 ** (snr_db / 10) / 5)
    expected = (3 * q(d) + 2 * q(3 * d) - q(5 * d)) / 4
    assert wrong == pytest.approx(expected, abs=5 * math.sqrt(expected / 320_000))  # 320,000 bits


def test_floats_arrive_whole_without_noise():
    numbers = np.array([0.0, -0.0, 1.5, -3.25e-7, math.pi, 1e300, -10.0])
    x = floats.send_floats(numbers)
    assert x.shape == (1, 16 * 7)
    found = floats.receive_floats(Received(x, ones(x), np.zeros((1, 1))))
    assert found.tobytes() == numbers.tobytes()
    power = np.mean(np.abs(floats.send_floats(np.zeros(20_000))) ** 2)
    assert power == pytest.approx(1, abs=0.01)  # the pattern makes even constant numbers use all points


def test_what_cannot_be_right_becomes_noise():
    numbers = np.array([1.0, np.nan, 10.5, -11.0, 0.009, -0.0, -10.0, 0.01, np.inf, -2.0])
    fixed = floats.repair(numbers, seeded(0))
    kept = np.array([1, 0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    assert np.array_equal(fixed[kept], numbers[kept])
    assert np.array_equal(fixed[~kept], seeded(0).standard_normal(10)[~kept])
    many = floats.repair(np.full(20_000, np.nan), seeded(1))
    assert abs(many.mean()) < 0.03 and many.std() == pytest.approx(1, abs=0.03)
