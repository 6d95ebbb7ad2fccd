"""Official Stable Cascade files -> tensors of our networks, whose key names are the official ones.

Two layouts exist: the single files of Stability-AI/StableCascade (effnet_encoder, stage_a, stage_b_lite_bf16 ...) and
diffusers' folders (decoder, decoder_lite, vqgan), which name a few keys differently and split the attention's input
projection in three. Works on dicts of tensors; no tensor changes its precision, no file is touched.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError
from .checkpoint import check_keys

MARKS = {"encoder": "mapper.0.weight", "stage_b": "effnet_mapper.0.weight", "stage_a": "out_block.0.weight"}  # in either layout
STRANGERS = {  # start of a key: what a file with such keys is
    "clip_img_mapper.": "Stage C, the text-to-image prior",
    "effnet_mappers.": "Stage B of Wuerstchen, another model",
    "text_model.": "a text encoder",
    "model.diffusion_model.": "a checkpoint packed for ComfyUI",
    "blocks.": "the previewer",
}
RENAMED = (  # diffusers, ours
    ("clip_txt_pooled_mapper.", "clip_mapper."),
    (".attention.to_out.0.", ".attention.attn.out_proj."),
    ("vquantizer.embedding.", "vquantizer.codebook."),
)
STAGE_B_WIDTH_KEY = "down_blocks.1.0.channelwise.0.weight"
STAGE_B_SIZES = {576: "lite", 640: "big"}  # by the last side of that tensor


def part_of(tensors: dict[str, Tensor]) -> str | None:
    """One of "encoder", "stage_b", "stage_a"; None for a network that semcast has no use for (see `stranger`)."""
    return next((part for part, mark in MARKS.items() if mark in tensors), None)


def stranger(tensors: dict[str, Tensor]) -> str:
    """What a file that is no part of ours probably is."""
    return next((what for start, what in STRANGERS.items() if any(key.startswith(start) for key in tensors)), "an unknown network")


def to_ours(tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of a part in either layout, under our names. Files in the original layout come back unchanged.

    Raises:
        InputError: attention weights that cannot be joined; `where` names the file. Everything else is left to `check`.
    """
    ours = {}
    for key, tensor in tensors.items():
        block, q, kind = key.partition(".attention.to_q.")
        if q:
            names = [f"{block}.attention.to_{letter}.{kind}" for letter in "qkv"]
            try:
                ours[f"{block}.attention.attn.in_proj_{kind}"] = torch.cat([tensors[name] for name in names])
            except (KeyError, RuntimeError, TypeError):
                raise InputError(f"{where}: {key} and its to_k and to_v are not three of a kind; the file is damaged") from None
        elif not (".attention.to_k." in key or ".attention.to_v." in key):
            for theirs, name in RENAMED:
                key = key.replace(theirs, name)
            ours[key] = tensor
    return ours


def check(network: nn.Module, part: str, tensors: dict[str, Tensor], where: str) -> None:
    """Every key and shape of `tensors` (under our names) against `network`.

    Raises:
        InputError: the first wrong key and the likely cause.
    """
    cause = "it belongs to another network"
    if part == "encoder" and "mapper.1.weight" in tensors:
        cause = "it is Wuerstchen's encoder, whose codes Stable Cascade does not understand; take effnet_encoder.safetensors"
    if part == "stage_b" and STAGE_B_WIDTH_KEY in tensors:
        width, expected = (t[STAGE_B_WIDTH_KEY].shape[-1:] for t in (tensors, network.state_dict()))
        size = STAGE_B_SIZES.get(*width) if width and width != expected else None
        if size:
            cause = f"it is the {size} network, which `semcast models fetch stable-cascade-{size}` takes"
    check_keys(network, tensors, where, cause)
