"""Colours of a file to sRGB: by its ICC profile through LittleCMS, or by numbers (CICP, PNG's gAMA and cHRM).

Values in light are 1 at the white of an ordinary screen. Sources: ITU-T H.273 (numbers of primaries and curves), ITU-R
BT.2100 (PQ, HLG), ITU-R BT.2408 (203 cd/m2 as white), IEC 61966-2-1 (sRGB).
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from .kinds import say_once
from .metadata import Cicp

Primaries = tuple[float, ...]  # x and y of white, red, green, blue: as in PNG's cHRM
D65, C, E, DCI = (0.3127, 0.329), (0.31, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
SRGB: Primaries = (*D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
BT601: Primaries = (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)
PRIMARIES: dict[int, Primaries] = {  # by their number in H.273; those that are missing count as sRGB's
    4: (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: BT601,
    7: BT601,
    8: (*C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    10: (*E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (*DCI, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
WHITE_CD_M2 = 203.0
HLG_PEAK_CD_M2 = 1000.0
KNEE = 0.8  # light below it is kept; above it highlights are compressed towards 1
ROWS = 256  # converted at a time, for large pictures
Curve = Callable[[np.ndarray], np.ndarray]


def srgb_curve(code: np.ndarray) -> np.ndarray:
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def pq_curve(code: np.ndarray) -> np.ndarray:
    root = code ** (1 / 78.84375)
    return (
        10_000
        / WHITE_CD_M2
        * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    )


def hlg_curve(code: np.ndarray) -> np.ndarray:
    """Of the scene, 0 to 1; the display's own gamma is applied with the other channels."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def power(gamma: float) -> Curve:
    return lambda code: code**gamma


CURVES: dict[int, Curve] = {4: power(2.2), 5: power(2.8), 8: power(1.0), 16: pq_curve, 17: power(2.6), 18: hlg_curve}
PQ, HLG = 16, 18


def from_icc(image: Image.Image, profile: bytes) -> Image.Image:
    """An L, RGB or CMYK picture to RGB by its profile: relative colorimetric, with black point compensation.

    A profile that is damaged, or of another kind of picture, is left out of account with a line in the log.
    """
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if space != {"L": "GRAY"}.get(image.mode, image.mode):
            raise ValueError(f"it is for {space} and the picture is {image.mode}")
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(
            source,
            target,
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode == "CMYK" or changes(transform, image.mode):
            return ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        say_once(f"a colour profile is left out of account: {error}")
    return image.convert("RGB")


def changes(transform, mode: str) -> bool:
    """Whether a profile differs from sRGB by more than rounding; most that photos carry do not."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(18, -1, 3)
    sample = Image.fromarray(colours).convert(mode)
    before, after = np.array(sample.convert("RGB"), np.int16), np.array(ImageCms.applyTransform(sample, transform))
    return bool(np.abs(after - before).max() > 1)


def from_lab(image: Image.Image) -> Image.Image:
    """A CIELAB picture to RGB."""
    return ImageCms.profileToProfile(
        image,
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    ) or image.convert("RGB")


def from_cicp(image: Image.Image, numbers: Cicp, name: str) -> Image.Image:
    """An RGB picture to sRGB by the numbers of its primaries and curve. HDR is brought into a screen's range.

    Curves made for television count as sRGB's, whose look they have, as browsers do it.
    """
    primaries, curve = PRIMARIES.get(numbers[0], SRGB), CURVES.get(numbers[1], srgb_curve)
    if primaries == SRGB and curve is srgb_curve:
        return image
    if numbers[1] in (PQ, HLG):
        kind = "PQ" if numbers[1] == PQ else "HLG"
        say_once(f"{name} is HDR ({kind}); its highlights are compressed into a screen's range")
    return convert(image, primaries, curve, "pq" if numbers[1] == PQ else "hlg" if numbers[1] == HLG else "")


def from_png(image: Image.Image, info: dict) -> Image.Image:
    """An RGB picture to sRGB by PNG's gAMA and cHRM, as Pillow reports them.

    A gamma of 1/2.2, and primaries near sRGB's, are how older programs write sRGB.
    """
    gamma, primaries = info.get("gamma") or 1 / 2.2, tuple(info.get("chromaticity") or SRGB)
    curve = srgb_curve if abs(gamma * 2.2 - 1) < 0.01 or not 0.1 < gamma < 10 else power(1 / gamma)
    sensible = all(0 <= value <= 1 for value in primaries) and all(y > 0 for y in primaries[1::2])
    if not sensible or np.abs(np.subtract(primaries, SRGB)).max() < 0.003:
        primaries = SRGB
    if primaries == SRGB and curve is srgb_curve:
        return image
    return convert(image, primaries, curve)


def convert(image: Image.Image, primaries: Primaries, curve: Curve, hdr: str = "") -> Image.Image:
    """An RGB picture through light to sRGB. hdr: "pq" or "hlg", of which highlights are compressed."""
    try:
        matrix = np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)
    except np.linalg.LinAlgError:  # primaries on one line
        matrix = np.eye(3)
    light = curve(np.arange(256) / 255.0).astype(np.float32)
    steps = 65535
    codes = np.arange(steps + 1) / steps
    codes = np.where(codes <= 0.0031308, codes * 12.92, 1.055 * codes ** (1 / 2.4) - 0.055)
    levels = (codes * 255).round().astype(np.uint8)
    pixels = np.array(image)
    for top in range(0, len(pixels), ROWS):
        linear = light[pixels[top : top + ROWS]]
        if hdr == "hlg":
            scene = linear @ np.array([0.2627, 0.678, 0.0593], np.float32)
            linear *= HLG_PEAK_CD_M2 / WHITE_CD_M2 * np.maximum(scene, 1e-6)[..., None] ** 0.2
        if hdr:
            linear *= compression(linear.max(axis=-1, keepdims=True))
        linear = linear @ matrix.T.astype(np.float32)
        pixels[top : top + ROWS] = levels[(linear.clip(0, 1) * steps + 0.5).astype(np.uint16)]
    return Image.fromarray(pixels)


def compression(peak: np.ndarray) -> np.ndarray:
    """What to multiply a colour by whose brightest channel is `peak`, so that all of it fits below 1."""
    room = 1 - KNEE
    fitted = KNEE + room * (1 - np.exp(-(np.maximum(peak, KNEE) - KNEE) / room))
    return np.where(peak <= KNEE, 1, fitted / np.maximum(peak, KNEE)).astype(np.float32)


def to_xyz(primaries: Primaries) -> np.ndarray:
    """The matrix from linear RGB of these primaries to XYZ with the white of D65 (Bradford)."""
    xy = np.reshape(primaries, (4, 2))
    white, *colours = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    base = np.array(colours).T
    x, y = D65
    d65 = np.array([x / y, 1, (1 - x - y) / y])
    adapt = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ d65 / (BRADFORD @ white)) @ BRADFORD
    return adapt @ base @ np.diag(np.linalg.solve(base, white))
