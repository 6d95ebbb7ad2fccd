"""The semantic encoder: EfficientNet-V2 features and a 1x1 mapper, stride 32.

    image [B, 3, H, W] in [0, 1]  ->  Z [B, 16, H/32, W/32], per-channel mean 0 and variance 1 over the training data

Same layers and key names as Stable Cascade's `effnet_encoder.safetensors` (Stability-AI/StableCascade,
modules/effnet.py); torchvision supplies the definition of EfficientNet-V2, never its weights.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDE = 32  # pixels of encoder input per latent pixel
LATENT_CHANNELS = 16

EFFNET_V2_S = (  # block, expand, kernel, stride, in, out, repeats: torchvision's `efficientnet_v2_s`
    ("fused", 1, 3, 1, 24, 24, 2),
    ("fused", 4, 3, 2, 24, 48, 4),
    ("fused", 4, 3, 2, 48, 64, 4),
    ("mbconv", 4, 3, 2, 64, 128, 6),
    ("mbconv", 6, 3, 1, 128, 160, 9),
    ("mbconv", 6, 3, 2, 160, 256, 15),
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    stages: tuple = EFFNET_V2_S  # see EFFNET_V2_S; strides multiply to 16, the stem adds 2
    last_channels: int = 1280


class Encoder(nn.Module):
    """EfficientNet-V2 features -> 1x1 convolution -> BatchNorm without affine. See the module docstring."""

    def __init__(self, config: EncoderConfig = EncoderConfig()):
        super().__init__()
        blocks = {"fused": FusedMBConvConfig, "mbconv": MBConvConfig}
        setting = [blocks[kind](*numbers) for kind, *numbers in config.stages]
        net = EfficientNet(
            setting,
            dropout=0.0,
            stochastic_depth_prob=0.0,
            norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
            last_channel=config.last_channels,
            num_classes=1,
        )
        for block in net.modules():  # residual branches start at zero: from scratch, Z learns colours in half the steps
            if getattr(block, "use_res_connect", False):
                nn.init.zeros_(block.block[-1][1].weight)
        self.backbone = net.features
        self.mapper = nn.Sequential(
            nn.Conv2d(config.last_channels, LATENT_CHANNELS, kernel_size=1, bias=False),
            nn.BatchNorm2d(LATENT_CHANNELS, affine=False),
        )

    def forward(self, image: Tensor) -> Tensor:
        mean, std = (image.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return self.mapper(self.backbone((image - mean).div_(std)))  # in place: large pictures
