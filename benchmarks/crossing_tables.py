"""Tables and plot of analog against digital (`crossing.json`), for `tables.py`."""

from collections import defaultdict
from pathlib import Path
from statistics import mean

from results import CELLS, average, read, share, source

PLOT = Path(__file__).parent.parent / "docs" / "crossing.png"
CROSSING = {  # (system, error of the SNR in dB) in crossing.json
    ("semcast", 0): "analog",
    ("semcast-digital", 0): "digital, mode adapted to the SNR",
    ("semcast-digital-fixed", 0): "digital, mode for 10 dB",
    ("semcast", 6): "analog, told 6 dB too much",
    ("semcast-digital", 6): "digital, told 6 dB too much",
    ("semcast", -6): "analog, told 6 dB too little",
    ("semcast-digital", -6): "digital, told 6 dB too little",
}
STYLES = {  # colour, dashes, width
    ("semcast", 0): ("#c0392b", "-", 2.2),
    ("semcast-digital", 0): ("#1f77b4", "-", 2.2),
    ("semcast-digital-fixed", 0): ("#5d6d7e", "-", 1.4),
    ("semcast", 6): ("#c0392b", ":", 1.2),
    ("semcast-digital", 6): ("#1f77b4", ":", 1.2),
    ("semcast", -6): ("#c0392b", "--", 1.2),
    ("semcast-digital", -6): ("#1f77b4", "--", 1.2),
}
OUTAGE_SNR_DB = 10  # where the SNR is believed wrong by many errors


def crossing_rows(record: dict) -> dict[tuple[str, float, float], list[dict]]:
    """(system, snr_db, error of the SNR) -> rows, each with `outage`: lost, or no better than the mean colour."""
    colour = {row["image_sha256"]: row["lpips"] for row in record["rows"] if row["system"] == "mean-colour"}
    groups = defaultdict(list)
    for row in record["rows"]:
        outage = row["lost"] or row["lpips"] >= colour[row["image_sha256"]]
        groups[row["system"], row["snr_db"], row["snr_error_db"]].append(row | {"outage": outage})
    return dict(groups)


def crossing() -> str:
    record = read("crossing.json")
    groups = crossing_rows(record)
    snrs = grid_of(groups)
    lines = [
        "| system | metric | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " |",
        "|---|---|" + "---|" * len(snrs),
    ]
    for (system, error_db), label in CROSSING.items():
        rows = [groups[system, snr, error_db] for snr in snrs]
        lines += [
            f"| {label} | {metric} | " + " | ".join(average(r, key, digits) for r in rows) + " |"
            for key, metric, digits in CELLS
        ]
        if system != "semcast":  # which cannot be lost
            lines.append(f"| {label} | lost | " + " | ".join(share(r, "lost") for r in rows) + " |")
    colour = [row for key, rows in groups.items() if key[0] == "mean-colour" for row in rows]
    score = f"LPIPS-Alex {average(colour, 'lpips', 3)}, PSNR {average(colour, 'psnr_db', 2)} dB"
    lines += ["", f"The mean colour, which is what a lost picture is scored as: {score}. {verdict(groups)}"]
    if PLOT.exists():
        lines += ["", f"![LPIPS over SNR, and outage over the error of the SNR]({PLOT.name})"]
    return "\n".join(lines + source(record))


def grid_of(groups: dict[tuple[str, float, float], list[dict]]) -> list[float]:
    """The SNRs of the curves."""
    return sorted({snr for system, snr, _ in groups if system == "semcast"})


def verdict(groups: dict[tuple[str, float, float], list[dict]]) -> str:
    """Where analog and adapted digital change places in LPIPS-Alex, in a sentence."""
    snrs = grid_of(groups)
    analog, digital = (
        [mean(row["lpips"] for row in groups[system, snr, 0]) for snr in snrs]
        for system in ("semcast", "semcast-digital")
    )
    found = crossings(snrs, analog, digital)
    if found:
        first = "Analog" if analog[0] <= digital[0] else "Digital"
        places = " dB; they change places again at ".join(f"{snr:.1f}" for snr in found)
        return f"{first} has the lower LPIPS-Alex up to {places} dB."
    better = "Analog" if sum(analog) <= sum(digital) else "Adapted digital"
    return f"{better} has the lower LPIPS-Alex from {snrs[0]:g} to {snrs[-1]:g} dB: the curves do not cross."


