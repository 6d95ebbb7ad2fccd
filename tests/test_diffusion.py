"""Schedule and samplers against closed forms, and against diffusers' DDPMWuerstchenScheduler."""

import math

import numpy as np
import pytest
import torch
from test_channel import seeded

from semcast.cascade.diffusion import add_noise, alpha_bar, guide, network_time, sample, step_to, x0_and_eps
from semcast.randomness import draw_noise

# abar at t = 1, 0.9 .. 0
TEN_STEPS = (1e-4, 0.0241, 0.0940, 0.2031, 0.3408, 0.4938, 0.6475, 0.7869, 0.8987, 0.9721, 0.9999)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(t: float) -> float:
    """abar(t), Nichol & Dhariwal (2021), equation 17, with Stable Cascade's clamps."""
    f = [math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 for u in (t, 0.0)]
    return min(max(f[0] / f[1], 1e-4), 0.9999)


def perfect(x0: torch.Tensor, seen: list | None = None):
    """A denoiser that knows the answer; notes what it was shown."""

    def denoiser(x, t):
        if seen is not None:
            seen.append((x, t))
        return x0_and_eps(x0, x, t, "x0")

    return denoiser


def linear(x, t):
    """The exact denoiser of unit Gaussian data: E[x0 | x_t] = a x_t."""
    return x0_and_eps(x * alpha_bar(t).sqrt().float()[:, None, None, None], x, t, "x0")


def test_alpha_bar_is_the_clamped_cosine():
    t = torch.linspace(0, 1, 101)
    expected = torch.tensor([cosine(v) for v in t.double().tolist()], dtype=torch.float64)
    assert torch.allclose(alpha_bar(t), expected, rtol=1e-6, atol=0)
    assert alpha_bar(torch.tensor([0.0, 1.0])).tolist() == [0.9999, 1e-4]
    ten = alpha_bar(torch.linspace(1, 0, 11, dtype=torch.float64))
    assert ten.tolist() == pytest.approx(TEN_STEPS, abs=5e-5)


def test_network_time_is_the_time_except_at_the_clamped_ends():
    ends = network_time(torch.tensor([1.0, 0.0])).tolist()
    assert ends == pytest.approx([0.99358, 0.00226], abs=5e-6)
    between = torch.linspace(0.01, 0.99, 99)
    assert (network_time(between) - between).abs().max() < 1e-6
    assert network_time(between).dtype == torch.float32


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_x0_and_eps_undo_add_noise(prediction):
    x0, eps, t = normal(5, 4, 6, 6, seed=0), normal(5, 4, 6, 6, seed=1), torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])
    x = add_noise(x0, t, eps)
    for i, abar in enumerate(map(cosine, t.tolist())):
        assert torch.allclose(x[i], math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * eps[i], atol=1e-6)
    found = x0_and_eps(eps if prediction == "epsilon" else x0, x, t, prediction)
    # Undoing divides float32 rounding, about 3e-7 here, by a or b, and both are 0.01 at one end.
    for ours, true in zip(found, (x0, eps)):
        assert (ours - true).abs().max() < 1e-4


def test_ddpm_steps_are_those_of_diffusers(monkeypatch):
    name = "diffusers.schedulers.scheduling_ddpm_wuerstchen"
    module = pytest.importorskip(name, reason="parity needs the [dev] extra")
    scheduler = module.DDPMWuerstchenScheduler()
    scheduler.set_timesteps(10)
    times = scheduler.timesteps
    assert len(times) == 11
    x, eps, noise = (normal(2, 4, 5, 5, seed=s) for s in (2, 3, 4))
    for t, s in zip(times[:-2], times[1:-1]):  # ours returns x0 where theirs steps to t = 0
        x0, _ = x0_and_eps(eps, x, t.expand(2), "epsilon")
        for drawn in (torch.zeros_like(x), noise):  # the mean, then the mean and sigma times the noise
            monkeypatch.setattr(module, "randn_tensor", lambda *args, drawn=drawn, **options: drawn)
            theirs = scheduler.step(eps, t.expand(2), x).prev_sample
            ours = step_to(x0, eps, t, s, drawn, eta=1.0)
            # The first step divides by a = 0.01, so float32 rounding grows to 1e-4.
            assert (ours - theirs).abs().max() < (5e-4 if t == 1 else 1e-5)


def test_injected_noise_has_the_posterior_deviation():
    """sigma^2 = (1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s), Song et al. (2021), equation 16 with eta 1."""
    times = torch.linspace(1, 0, 11, dtype=torch.float64)
    zero, one = torch.zeros(1), torch.ones(1)
    sigma = [step_to(zero, zero, t, s, one, eta=1.0).item() for t, s in zip(times, times[1:])]
    abar = [cosine(t) for t in times.tolist()]
    expected = [math.sqrt((1 - s) / (1 - t) * (1 - t / s)) for t, s in zip(abar, abar[1:])]
    assert sigma == pytest.approx(expected, rel=1e-6)
    assert [round(v, 3) for v in (*sigma[:2], *sigma[-2:])] == [0.986, 0.831, 0.144, 0.010]


