"""Result files, and means of their rows."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

RESULTS = Path(__file__).parent / "results"
CELLS = (("lpips", "LPIPS-Alex", 3), ("psnr_db", "PSNR dB", 2))


def read(name: str) -> dict:
    """Its `rows` are dictionaries, as `keep.py` and the other programs wrote them."""
    record = json.loads((RESULTS / name).read_text())
    if record.get("schema") == 2:  # of keep.py
        named = [dict(zip(record["fields"], values)) for values in record["rows"]]
        record["rows"] = [dict(zip(("image", "image_sha256"), record["pictures"][row.pop("picture")])) | row for row in named]
    return record


def source(record: dict) -> list[str]:
    """The lines below a table that say how it was made."""
    pictures, draws = (len({row[key] for row in record["rows"]}) for key in ("image", "draw"))
    return ["", f"{pictures} pictures, {draws} draw{'s' * (draws > 1)}: `{record['command']}`"]


def average(rows: list[dict], key: str, digits: int) -> str:
    """Mean over draws, then over pictures; a dash where it was not measured."""
    by_image = defaultdict(list)
    for row in rows:
        by_image[row.get("image_sha256", row["image"])].append(row[key])
    if any(value is None for values in by_image.values() for value in values):
        return "-"
    return f"{mean(mean(values) for values in by_image.values()):.{digits}f}"


def share(rows: list[dict], key: str) -> str:
    return f"{100 * mean(row[key] for row in rows):.0f} %"
