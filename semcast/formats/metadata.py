"""What a file says beside its pixels, read so that damage in it never costs the picture.

PNG: chunks (PNG 3rd edition, W3C 2025). JPEG: segments (ITU-T T.81). AVIF: the box `colr` (ISO/IEC 14496-12).
"""

import re
import struct
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
COLOUR = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"}
JPEG = b"\xff\xd8"
# The colour space in numbers (ITU-T H.273): primaries, transfer function. 2 stands for "not said".
Cicp = tuple[int, int]


def chunks(png: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """The chunks of a PNG: kind, where it begins and ends, whether its checksum is right; the last may be cut off."""
    start = len(PNG)
    while start + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, start)
        end = start + 12 + length
        whole = end <= len(png)
        right = whole and zlib.crc32(png[start + 4 : end - 4]) == struct.unpack_from(">I", png, end - 4)[0]
        yield kind, start, end, right
        if kind == b"IEND" or not whole:
            return
        start = end


def tidy(data: bytes, bare: bool = False) -> bytes:
    """The file without damaged metadata, or with `bare` without any; what is left of the pixels is not touched."""
    if data.startswith(PNG):
        kept = [PNG]
        for kind, start, end, right in chunks(data):
            critical = kind[:1].isupper()
            wanted = kind == b"tRNS" or (not bare and (kind in COLOUR or kind == b"eXIf"))
            if critical or (wanted and right):
                kept.append(data[start:end])
        return b"".join(kept)
    if data.startswith(JPEG) and bare:
        kept, start = [JPEG], len(JPEG)
        while start + 4 <= len(data):
            mark, kind, length = struct.unpack_from(">BBH", data, start)
            if mark != 0xFF or kind == 0xDA or length < 2:  # 0xDA: pixels from here on
                break
            if kind == 0xEE or not 0xE0 <= kind <= 0xEF and kind != 0xFE:  # APP14 says which colours these are
                kept.append(data[start : start + 2 + length])
            start += 2 + length
        return b"".join([*kept, data[start:]])
    return data


def cicp(data: bytes) -> Cicp | None:
    """The colour space that a PNG or AVIF names by numbers."""
    if data.startswith(PNG):
        for kind, start, end, right in chunks(data):
            if kind == b"cICP" and right and end - start == 16:
                return data[start + 8], data[start + 9]
            if kind == b"IDAT":
                return None
    if data[4:8] == b"ftyp" and (found := re.search(rb"colrnclx(.{4})", data[:65536], re.DOTALL)):
        return struct.unpack(">HH", found[1])
    return None
