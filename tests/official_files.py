"""Tiny networks of the official kind as files, for tests of what reads and fetches them."""

from dataclasses import replace

import torch
from safetensors.torch import load_file, save_file
from test_parity import stage_b_keys_to_diffusers
from tiny import tiny_config

from semcast.cascade import hub
from semcast.cascade.config import NETWORKS, StageAConfig
from semcast.cascade.model import Cascade
from semcast.cascade.models import OFFICIAL

LITE = "stable-cascade-lite"
STAGE_A_TINY = StageAConfig(hidden=(8, 16), bottleneck_blocks=1, codebook_size=32)


def official_tiny(name: str = LITE):
    stage_b = replace(tiny_config().stage_b, noise_map=False)
    changes = dict(
        prediction="epsilon", noise_aware=False, guidance=1.1, steps=2, stage_a=STAGE_A_TINY, stage_b=stage_b
    )
    return tiny_config(name=name, licence=OFFICIAL[name].licence, **changes)


def to_diffusers(part: str, tensors: dict) -> dict:
    if part == "stage_b":
        return stage_b_keys_to_diffusers(tensors)
    return {k.replace("vquantizer.codebook", "vquantizer.embedding"): v for k, v in tensors.items()}


def parameters(cascade: Cascade) -> dict[str, int]:
    return {part: sum(p.numel() for p in getattr(cascade, part).parameters()) for part in NETWORKS}


def write(path, tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def fetch(**options):
    return hub.fetch(LITE, **{"accept_license": True, "config": official_tiny()} | options)


def same(folder, weights) -> bool:
    """Whether the model in `folder` has exactly these tensors, in their precision."""
    for part in NETWORKS:
        tensors = load_file(folder / f"{part}.safetensors")
        if tensors.keys() != weights[part].keys():
            return False
        if not all(tensors[k].dtype == v.dtype and torch.equal(tensors[k], v) for k, v in weights[part].items()):
            return False
    return True
