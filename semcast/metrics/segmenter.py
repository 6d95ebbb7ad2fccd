"""A small segmenter of street scenes into CamVid's 11 classes, and the overlaps from which mIoU is computed.

The network is EfficientNet-Lite0 (classifier.py) up to stride 32 with a feature pyramid back to stride 4 (Lin et al.
2017). `benchmarks/train_segmenter.py` trains it in minutes. No weights are shipped, since only benches on labelled
street scenes need them.
"""

import functools
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from ..cascade.checkpoint import check_keys
from ..cascade.device import to_tensor
from ..errors import InputError
from ..files import load_tensors, write_bytes
from .classifier import load_classifier

if TYPE_CHECKING:
    from efficientnet_lite_pytorch import EfficientNet

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
VOID = len(CLASSES)  # the label of pixels of no class, which are not counted
TAPS = {2: 24, 4: 40, 10: 112, 15: 320}  # blocks of EfficientNet-Lite0 -> channels, at strides 4, 8, 16, 32
WIDTH = 96  # channels of the pyramid
LABEL_BYTES_MAX = 8 << 20  # size of one PNG


class Segmenter(nn.Module):
    """[B, 3, H, W] in [0, 1] -> logits [B, 11, H, W]."""

    def __init__(self, trunk: nn.Module | None = None):
        super().__init__()
        trunk = cast("EfficientNet", trunk or load_classifier())
        self.stem = nn.Sequential(trunk._conv_stem, trunk._bn0, nn.ReLU6())
        self.blocks = trunk._blocks
        self.laterals = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in TAPS.values())
        self.smooth = nn.ModuleList(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()) for _ in TAPS)
        self.head = nn.Conv2d(WIDTH, len(CLASSES), 1)

    def forward(self, image: Tensor) -> Tensor:
        x, maps = self.stem((255 * image - 127) / 128), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                maps.append(x)
        y = None
        for x, lateral, smooth in reversed(list(zip(maps, self.laterals, self.smooth))):
            x = lateral(x)
            y = smooth(x if y is None else x + F.interpolate(y, size=x.shape[-2:], mode="bilinear"))
        return F.interpolate(self.head(y).float(), size=image.shape[-2:], mode="bilinear")


def save_segmenter(network: Segmenter, path: Path) -> None:
    """Write the weights atomically, matrices and kernels as float16."""
    tensors = {k: v.detach().half() if v.ndim > 1 else v.detach() for k, v in network.state_dict().items()}
    write_bytes(path, save({k: v.contiguous() for k, v in tensors.items()}))


@functools.lru_cache(maxsize=2)
def load_segmenter(path: Path) -> Segmenter:
    """Load the segmenter in float32, in evaluation mode and without gradients.

    Raises:
        InputError: the file is missing, damaged or of another network, or a package is missing.
    """
    if not path.exists():
        command = f"python benchmarks/train_segmenter.py STREETS --labels LABELS --out {path}"
        raise InputError(f"{path} does not exist; this trains the segmenter in minutes: {command}")
    network, tensors = Segmenter(), load_tensors(path)
    check_keys(network, tensors, str(path))
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def segment(network: Segmenter, pixels: np.ndarray) -> np.ndarray:
    """Pixels, uint8 [H, W, 3] -> the class of each, uint8 [H, W]."""
    return network(to_tensor(pixels))[0].argmax(dim=0).byte().numpy()


def overlaps(found: np.ndarray, truth: np.ndarray) -> list[list[int]]:
    """For each class, [pixels found and true, pixels found or true]. Pixels that are void in `truth` do not count."""
    seen = truth != VOID
    counts = np.bincount(found[seen].astype(int) * VOID + truth[seen], minlength=VOID * VOID).reshape(VOID, VOID)
    both = counts.diagonal()
    return np.stack([both, counts.sum(axis=0) + counts.sum(axis=1) - both], axis=1).tolist()


def mean_iou(counts: np.ndarray) -> float:
    """Mean intersection over union from overlaps [pictures, classes, 2].

    As for CamVid and Cityscapes, overlaps are summed over pictures first; the mean is over the classes that occur.
    """
    both, either = counts.sum(axis=0).T
    return float((both[either > 0] / either[either > 0]).mean())


class Labels:
    """Class maps in a folder or an uncompressed tar file: PNGs with one number per pixel, an index of CLASSES or VOID.

    A label has the same name as its picture, apart from the suffix and an optional prefix of the picture's name
    ("x.png" for "camvid_x.webp").
    """

    def __init__(self, source: Path):
        self.files: dict[str, tuple[Path, int, int]] = {}  # name -> file, offset and length of the PNG
        try:
            if source.is_dir():
                self.files = {p.stem: (p, 0, p.stat().st_size) for p in sorted(source.rglob("*.png"))}
            else:
                with tarfile.open(source, "r:") as tar:
                    members = [m for m in tar if m.isfile() and m.name.endswith(".png")]
                self.files = {Path(m.name).stem: (source, m.offset_data, m.size) for m in members}
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"cannot read labels from {source}: {error}") from None
        if not self.files:
            raise InputError(f"no labels in {source}: it holds no PNG")

    def find(self, picture: str) -> str | None:
        """The name of the picture's label; None if there is none."""
        stem = Path(picture).stem
        return next((name for name in (stem, stem.partition("_")[2]) if name in self.files), None)

    def read(self, picture: str, sides: tuple[int, int]) -> np.ndarray:
        """Read the picture's label, uint8 [H, W].

        Args:
            sides: (H, W) of the picture.
        Raises:
            InputError: the picture has no label, or one that is damaged, too large or of another size.
        """
        name = self.find(picture)
        if name is None:
            raise InputError(f"{picture} has no label; labels are needed for all pictures or none")
        path, offset, size = self.files[name]
        if size > LABEL_BYTES_MAX:
            raise InputError(f"label {name} in {path} has {size} bytes; the limit is {LABEL_BYTES_MAX}")
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                with Image.open(io.BytesIO(file.read(size)), formats=("PNG",)) as image:
                    if image.size != sides[::-1]:
                        raise InputError(
                            f"label {name} has {image.width}x{image.height} pixels, its picture {sides[1]}x{sides[0]}"
                        )
                    label = np.array(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"label {name} in {path} cannot be read: {error}") from None
        if label.ndim != 2 or label.dtype != np.uint8 or label.max() > VOID:
            raise InputError(f"label {name} in {path} is no grey PNG of numbers 0 to {VOID}")
        return label
