"""DeepJSCC: a convolutional network from picture to symbols and one back, trained through the channel on the MSE.

Source: Bourtsoulatze, Kurka & Gunduz 2019, "Deep joint source-channel coding for wireless image transmission"
(arXiv 1809.01733), figure 2. The encoder has 5x5 convolutions, each with a PReLU (one slope per channel); the decoder
mirrors it with transposed convolutions and ends in a sigmoid. The network for 1/12 has the paper's layers and widths.
Those for 1/96 and 1/683 are ours, since the paper has nothing so narrow: they are deeper (strides 16 and 32), wider,
and have no PReLU after the encoder's last layer (MSE after 280 steps of 1/683: 0.029 without it, 0.031 with it). All
three differ from the paper in two ways: one network serves 1 to 20 dB, not one network per SNR, and the receiver scales
the symbols by the MMSE before the decoder, which tells the decoder the noise and lets it work under fading.

Bandwidth ratios count complex uses: k / (3 H W) = channels / (6 stride^2). 1/683 is the rounded name of 3/2048.
`benchmarks/train_deepjscc.py` makes the weights.
"""

import functools
import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor, nn
from torch.nn import functional as F

from ..cascade.checkpoint import arrays, check_keys, load_weights
from ..cascade.device import to_tensor
from ..cascade.eight_bit import compressed
from ..channels.base import Received
from ..channels.noise import awgn
from ..errors import InputError
from ..files import write_bytes
from ..images import to_pixels
from .base import mean_colour, sides
from .downscale import samples

WEIGHTS = Path(__file__).parent / "weights"
LAYERS = {  # (channels, stride) of each layer of the encoder, which the decoder mirrors; the largest ratio comes first
    "1/12": ((16, 2), (32, 2), (32, 1), (32, 1), (8, 1)),
    "1/96": ((16, 2), (32, 2), (48, 2), (64, 2), (64, 1), (16, 1)),
    "1/683": ((16, 2), (32, 2), (64, 2), (64, 2), (64, 2), (9, 1)),
}
RATIOS = tuple(LAYERS)


