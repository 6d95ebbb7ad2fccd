"""Settings of the networks and of whole models, the official ones and ours. Does not import torch.

The config.json of a model folder holds a `ModelConfig`.
"""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import InputError
from ..files import write_text

ENGINES = ("auto", "onnx", "torch")  # what may run the networks
NETWORKS = ("encoder", "stage_b", "stage_a")  # each has one file in a model folder
ENHANCEMENT, RESTORER = "enhancement", "restorer"  # two more, of models that send more than Z
COUNT_MAX = 100  # of blocks and repeats; a config.json that asks for more is refused
STRIDE = 32  # input pixels of the encoder per position of Z, along each side
LATENT_CHANNELS = 16  # channels of Z
PATCH = 2  # latent pixels a side that Stage B takes as one
FINE_CHANNELS = 16  # of the unfolded Z
ENHANCED_CHANNELS = 16  # of each layer above Z
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of the encoder's input
IMAGENET_STD = (0.229, 0.224, 0.225)

EFFNET_V2_S = (  # (block, expand, kernel, stride, in, out, repeats), as in torchvision's `efficientnet_v2_s`
    ("fused", 1, 3, 1, 24, 24, 2),
    ("fused", 4, 3, 2, 24, 48, 4),
    ("fused", 4, 3, 2, 48, 64, 4),
    ("mbconv", 4, 3, 2, 64, 128, 6),
    ("mbconv", 6, 3, 1, 128, 160, 9),
    ("mbconv", 6, 3, 2, 160, 256, 15),
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    stages: tuple = EFFNET_V2_S  # as EFFNET_V2_S; the strides multiply to 16, and the stem has stride 2
    last_channels: int = 1280


@dataclass(frozen=True, kw_only=True)
class StageAConfig:
    hidden: tuple = (192, 384)  # widths at 1/2 and 1/4 of the side
    encoder_blocks: tuple = (1, 1)  # at 1/2 and 1/4 of the side
    bottleneck_blocks: int = 12  # in the decoder, at 1/4 of the side
    fine_blocks: int = 1  # in the decoder, at 1/2 of the side
    latent_channels: int = 4
    codebook_size: int = 8192  # 0: no codebook
    scale_factor: float = 0.43
    # Pad the transposed convolution with the edge values. The official networks pad with zeros, which darkens the two
    # outermost pixels.
    replicate_edges: bool = False


@dataclass(frozen=True, kw_only=True)
class StageBConfig:
    """Defaults: the official lite network, 699,471,248 parameters. Tuples run from the finest to the deepest level."""

    hidden: tuple = (320, 576, 1152, 1152)
    heads: tuple = (0, 9, 18, 18)  # used only by levels with attention
    blocks: tuple = ("CT", "CT", "CTA", "CTA")  # C: convolution, T: time, A: attention
    down_blocks: tuple = (2, 4, 14, 4)
    up_blocks: tuple = (2, 4, 14, 4)
    up_repeats: tuple = (2, 2, 2, 2)  # how many times each level runs on the way up, with the same weights
    time_channels: int = 64
    cond_channels: int = 1280  # width of the text tokens
    text_channels: int = 1280
    text_tokens: int = 4
    dropout: tuple = (0.0, 0.0, 0.1, 0.1)
    latent_channels: int = 4
    code_channels: int = LATENT_CHANNELS  # channels of Z
    noise_map: bool = False  # whether the network has weights for `noise`; the official networks have none
    code_unfold: int = 0  # each position of Z is also unfolded into this many pixels per side; 0 (official): it is not


@dataclass(frozen=True, kw_only=True)
class EnhancementConfig:
    """Widths and numbers of blocks, each from the finest maps to the coarsest. Without widths there is no network."""

    encoder: tuple = ()  # at strides 4, 8 and 16
    encoder_blocks: tuple = ()
    decoder: tuple = ()  # at strides 2, 4, 8 and 16
    decoder_blocks: tuple = ()
    base_blocks: tuple = ()  # of the way down from the base picture, at strides 4 and 8

    @property
    def exists(self) -> bool:
        return bool(self.encoder)

    @property
    def reach(self) -> int:
        """How many pixels away a pixel can matter: a block reaches one position of its maps, the last layer two pixels."""
        e, d, b = self.encoder_blocks, self.decoder_blocks, self.base_blocks
        encoder = 4 * e[0] + 8 * e[1] + 16 * e[2]
        decoder = 4 * b[0] + 8 * b[1] + 16 * d[3] + 8 * d[2] + 4 * d[1] + 2 * d[0] + 4
        return max(encoder, decoder) + 16  # and the cells of the coarsest maps


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """Of the network behind a packet's picture. Without a width there is none, and the model takes no such packets."""

    width: int = 0  # at stride 4
    blocks: int = 0

    @property
    def exists(self) -> bool:
        return bool(self.width)

    @property
    def reach(self) -> int:
        """As `EnhancementConfig.reach`."""
        return 4 * (self.blocks + 1)


SMALL_ENHANCEMENT = EnhancementConfig(
    encoder=(48, 96, 128),
    encoder_blocks=(2, 3, 2),
    decoder=(32, 64, 128, 160),
    decoder_blocks=(1, 4, 4, 3),
    base_blocks=(1, 1),
)
SMALL_RESTORER = RestorerConfig(width=64, blocks=4)
OFFICIAL_ENCODER = EncoderConfig()
OFFICIAL_STAGE_A = StageAConfig()
STAGE_B_LITE = StageBConfig()
STAGE_B_BIG = StageBConfig(
    hidden=(320, 640, 1280, 1280),
    heads=(0, 0, 20, 20),
    down_blocks=(2, 6, 28, 6),
    up_blocks=(2, 6, 28, 6),
    up_repeats=(2, 2, 3, 3),
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything about a model except its weights. Saved as config.json beside them."""

    name: str
    licence: str
    prediction: str = "epsilon"  # what Stage B outputs: "epsilon", "v", or "x0" from an input scaled by a(t)
    noise_aware: bool = False  # whether Z is MMSE-scaled and Stage B is given the noise; official: neither
    guidance: float = 1.0  # scale of classifier-free guidance; 1 needs only one forward pass per step
    factor: float = 0.75  # side of the encoder's input / side of the image
    steps: int = 10  # of the sampler
    understands: tuple = ()  # ids (four hex digits) of other encoders whose frames this model can receive
    same_as: str = ""  # version of other files with the same weights, whose measurements hold for these
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    stage_a: StageAConfig = field(default_factory=StageAConfig)
    stage_b: StageBConfig = field(default_factory=StageBConfig)
    enhancement: EnhancementConfig = field(default_factory=EnhancementConfig)
    restorer: RestorerConfig = field(default_factory=RestorerConfig)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks of this model, each of which has one file."""
        more = (ENHANCEMENT,) * self.enhancement.exists + (RESTORER,) * self.restorer.exists
        return NETWORKS + more


def small_config() -> ModelConfig:
    """The default model, which receives in one step on a CPU."""
    return ModelConfig(
        name="small",
        licence="research use only (trained on research-only pictures)",
        prediction="x0",
        noise_aware=True,
        steps=1,
        encoder=EncoderConfig(
            stages=(
                ("fused", 1, 3, 1, 16, 16, 1),
                ("fused", 4, 3, 2, 16, 32, 2),
                ("fused", 4, 3, 2, 32, 48, 2),
                ("mbconv", 4, 3, 2, 48, 96, 3),
                ("mbconv", 4, 3, 1, 96, 112, 4),
                ("mbconv", 6, 3, 2, 112, 192, 5),
            ),
            last_channels=640,
        ),
        stage_a=StageAConfig(
            hidden=(32, 96),
            encoder_blocks=(3, 5),
            bottleneck_blocks=4,
            fine_blocks=2,
            codebook_size=0,
            scale_factor=1.0,
            replicate_edges=True,
        ),
        stage_b=StageBConfig(
            hidden=(64, 128, 256, 320),
            heads=(0, 0, 0, 5),
            blocks=("CT", "CT", "CT", "CTA"),
            down_blocks=(1, 2, 3, 2),
            up_blocks=(8, 10, 5, 2),
            up_repeats=(1, 1, 1, 1),
            cond_channels=128,
            text_channels=64,
            dropout=(0.0, 0.0, 0.0, 0.0),
            noise_map=True,
            code_unfold=6,
        ),
    )


def save_config(config: ModelConfig, folder: Path) -> None:
    write_text(folder / "config.json", json.dumps(asdict(config), indent=1) + "\n")


def load_config(folder: Path) -> ModelConfig:
    """Read and check config.json.

    Raises:
        InputError: it is missing, damaged, or has unknown keys, wrong types or values out of range.
    """
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"no model in {folder}: config.json is missing; `semcast models` lists what there is"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    try:
        config = _from_dict(ModelConfig, values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path} is no model description: {error}") from None
    b, e = config.stage_b, config.enhancement
    rules = [
        ("prediction", config.prediction in ("epsilon", "x0", "v")),
        ("steps", 1 <= config.steps <= 1000),
        ("factor", 0.5 <= config.factor <= 1),
        ("stage_a", 1 <= config.stage_a.bottleneck_blocks <= COUNT_MAX),
        ("stage_b", max((*b.down_blocks, *b.up_blocks, *b.up_repeats, b.code_unfold), default=0) <= COUNT_MAX),
        ("enhancement", max((*e.encoder_blocks, *e.decoder_blocks, *e.base_blocks), default=0) <= COUNT_MAX),
        ("restorer", config.restorer.blocks <= COUNT_MAX),
        ("encoder", max((stage[-1] for stage in config.encoder.stages), default=0) <= COUNT_MAX),
    ]
    if bad := [f"{name} = {getattr(config, name)!r}" for name, fine in rules if not fine]:
        raise InputError(f"{path} has impossible settings: {', '.join(bad)}")
    return config


def _from_dict(cls: Any, values: dict[str, Any]) -> Any:
    """Make the dataclass `cls`; lists become tuples. Unknown keys and wrong types raise, so no file loads in part."""
    known, types = {field.name: field for field in fields(cls)}, get_type_hints(cls)
    if unknown := sorted(set(values) - set(known)):
        raise TypeError(f"unknown keys {', '.join(unknown)}")
    nested = {name: field.default_factory for name, field in known.items() if callable(field.default_factory)}
    made = {k: _from_dict(nested[k], v) if is_dataclass(nested.get(k)) else _tuples(v) for k, v in values.items()}
    allowed = {name: (int, float) if kind is float else kind for name, kind in types.items()}
    if wrong := [f"{k} = {v!r}" for k, v in made.items() if not isinstance(v, allowed[k])]:
        raise TypeError(f"wrong type of {', '.join(wrong)}")
    return cls(**made)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
