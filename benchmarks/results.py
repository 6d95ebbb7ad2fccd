"""Result files, and means of their rows."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from semcast.bench import records
from semcast.bench.measures import SLOW

RESULTS = Path(__file__).parent / "results"
CELLS = (("lpips", "LPIPS-Alex", 3), ("psnr_db", "PSNR dB", 2))


def read(name: str) -> dict:
    """An experiment's record, rows as dictionaries; other result files as they are."""
    path = RESULTS / name
    held = json.loads(path.read_text())
    return records.read(path) if "experiment" in held else held


MEASURE = "python benchmarks/measure.py"


def source(record: dict) -> list[str]:
    """The lines below a table that say how it was made."""
    pictures, draws = (len({row[key] for row in record["rows"]}) for key in ("image", "draw"))
    command = record["command"]
    if command.startswith(MEASURE):  # of several experiments, perhaps
        command = f"{MEASURE} {record['experiment']}"
    return ["", f"{pictures} pictures, {draws} draw{'s' * (draws > 1)}: `{command}`"]


def average(rows: Iterable[dict], key: str, digits: int) -> str:
    """Mean over draws, then over pictures; a dash where it was not measured. Slow metrics are those of the first draw."""
    by_image = defaultdict(list)
    for row in (row for row in rows if not (key in SLOW and row.get("draw"))):
        by_image[row.get("image_sha256", row["image"])].append(row.get(key))
    if not by_image or any(value is None for values in by_image.values() for value in values):
        return "-"
    return f"{mean(mean(values) for values in by_image.values()):.{digits}f}"


def share(rows: list[dict], key: str) -> str:
    return f"{100 * mean(row[key] for row in rows):.0f} %"
