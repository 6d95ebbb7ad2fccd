"""The denoiser: Stage B with what it knows about a reception. Written once for every engine and for training."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..arrays import Array, array_namespace
from .config import PATCH, ModelConfig
from .diffusion import guide, network_time, scales, x0_and_eps


class StageBCalls(Protocol):
    """What the denoiser needs of a model: an engine with numpy arrays, or in training a `Cascade` with torch tensors."""

    config: ModelConfig

    def map_z(self, z: Array, noise: Array | None, size: tuple[int, int]) -> Any:
        """Z [B, 16, hz, wz] and how much noisier than the mean each number is -> Z's part of Stage B's input."""
        ...

    def step(self, x: Array, r: Array, mapped: Any, sca: Array | None) -> Array:
        """x [B, 4, h, w], network time r [B], mean noise sca [B] -> the network's output [B, 4, h, w], float32."""
        ...


class Condition(NamedTuple):
    """What Stage B knows about a reception, made by `prepare` once for all steps."""

    mapped: Any  # from `map_z`
    unguided: Any | None  # the same for a Z of zeros; None without guidance
    sca: Array | None  # [B], mean noise; None for a model that is not noise-aware


def prepare(model: StageBCalls, z: Array, noise: Array, latent_size: Sequence[int], guided: bool = True) -> Condition:
    """Compute what Stage B needs to know about a reception.

    Args:
        z: [B, 16, hz, wz], the estimate from `modulation.analog.demodulate`.
        noise: [B, 16, hz, wz] in [0, 1], from the same; ignored unless the model is noise-aware. The network gets its
            mean as `sca` and the difference from the mean as a map, which is zero where all symbols are equally noisy
            (AWGN).
        latent_size: (h, w) of the latent to be sampled.
        guided: whether to prepare the second pass per step, with a Z of zeros, that a guidance scale other than 1 needs.
    """
    xp = array_namespace(z)
    sca = xp.mean(noise, axis=(1, 2, 3)) if model.config.noise_aware else None
    spread = noise - sca[:, None, None, None] if sca is not None else None
    height, width = latent_size
    size = height // PATCH, width // PATCH
    mapped = model.map_z(z, spread, size)
    unguided = model.map_z(z * 0, spread, size) if guided and model.config.guidance != 1.0 else None
    return Condition(mapped, unguided, sca)


def denoise(model: StageBCalls, x: Array, t: Array, condition: Condition) -> tuple[Array, Array]:
    """Evaluate the denoiser once: x [B, 4, h, w], t [B] -> (x0, eps) in float32.

    A network that predicts x0 is shown a(t) x, so that an x of mostly noise has little weight; at t = 1 it is a plain
    decoder of Z. Shown x itself, our network had learnt no colours after 250 steps.
    """
    r = network_time(t)
    shown = x * scales(t)[0] if model.config.prediction == "x0" else x
    output = model.step(shown, r, condition.mapped, condition.sca)
    if condition.unguided is not None:
        unguided = model.step(shown, r, condition.unguided, condition.sca)
        output = guide(output, unguided, model.config.guidance)
    return x0_and_eps(output, x, t, model.config.prediction)
