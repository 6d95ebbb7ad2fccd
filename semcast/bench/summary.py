"""Rows of the bench -> averages with intervals -> tables as Markdown, LaTeX and CSV.

Averages are over draws, then over pictures; intervals are 95 %, by a bootstrap over pictures. Distances between the set
of originals and the set of received pictures have intervals by the jackknife, or none. Times are medians, with
quartiles in place of the interval.
"""

import csv
import io
from collections import defaultdict

import numpy as np

from ..metrics.classifier import frechet_distance, kernel_distance
from ..metrics.segmenter import mean_iou
from .measures import METRICS, SHIFTS, SLOW
from .systems import SYSTEMS, family

RESAMPLES = 2000
COLUMNS = {
    "lost": ("lost", "%", 1, False),
    "side_bits": ("side information", "bit", 0, False),
    **{
        name: (f"mean {name.partition('_')[2]} of the received less the original's", "of 255", 2, False)
        for name in SHIFTS
    },
}
TIMES = {  # their medians over rows are given
    "send_ms": ("sender's time", "ms", 0, False),
    "receive_ms": ("receiver's time", "ms", 0, False),
}
SETS = {  # figures of a whole set of pictures, with the fields of METRICS
    "miou": ("mIoU", "", 3, True),
    "kd_efficientnet_lite0": ("KD-EfficientNetLite0", "", 4, False),
    "fd_efficientnet_lite0": ("FD-EfficientNetLite0", "", 2, False),
}
PICTURES_MIN = {"kd_efficientnet_lite0": 10, "fd_efficientnet_lite0": 500}
NO_INTERVAL = {*COLUMNS, *TIMES, "fd_efficientnet_lite0"}
MEASURES = METRICS | SETS
ALL = MEASURES | COLUMNS | TIMES

# (setting, system, snr_db, metric) -> (mean, low, high, number of pictures)
Summary = dict[tuple[str, str, float, str], tuple[float, float, float, int]]


def summarise(rows: list[dict]) -> Summary:
    """Average each metric over groups of rows. A group lacks a metric that is None in any row: all pictures count.

    Slow metrics are those of the first draw, which is the only one that has them.
    """
    groups = defaultdict(lambda: defaultdict(list))  # (setting, system, snr, metric) -> picture -> values
    for row in rows:
        for metric in (name for name in METRICS | COLUMNS if not (name in SLOW and row["draw"])):
            value = 100.0 * row["lost"] if metric == "lost" else row.get(metric)
            groups[setting(row), row["system"], row["snr_db"], metric][row["image_sha256"]].append(value)
    summary = {}
    for key, by_picture in groups.items():
        if all(value is not None for values in by_picture.values() for value in values):
            means = np.array([np.mean(values) for values in by_picture.values()])
            summary[key] = (float(means.mean()), *interval(means), len(means))
    return summary


def distances(rows: list[dict], features: dict[str, np.ndarray]) -> Summary:
    """The distances between received pictures and originals, as sets.

    The set is that of the first draw. Groups of rows with a picture that has no features are left out.
    """
    groups = defaultdict(dict)  # (setting, system, snr) -> picture -> what was received
    for row in (row for row in rows if row["draw"] == 0):
        groups[setting(row), row["system"], row["snr_db"]][row["image_sha256"]] = row["received_sha256"]
    summary = {}
    for key, group in groups.items():
        if len(group) < min(PICTURES_MIN.values()) or not {*group, *group.values()} <= features.keys():
            continue
        originals, received = (np.stack([features[sha256] for sha256 in names]) for names in (group, group.values()))
        mean, error = kernel_distance(originals, received)
        summary[*key, "kd_efficientnet_lite0"] = (mean, mean - 1.96 * error, mean + 1.96 * error, len(group))
        if len(group) >= PICTURES_MIN["fd_efficientnet_lite0"]:
            mean = float(frechet_distance(originals, received))
            summary[*key, "fd_efficientnet_lite0"] = (mean, mean, mean, len(group))
    return summary


def segmented(rows: list[dict]) -> Summary:
    """The mIoU of received pictures of the first draw, from their overlaps summed over pictures.

    Groups of rows with a picture that has no labels are left out.
    """
    groups = defaultdict(dict)  # (setting, system, snr) -> picture -> overlaps
    for row in (row for row in rows if row["draw"] == 0):
        groups[setting(row), row["system"], row["snr_db"]][row["image_sha256"]] = row.get("segments")
    summary = {}
    for key, group in groups.items():
        if all(group.values()):  # neither None nor missing
            counts = np.array([*group.values()])  # [pictures, classes, 2]
            picks = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
            low, high = np.percentile([mean_iou(counts[pick]) for pick in picks], [2.5, 97.5])
            summary[*key, "miou"] = (mean_iou(counts), float(low), float(high), len(counts))
    return summary


