"""The parts of the GPU job, on a CPU: how parameters lie and learn, what arrives, and the whole job on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import TINY_ENHANCEMENT, tiny_cascade
from torch import nn

from semcast.cascade.checkpoint import load_cascade, save_model
from semcast.header import LAYER_RUNGS

JOB = Path(__file__).parent.parent / "runs" / "gpu"


@pytest.fixture
def parts(monkeypatch):
    """The job's modules, which are scripts beside each other."""
    monkeypatch.syspath_prepend(str(JOB))
    import air
    import learner

    yield air, learner
    for name in ("air", "learner"):
        sys.modules.pop(name)


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Sequential(nn.Linear(20, 32), nn.Linear(32, 20)), "b": nn.Linear(20, 3)})


def test_parameters_keep_their_values_and_lie_aligned(parts):
    net = network()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    held = parts[1].Learner(dict(net.named_parameters()), {"a.": 1.0, "b.": 0.5}, ("b.",), 1e-2, 1e-2, 0.9)
    for name, p in net.named_parameters():
        assert torch.equal(p, before[name])
        assert p.storage_offset() % 8 == 0, "compiled kernels load 16 bytes at once"
    assert all(torch.equal(average, before[name]) for name, average in held.averages().items())


def test_matrices_learn_by_muon_and_the_rest_by_adamw(parts):
    net = network()
    held = parts[1].Learner(dict(net.named_parameters()), {"a.": 1.0, "b.": 0.5}, ("b.",), 1e-2, 1e-2, 0.9)
    assert sorted(held.matrices) == [(20, 32), (32, 20)]  # not b, which is 3 wide and at the edge
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    x = torch.randn(64, 20)
    y = x @ torch.randn(20, 3)
    losses = []
    for step in range(150):
        loss = (net["b"](net["a"](x)) - y).square().mean()
        loss.backward()
        held.step(1.0)
        losses.append(loss.item())
        if step == 0:  # Muon's step is orthogonal: the gradient's rank is 3, and all three are lr 0.2 sqrt(longer side)
            moved = torch.linalg.svdvals(net["a"][0].weight.detach() - before["a.0.weight"])[:3]
            expected = 1e-2 * 0.2 * 32**0.5
            assert 0.5 * expected < moved.min() and moved.max() < 1.5 * expected
            assert not torch.equal(net["b"].weight, before["b.weight"])
    assert losses[-1] < 0.05 * losses[0]
    gaps = held.averages()["a.0.weight"] - net["a"][0].weight.detach()
    assert 0 < gaps.abs().max() < 0.5  # the average follows
    held.settle()
    assert torch.equal(net["a"][0].weight, held.averages()["a.0.weight"]) and not net["a"][0].weight.requires_grad


def test_a_step_that_is_not_finite_changes_nothing(parts):
    net = network()
    held = parts[1].Learner(dict(net.named_parameters()), {"a.": 1.0, "b.": 1.0}, ("b.",), 1e-2, 0.0, 0.9)
    before = net["a"][0].weight.detach().clone()
    (net["b"](net["a"](torch.randn(4, 20))).sum() * float("nan")).backward()
    held.step(1.0)
    assert (net["a"][0].weight - before).abs().max() < 1e-3  # weight decay only


def test_what_arrives_ends_after_the_rungs_that_were_sent(parts):
    air = parts[0]
    torch.manual_seed(0)
    x = torch.complex(torch.randn(3, 8 * 500), torch.randn(3, 8 * 500)) / 2**0.5
    snr_db = torch.tensor([[10.0], [0.0], [10.0]])
    received = air.Air(snr_db, clean=True).send(x, torch.tensor([[LAYER_RUNGS], [LAYER_RUNGS], [3]]))
    noise = (received.y - x).abs().square().mean(dim=1)
    assert noise[:2].tolist() == pytest.approx([0.1, 1.0], rel=0.06)
    assert torch.isinf(received.noise_var[2, 3 * 500 :]).all() and not received.y[2, 3 * 500 :].any()
    assert torch.isfinite(received.noise_var[2, : 3 * 500]).all()


def random_nets(path: Path) -> None:
    """A file with the names of `nets.pack`, with random weights and a short EfficientNet."""
    widths, tensors, before = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), {}, 3
    g = torch.Generator().manual_seed(0)
    for i, width in enumerate(widths):
        tensors[f"vgg.{i}.q"] = torch.randint(-127, 128, (width, before, 3, 3), generator=g).to(torch.int8)
        tensors[f"vgg.{i}.s"] = torch.full((width,), 1 / (74 * (9 * before) ** 0.5))
        tensors[f"vgg.{i}.b"], before = torch.zeros(width), width
    for i, width in enumerate((64, 128, 256, 512, 512)):
        tensors[f"lin.{i}"] = torch.full((width,), 0.1)
    plan, before = [], 16
    conv = lambda *shape: 0.3 * torch.randn(*shape, generator=g).half()
    tensors["lite.stem.w"], tensors["lite.stem.b"] = conv(16, 3, 3, 3), torch.zeros(16)
    for i, width in enumerate((24, 40, 112, 320)):
        tensors |= {f"lite.{i}.dw.w": conv(before, 1, 3, 3), f"lite.{i}.dw.b": torch.zeros(before)}
        tensors |= {f"lite.{i}.project.w": conv(width, before, 1, 1), f"lite.{i}.project.b": torch.zeros(width)}
        plan.append((0, 2, 3, 0, width))
        before = width
    tensors["lite.plan"] = torch.tensor(plan, dtype=torch.int32)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)


@pytest.mark.slow
def test_the_job_trains_base_and_layers_and_stores_the_model(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        small.resize((320, 320), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"people_{i}.webp")
    random_nets(tmp_path / "nets.safetensors")
    start = tiny_cascade(enhancement=TINY_ENHANCEMENT)
    save_model(start, tmp_path / "start")
    words = "--data photos --nets nets.safetensors --init start --out out --device cpu --dtype float32 --crop 64 "
    words += "--window 64 --batch 2 --ladder_batch 2 --workers 1 --deadline 600 --closing 0 --max_steps 2 "
    words += "--ladder_adam 20 --ladder_muon 20"  # the first steps are small
    command = [sys.executable, str(JOB / "job.py"), *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == {"base", "ladder"}
    assert all(np.isfinite(value) for row in rows for value in row.values() if not isinstance(value, str))
    subprocess.run("cat out/model.tar.* | tar x", shell=True, cwd=tmp_path, check=True)
    end = load_cascade(tmp_path / "job_model").state_dict()
    moved = {
        name.split(".")[0] for name, p in start.state_dict().items() if not torch.allclose(p, end[name], atol=1e-2)
    }
    assert moved == {"enhancement"}  # the base waits until its critic has learnt
    assert (tmp_path / "out" / "sheet.jpg").stat().st_size > 1000
