"""diffusers' classes for Stage B and Stage A with our weights: what speed and parity are tested against."""

from typing import Any

import torch

from semcast.cascade.config import StageBConfig
from semcast.cascade.stage_a import StageA

TINY_B = StageBConfig(
    hidden=(16, 24, 32, 32),
    heads=(0, 0, 4, 2),
    down_blocks=(1, 2, 2, 1),
    up_blocks=(2, 1, 2, 1),
    up_repeats=(1, 2, 3, 2),
    time_channels=16,
    cond_channels=24,
    text_channels=20,
)


def diffusers_stage_b(config: StageBConfig) -> Any:
    from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet

    kinds = {"C": "SDCascadeResBlock", "T": "SDCascadeTimestepBlock", "A": "SDCascadeAttnBlock"}
    levels = len(config.hidden)
    settings: dict[str, Any] = dict(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        timestep_ratio_embedding_dim=config.time_channels,
        patch_size=2,
        conditioning_dim=config.cond_channels,
        block_out_channels=config.hidden,
        num_attention_heads=config.heads,
        down_num_layers_per_block=config.down_blocks,
        up_num_layers_per_block=config.up_blocks[::-1],
        down_blocks_repeat_mappers=(1,) * levels,
        up_blocks_repeat_mappers=config.up_repeats[::-1],
        block_types_per_layer=[[kinds[k] for k in level] for level in config.blocks],
        clip_text_pooled_in_channels=config.text_channels,
        clip_text_in_channels=None,
        clip_image_in_channels=None,
        clip_seq=config.text_tokens,
        effnet_in_channels=config.code_channels,
        pixel_mapper_in_channels=3,
        kernel_size=3,
        dropout=config.dropout,
        self_attn=True,
        timestep_conditioning_type=("sca",),
        switch_level=None,
    )
    return StableCascadeUNet(**settings)


def stage_b_keys_to_diffusers(state: dict) -> dict:
    out = {}
    for key, value in state.items():
        key = key.replace("clip_mapper.", "clip_txt_pooled_mapper.").replace(
            "attention.attn.out_proj", "attention.to_out.0"
        )
        if ".attention.attn.in_proj_" in key:
            prefix, kind = key.split("attention.attn.in_proj_")
            for name, part in zip("qkv", value.chunk(3)):
                out[f"{prefix}attention.to_{name}.{kind}"] = part
        else:
            out[key] = value
    return out


def diffusers_stage_a(ours: StageA) -> Any:
    """diffusers' PaellaVQModel with our weights, and with our fine width, which may differ from half the coarse one."""
    from diffusers.pipelines.deprecated.wuerstchen import modeling_paella_vq_model as paella

    fine, coarse = ours.config.hidden
    options = dict(bottleneck_blocks=ours.config.bottleneck_blocks, num_vq_embeddings=max(ours.config.codebook_size, 1))
    theirs = paella.PaellaVQModel(embed_dim=coarse, latent_channels=ours.config.latent_channels, **options)
    if fine != coarse // 2:
        theirs.in_block[1] = torch.nn.Conv2d(12, fine, 1)
        theirs.down_blocks[0] = paella.MixingResidualBlock(fine, 4 * fine)
        theirs.down_blocks[1] = torch.nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
        theirs.up_blocks[-2] = torch.nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1)
        theirs.up_blocks[-1] = paella.MixingResidualBlock(fine, 4 * fine)
        theirs.out_block[0] = torch.nn.Conv2d(fine, 12, 1)
    state = {k.replace("vquantizer.codebook", "vquantizer.embedding"): v for k, v in ours.state_dict().items()}
    if not ours.config.codebook_size:
        state["vquantizer.embedding.weight"] = theirs.vquantizer.embedding.weight
    theirs.load_state_dict(state)  # strict: all keys, both ways
    return theirs.eval()