class DeepJSCC(nn.Module):
    """image [B, 3, H, W] in [0, 1] -> x [B, k] complex with mean |x|^2 = 1 per image -> image.

    H and W are multiples of `stride`.
    """

    def __init__(self, ratio: str):
        super().__init__()
        sizes, strides = zip(*LAYERS[ratio])
        self.channels, self.stride = sizes[-1], math.prod(strides)
        steps = list(zip((3, *sizes), sizes, strides))
        encoder, decoder = [], []
        for inside, outside, stride in steps:
            encoder += [nn.Conv2d(inside, outside, 5, stride, padding=2), nn.PReLU(outside)]
        for outside, inside, stride in reversed(steps):
            decoder += [
                nn.ConvTranspose2d(inside, outside, 5, stride, padding=2, output_padding=stride - 1),
                nn.PReLU(outside),
            ]
        self.encoder = nn.Sequential(*(encoder if ratio == "1/12" else encoder[:-1]))
        self.decoder = nn.Sequential(*decoder[:-1], nn.Sigmoid())

    def encode(self, image: Tensor) -> Tensor:
        z = self.encoder(image).float().flatten(1)  # [B, channels H/stride W/stride]
        z = F.pad(z, (0, z.shape[1] % 2))  # [B, 2 k]: real parts, then imaginary parts
        power = 2 * z.square().mean(dim=1, keepdim=True)  # [B, 1]
        return torch.complex(*(z * power.clamp_min(1e-12).rsqrt()).chunk(2, dim=1))

    def decode(self, estimate: Tensor, rows: int, columns: int) -> Tensor:
        """MMSE estimate [B, 2 k] -> [B, 3, stride rows, stride columns] in [0, 1]."""
        z = estimate[:, : self.channels * rows * columns]
        return self.decoder(z.view(-1, self.channels, rows, columns)).float()

    def forward(self, image: Tensor, snr_db: float | Tensor, generators: list[Generator]) -> Tensor:
        """The whole link on AWGN, for training and evaluation; `channels.noise.awgn` explains the arguments."""
        rows, columns = (side // self.stride for side in image.shape[-2:])
        return self.decode(samples(awgn(self.encode(image), snr_db, generators)), rows, columns)


def initialise(network: DeepJSCC, generator: Generator) -> DeepJSCC:
    """Initialise as He 2015 for a PReLU of slope 1/4.

    An output of a transposed convolution sums 25 / stride^2 taps of each channel. The first layer starts on 2 image - 1
    instead of image: otherwise the pictures' common brightness takes most of the power, and learning is slow (MSE after
    200 steps of 1/96: 0.024 this way, 0.040 otherwise).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            taps = 25 * layer.in_channels / (layer.stride[0] ** 2 if layer.transposed else 1)
            drawn = generator.normal(scale=math.sqrt(2 / (1 + 0.25**2) / taps), size=layer.weight.shape)
            layer.weight.data.copy_(torch.from_numpy(drawn))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        first = network.encoder[0]
        assert isinstance(first, nn.Conv2d) and first.bias is not None
        first.bias.copy_(-first.weight.sum(dim=(1, 2, 3)))
        first.weight.mul_(2)
    return network


# Weights


def weights_path(ratio: str, folder: Path = WEIGHTS) -> Path:
    return folder / f"deepjscc-{ratio.removeprefix('1/')}.safetensors"


def save_network(network: DeepJSCC, ratio: str, path: Path, facts: dict) -> None:
    """Write atomically, with the ratio and facts = {name: value} as metadata.

    Kernels are kept in 8 bits, those of 1/12 as float16: 8 bits cost it 0.03 dB, and the narrower ones 0.01 at most.
    """
    tensors = arrays(network)
    if ratio == "1/12":
        tensors = {k: v.astype(np.float16) if v.ndim > 1 else v for k, v in tensors.items()}
    else:
        tensors = compressed(tensors)
    metadata = {"ratio": ratio, **{name: str(value) for name, value in facts.items()}}
    write_bytes(path, save(tensors, metadata))


@functools.lru_cache(maxsize=len(RATIOS))
def load_network(ratio: str, folder: Path = WEIGHTS) -> DeepJSCC:
    """The network of a ratio in evaluation mode, float32.

    Raises:
        InputError: the file is missing or damaged, or holds another network.
    """
    path = weights_path(ratio, folder)
    if not path.exists():
        command = f"python benchmarks/train_deepjscc.py {ratio} PHOTOS --minutes 10 --out {path}"
        raise InputError(f"DeepJSCC {ratio} has no weights ({path} is missing); this makes them: {command}")
    tensors = load_weights(path)
    with safe_open(path, "pt") as file:
        found = (file.metadata() or {}).get("ratio", "no ratio")
    if found != ratio:
        raise InputError(f"{path} says {found}; expected weights of DeepJSCC {ratio}")
    network = DeepJSCC(ratio)
    check_keys(network, tensors, str(path))
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def check_weights(folder: Path = WEIGHTS) -> None:
    """Raise InputError if no ratio has weights."""
    if not any(weights_path(ratio, folder).exists() for ratio in RATIOS):
        load_network(RATIOS[-1], folder)


@functools.cache
def version(folder: Path = WEIGHTS) -> str:
    """The hash of the weights of every ratio that has them."""
    files = {ratio: path.read_bytes() for ratio in RATIOS if (path := weights_path(ratio, folder)).exists()}
    hashes = [f"{ratio} {hashlib.sha256(data).hexdigest()[:16]}" for ratio, data in files.items()]
    return f"deepjscc {', '.join(hashes) or 'without weights'}"


# Sender and receiver, for `systems.py`


@torch.inference_mode()
def send(pixels: np.ndarray, uses: int, snr_db: float, folder: Path = WEIGHTS) -> tuple[np.ndarray, dict]:
    """Send with the network of the largest ratio that fits.

    The picture is padded to whole cells, and shrunk first if it would need more than `uses`.
    """
    height, width = pixels.shape[:2]
    ratio = choose(height, width, uses)
    network = load_network(ratio, folder)
    padded = [network.stride * n for n in cells(height, width, uses, network.channels, network.stride)]
    inner = min(height, padded[0]), min(width, padded[1])
    image = to_tensor(pixels)
    if inner != (height, width):
        image = F.interpolate(image, size=inner, mode="bilinear", antialias=True)
    x = network.encode(F.pad(image, (0, padded[1] - inner[1], 0, padded[0] - inner[0]), mode="replicate"))
    return x.numpy(), sides(pixels) | mean_colour(pixels) | {"network": (RATIOS.index(ratio), 2)}


@torch.inference_mode()
def receive(received: Received, side: dict, folder: Path = WEIGHTS) -> np.ndarray:
    height, width = side["height"][0], side["width"][0]
    network = load_network(RATIOS[side["network"][0]], folder)
    k = received.y.shape[1]
    rows, columns = cells(height, width, k, network.channels, network.stride)  # as in `send`, which uses all it can
    image = network.decode(torch.from_numpy(samples(received)), rows, columns)[:, :, :height, :width]
    if image.shape[-2:] != (height, width):
        image = F.interpolate(image, size=(height, width), mode="bicubic", align_corners=False)
    return to_pixels(image.numpy())


def choose(height: int, width: int, uses: int) -> str:
    """The largest ratio that needs at most `uses`, padding aside; else the smallest ratio, for a shrunk picture."""
    for ratio, layers in LAYERS.items():
        channels, stride = layers[-1][0], math.prod(s for _, s in layers)
        if max(channels * height * width // (2 * stride**2), -(-channels // 2)) <= uses:  # at least one cell
            return ratio
    smallest = RATIOS[-1]
    channels = LAYERS[smallest][-1][0]
    if 2 * uses < channels:
        raise InputError(f"{uses} channel uses are too few for deepjscc: it needs {-(-channels // 2)}")
    return smallest


def cells(height: int, width: int, uses: int, channels: int, stride: int) -> tuple[int, int]:
    """Rows and columns of the latent within `uses` symbols: of the whole padded picture, or of the least shrunk one."""
    most, all_rows, all_columns = 2 * uses // channels, -(-height // stride), -(-width // stride)
    grids = [(rows, min(all_columns, most // rows)) for rows in range(1, min(all_rows, most) + 1)]
    kept = lambda rows, columns: min(1, rows * stride / height, columns * stride / width)
    return max(grids, key=lambda grid: (kept(*grid), grid[0] * grid[1]))
