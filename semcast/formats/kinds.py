"""How files begin: pictures that are read, and what people take for pictures and is not, with what to do about it."""

import re
from functools import lru_cache
from logging import getLogger
from pathlib import Path

HEAD_BYTES = 16  # of a file, which say whether it begins like a picture
PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP|II[*+]\0|MM\0[*+]|P[1-6]\s|....ftyp|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
RAW_SUFFIXES = {".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr"}
RAW = "a camera's raw file; develop it first (darktable, RawTherapee), and send the JPEG or TIFF"
PDF = "a document; turn its page into a picture first (pdftoppm -png)"
VIDEO = "a video; take one picture out of it (ffmpeg -i VIDEO -frames:v 1 photo.png)"
HDR = "scene light without a display's limits; map its tones to a PNG or JPEG first"
SIGNATURES = (  # how a file begins, what it is, what to do
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n", "JPEG XL, which is not read; convert it to PNG (djxl photo.jxl photo.png)"),
    (rb"II\xbc", "JPEG XR, which is not read; convert it to PNG"),
    (rb"II\*\0.{4}CR|FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|FOVb|....ftypcrx ", RAW),
    (rb"v/1\x01|#\?(RADIANCE|RGBE)", HDR),
    (rb"%PDF", PDF),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript, a program, which is not run; convert it to PNG (gs -sDEVICE=png16m)"),
    (rb"8BPS|8BPB", "a Photoshop document, which is not read; export it as PNG"),
    (rb"gimp xcf", "a GIMP document, which is not read; export it as PNG"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "SVG, a drawing; turn it into PNG first (rsvg-convert)"),
    (rb"\s*<(!doctype html|html)", "a web page, not a picture; the download went wrong"),
    (rb"SEMC", "a semcast frame, not a picture; `semcast receive` makes a picture of it"),
    (rb"....ftyp(isom|iso\d|mp4|M4V|qt  |avc1|3gp)|\x1a\x45\xdf\xa3|RIFF....AVI ", VIDEO),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "an archive; unpack it first"),
    (rb"qoif", "QOI, which is not read; convert it to PNG"),
    (rb"\0\0[\1\2]\0[^\0]\0", "an icon, which is not read; convert it to PNG"),
)
DNG_VERSION = 50706  # a TIFF tag
HEIF = re.compile(rb"....ftyp(heic|heix|hevc|hevx|heim|heis|hevm|hevs|mif1|msf1)", re.DOTALL)


def is_like_picture(head: bytes) -> bool:
    """Whether a file that begins with these HEAD_BYTES may be a picture, which only decoding shows."""
    return PICTURE.match(head) is not None


def named(data: bytes, name: str) -> str | None:
    """What a file that is not read is called, and what to do about it; None if it may be a picture."""
    if not data:
        return "empty; copy it again"
    if Path(name).suffix.lower() in RAW_SUFFIXES:  # many are TIFF files whose first picture is a thumbnail
        return RAW
    for signature, answer in SIGNATURES:
        if re.match(signature, data[:512], re.DOTALL | re.IGNORECASE):
            return answer
    return None


def is_heif(data: bytes) -> bool:
    """Whether it is HEIC, as telephones write it, rather than AVIF, whose boxes are the same."""
    return HEIF.match(data) is not None and data[8:12] not in (b"avif", b"avis") and b"avif" not in data[16:64]


@lru_cache(1024)
def say_once(message: str) -> None:
    """A notice, once in a process: training reads a picture again and again."""
    getLogger("semcast").warning("%s", message)
