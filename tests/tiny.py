"""A tiny random model and random pictures, for all tests."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from semcast.cascade.config import (
    EncoderConfig,
    EnhancementConfig,
    ModelConfig,
    RestorerConfig,
    StageAConfig,
    small_config,
)
from semcast.cascade.model import Cascade


def tiny_config(**changes) -> ModelConfig:
    """A model with every kind of layer and almost no weights."""
    strides = ((1, 8, 8), (2, 8, 8), (2, 8, 16))
    stages = (
        *(("fused", 2, 3, s, i, o, 1) for s, i, o in strides),
        ("mbconv", 2, 3, 2, 16, 16, 1),
        ("mbconv", 2, 3, 2, 16, 16, 1),
    )
    b = replace(
        small_config().stage_b,
        hidden=(16, 16, 24, 32),
        heads=(0, 0, 0, 2),
        down_blocks=(1, 1, 1, 1),
        up_blocks=(1, 1, 1, 1),
    )
    config = replace(
        small_config(),
        name="tiny",
        encoder=EncoderConfig(stages=stages, last_channels=24),
        stage_a=StageAConfig(hidden=(8, 16), bottleneck_blocks=1, codebook_size=0),
        stage_b=replace(b, cond_channels=16, text_channels=8),
    )
    return replace(config, **changes)


TINY_ENHANCEMENT = EnhancementConfig(
    encoder=(8, 8, 16),
    encoder_blocks=(1, 1, 1),
    decoder=(8, 8, 16, 16),
    decoder_blocks=(1, 1, 1, 1),
    base_blocks=(1, 1),
)


TINY_RESTORER = RestorerConfig(width=8, blocks=1)


def tiny_cascade(seed: int = 0, **changes) -> Cascade:
    """The tiny model with random weights everywhere, so that no zero initialisation hides a path."""
    torch.manual_seed(seed)
    cascade = Cascade(tiny_config(**changes))
    for p in cascade.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3 if p.ndim > 1 else 0.1)
    return cascade.eval().requires_grad_(False)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture with some texture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return (np.asarray(coarse, dtype=np.float64) + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8)
