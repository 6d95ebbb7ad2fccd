"""The record of an experiment: its rows as lists of values, and once what all of them share. Schema 3.

{"schema": 3, "experiment", "command", "protocol", "versions", "commits", "cpus",
 "systems": {name: version}, "pictures": [[name, SHA-256], ...], "settings": [{"channel", ...}, ...],
 "fields": ["picture", "setting", "system", "snr_db", ...], "rows": [[0, 0, "semcast", 10.0, ...], ...]}

Where the classifier saw at least ten pictures, "distances" lists those between the sets of originals and of received
pictures, which cannot be computed from rows: {"setting", "system", "snr_db", "metric", "mean", "low", "high", "pictures"}.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from .measures import METRICS, SHIFTS
from .unit import PROTOCOL

SCHEMA = 3
SETTING = ("channel", "channel_options", "uses_rule", "size", "copies", "snr_error_db")
MAY_DIFFER = ("commit", "cpu", "semcast")  # in `versions`: a run may be continued later, elsewhere, with other systems
TIMES = ("send_ms", "receive_ms")
KEPT = ("uses", "payload_uses", "side_bits", "draw", "lost", "headline", *METRICS, *TIMES)
KEPT_IF_ANY = (*SHIFTS, "segments", "segments_original")


def record(rows: list[dict], experiment: str, command: str, distances: Sequence[dict] = ()) -> dict:
    """Rows of the bench -> their record.

    Args:
        distances: as above.
    Raises:
        InputError: there are no rows, or they were measured with different metrics.
    """
    if not rows:
        raise InputError("there are no rows; make some with `semcast bench`")
    shared = [{k: v for k, v in row["versions"].items() if k not in MAY_DIFFER} for row in rows]
    if other := next((versions for versions in shared if versions != shared[0]), None):
        differ = [name for name in shared[0] if other.get(name) != shared[0][name]]
        raise InputError(f"rows differ in versions ({', '.join(differ)}); measure them again with one set of packages")
    optional = [field for field in KEPT_IF_ANY if any(row.get(field) is not None for row in rows)]
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "command": command,
        "protocol": PROTOCOL,
        "versions": shared[0],
        "commits": sorted({str(row["versions"].get("commit")) for row in rows}),
        "cpus": sorted({str(row["versions"].get("cpu")) for row in rows}),
        "systems": {row["system"]: row["system_version"] for row in rows},
        **({"distances": list(distances)} if distances else {}),
        **packed(rows, ["picture", "setting", "system", "snr_db", *KEPT, *optional]),
    }


def merged(old: dict, new: dict) -> dict:
    """`new`, with the rows of `old` whose systems `new` did not measure; `versions` then names both packages' versions."""
    rows = [row for row in rows_of(old) if row["system"] not in new["systems"]] + rows_of(new)
    fields = [*old["fields"], *(field for field in new["fields"] if field not in old["fields"])]
    joined = {name: sorted({*old[name], *new[name]}) for name in ("commits", "cpus")}
    systems = {name: version for name, version in old["systems"].items() if name not in new["systems"]} | new["systems"]
    distances = [one for one in old.get("distances", []) if one["system"] not in new["systems"]]
    if distances := distances + new.get("distances", []):
        joined["distances"] = distances
    kept = old["versions"] if len(rows) > len(new["rows"]) else {}
    both = lambda was, now: now if was == now else ", ".join(dict.fromkeys([*str(was).split(", "), str(now)]))
    versions = {name: both(kept.get(name, now), now) for name, now in new["versions"].items()}
    return {**new, **joined, "versions": versions, "systems": systems, **packed(rows, fields)}


def packed(rows: list[dict], fields: list[str]) -> dict:
    """Rows as dictionaries -> the record's pictures, settings, fields and rows."""
    pictures = {key: i for i, key in enumerate(dict.fromkeys((row["image"], row["image_sha256"]) for row in rows))}
    settings, values = [], []
    for row in rows:
        setting = {name: row[name] for name in SETTING}
        if setting not in settings:
            settings.append(setting)
        place = pictures[row["image"], row["image_sha256"]]
        values.append([place, settings.index(setting), *(row.get(field) for field in fields[2:])])
    return {"pictures": [list(key) for key in pictures], "settings": settings, "fields": fields, "rows": values}


def rows_of(record: dict) -> list[dict]:
    """The rows of a record as dictionaries, each with its picture and setting."""
    found = []
    for values in record["rows"]:
        row = dict(zip(record["fields"], values))
        image, sha256 = record["pictures"][row.pop("picture")]
        found.append({"image": image, "image_sha256": sha256, **record["settings"][row.pop("setting")], **row})
    return found


def read(path: Path) -> dict:
    """A record whose `rows` are dictionaries."""
    held = read_raw(path)
    return held | {"rows": rows_of(held)}


def read_raw(path: Path) -> dict:
    """A record as it is in the file."""
    held = json.loads(path.read_text())
    if held.get("schema") != SCHEMA:
        raise InputError(f"{path} has schema {held.get('schema')}; this reads {SCHEMA}")
    return held


def write(path: Path, record: dict) -> None:
    write_text(path, one_row_a_line(record))


def one_row_a_line(record: dict) -> str:
    """JSON with a line for each row, for readable diffs; numbers have five places. NaN and infinity are refused."""
    head = json.dumps({k: v for k, v in record.items() if k != "rows"}, indent=1, allow_nan=False)
    rows = ",\n".join("  " + json.dumps(rounded(row), allow_nan=False) for row in record["rows"])
    return head.removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n ]\n}\n"


def rounded(row: dict | list) -> dict | list:
    if isinstance(row, list):
        return [round(v, 5) if isinstance(v, float) else v for v in row]
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
