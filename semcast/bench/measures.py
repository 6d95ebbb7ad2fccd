"""All metrics of a row. A metric that cannot be measured is None, with a reason."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..cascade.device import to_tensor
from ..errors import InputError
from ..images import to_image
from ..metrics import measure as metrics
from ..metrics.classifier import agreement, load_classifier, see
from ..metrics.colour import delta_e
from ..metrics.dists import DISTS
from ..metrics.lpips import LPIPS, load_lpips
from ..metrics.pixels import MS_SSIM_SIDE_MIN
from ..metrics.segmenter import load_segmenter, overlaps, segment

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
SHIFTS = ("shift_red", "shift_green", "shift_blue")  # mean of the received picture less that of the original, of 255
NOT_HERE = "measured at the headline SNRs only, of the first draw"
SLOW = {"lpips_vgg", "dists", "top1_in_top5", "top5_overlap"}  # of these metrics


@functools.lru_cache(maxsize=2)
def networks(lpips_folder: Path | None) -> tuple[dict[str, LPIPS], DISTS | None, nn.Module | None, dict[str, str]]:
    """(LPIPS by name, DISTS, the classifier, {metric: why it cannot be measured})."""
    lpips, dists, classifier, reasons = {}, None, None, {}
    for network, metric in (("alex", "lpips"), ("vgg", "lpips_vgg")):
        try:
            lpips[network] = load_lpips(network, lpips_folder)
        except InputError as error:
            reasons[metric] = str(error)
    try:
        import torchmetrics.functional.image as package

        weights = torch.load(
            Path(package.__file__).parent / "dists_models" / "weights.pt", map_location="cpu", weights_only=True
        )
        dists = DISTS(lpips["vgg"].features, weights["alpha"].data, weights["beta"].data)
    except KeyError:
        reasons["dists"] = reasons["lpips_vgg"]
    except Exception as error:  # another version of torchmetrics, or a damaged file
        reasons["dists"] = f"torchmetrics has no weights of DISTS: {error}"
    try:
        classifier = load_classifier()
    except InputError as error:
        reasons["top1_in_top5"] = reasons["top5_overlap"] = str(error)
    return lpips, dists, classifier, reasons


def reference(
    pixels: np.ndarray,
    lpips_folder: Path | None,
    headline: bool,
    segmenter: Path | None = None,
    truth: np.ndarray | None = None,
) -> dict:
    """The features of a picture that its receptions are compared with. The last two pictures' are remembered.

    Args:
        truth: the classes of its pixels, uint8 [H, W].
    """
    truth_bytes = None if truth is None else truth.tobytes()
    return _reference(pixels.tobytes(), pixels.shape, lpips_folder, headline, segmenter, truth_bytes)


@functools.lru_cache(maxsize=2)  # one picture, at headline SNRs and at others: its systems follow one another
@torch.inference_mode()
def _reference(
    data: bytes,
    shape: tuple[int, int, int],
    lpips_folder: Path | None,
    headline: bool,
    segmenter: Path | None,
    truth_bytes: bytes | None,
) -> dict:
    pixels = np.frombuffer(bytearray(data), np.uint8).reshape(shape)
    truth = None if truth_bytes is None else np.frombuffer(truth_bytes, np.uint8).reshape(shape[:2])
    lpips, dists, classifier, _ = networks(lpips_folder)
    image, tensor = to_image(pixels), to_tensor(pixels)
    used = {name: network for name, network in lpips.items() if headline or name == "alex"}
    network = load_segmenter(segmenter) if segmenter and headline and truth is not None else None
    return {
        "image": image,
        "tensor": tensor,
        "lpips": used,
        "maps": metrics.reference_maps(image, used),
        "dists": dists.moments(tensor) if dists and headline else None,
        "seen": see(classifier, pixels) if classifier and headline else None,
        "segmenter": network,
        "truth": truth,
        "segments": overlaps(segment(network, pixels), truth) if network and truth is not None else None,
    }


@torch.inference_mode()
def measure(reference: dict, received: np.ndarray, lpips_folder: Path | None) -> tuple[dict, np.ndarray | None]:
    """Metrics of uint8 [H, W, 3] by name, with reasons for those that are None under `missing`; classifier's features.

    LPIPS-VGG, DISTS and the classifier are slow and only run if the reference was made for a headline SNR.
    """
    _, dists, classifier, reasons = networks(lpips_folder)
    image, tensor = to_image(received), to_tensor(received)
    found = metrics.measure(reference["image"], image, reference["lpips"], reference["maps"])
    quality: dict = {name: found[name] for name in METRICS if name in found}
    quality["dists"] = (
        dists.distance(reference["dists"], dists.moments(tensor)) if dists and reference["dists"] else None
    )
    seen = see(classifier, received) if classifier and reference["seen"] else None
    quality |= (
        agreement(reference["seen"].labels, seen.labels) if seen else {"top1_in_top5": None, "top5_overlap": None}
    )
    quality["delta_e"] = delta_e(reference["tensor"], tensor)
    why = {"ms_ssim": f"needs sides of at least {MS_SSIM_SIDE_MIN} pixels"} | reasons
    network, truth = reference["segmenter"], reference["truth"]
    why |= {"segments": "needs --labels and --segmenter"} if truth is None else {}
    shift = 255 * (tensor - reference["tensor"]).mean((0, 2, 3))
    quality |= {name: round(value, 4) for name, value in zip(SHIFTS, shift.tolist())}
    quality["segments"] = overlaps(segment(network, received), truth) if network and truth is not None else None
    lacking = [name for name, value in quality.items() if value is None]
    quality["segments_original"] = reference["segments"]
    quality["missing"] = {name: why.get(name, NOT_HERE) for name in lacking}
    return quality, seen.features if seen else None
