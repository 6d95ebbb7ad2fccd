"""The semantic encoder: EfficientNet-V2 features and a 1x1 mapper, stride 32.

    image [B, 3, H, W] in [0, 1]  ->  Z [B, 16, H/32, W/32], per-channel mean 0 and variance 1 over the training data

The layers and key names are those of Stable Cascade's `effnet_encoder.safetensors` (Stability-AI/StableCascade,
modules/effnet.py). torchvision supplies the definition of EfficientNet-V2, but not its weights.
"""

from functools import partial

from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet, FusedMBConv, FusedMBConvConfig, MBConv, MBConvConfig

from .config import IMAGENET_MEAN, IMAGENET_STD, LATENT_CHANNELS, OFFICIAL_ENCODER, EncoderConfig


class Encoder(nn.Module):
    """EfficientNet-V2 features -> 1x1 convolution -> BatchNorm without affine. See the module docstring."""

    def __init__(self, config: EncoderConfig = OFFICIAL_ENCODER):
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
        # Residual branches start at zero: trained from scratch, Z then learns colours in half the steps.
        for block in net.modules():
            if isinstance(block, (FusedMBConv, MBConv)) and block.use_res_connect:
                *_, last_norm = (layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d))
                nn.init.zeros_(last_norm.weight)
        self.backbone = net.features
        self.mapper = nn.Sequential(
            nn.Conv2d(config.last_channels, LATENT_CHANNELS, kernel_size=1, bias=False),
            nn.BatchNorm2d(LATENT_CHANNELS, affine=False),
        )

    def forward(self, image: Tensor) -> Tensor:
        mean, std = (image.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return self.mapper(self.backbone((image - mean).div_(std)))  # in place, for large pictures
