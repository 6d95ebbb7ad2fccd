"""How a rival's network is trained: for minutes or for steps, with a checkpoint from which it goes on.

Minutes on a CPU are of processor time, all threads together; on a GPU they are minutes of the clock.

AdamW, gradients of norm 1 at most, a learning rate that rises for 50 steps and falls to 0 as half a cosine, and an
exponential moving average of the weights, which is what is kept. A step's data depend only on the seed and the step.

The curve has a point for every fortieth of the run. A run has flattened if the loss fell by less than 1 % over its last
fifth: from the mean of the last tenth but one to the mean of the last.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from ...errors import InputError
from ...files import load_tensors, write_bytes
from .parts import read_metadata

EMA, WARMUP_STEPS, WEIGHT_DECAY = 0.999, 50, 1e-2
SAVE_EVERY_S = 60.0
POINTS = 40  # of the curve
FLAT_BELOW = 0.01  # fall of the loss over the last fifth of the run


@dataclass
class Progress:
    """Where a run is."""

    step: int = 0
    seconds: float = 0.0  # by `clock_of`, spent on steps, over all its sessions
    losses: list[float] = field(default_factory=list)  # of the last 100 steps
    first: list[float] = field(default_factory=list)  # of the first 10
    curve: list[list[float]] = field(default_factory=list)  # [step, seconds, mean loss since the point before]
    since: list[float] = field(default_factory=list)  # losses since the last point of the curve

    @property
    def loss(self) -> float:
        return sum(self.losses) / max(len(self.losses), 1)

    def add(self, loss: float, seconds: float, share: Callable[[], float]) -> None:
        """Count a step; share() says how much of the run is over, 0 to 1."""
        self.losses = [*self.losses[-99:], loss]
        self.first = self.first if self.step >= 10 else [*self.first, loss]
        self.step += 1
        self.seconds += seconds
        self.since.append(loss)
        if share() >= (len(self.curve) + 1) / POINTS:
            self.curve.append([self.step, round(self.seconds, 1), round(sum(self.since) / len(self.since), 6)])
            self.since = []


def fall(curve: list[list[float]]) -> float | None:
    """By what share the loss fell over the last fifth of a run; None for a run too short to say."""
    if len(curve) < POINTS:
        return None
    tenth = POINTS // 10
    mean = lambda points: sum(loss for *_, loss in points) / len(points)
    return 1 - mean(curve[-tenth:]) / mean(curve[-2 * tenth : -tenth])


def flattened(curve: list[list[float]]) -> bool | None:
    """Whether the loss had stopped falling; None for a run too short to say."""
    found = fall(curve)
    return None if found is None else found < FLAT_BELOW


def clock_of(device: str) -> Callable[[], float]:
    """The seconds by which a run is measured: the processor's own on a CPU, so that other work takes nothing from it."""
    return time.process_time if device == "cpu" else time.monotonic


def learn(
    network: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    checkpoint: Path,
    *,
    lr: float,
    key: dict,
    steps: int | None = None,
    minutes: float | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    title: str = "",
) -> tuple[Progress, bool]:
    """Train until the end, or until `stop(step)`; a checkpoint is then left, and the next call goes on from it.

    Args:
        network: on its device; afterwards it has the averaged weights if the training has ended.
        loss: (network, step) -> scalar.
        key: what must be the same to go on: part, seed, data ...
        steps, minutes: one of them; the other None.
    Returns:
        (progress, whether it has ended).
    Raises:
        InputError: the checkpoint is of another run, or damaged.
    """
    network.train()
    weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(weights.values(), lr, weight_decay=WEIGHT_DECAY)
    average = {name: p.detach().clone() for name, p in weights.items()}
    progress = _resume(checkpoint, key, weights, average, optimiser) if checkpoint.exists() else Progress()
    clock = clock_of(next(iter(weights.values())).device.type)
    length, unit = (steps, "step") if steps else (round(60 * (minutes or 0)), "s")
    share = lambda: min(1.0, progress.step / steps if steps else progress.seconds / (60 * (minutes or 1e-9)))
    saved = time.monotonic()
    with tqdm(total=length, initial=round(share() * length), desc=title, unit=unit, disable=None) as bar:
        while share() < 1:
            if stop(progress.step):
                _save(checkpoint, key, progress, weights, average, optimiser)
                return progress, False
            start = clock()
            rate = lr * min(1, (progress.step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * share()))
            for group in optimiser.param_groups:
                group["lr"] = rate
            value = loss(network, progress.step)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimiser.step()
            kept = min(EMA, (1 + progress.step) / (10 + progress.step))  # the first steps are soon forgotten
            for name, p in weights.items():
                average[name].lerp_(p.detach(), 1 - kept)
            progress.add(value.item(), clock() - start, share)
            bar.update(round(share() * length) - bar.n)
            bar.set_postfix(step=progress.step, loss=f"{progress.loss:.4f}", refresh=False)
            if time.monotonic() - saved > SAVE_EVERY_S:
                _save(checkpoint, key, progress, weights, average, optimiser)
                saved = time.monotonic()
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(average[name])
    network.eval()
    return progress, True


def _save(path: Path, key: dict, progress: Progress, weights: dict, average: dict, optimiser) -> None:
    tensors = {f"weights.{name}": p.detach() for name, p in weights.items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, p in weights.items():
        tensors |= {f"optimiser.{name}|{k}": v for k, v in optimiser.state.get(p, {}).items()}
    record = {"key": key, **asdict(progress)}
    write_bytes(path, save({k: v.cpu().contiguous() for k, v in tensors.items()}, {"state": json.dumps(record)}))


def _resume(path: Path, key: dict, weights: dict, average: dict, optimiser) -> Progress:
    tensors = load_tensors(path)
    try:
        record = json.loads(read_metadata(path)["state"])
        if changed := [name for name in key if record["key"].get(name) != key[name]]:
            raise InputError(
                f"{path} is of a run with another {', '.join(changed)}; delete it, or choose another --out"
            )
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(tensors[f"weights.{name}"])
                average[name].copy_(tensors[f"average.{name}"])
                start = f"optimiser.{name}|"
                state = {k.removeprefix(start): v.clone() for k, v in tensors.items() if k.startswith(start)}
                optimiser.state[p] = {k: v.to(p.device) if v.ndim else v for k, v in state.items()}
        return Progress(**{part.name: record[part.name] for part in fields(Progress)})
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it to start again") from None