def times(rows: list[dict]) -> Summary:
    """The median and quartiles of the times. A pause of the machine may be in a row, hence no means."""
    groups = defaultdict(list)
    for row in rows:
        for name in TIMES:
            if row.get(name) is not None:  # None if nothing arrived; older rows lack the field
                groups[setting(row), row["system"], row["snr_db"], name].append((row[name], row["image_sha256"]))
    summary = {}
    for key, found in groups.items():
        values, pictures = zip(*found)
        summary[key] = (*np.percentile(values, (50, 25, 75)).tolist(), len({*pictures}))
    return summary


def interval(means: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over pictures, always from the same resamples."""
    picks = np.random.default_rng(0).integers(len(means), size=(RESAMPLES, len(means)))
    low, high = np.percentile(means[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def setting(row: dict) -> str:
    """The setting of a row in words. Only rows of one setting are compared."""
    options = "".join(
        f", {key} {value}" for key, value in row["channel_options"].items() if (key, value) != ("snr_mismatch_db", 0)
    )
    size = f"{row['size']}x{row['size']} crops" if row["size"] else "whole pictures"
    rule = {"same": "the uses of semcast"}.get(row["uses_rule"], f"uses {row['uses_rule']}")
    copies = f", {row['copies']} receptions combined" if row["copies"] > 1 else ""
    error = f", SNR believed {row['snr_error_db']:+g} dB" if row["snr_error_db"] else ""
    return f"{row['channel']}{options}{copies}{error}; {size}; {rule}"


def order(name: str) -> tuple:
    """The key that sorts systems: other models of semcast, then SYSTEMS in their order, then the user's own."""
    names = list(SYSTEMS)
    return (names.index(name), "") if name in names else (-1 if family(name) == "semcast" else len(names), name)


def tables(summary: Summary) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, lines of cells) for each setting and metric."""
    found = []
    for where in sorted({key[0] for key in summary}):
        snrs = sorted({key[2] for key in summary if key[0] == where})
        systems = sorted({key[1] for key in summary if key[0] == where}, key=order)
        for metric, (label, unit, digits, more) in ALL.items():
            lines = []
            for system in systems:
                cells = [cell(summary.get((where, system, snr, metric)), digits, metric) for snr in snrs]
                if any(cell != "-" for cell in cells):
                    lines.append([system, *cells])
            if lines:
                better = "" if metric in COLUMNS | TIMES else f", {'more' if more else 'less'} is better"
                title = f"{label}{f' ({unit})' if unit else ''}{better}. {where}"
                found.append((title, ["system", *(f"{snr:g} dB" for snr in snrs)], lines))
    return found


def cell(value: tuple | None, digits: int, metric: str) -> str:
    if value is None:
        return "-"
    mean, low, high, _ = value
    return f"{mean:.{digits}f}" + ("" if metric in NO_INTERVAL else f" ± {(high - low) / 2:.{digits}f}")


def as_text(title: str, head: list[str], lines: list[list[str]], kind: str) -> str:
    """A table of `tables` as text. kind: "markdown" or "latex"."""
    if kind == "markdown":
        cells = [head, ["---"] * len(head), *lines]
        return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in cells)
    escapes = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "±": r"$\pm$"}
    tex = lambda text: text.translate(str.maketrans(escapes))
    line = lambda cells: " & ".join(map(tex, cells)) + r" \\"
    columns = "l" + "r" * (len(head) - 1)
    start = [
        r"\begin{table}\centering",
        rf"\caption{{{tex(title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\hline",
        line(head),
        r"\hline",
    ]
    return "\n".join([*start, *map(line, lines), r"\hline", r"\end{tabular}", r"\end{table}"])


def as_csv(summary: Summary) -> str:
    """CSV with a line for each setting, system, SNR and metric."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["setting", "system", "snr_db", "metric", "mean", "low", "high", "pictures"])
    for where, system, snr, metric in sorted(summary, key=lambda k: (k[0], order(k[1]), k[3], k[2])):
        writer.writerow([where, system, f"{snr:g}", metric, *(f"{v:.6g}" for v in summary[where, system, snr, metric])])
    return file.getvalue()
