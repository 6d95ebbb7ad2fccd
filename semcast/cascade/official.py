"""Conversion of official Stable Cascade files to our networks, which use the official key names.

There are two layouts: the single files of Stability-AI/StableCascade (effnet_encoder, stage_a, stage_b_lite_bf16 ...)
and diffusers' folders (decoder, decoder_lite, vqgan), which name a few keys differently and split the attention's input
projection in three. The functions work on dicts of tensors; they neither change a precision nor touch a file.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError
from .checkpoint import check_keys

MARKS = {  # a key by which each part is recognised, in either layout
    "encoder": "mapper.0.weight",
    "stage_b": "effnet_mapper.0.weight",
    "stage_a": "out_block.0.weight",
}
STRANGERS = {  # the start of a key -> the kind of file that has such keys
    "clip_img_mapper.": "Stage C, the text-to-image prior",
    "effnet_mappers.": "Stage B of Wuerstchen, another model",
    "text_model.": "a text encoder",
    "model.diffusion_model.": "a checkpoint packed for ComfyUI",
    "blocks.": "the previewer",
}
RENAMED = (  # (diffusers' name, ours)
    ("clip_txt_pooled_mapper.", "clip_mapper."),
    (".attention.to_out.0.", ".attention.attn.out_proj."),
    ("vquantizer.embedding.", "vquantizer.codebook."),
)
STAGE_B_WIDTH_KEY = "down_blocks.1.0.channelwise.0.weight"
STAGE_B_SIZES = {576: "lite", 640: "big"}  # by the last dimension of that tensor


def part_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Recognise "encoder", "stage_b" or "stage_a"; None for any other network (see `stranger`)."""
    return next((part for part, mark in MARKS.items() if mark in tensors), None)


def stranger(tensors: Mapping[str, Tensor]) -> str:
    """Describe a file that `part_of` does not recognise."""
    found = (what for start, what in STRANGERS.items() if any(key.startswith(start) for key in tensors))
    return next(found, "an unknown network")


def to_ours(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Rename the tensors of a part, in either layout, to our names. The original layout stays as it is.

    Raises:
        InputError: attention weights cannot be joined; `where` names the file. `check` finds all other errors.
    """
    ours = {}
    for key, tensor in tensors.items():
        block, q, kind = key.partition(".attention.to_q.")
        if q:
            names = [f"{block}.attention.to_{letter}.{kind}" for letter in "qkv"]
            try:
                ours[f"{block}.attention.attn.in_proj_{kind}"] = torch.cat([tensors[name] for name in names])
            except (KeyError, RuntimeError, TypeError):
                raise InputError(
                    f"{where}: {key} and its to_k and to_v are not three of a kind; the file is damaged"
                ) from None
        elif not (".attention.to_k." in key or ".attention.to_v." in key):
            for theirs, name in RENAMED:
                key = key.replace(theirs, name)
            ours[key] = tensor
    return ours


def check(network: nn.Module, part: str, tensors: Mapping[str, Tensor], where: str) -> None:
    """Check every key and shape of `tensors` (under our names) against `network`.

    Raises:
        InputError: the first wrong key and the likely cause.
    """
    cause = "it belongs to another network"
    if part == "encoder" and "mapper.1.weight" in tensors:
        cause = (
            "it is Wuerstchen's encoder, whose codes Stable Cascade does not understand; "
            "take effnet_encoder.safetensors"
        )
    if part == "stage_b" and STAGE_B_WIDTH_KEY in tensors:
        width, expected = (t[STAGE_B_WIDTH_KEY].shape[-1:] for t in (tensors, network.state_dict()))
        size = STAGE_B_SIZES.get(*width) if width and width != expected else None
        if size:
            cause = f"it is the {size} network, which `semcast models fetch stable-cascade-{size}` takes"
    check_keys(network, tensors, where, cause)
