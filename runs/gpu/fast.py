"""Compiled blocks: the networks' small operations between matrix products become one kernel each."""

import torch

from semcast.cascade import stage_a, stage_b


def compile_blocks(backend: str) -> None:
    """Compile every kind of block once per shape; blocks of one kind and shape share the result."""
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1024
    compiled = lambda function: torch.compile(function, dynamic=False, backend=backend)
    for kind in (stage_a.ResBlock, stage_b.ResBlock, stage_b.AttnBlock):
        kind.forward = compiled(kind.forward)
