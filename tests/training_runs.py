"""Runs of training for tests: tiny, of a few steps, interrupted where a test wants it."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import TINY_ENHANCEMENT, TINY_RESTORER, tiny_cascade, tiny_config

from semcast import randomness
from semcast.cascade.model import Cascade
from semcast.training import losses, phases
from semcast.training.config import PRESETS, TrainConfig
from semcast.training.train import train

STEPS, SAVED = 5, 2  # steps of a run, and between checkpoints; batch statistics are used in the first four


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(seed: int = 0, **changes) -> Cascade:
    """The tiny model, with two steps of sampling to make previews quick."""
    return tiny_cascade(seed, **{"steps": 2} | changes)


def make_step(batch: int, rows: slice = slice(None)) -> losses.Step:
    """The draws of a step for some rows of its batch, by default for the whole batch."""
    return losses.Step(randomness.seeded(1), batch, rows, torch.device("cpu"), torch.ones(losses.BUCKETS))


def config(phase: str = "joint", **changes) -> TrainConfig:
    """A preset with few steps and small crops."""
    quick = dict(
        steps=STEPS,
        batch=2,
        crop=64,
        window=32,
        thumbnail_weight=0.0,
        batch_norm_until=0.7,
        bf16=False,
        warmup=2,
        lr=1e-3,
        save_every=SAVED,
        ema=0.9,
    )
    preset = {"denoise": "scsic-512", "decode": "joint"}.get(phase, phase)
    return replace(PRESETS[preset], **quick | {"phase": phase} | changes)


def fail_at(monkeypatch, phase: str, step: int, fault) -> None:
    """Replace the losses of one step of a run by `fault(losses)`."""
    loss, calls = phases.LOSSES[phase], iter(range(STEPS))

    def faulty(*args):
        found = loss(*args)
        return fault(found) if next(calls) == step else found

    monkeypatch.setitem(phases.LOSSES, phase, faulty)


def interrupt(losses):
    raise KeyboardInterrupt


def with_dropout():
    """The tiny model with every network, and with dropout, which draws from torch's global generator."""
    stage_b = replace(tiny_config().stage_b, dropout=(0.1,) * 4)
    return tiny(stage_b=stage_b, enhancement=TINY_ENHANCEMENT, restorer=TINY_RESTORER)


def log(run) -> list[dict]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time_s", "wait_s")} for row in rows]


def files(run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.iterdir())}


def interrupted(tmp_path, monkeypatch, photos, vgg, at: int = 3):
    """The folder of a joint run that was interrupted in step `at`."""
    with monkeypatch.context() as patch:
        fail_at(patch, "joint", at, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), photos, config(), tmp_path / "run", vgg, progress=False)
    return tmp_path / "run"
