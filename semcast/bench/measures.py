"""All metrics of a row. What cannot be had is None, with a reason."""

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import __version__, fast_layers, metrics
from ..errors import InputError
from ..images import to_tensor
from ..lpips import LPIPS, load_lpips
from .classifier import agreement, load_classifier, see
from .cost import cpu_name
from .segmenter import load_segmenter, overlaps, segment

METRICS = {  # name: (label, unit, digits, whether more is better)
    "psnr_db": ("PSNR", "dB", 2, True),
    "ssim": ("SSIM", "", 3, True),
    "ms_ssim": ("MS-SSIM", "", 3, True),
    "lpips": ("LPIPS-Alex", "", 3, False),
    "lpips_vgg": ("LPIPS-VGG", "", 3, False),
    "dists": ("DISTS", "", 3, False),
    "top1_in_top5": ("best label in the top 5", "", 3, True),
    "top5_overlap": ("top 5 labels in common", "", 3, True),
    "delta_e": ("colour error", "dE2000", 2, False),
}
SHIFTS = ("shift_red", "shift_green", "shift_blue")  # mean of what was received less the original's, of 255
BLOCK = 16  # pixels, of the colour error
DISTS_WIDTHS = (3, 64, 128, 256, 512, 512)
DISTS_TAPS = (3, 8, 15, 22, 29)  # ReLUs of VGG16, as LPIPS
NOT_HERE = "measured at the headline SNRs only"