def test_eta_zero_is_ddim_and_draws_nothing():
    x0, eps, t, s = normal(1, 4, 3, 3, seed=0), normal(1, 4, 3, 3, seed=1), torch.tensor(0.7), torch.tensor(0.4)
    expected = math.sqrt(cosine(0.4)) * x0 + math.sqrt(1 - cosine(0.4)) * eps  # Song et al. (2021), equation 12
    assert torch.allclose(step_to(x0, eps, t, s, None, eta=0.0), expected, atol=1e-6)
    x, used = normal(1, 4, 3, 3, seed=2), seeded(0)
    first = sample(linear, x, 5, used, eta=0.0)
    assert torch.equal(first, sample(linear, x, 5, seeded(9), eta=0.0))
    assert not torch.equal(first, sample(linear, x, 5, seeded(0), eta=1.0))
    assert used[0].random() == seeded(0)[0].random()


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_perfect_denoiser_gets_its_x0_back(steps, eta):
    x0, seen, ticks = normal(2, 4, 32, 32, seed=0), [], []
    result = sample(perfect(x0, seen), draw_noise(x0, seeded(1, 2)), steps, seeded(3, 4), eta, ticks.append)
    assert torch.equal(result, x0)
    assert ticks == list(range(1, steps + 1))
    assert [t.tolist() for _, t in seen] == [pytest.approx([1 - i / steps] * 2) for i in range(steps)]
    for x, t in seen[1:]:  # on the way x_t keeps the forward law: a x0 + b N(0, 1)
        a, b = math.sqrt(cosine(t[0].item())), math.sqrt(1 - cosine(t[0].item()))
        rest = (x - a * x0) / b
        count = rest.numel()
        assert abs(rest.mean().item()) < 5 / math.sqrt(count)
        assert rest.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / count))


@pytest.mark.parametrize("steps, eta", [(1, 1.0), (4, 1.0), (10, 1.0), (10, 0.0), (10, 0.5), (200, 1.0)])
def test_variance_of_gaussian_data_follows_the_recursion(steps, eta):
    """x0 = a x and eps = b x make a step linear: v_s = (a_s a_t + b_t sqrt(b_s^2 - sigma^2))^2 v_t + sigma^2."""
    abar, v = [cosine(1 - i / steps) for i in range(steps)], 1.0
    for t, s in zip(abar, abar[1:]):
        sigma = eta * math.sqrt((1 - s) / (1 - t) * (1 - t / s))
        v = (math.sqrt(s * t) + math.sqrt((1 - t) * (1 - s - sigma**2))) ** 2 * v + sigma**2
    v *= abar[-1]
    x = torch.empty(2, 4, 64, 64)
    generators = seeded(0, 1)
    result = sample(linear, draw_noise(x, generators), steps, generators, eta)
    count = result.numel()
    assert result.var().item() == pytest.approx(v, rel=5 * math.sqrt(2 / count))
    assert abs(result.mean().item()) < 5 * math.sqrt(v / count)
    # The variance of the data is 1, of which N equal steps in angle lose pi^2 / (2 N).
    assert 0 < 1 - v < math.pi**2 / 2 / steps


def test_sampling_stopped_and_continued_gives_the_same_result():
    x = draw_noise(torch.empty(2, 4, 8, 8), seeded(0, 1))
    whole = sample(linear, x, 6, seeded(2, 3))
    times = torch.from_numpy(np.linspace(1, 0, 7))
    for stop in (0, 1, 4, 5):
        generators = seeded(2, 3)
        state, t = sample(linear, x, 6, generators, stop=stop)
        assert t.tolist() == [times[stop].item()] * 2
        for i in range(stop, 6):
            x0, eps = linear(state, times[i].expand(2))
            if i < 5:
                state = step_to(x0, eps, times[i], times[i + 1], draw_noise(state, generators), eta=1.0)
        assert torch.equal(x0, whole)


def test_guidance_is_rescaled_for_each_image_by_its_own_deviation():
    cond, uncond = normal(3, 4, 6, 6, seed=0), normal(3, 4, 6, 6, seed=1)
    cond *= torch.tensor([1.0, 5.0, 0.2])[:, None, None, None]
    assert torch.allclose(guide(cond, uncond, 1.0), cond, atol=1e-5)
    for i in range(3):
        pred = uncond[i] + 1.7 * (cond[i] - uncond[i])
        expected = 0.7 * pred * cond[i].std() / pred.std() + 0.3 * pred  # gdf's cfg_rho
        assert torch.allclose(guide(cond, uncond, 1.7)[i], expected, atol=1e-5)
        assert torch.allclose(guide(cond[i : i + 1], uncond[i : i + 1], 1.7)[0], expected, atol=1e-5)
    plain = uncond + 1.7 * (cond - uncond)
    assert torch.allclose(guide(cond, uncond, 1.7, rescale=0.0), plain, atol=1e-5)


def test_noise_of_an_image_does_not_depend_on_its_batch():
    like = torch.empty(4, 4, 6, 5)
    together = draw_noise(like, seeded(0, 1, 2, 3))
    alone = torch.cat([draw_noise(like[:1], seeded(i)) for i in range(4)])
    assert together.shape == like.shape and torch.equal(together, alone)
    sampled = sample(linear, together, 5, seeded(4, 5, 6, 7))
    singly = torch.cat([sample(linear, alone[i : i + 1], 5, seeded(4 + i)) for i in range(4)])
    assert torch.equal(sampled, singly)
