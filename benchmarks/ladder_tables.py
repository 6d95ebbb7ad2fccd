"""Table and plots of rates (experiment `ladder`), for `tables.py`."""

from collections import defaultdict
from statistics import mean

from bench_tables import bench_groups, bench_source
from results import CELLS, average, read
from semcast.bench.report import colours, plot
from semcast.bench.summary import summarise
from semcast.header import bandwidth_ratio

SIDE = 512  # of the pictures of `ladder`
SNRS_DB = (1.0, 10.0)
GOALS = (0.6, 0.55, 0.5, 0.45, 0.4)  # LPIPS-Alex


def by_rule(record: dict) -> dict[int, list[dict]]:
    """The rows of each number of channel uses that was allowed."""
    found = defaultdict(list)
    for row in record["rows"]:
        found[int(row["uses_rule"])].append(row)
    return dict(sorted(found.items()))


def ladder() -> str:
    """Every system at every rate."""
    record = read("ladder.json")
    return "\n".join(rate_lines(record) + bench_source(record))


def jpegxl() -> str:
    """A rival that is no part of semcast, beside what `ladder` has on the same photos."""
    record, known = read("jpegxl.json"), read("ladder.json")
    shown, rates = ("semcast-ladder", *record["systems"], "avif-ldpc"), {row["uses_rule"] for row in record["rows"]}
    pictures = {row["image_sha256"] for row in record["rows"]}
    beside = [row for row in known["rows"] if row["system"] in shown and row["uses_rule"] in rates]
    assert pictures == {row["image_sha256"] for row in beside}, "jpegxl and ladder have other pictures"
    lines = rate_lines({"systems": shown, "rows": record["rows"] + beside})
    return "\n".join(lines + bench_source(record))


def rate_lines(record: dict) -> list[str]:
    at = " / ".join(f"{snr:g}" for snr in SNRS_DB) + " dB"
    lines = [f"| channel uses | system | used | LPIPS-Alex at {at} | PSNR dB | DISTS |", "|---" * 6 + "|"]
    for allowed, rows in by_rule(record).items():
        groups = bench_groups(record | {"rows": rows})
        for system, found in ((system, found) for system, found in groups.items() if found):
            used = max(row["payload_uses"] for part in found.values() for row in part)
            keys = (*CELLS, ("dists", "DISTS", 3))
            cells = [" / ".join(average(found[snr], key, digits) for snr in SNRS_DB) for key, _, digits in keys]
            ratio = f"1/{1 / bandwidth_ratio(allowed, SIDE, SIDE):.0f}"
            lines.append(f"| {allowed} ({ratio}) | `{system}` | {used} | {' | '.join(cells)} |")
    return lines


def prefixes() -> str:
    """The stream cut off at many places, at several SNRs; and all of it with half of the symbols erased."""
    record = read("prefixes.json")
    awgn = {allowed: [r for r in rows if r["channel"] == "awgn"] for allowed, rows in by_rule(record).items()}
    most = max(awgn)
    snrs = sorted({row["snr_db"] for row in awgn[most]})
    cells = lambda rows, at: " | ".join(
        " / ".join(average([r for r in rows if r["snr_db"] == snr], key, digits) for snr in at)
        for key, _, digits in CELLS
    )
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    lines = [f"| channel uses | LPIPS-Alex at {at} | PSNR dB |", "|---" * 3 + "|"]
    lines += [f"| {allowed} | {cells(rows, snrs)} |" for allowed, rows in awgn.items() if allowed != most // 2]
    erased = [row for row in record["rows"] if row["channel"] == "erasure"]
    lines += ["", f"| {most} uses at 10 dB | LPIPS-Alex | PSNR dB |", "|---" * 3 + "|"]
    for name, rows in (
        ("all arrive", awgn[most]),
        ("half are erased", erased),
        ("only half are sent", awgn[most // 2]),
    ):
        lines.append(f"| {name} | {cells(rows, (10.0,))} |")
    return "\n".join(lines + bench_source(record))


def rates() -> str:
    """How much of the stream an SNR needs for a quality: the shortest prefix measured whose mean LPIPS reaches it."""
    record = read("prefixes.json")
    means = defaultdict(dict)
    for allowed, rows in by_rule(record).items():
        for row in rows:
            if row["channel"] == "awgn":
                means[row["snr_db"]].setdefault(allowed, []).append(row["lpips"])
    lines = [
        "| Es/N0 | " + " | ".join(f"LPIPS-Alex {goal:g}" for goal in GOALS) + " |",
        "|---" * (1 + len(GOALS)) + "|",
    ]
    for snr_db, found in sorted(means.items()):
        reached = [[uses for uses, values in found.items() if mean(values) <= goal] for goal in GOALS]
        cells = (f"{uses[0]} uses" if uses else "not reached" for uses in reached)
        lines.append(f"| {snr_db:g} dB | {' | '.join(cells)} |")
    return "\n".join(lines + bench_source(record))


def ladder_plot(metric: str, snr_db: float) -> str:
    """A metric over the channel uses that were allowed, as an SVG."""
    record = read("ladder.json")
    series = defaultdict(list)
    for allowed, rows in by_rule(record).items():
        at = [row for row in rows if row["snr_db"] == snr_db]
        for (_, system, _, key), value in summarise(at).items():
            if key == metric:
                series[system].append((float(allowed), *value[:3]))
    return plot(dict(series), metric, colours(series), across=f"channel uses at {snr_db:g} dB", log=True) + "\n"


TABLES = (ladder, jpegxl, prefixes, rates)
