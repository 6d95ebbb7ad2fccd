"""Tables of how good the pictures are: by SNR, channel, what the receiver knows and steps; for `tables.py`."""

from collections import defaultdict
from statistics import mean, stdev

import results
from results import average, read, source
from semcast.bench.experiments import NO_NOISE_DB

SYSTEMS = {"semcast": "semcast `small`", "downscale": "downscale, send analog, enlarge"}
RECEIVERS = {
    "semcast": "noise of every symbol",
    "semcast-mean-noise": "MMSE weights only",
    "semcast-one-noise": "one variance for all",
    "semcast@blind": "told nothing, and trained so",
}
STEPS = {"semcast-1step": 1, "semcast-2steps": 2, "semcast-4steps": 4, "semcast-10steps": 10}


def quality() -> str:
    return quality_table(read("grid.json"))


def quality_table(record: dict, labels: dict[str, str] = SYSTEMS) -> str:
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["system"], row["snr_db"]].append(row)
    snrs = sorted({snr for _, snr in groups})
    heads = ["no noise" if snr >= NO_NOISE_DB else f"{snr:g} dB" for snr in snrs]
    lines = ["| system | metric | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(snrs)]
    for system, label in labels.items():
        for key, metric, digits in (
            ("lpips", "LPIPS-Alex", 3),
            ("lpips_vgg", "LPIPS-VGG", 3),
            ("psnr_db", "PSNR dB", 2),
        ):
            cells = [average(groups[system, snr], key, digits) for snr in snrs if (system, snr) in groups]
            if {*cells} - {"-"}:
                lines.append(f"| {label} | {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def predictability() -> str:
    record = read("predictability.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["snr_db"]].append(row["lpips"])
    lines = ["| SNR | LPIPS-Alex, mean | standard deviation | transmissions |", "|---|---|---|---|"]
    for snr, values in sorted(groups.items(), reverse=True):
        lines.append(f"| {snr:g} dB | {mean(values):.3f} | {stdev(values):.4f} | {len(values)} |")
    return "\n".join(lines)


def condition(row: dict) -> str:
    """The channel of a row in words."""
    words = {"tdl-c": "tdl-c, LS", "erasure": f"{100 * row['channel_options'].get('rate', 0):.0f} % erased"}
    told = f", told {row['snr_db'] + row['snr_error_db']:g} dB" if row["snr_error_db"] else ""
    copies = ", two receptions" if row["copies"] == 2 else ""
    return f"{words.get(row['channel'], row['channel'])} {row['snr_db']:g} dB{told}{copies}"


def robust() -> str:
    record = read("robust.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        if row["system"] == "semcast":
            groups[condition(row)].append(row)
    reference = mean(row["lpips"] for row in groups["awgn 10 dB"])
    lines = ["| channel | LPIPS-Alex | beside AWGN 10 dB | PSNR dB |", "|---|---|---|---|"]
    for name, rows in groups.items():
        lpips, psnr = (mean(row[key] for row in rows) for key in ("lpips", "psnr_db"))
        lines.append(f"| {name} | {lpips:.3f} | {lpips / reference:.3f} | {psnr:.2f} |")
    return "\n".join(lines + source(record))


def knowledge() -> str:
    """What knowing where the noise is is worth: LPIPS-Alex (PSNR dB) of four receivers."""
    found = [read(name) for name in ("robust.json", "blind.json") if (results.RESULTS / name).exists()]
    groups = defaultdict(lambda: defaultdict(list))
    for row in (row for record in found for row in record["rows"]):
        groups[condition(row)][row["system"]].append(row)
    lines = ["| channel | " + " | ".join(RECEIVERS.values()) + " |", "|---" * (len(RECEIVERS) + 1) + "|"]
    for name, receivers in groups.items():
        if len(receivers) > 1:
            cells = [receivers.get(system, []) for system in RECEIVERS]
            cells = [f"{average(rows, 'lpips', 3)} ({average(rows, 'psnr_db', 2)})" if rows else "-" for rows in cells]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    last = [f"The last column: {line}" if line else "" for record in found[1:] for line in source(record)]
    return "\n".join(lines + last)


def steps() -> str:
    """More diffusion steps, the same weights."""
    record = read("steps.json")
    shown = {
        "LPIPS-Alex": ("lpips", 3),
        "LPIPS-VGG": ("lpips_vgg", 3),
        "DISTS": ("dists", 3),
        "PSNR dB": ("psnr_db", 2),
    }
    lines = [f"| steps | {' | '.join(shown)} |", "|---" * (1 + len(shown)) + "|"]
    for name, count in STEPS.items():
        rows = [row for row in record["rows"] if row["system"] == name]
        lines.append(f"| {count} | " + " | ".join(average(rows, *how) for how in shown.values()) + " |")
    return "\n".join(lines + source(record))
