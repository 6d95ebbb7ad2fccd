"""What is kept of a bench in the repository: its rows without what all share, as lists of values (`records.read` makes rows of them).

python benchmarks/keep.py DIR --out benchmarks/results/bench_kodak.json
"""

import argparse
from collections import defaultdict
from pathlib import Path

from quality import one_row_a_line, run

from semcast.bench.harness import ROWS, read_rows
from semcast.bench.measures import METRICS, SHIFTS
from semcast.bench.report import TIMES
from semcast.cascade.checkpoint import write_text
from semcast.errors import InputError

SHARED = ("protocol", "size", "channel", "channel_options", "uses_rule", "versions")
MAY_DIFFER = ("commit", "cpu")  # out of `versions`: a run may go on with other systems, and on other machines
KEPT = ("system", "uses", "payload_uses", "side_bits", "snr_db", "draw", "lost", "headline", *METRICS, *TIMES)
KEPT_IF_ANY = (*SHIFTS, "segments", "segments_original")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path, metavar="DIR", help="of `semcast bench --out DIR`")
    p.add_argument("--uses", metavar="RULE", help="only rows of this rule, as given to `semcast bench --uses`; default all")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    if not (args.folder / ROWS).exists():
        raise SystemExit(f"keep: {args.folder} holds no rows of a bench")
    rows = [row for row in read_rows(args.folder / ROWS) if args.uses in (None, row["uses_rule"])]
    write_text(args.out, one_row_a_line(kept(rows)))
    print(args.out)


def kept(rows: list[dict]) -> dict:
    """Rows of one setting -> the record to commit.

    Raises:
        InputError: there are none, their settings or versions differ, or a system lacks some that another has.
    """
    if not rows:
        raise InputError("there are no rows; make some with `semcast bench`")
    found = {f"{name}s": sorted({str(row["versions"].get(name)) for row in rows}) for name in MAY_DIFFER}
    rows = [row | {"versions": {k: v for k, v in row["versions"].items() if k not in MAY_DIFFER}} for row in rows]
    for field in SHARED:
        if any(row[field] != rows[0][field] for row in rows):
            raise InputError(f"rows differ in {field}; keep one setting at a time")
    measured = defaultdict(set)
    for row in rows:
        measured[row["system"]].add((row["image_sha256"], row["snr_db"], row["draw"]))
    whole = set.union(*measured.values())
    if lacking := [system for system, some in measured.items() if some != whole]:
        raise InputError(f"{lacking[0]} lacks {len(whole - measured[lacking[0]])} rows that others have; finish the bench first")
    shared = {field: rows[0][field] for field in SHARED}
    systems = {row["system"]: row["system_version"] for row in rows}
    pictures = list(dict.fromkeys((row["image"], row["image_sha256"]) for row in rows))
    fields = (*KEPT, *(field for field in KEPT_IF_ANY if any(row.get(field) is not None for row in rows)))
    values = [[pictures.index((row["image"], row["image_sha256"])), *(row.get(field) for field in fields)] for row in rows]
    return {"schema": 2, **shared, **found, "systems": systems, "pictures": pictures, "fields": ["picture", *fields], "rows": values}


if __name__ == "__main__":
    run(main)
