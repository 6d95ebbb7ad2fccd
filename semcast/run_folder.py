"""A training run on disk, so that it can be watched, stopped and resumed.

    config.json    settings, model, command, number of pictures
    log.jsonl      one row a step; tensorboard/ holds the same where tensorboard is installed
    samples/       pictures as the model of that moment receives them
    last/          the checkpoint to resume from: state.json and the tensors of `State`
    model/         what was trained, to use

A kill leaves config.json, last/ and the files of model/ whole; the log may end in a torn line.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .cascade.checkpoint import load_tensors, save_tensors, write_text
from .cascade.model import Cascade
from .critic import Critic
from .errors import InputError
from .losses import PHASES
from .presets import TrainConfig

FREE = ("recompute", "compile", "save_every", "sample_every")  # settings that may change between a run and its resumption


@dataclass
class State:
    """What a step changes, and what a resumed run must find as it was."""

    config: TrainConfig
    cascade: Cascade
    parameters: dict[str, Tensor]  # those that learn, by name: "stage_b.clf.1.weight"
    optimiser: torch.optim.Optimizer
    ema: dict[str, Tensor]  # running means of what learns, by name; empty where the last weights are the model
    buckets: Tensor  # [BUCKETS] of the adaptive weight
    frozen: dict[str, str]  # fingerprints of the networks that do not learn
    critic: Critic | None = None  # of adversarial training

    @property
    def learning(self) -> tuple[str, ...]:
        """The networks that learn."""
        return PHASES[self.config.phase][1]

    def learnt(self) -> dict[str, Tensor]:
        """Weights of all that learns, the critic's too."""
        own = {k: v for k, v in self.cascade.state_dict().items() if k.split(".")[0] in self.learning}
        return own | ({f"critic.{k}": v for k, v in self.critic.state_dict().items()} if self.critic else {})


def repair(folder: Path) -> None:
    """Undo an interruption between the two renames of `save`."""
    last, old = folder / "last", folder / "last.old"
    if not last.exists() and old.exists():
        old.rename(last)


def claim(folder: Path, resume: bool) -> bool:
    """Make the folder. Returns whether it holds a checkpoint to go on from.

    Raises:
        InputError: it holds one, and `resume` is False.
    """
    found = (folder / "last").exists()
    if found and not resume:
        raise InputError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    return found


def save(folder: Path, state: State, done: int) -> None:
    """The checkpoint after `done` steps.

    Write a new folder, then swap: an interrupt leaves the old checkpoint or the new one, never half of each.
    """
    last, partial, old = folder / "last", folder / "last.partial", folder / "last.old"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    moments = {}
    for name, p in state.parameters.items():
        found = {k: torch.as_tensor(v) for k, v in state.optimiser.state[p].items()}
        moments |= {f"{name}|{k}": v.clone() if k.startswith("qmap") else v for k, v in found.items()}  # parameters share a qmap
    learnt = {k: v.clone() for k, v in state.learnt().items()}
    save_tensors(learnt, partial / "network.safetensors")
    save_tensors(state.ema, partial / "ema.safetensors")
    save_tensors(moments | {"buckets": state.buckets}, partial / "optimiser.safetensors")
    record = {"step": done, "config": asdict(state.config), "frozen": state.frozen}
    write_text(partial / "state.json", json.dumps(record) + "\n")
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        last.rename(old)
    partial.rename(last)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, state: State) -> int:
    """Fill `state` from the checkpoint; returns the steps done.

    Raises:
        InputError: it is of other settings, of another model, or damaged.
    """
    try:
        return fill(folder, state)
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the checkpoint {folder / 'last'} is damaged ({reason}); start again with another --out") from None


def fill(folder: Path, state: State) -> int:
    last = folder / "last"
    record = json.loads((last / "state.json").read_text())
    if changed := [k for k, v in asdict(state.config).items() if k not in FREE and record["config"].get(k) != v]:
        raise InputError(f"{folder} was run with other settings ({', '.join(changed)}); resume with the same ones")
    if changed := [name for name, value in state.frozen.items() if record["frozen"].get(name) != value]:
        raise InputError(f"{folder} was run with another {' and '.join(changed)}; resume with the same --init")
    learnt = load_tensors(last / "network.safetensors")
    means, moments = load_tensors(last / "ema.safetensors"), load_tensors(last / "optimiser.safetensors")
    moved = {k.split("|")[0] for k in moments} - {"buckets"}
    if missing := (state.learnt().keys() ^ learnt.keys()) | (state.ema.keys() ^ means.keys()) | (state.parameters.keys() ^ moved):
        raise LookupError(f"{min(missing)} is missing or too many")
    if not (type(record["step"]) is int and 0 < record["step"] <= state.config.steps):
        raise ValueError(f"step {record['step']!r}")
    for key, value in state.learnt().items():
        value.copy_(learnt[key])
    for key, value in means.items():
        state.ema[key].copy_(value)
    state.buckets.copy_(moments.pop("buckets"))
    for name, p in state.parameters.items():
        keys = [k for k in moments if k.startswith(name + "|")]
        found = {k.rsplit("|", 1)[1]: moments[k].to(p.device) for k in keys}  # bitsandbytes counts steps in plain integers
        state.optimiser.state[p] = {k: v.item() if v.ndim == 0 and not v.is_floating_point() else v for k, v in found.items()}
    return record["step"]


def begin(folder: Path, state: State, start: int, command: str, pictures: int) -> None:
    """Write config.json, and drop the log's rows from step `start` on, which will be made again."""
    if (folder / "log.jsonl").exists():
        cut_log(folder, start)
    run = {"config": asdict(state.config), "model": asdict(state.cascade.config), "command": command, "pictures": pictures}
    write_text(folder / "config.json", json.dumps(run, indent=1) + "\n")


def cut_log(folder: Path, start: int) -> None:
    kept = []
    for row in (folder / "log.jsonl").read_text().splitlines(keepends=True):
        with suppress(ValueError):  # the last line of a run that was killed may be torn
            kept += [row] if json.loads(row)["step"] < start else []
    write_text(folder / "log.jsonl", "".join(kept))


@contextmanager
def open_log(folder: Path, start: int = 0) -> Iterator[Callable[[dict], None]]:
    """Yields a function that writes the row of a step, from `start` on."""
    board = open_board(folder / "tensorboard", start)

    def write(row: dict) -> None:
        log.write(json.dumps(row) + "\n")
        log.flush()
        if board:
            for name in row.keys() - {"step", "time_s", "wait_s"}:
                board.add_scalar(name, row[name], row["step"])

    try:
        with open(folder / "log.jsonl", "a") as log:
            yield write
    finally:
        if board:
            board.close()


def open_board(folder: Path, start: int):
    """A TensorBoard writer, which hides what an interrupted run wrote from step `start` on; None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start)
