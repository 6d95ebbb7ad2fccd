"""Data sets by name: `--data camvid` is what lies under that name in the folder that SEMCAST_DATA names.

    $SEMCAST_DATA/camvid or camvid.tar                   the pictures
    $SEMCAST_DATA/camvid-labels or camvid-labels.tar     the classes of their pixels, if there are any
    $SEMCAST_DATA/camvid-segmenter.safetensors           a segmenter for these classes, if there is one

Nothing is downloaded.
"""

import os
from pathlib import Path

from ..errors import InputError

VARIABLE = "SEMCAST_DATA"


def find_data(source: Path) -> Path:
    """The path of a data set. A source that exists, or is more than a name, stays as it is.

    Raises:
        InputError: no data set has this name.
    """
    if source.exists() or source.name != str(source) or source.suffix or ":" in source.name:
        return source
    if found := find_beside(source.name, "", ".tar"):
        return found
    folder = os.environ.get(VARIABLE)
    where = (
        f"{VARIABLE} names {folder}, which has no such data set" if folder else f"{VARIABLE} names no folder of data"
    )
    raise InputError(f"no pictures at {source}: there is no such file or folder here, and {where}")


def find_beside(name: str, *endings: str) -> Path | None:
    """What is called NAME and one of these endings in the folder of data sets, if there is anything."""
    folder = os.environ.get(VARIABLE)
    paths = [Path(folder) / f"{name}{ending}" for ending in endings] if folder else []
    return next((path for path in paths if path.exists()), None)
