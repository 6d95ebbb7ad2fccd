"""A training run on disk, so that it can be watched, stopped and resumed.

    config.json    settings, model, command, number of pictures
    log.jsonl      one row per step; tensorboard/ holds the same if tensorboard is installed
    samples/       pictures received with the model at that step
    last/          the checkpoint to resume from: state.json, which also tells its data from others, and the tensors of
                   `State`
    model/         the trained model

If the process is killed, config.json, last/ and the files of model/ stay intact; the log may end in a torn line.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..cascade.model import Cascade
from ..errors import InputError
from ..files import load_tensors, save_tensors, write_text
from .config import PHASES, TrainConfig
from .critic import Critic

FREE = (
    "recompute",
    "compile",
    "save_every",
    "sample_every",
)  # settings that may differ when a run is resumed


@dataclass
class State:
    """What a step changes, and what a resumed run must restore or find unchanged."""

    config: TrainConfig
    cascade: Cascade
    parameters: dict[str, Tensor]  # the trained ones by name: "stage_b.clf.1.weight"
    optimiser: torch.optim.Optimizer
    ema: dict[str, Tensor]  # averages of the trained weights by name; empty if `config.ema` is 0
    buckets: Tensor  # [BUCKETS], for `config.adaptive_weight`
    frozen: dict[str, str]  # fingerprints of the networks that are not trained
    critic: Critic | None = None  # for adversarial training
    data: dict[str, int | str] = field(default_factory=dict)  # fingerprint of the pictures

    @property
    def learning(self) -> tuple[str, ...]:
        """The networks that are trained."""
        return PHASES[self.config.phase].learns

    def learnt(self) -> dict[str, Tensor]:
        """The weights of the trained networks and of the critic."""
        own = {k: v for k, v in self.cascade.state_dict().items() if k.split(".")[0] in self.learning}
        return own | ({f"critic.{k}": v for k, v in self.critic.state_dict().items()} if self.critic else {})


def repair(folder: Path) -> None:
    """Undo an interruption between the two renames of `save`."""
    last, old = folder / "last", folder / "last.old"
    if not last.exists() and old.exists():
        old.rename(last)


def claim(folder: Path, resume: bool) -> bool:
    """Make the folder and return whether it holds a checkpoint to resume from.

    Raises:
        InputError: it holds one, and `resume` is False.
    """
    found = (folder / "last").exists()
    if found and not resume:
        raise InputError(f"{folder} already holds a run; continue it with --resume or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    return found


def save(folder: Path, state: State, done: int) -> None:
    """Save the checkpoint after `done` steps.

    A new folder is written and then swapped in, so an interruption leaves either the old checkpoint or the new one.
    """
    last, partial, old = folder / "last", folder / "last.partial", folder / "last.old"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    moments = {}
    for name, p in state.parameters.items():
        found = {k: torch.as_tensor(v) for k, v in state.optimiser.state[p].items()}
        moments |= {
            f"{name}|{k}": v.clone() if k.startswith("qmap") else v for k, v in found.items()
        }  # parameters share a qmap
    learnt = {k: v.clone() for k, v in state.learnt().items()}
    save_tensors(learnt, partial / "network.safetensors")
    save_tensors(state.ema, partial / "ema.safetensors")
    save_tensors(moments | {"buckets": state.buckets}, partial / "optimiser.safetensors")
    record = {"step": done, "config": asdict(state.config), "frozen": state.frozen, "data": state.data}
    write_text(partial / "state.json", json.dumps(record) + "\n")
    shutil.rmtree(old, ignore_errors=True)
    if last.exists():
        last.rename(old)
    partial.rename(last)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, state: State, other_data: bool = False) -> int:
    """Fill `state` from the checkpoint and return the number of steps done.

    Raises:
        InputError: the checkpoint has other settings or another model, is damaged, or has other data and `other_data`
            is False.
    """
    try:
        return fill(folder, state, other_data)
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the checkpoint {folder / 'last'} is damaged ({reason}); start again with another --out"
        ) from None


def fill(folder: Path, state: State, other_data: bool) -> int:
    """As `load`; a damaged checkpoint raises some other exception."""
    last = folder / "last"
    record = json.loads((last / "state.json").read_text())
    if changed := [k for k, v in asdict(state.config).items() if k not in FREE and record["config"].get(k) != v]:
        raise InputError(f"{folder} was run with other settings ({', '.join(changed)}); resume with the same ones")
    if changed := [name for name, value in state.frozen.items() if record["frozen"].get(name) != value]:
        raise InputError(f"{folder} was run with another {' and '.join(changed)}; resume with the same --init")
    held = record.get("data")  # missing in older checkpoints
    if held and not other_data and (change := changed_data(held, state.data)):
        raise InputError(f"{folder} was run with other data ({change}); resume with the same, or give --other-data")
    learnt = load_tensors(last / "network.safetensors")
    means, moments = load_tensors(last / "ema.safetensors"), load_tensors(last / "optimiser.safetensors")
    moved = {k.split("|")[0] for k in moments} - {"buckets"}
    if (
        missing := (state.learnt().keys() ^ learnt.keys())
        | (state.ema.keys() ^ means.keys())
        | (state.parameters.keys() ^ moved)
    ):
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
        found = {
            k.rsplit("|", 1)[1]: moments[k].to(p.device) for k in keys
        }  # bitsandbytes counts steps in plain integers
        state.optimiser.state[p] = {
            k: v.item() if v.ndim == 0 and not v.is_floating_point() else v for k, v in found.items()
        }
    return record["step"]


def changed_data(before: dict, now: dict) -> str:
    """How the fingerprint of a run's pictures has changed, in words; empty if it has not."""
    if more := now["pictures"] - before["pictures"]:
        return f"now {abs(more)} picture{'s' * (abs(more) > 1)} {'more' if more > 0 else 'fewer'}"
    changes = {
        "names": "now as many pictures of other names",
        "sizes": "now the same names, but files of other sizes",
        "weights": "now other weights of the sources",
    }
    return next((words for part, words in changes.items() if now[part] != before[part]), "")


def begin(folder: Path, state: State, start: int, command: str, pictures: int) -> None:
    """Write config.json, and drop the log's rows from step `start` on, because these steps will run again."""
    if (folder / "log.jsonl").exists():
        cut_log(folder, start)
    run = {
        "config": asdict(state.config),
        "model": asdict(state.cascade.config),
        "command": command,
        "pictures": pictures,
    }
    write_text(folder / "config.json", json.dumps(run, indent=1) + "\n")


def cut_log(folder: Path, start: int) -> None:
    """Keep the log's rows of the steps before `start`."""
    kept = []
    for row in (folder / "log.jsonl").read_text().splitlines(keepends=True):
        with suppress(ValueError):  # the last line of a run that was killed may be torn
            kept += [row] if json.loads(row)["step"] < start else []
    write_text(folder / "log.jsonl", "".join(kept))


@contextmanager
def open_log(folder: Path, start: int = 0) -> Iterator[Callable[[dict], None]]:
    """Yield a function that logs the row of a step; the run continues at step `start`."""
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
    """Open a TensorBoard writer that hides earlier rows from step `start` on; None if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start)