def crossings(x: list[float], a: list[float], b: list[float]) -> list[float]:
    """Where a - b changes its sign, straight lines between the points."""
    points = [(at, u - v) for at, u, v in zip(x, a, b) if u != v]
    return [p + (q - p) * gap / (gap - other) for (p, gap), (q, other) in zip(points, points[1:]) if gap * other < 0]


def outage() -> str:
    """At OUTAGE_SNR_DB, by the error of the SNR that both ends believe in."""
    groups = crossing_rows(read("crossing.json"))
    errors = sorted({error for system, snr, error in groups if (system, snr) == ("semcast-digital", OUTAGE_SNR_DB)})
    lines = [
        "| system | metric | " + " | ".join(f"{error:+g} dB" if error else "0 dB" for error in errors) + " |",
        "|---" * (len(errors) + 2) + "|",
    ]
    for system, label in (("semcast", "analog"), ("semcast-digital", "digital")):
        rows = [groups[system, OUTAGE_SNR_DB, error] for error in errors]
        lines.append(f"| {label} | outage | " + " | ".join(share(r, "outage") for r in rows) + " |")
        lines.append(f"| {label} | LPIPS-Alex | " + " | ".join(average(r, "lpips", 3) for r in rows) + " |")
    return "\n".join(lines)


def crossing_plot(path: Path) -> None:
    """LPIPS-Alex over SNR, and outage over the error of the believed SNR."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = crossing_rows(read("crossing.json"))
    score = {key: scores(rows) for key, rows in groups.items()}
    snrs = grid_of(groups)
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))

    curves = {}
    for key, label in CROSSING.items():
        colour, dashes, width = STYLES[key]
        at = sorted(snr for system, snr, error in groups if (system, error) == key)
        curves[key] = [score[key[0], snr, key[1]]["lpips"] for snr in at]
        left.plot(at, curves[key], dashes, color=colour, linewidth=width, marker=".", label=label)
    left.axhline(
        score["mean-colour", OUTAGE_SNR_DB, 0]["lpips"],
        color="black",
        linewidth=0.8,
        linestyle="-.",
        label="mean colour: lost",
    )
    for i, snr in enumerate(crossings(snrs, curves["semcast", 0], curves["semcast-digital", 0])):
        height = interpolate(snr, snrs, curves["semcast", 0])
        left.plot(
            [snr],
            [height],
            "o",
            color="black",
            markersize=9,
            fillstyle="none",
            label=None if i else "analog and digital cross",
        )
        left.annotate(f"{snr:.1f} dB", (snr, height), xytext=(8, 8), textcoords="offset points")
    left.set(xlabel="SNR, dB", ylabel="LPIPS-Alex, less is better", title="Equal channel uses, AWGN")
    left.legend(fontsize=8)

    for system, width in (("semcast-digital", 4), ("semcast", 1.6)):  # the thin line over the thick one
        errors = sorted({error for name, snr, error in groups if (name, snr) == (system, OUTAGE_SNR_DB)})
        outage = [100 * score[system, OUTAGE_SNR_DB, error]["outage"] for error in errors]
        right.plot(errors, outage, color=STYLES[system, 0][0], linewidth=width, marker=".", label=CROSSING[system, 0])
    ylabel = "lost, or no better than the mean colour, % of pictures"
    right.set(
        xlabel="SNR believed in, minus the true one, dB",
        ylabel=ylabel,
        ylim=(-3, 103),
        title=f"Outage at {OUTAGE_SNR_DB} dB",
    )
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def scores(rows: list[dict]) -> dict[str, float]:
    return {key: mean(row[key] for row in rows) for key in ("lpips", "outage")}


def interpolate(at: float, x: list[float], y: list[float]) -> float:
    i = next(i for i in range(len(x) - 1) if x[i + 1] >= at)
    return y[i] + (y[i + 1] - y[i]) * (at - x[i]) / (x[i + 1] - x[i])
