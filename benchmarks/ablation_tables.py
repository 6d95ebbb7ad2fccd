"""Tables of what training with noise brings (`ablation.json`, `ablation_fewstep.json`), for `tables.py`."""

from collections import defaultdict

from quality_tables import quality_table
from results import CELLS, average, read, source
from semcast.bench.experiments import NO_NOISE_DB

RECEIVERS_TRAINED = {  # in ablation.json
    "semcast@noisy": "trained with noise from its start",
    "semcast@clean": "trained without noise",
    "semcast@tuned": "that one, fine-tuned by the paper's recipe",
}


def ablation(record: dict | None = None) -> str:
    """Of the record given, else of ablation.json."""
    record = record or read("ablation.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["system"], row["snr_db"]].append(row)
    snrs = sorted({snr for _, snr in groups})
    heads = ["no noise" if snr >= NO_NOISE_DB else f"{snr:g} dB" for snr in snrs]
    lines = ["| receiver | metric | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(snrs)]
    for receiver, label in RECEIVERS_TRAINED.items():
        for key, metric, digits in CELLS:
            lines.append(
                f"| {label} | {metric} | "
                + " | ".join(average(groups[receiver, snr], key, digits) for snr in snrs)
                + " |"
            )
    if {1, 5} <= {*snrs} and snrs[-1] >= NO_NOISE_DB:
        lines += ["", ablation_figures({key: float(average(rows, "lpips", 5)) for key, rows in groups.items()})]
    return "\n".join(lines + source(record))


def ablation_figures(lpips: dict[tuple[str, float], float]) -> str:
    """Of the mean LPIPS-Alex by receiver and SNR: what the paper's ablation is about, in a sentence or two."""
    worse = lpips["semcast@clean", 1] / lpips["semcast@noisy", 1] - 1
    more = f"{abs(worse):.0%} {'more' if worse > 0 else 'less'}"
    text = f"At 1 dB the receiver trained without noise has {more} LPIPS-Alex than the one with. "
    lost, brought = (
        lpips["semcast@clean", 5] - lpips["semcast@clean", max(snr for _, snr in lpips)],
        lpips["semcast@clean", 5] - lpips["semcast@tuned", 5],
    )
    most = lpips["semcast@clean", 5] - lpips["semcast@noisy", 5]
    text += f"From no noise to 5 dB it loses {lost:.3f}; fine-tuning brings {brought:.3f} of that back"
    return text + (
        f", {brought / most:.0%} of the {most:.3f} that training with noise from the start does." if most > 0 else "."
    )


def ablation_fewstep() -> str:
    """The arms of the ablation after the few-step phase too, each trained and received as it was before."""
    record = read("ablation_fewstep.json")
    lowest = min(row["snr_db"] for row in record["rows"])
    at = lambda system: [row for row in record["rows"] if (row["system"], row["snr_db"]) == (system, lowest)]
    worse = float(average(at("semcast@clean"), "lpips", 5)) / float(average(at("semcast@noisy"), "lpips", 5)) - 1
    said = f"At {lowest:g} dB the second has {abs(worse):.0%} {'more' if worse > 0 else 'less'} LPIPS-Alex."
    return "\n".join(
        [
            quality_table(record, {"semcast@noisy": "trained with noise", "semcast@clean": "trained without noise"}),
            "",
            said,
            *source(record),
        ]
    )