class DISTS:
    """Ding et al. 2020, "Image quality assessment: unifying structure and texture similarity". 0 for equal images.

    No resizing. VGG16's features are those of LPIPS-VGG, alpha and beta come with torchmetrics.
    """

    def __init__(self, features: nn.Sequential, alpha: Tensor, beta: Tensor):
        """features: VGG16's first 30 layers; alpha, beta: [1475] in all."""
        self.features, self.alpha, self.beta = features, alpha.flatten(), beta.flatten()
        hann = torch.hann_window(5, periodic=False)[1:-1]
        self.blur = torch.outer(hann, hann) / hann.sum().square()  # [3, 3]

    def maps(self, image: Tensor) -> list[Tensor]:
        """[1, 3, H, W] in [0, 1] -> the picture and five feature maps."""
        mean, deviation = (image.new_tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x, maps = (image - mean) / deviation, [image]
        for i, layer in enumerate(self.features[: DISTS_TAPS[-1] + 1]):
            if isinstance(layer, nn.MaxPool2d):
                kernel = self.blur.expand(x.shape[1], 1, 3, 3)
                x = (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
            else:
                x = fast_layers.apply(layer, x)
            if i in DISTS_TAPS:
                maps.append(x)
        return maps

    def moments(self, image: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of every map, what two pictures are compared by: the map, its means and its variances [1, C]."""
        means = [(x, x.mean((2, 3), keepdim=True)) for x in self.maps(image)]
        return [(x, m[:, :, 0, 0], (x - m).square().mean((2, 3))) for x, m in means]  # x.var takes three times as long

    def distance(self, a: list[tuple], b: list[tuple]) -> float:
        """Of the moments of two pictures."""
        total = self.alpha.sum() + self.beta.sum()
        score = 0.0
        for (x, mx, vx), (y, my, vy), alpha, beta in zip(a, b, self.alpha.split(DISTS_WIDTHS), self.beta.split(DISTS_WIDTHS)):
            covariance = (x * y).mean((2, 3)) - mx * my
            score += (alpha * (2 * mx * my + 1e-6) / (mx.square() + my.square() + 1e-6)).sum()
            score += (beta * (2 * covariance + 1e-6) / (vx + vy + 1e-6)).sum()
        return 1 - (score / total).item()


@functools.lru_cache(maxsize=2)
def networks(lpips_folder: Path | None) -> tuple[dict[str, LPIPS], DISTS | None, nn.Module | None, dict[str, str]]:
    """(LPIPS by name, DISTS, the classifier, {metric: why it cannot be had})."""
    lpips, dists, classifier, reasons = {}, None, None, {}
    for network, metric in (("alex", "lpips"), ("vgg", "lpips_vgg")):
        try:
            lpips[network] = load_lpips(network, lpips_folder)
        except InputError as error:
            reasons[metric] = str(error)
    try:
        import torchmetrics.functional.image as package

        weights = torch.load(Path(package.__file__).parent / "dists_models" / "weights.pt", map_location="cpu", weights_only=True)
        dists = DISTS(lpips["vgg"].features, weights["alpha"].data, weights["beta"].data)
    except KeyError:
        reasons["dists"] = reasons["lpips_vgg"]
    except Exception as error:  # another torchmetrics, a damaged file
        reasons["dists"] = f"torchmetrics has no weights of DISTS: {error}"
    try:
        classifier = load_classifier()
    except InputError as error:
        reasons["top1_in_top5"] = reasons["top5_overlap"] = str(error)
    return lpips, dists, classifier, reasons


def reference(
    pixels: np.ndarray, lpips_folder: Path | None, headline: bool, segmenter: Path | None = None, truth: np.ndarray | None = None
) -> dict:
    """Features that many receptions of one picture are compared with; the last two are remembered. truth: classes of its pixels,
    uint8 [H, W]."""
    truth_bytes = None if truth is None else truth.tobytes()
    return _reference(pixels.tobytes(), pixels.shape, lpips_folder, headline, segmenter, truth_bytes)


@functools.lru_cache(maxsize=2)  # of a picture, at headline SNRs and at others: its systems come one after the other
@torch.inference_mode()
def _reference(
    data: bytes, shape: tuple[int, int, int], lpips_folder: Path | None, headline: bool, segmenter: Path | None, truth_bytes: bytes | None
) -> dict:
    pixels = np.frombuffer(bytearray(data), np.uint8).reshape(shape)
    truth = None if truth_bytes is None else np.frombuffer(truth_bytes, np.uint8).reshape(shape[:2])
    lpips, dists, classifier, _ = networks(lpips_folder)
    image = to_tensor(pixels)
    used = {name: network for name, network in lpips.items() if headline or name == "alex"}
    network = load_segmenter(segmenter) if segmenter and headline and truth is not None else None
    return {
        "image": image,
        "lpips": used,
        "maps": metrics.reference_maps(image, used),
        "dists": dists.moments(image) if dists and headline else None,
        "seen": see(classifier, pixels) if classifier and headline else None,
        "segmenter": network,
        "truth": truth,
        "segments": overlaps(segment(network, pixels), truth) if network else None,
    }


@torch.inference_mode()
def measure(reference: dict, received: np.ndarray, lpips_folder: Path | None) -> tuple[dict, np.ndarray | None]:
    """Metrics of uint8 [H, W, 3], by name, and under `missing` why one is None; and the classifier's features.

    LPIPS-VGG, DISTS and the classifier, which are slow, are measured if the reference was made for a headline SNR.
    """
    _, dists, classifier, reasons = networks(lpips_folder)
    image = to_tensor(received)
    quality = metrics.measure(reference["image"], image, reference["lpips"], reference["maps"])
    quality = {name: quality[name] for name in METRICS if name in quality}
    quality["dists"] = dists.distance(reference["dists"], dists.moments(image)) if reference["dists"] else None
    seen = see(classifier, received) if reference["seen"] else None
    quality |= agreement(reference["seen"].labels, seen.labels) if seen else {"top1_in_top5": None, "top5_overlap": None}
    quality["delta_e"] = delta_e(reference["image"], image)
    why = {"ms_ssim": f"needs sides of at least {metrics.MS_SSIM_SIDE_MIN} pixels"} | reasons
    why |= {"segments": "needs --labels and --segmenter"} if reference["truth"] is None else {}
    shift = 255 * (image - reference["image"]).mean((0, 2, 3))
    quality |= {name: round(value, 4) for name, value in zip(SHIFTS, shift.tolist())}
    network = reference["segmenter"]
    quality["segments"] = overlaps(segment(network, received), reference["truth"]) if network else None
    lacking = [name for name, value in quality.items() if value is None]
    quality["segments_original"] = reference["segments"]
    quality["missing"] = {name: why.get(name, NOT_HERE) for name in lacking}
    return quality, seen.features if seen else None


def delta_e(a: Tensor, b: Tensor) -> float:
    """Mean CIEDE2000 of the mean colours (of sRGB values) of blocks of 16x16 pixels: shifted colours, whatever the detail."""
    blocks = [F.avg_pool2d(image, BLOCK, ceil_mode=True)[0].permute(1, 2, 0).double().numpy() for image in (a, b)]
    return float(ciede2000(*(lab(block) for block in blocks)).mean())


def lab(srgb: np.ndarray) -> np.ndarray:
    """[..., 3] in [0, 1] -> CIE L*a*b*, D65."""
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    matrix = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def ciede2000(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Colour difference of L*a*b* [..., 3]. Source: Sharma, Wu & Dalal 2005, equations 2 to 22."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = (1 - np.sqrt(c**7 / (c**7 + 25.0**7))) / 2
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    dh = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    dl, dc, dh_length = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2)
    c, middle = (c1 + c2) / 2, (l1 + l2) / 2 - 50
    h = np.where(grey, h1 + h2, np.where(np.abs(h1 - h2) <= 180, (h1 + h2) / 2, (h1 + h2 + np.where(h1 + h2 < 360, 360, -360)) / 2))
    cosine = lambda degrees: np.cos(np.radians(degrees))
    t = 1 - 0.17 * cosine(h - 30) + 0.24 * cosine(2 * h) + 0.32 * cosine(3 * h + 6) - 0.2 * cosine(4 * h - 63)
    sl = 1 + 0.015 * middle**2 / np.sqrt(20 + middle**2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2)))) * 2 * np.sqrt(c**7 / (c**7 + 25.0**7))
    terms = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh_length / sh) ** 2 + rotation * (dc / sc) * (dh_length / sh)
    return np.sqrt(np.maximum(terms, 0))


@functools.lru_cache(maxsize=2)
def versions(lpips_folder: Path | None, segmenter: Path | None = None) -> dict[str, str | None]:
    """Everything that metrics depend on, and the machine, on which times do."""
    packages = ("torch", "torchmetrics", "numpy", "pillow")
    lpips, dists, classifier, _ = networks(lpips_folder)
    weights = {f"lpips_{name}": digest(network.state_dict()) for name, network in lpips.items()}
    weights["dists"] = digest({"alpha": dists.alpha, "beta": dists.beta}) if dists else None
    weights["efficientnet_lite0"] = digest(classifier.state_dict()) if classifier else None
    weights["segmenter"] = digest(load_segmenter(segmenter).state_dict()) if segmenter else None
    named = {package: importlib.metadata.version(package) for package in packages}
    return {"semcast": __version__, "commit": commit(), "cpu": cpu_name(), "python": platform.python_version(), **named, **weights}


def digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))).hexdigest()[:16]


def commit() -> str | None:
    """Of the checkout this package runs from, with a + if it was changed; None if it is installed."""
    root = Path(__file__).resolve().parents[2]
    git = lambda *words: subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
