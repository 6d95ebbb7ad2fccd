"""Tables of README.md, MODEL_CARD.md and docs/results.md, computed from benchmarks/results/*.json. Nothing is typed by hand.

python benchmarks/tables.py            print them
python benchmarks/tables.py --write    put them between the markers <!-- table NAME --> and <!-- end NAME -->
"""

import argparse
import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import bench_tables
import records
from bench_tables import bench_plot
from records import CELLS, average, read, share, source

from semcast.transmitter import SIDE_BITS, Header

ROOT = Path(__file__).parent.parent
PLOT = ROOT / "docs" / "crossing.png"
PLOTS = {metric: ROOT / "docs" / f"bench_{metric}.svg" for metric in ("lpips", "dists", "psnr_db")}
DOCUMENTS = (ROOT / "README.md", ROOT / "semcast" / "weights" / "small" / "MODEL_CARD.md", ROOT / "docs" / "results.md")
SYSTEMS = {
    "semcast": "semcast `small`",
    "ablation": "the same, trained without channel noise",
    "downscale": "downscale, send analog, enlarge",
}
RECEIVERS = {
    "": "noise of every symbol",
    ", no map": "MMSE weights only",
    ", one variance": "one variance for all",
    ", blind": "told nothing, and trained so",
}
CROSSING = {  # (system, error of the SNR in dB) of crossing.json
    ("analog", 0): "analog",
    ("digital", 0): "digital, mode adapted to the SNR",
    ("digital-fixed", 0): "digital, mode for 10 dB",
    ("analog", 6): "analog, told 6 dB too much",
    ("digital", 6): "digital, told 6 dB too much",
    ("analog", -6): "analog, told 6 dB too little",
    ("digital", -6): "digital, told 6 dB too little",
}
RECEIVERS_TRAINED = {  # of ablation.json
    "noisy": "trained with noise from its start",
    "clean": "trained without noise",
    "tuned": "that one, fine-tuned by the paper's recipe",
}
SIZES = ((512, 512), (1024, 1024), (360, 480), (1024, 2048))
NO_NOISE_DB = 100  # in ablation.json
OUTAGE_SNR_DB = 10  # where crossing.py tries many errors


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--write", action="store_true")
    args = p.parse_args()
    for name, table in tables().items():
        if not args.write:
            print(f"## {name}\n\n{table}\n")
    if args.write:
        for path in DOCUMENTS:
            path.write_text(filled(path.read_text()))
        for metric, path in PLOTS.items():
            if (records.RESULTS / "bench_grid.json").exists():
                path.write_text(bench_plot(metric))


def tables() -> dict[str, str]:
    makers = [
        quality,
        predictability,
        speed,
        robust,
        knowledge,
        crossing,
        outage,
        packet_gain,
        phy_speed,
        ablation,
        ablation_fewstep,
        steps,
    ]
    makers += [sizes, *bench_tables.TABLES]
    return {make.__name__: made(make) for make in makers}


def made(make) -> str:
    try:
        return make()
    except FileNotFoundError as missing:
        return f"Not measured yet: `{Path(missing.filename).name}` is missing."


def filled(text: str) -> str:
    """The document with every marked table made anew."""
    for name, table in tables().items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda m, table=table: m[1] + table + "\n" + m[2], text, flags=re.S)
    return text


def quality() -> str:
    return quality_table(read("kodak.json"))


def ablation_fewstep() -> str:
    """The arms of the ablation after the few-step phase too, each trained and received as it was before."""
    record = read("ablation_fewstep.json")
    lowest = min(row["snr_db"] for row in record["rows"])
    at = lambda system: [row for row in record["rows"] if (row["system"], row["snr_db"]) == (system, lowest)]  # noqa: E731
    worse = float(average(at("ablation"), "lpips", 5)) / float(average(at("semcast"), "lpips", 5)) - 1
    said = f"At {lowest:g} dB the second has {abs(worse):.0%} {'more' if worse > 0 else 'less'} LPIPS-Alex."
    return "\n".join(
        [quality_table(record, {"semcast": "trained with noise", "ablation": "trained without noise"}), "", said, *source(record)]
    )


def quality_table(record: dict, labels: dict[str, str] = SYSTEMS) -> str:
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["system"], row["snr_db"]].append(row)
    snrs = sorted({snr for _, snr in groups})
    heads = ["no noise" if snr == NO_NOISE_DB else f"{snr:g} dB" for snr in snrs]
    lines = ["| system | metric | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(snrs)]
    for system, label in labels.items():
        for key, metric, digits in (("lpips", "LPIPS-Alex", 3), ("lpips_vgg", "LPIPS-VGG", 3), ("psnr_db", "PSNR dB", 2)):
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


def robust() -> str:
    record = read("robust.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["condition"]].append(row)
    reference = mean(row["lpips"] for row in groups["awgn 10 dB"])
    lines = ["| channel | LPIPS-Alex | beside AWGN 10 dB | PSNR dB |", "|---|---|---|---|"]
    for name, rows in groups.items():
        lpips, psnr = (mean(row[key] for row in rows) for key in ("lpips", "psnr_db"))
        lines.append(f"| {name} | {lpips:.3f} | {lpips / reference:.3f} | {psnr:.2f} |")
    return "\n".join(lines + source(record))


def knowledge() -> str:
    """What knowing where the noise is is worth: LPIPS-Alex (PSNR dB) of four receivers."""
    names = [name for name in ("robust.json", "robust_blind.json") if (records.RESULTS / name).exists()]
    found = [read(name) for name in names]
    groups = defaultdict(list)
    for row in (row for record in found for row in record["rows"]):
        groups[row["condition"]].append(row)
    lines = ["| channel | " + " | ".join(RECEIVERS.values()) + " |", "|---" * (len(RECEIVERS) + 1) + "|"]
    for name in groups:
        if name + ", blind" in groups or name + ", no map" in groups:
            cells = [groups.get(name + suffix) for suffix in RECEIVERS]
            cells = [f"{average(rows, 'lpips', 3)} ({average(rows, 'psnr_db', 2)})" if rows else "-" for rows in cells]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines + [line for record in found[1:] for line in source(record)])


def crossing_rows(record: dict) -> dict[tuple, list[dict]]:
    """(system, snr_db, error_db) -> rows."""
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["system"], row["snr_db"], row["error_db"]].append(row)
    return dict(groups)


def crossing() -> str:
    record = read("crossing.json")
    groups = crossing_rows(record)
    snrs = sorted({snr for system, snr, _ in groups if system == "analog"})
    lines = ["| system | metric | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " |", "|---|---|" + "---|" * len(snrs)]
    for (system, error_db), label in CROSSING.items():
        rows = [groups[system, snr, error_db] for snr in snrs]
        lines += [f"| {label} | {metric} | " + " | ".join(average(r, key, digits) for r in rows) + " |" for key, metric, digits in CELLS]
        if system != "analog":  # which cannot be lost
            lines.append(f"| {label} | lost | " + " | ".join(share(r, "lost") for r in rows) + " |")
    colour = groups["mean colour", None, 0]
    score = f"LPIPS-Alex {average(colour, 'lpips', 3)}, PSNR {average(colour, 'psnr_db', 2)} dB"
    lines += ["", f"The mean colour, which is what a lost picture is scored as: {score}. {verdict(groups)}"]
    if PLOT.exists():
        lines += ["", f"![LPIPS over SNR, and outage over the error of the SNR]({PLOT.name})"]
    return "\n".join(lines + source(record))


def verdict(groups: dict[tuple, list[dict]]) -> str:
    """Where analog and adapted digital change places in LPIPS-Alex, in a sentence."""
    snrs = sorted({snr for system, snr, _ in groups if system == "analog"})
    analog, digital = ([mean(row["lpips"] for row in groups[system, snr, 0]) for snr in snrs] for system in ("analog", "digital"))
    found = crossings(snrs, analog, digital)
    if found:
        first = "Analog" if analog[0] <= digital[0] else "Digital"
        return f"{first} has the lower LPIPS-Alex up to {' dB; they change places again at '.join(f'{snr:.1f}' for snr in found)} dB."
    better = "Analog" if sum(analog) <= sum(digital) else "Adapted digital"
    return f"{better} has the lower LPIPS-Alex from {snrs[0]:g} to {snrs[-1]:g} dB: the curves do not cross."


def crossings(x: list[float], a: list[float], b: list[float]) -> list[float]:
    """Where a - b changes its sign, straight lines between the points."""
    points = [(at, u - v) for at, u, v in zip(x, a, b) if u != v]
    return [p + (q - p) * gap / (gap - other) for (p, gap), (q, other) in zip(points, points[1:]) if gap * other < 0]


def outage() -> str:
    """At OUTAGE_SNR_DB, by the error of the SNR that both ends believe in."""
    groups = crossing_rows(read("crossing.json"))
    errors = sorted({error for system, snr, error in groups if (system, snr) == ("digital", OUTAGE_SNR_DB)})
    lines = [
        "| system | metric | " + " | ".join(f"{error:+g} dB" if error else "0 dB" for error in errors) + " |",
        "|---" * (len(errors) + 2) + "|",
    ]
    for system in ("analog", "digital"):
        rows = [groups[system, OUTAGE_SNR_DB, error] for error in errors]
        lines.append(f"| {system} | outage | " + " | ".join(share(r, "outage") for r in rows) + " |")
        lines.append(f"| {system} | LPIPS-Alex | " + " | ".join(average(r, "lpips", 3) for r in rows) + " |")
    return "\n".join(lines)


def packet_gain() -> str:
    """Bytes of a packet at one error, by its transforms."""
    record = read("packet_gain.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["transforms"]].append(row["size_bytes"])
    lines = [f"| transforms | bytes at {record['error_db']:g} dB |", "|---|---|"]
    lines += [f"| {name} | {mean(sizes):.0f} |" for name, sizes in groups.items()]
    return "\n".join(lines + source(record))


def phy_speed() -> str:
    """Of the digital link's decoder and of OFDM, one core."""
    record = read("phy_speed.json")
    rows = record["decoder"]
    lines = ["| | " + " | ".join(row["scheme"] for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    lines.append("| kbit/s of payload | " + " | ".join(f"{row['kbit_s']:.0f}" for row in rows) + " |")
    text = f"OFDM over TDL-C with LS estimation, batched: {record['ofdm']['ms_per_picture']:.1f} ms for the symbols of a 512x512 picture."
    return "\n".join([*lines, "", text + f" {record['machine']['cpu']}, one core: `python benchmarks/phy_speed.py`"])


def ablation(record: dict | None = None) -> str:
    """Of the record given, else of ablation.json."""
    record = record or read("ablation.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["receiver"], row["snr_db"]].append(row)
    snrs = sorted({snr for _, snr in groups})
    heads = ["no noise" if snr == NO_NOISE_DB else f"{snr:g} dB" for snr in snrs]
    lines = ["| receiver | metric | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(snrs)]
    for receiver, label in RECEIVERS_TRAINED.items():
        for key, metric, digits in CELLS:
            lines.append(f"| {label} | {metric} | " + " | ".join(average(groups[receiver, snr], key, digits) for snr in snrs) + " |")
    if {1, 5, NO_NOISE_DB} <= {*snrs}:
        lines += ["", ablation_figures({key: float(average(rows, "lpips", 5)) for key, rows in groups.items()})]
    return "\n".join(lines + source(record))


def ablation_figures(lpips: dict[tuple[str, float], float]) -> str:
    """Of the mean LPIPS-Alex by receiver and SNR: what the paper's ablation is about, in a sentence or two."""
    worse = lpips["clean", 1] / lpips["noisy", 1] - 1
    text = (
        f"At 1 dB the receiver trained without noise has {abs(worse):.0%} {'more' if worse > 0 else 'less'} LPIPS-Alex than the one with. "
    )
    lost, brought = lpips["clean", 5] - lpips["clean", NO_NOISE_DB], lpips["clean", 5] - lpips["tuned", 5]
    most = lpips["clean", 5] - lpips["noisy", 5]
    text += f"From no noise to 5 dB it loses {lost:.3f}; fine-tuning brings {brought:.3f} of that back"
    return text + (f", {brought / most:.0%} of the {most:.3f} that training with noise from the start does." if most > 0 else ".")


def steps() -> str:
    """Fewer diffusion steps, the same weights."""
    found = {count: read(f"steps_{count}.json") for count in (1, 2, 4, 10)}
    lines = ["| steps | LPIPS-Alex | beside 10 steps | PSNR dB |", "|---|---|---|---|"]
    reference = float(average(found[10]["rows"], "lpips", 5))
    for count, record in found.items():
        lpips = float(average(record["rows"], "lpips", 5))
        lines.append(f"| {count} | {lpips:.3f} | {lpips / reference:.3f} | {average(record['rows'], 'psnr_db', 2)} |")
    return "\n".join(lines + source(found[10]))


def sizes() -> str:
    """What is sent of a picture, by its size: from the header's own arithmetic."""
    lines = ["| picture | numbers of Z | of the picture's numbers | complex channel uses | side information, bits |", "|---" * 5 + "|"]
    for height, width in SIZES:
        header = Header(0, height, width, 0.75, 1.0, 0)
        numbers = math.prod(header.code_shape)
        share = f"{100 * numbers / (3 * height * width):.2f} %"
        lines.append(f"| {width}x{height} | {numbers} | {share} | {header.channel_uses} | {SIDE_BITS} |")
    return "\n".join(lines)


def speed() -> str:
    record = read("speed.json")
    lines = [
        "| picture | encode ms | decode ms, 10 steps | 2 steps | a step | Stage A | TFLOP/s of decoding | peak memory MiB |",
        "|---" * 8 + "|",
    ]
    for row in record["link"]:
        cells = [f"{row[key]:.0f}" for key in ("encode_ms", "decode_ms_10", "decode_ms_2", "step_ms", "stage_a_ms")]
        cells += [f"{row['tflops']:.2f}, {100 * row['share_of_peak']:.0f} % of a matrix product's", f"{row['peak_mib']:.0f}"]
        lines.append(f"| {row['side']}x{row['side']} | " + " | ".join(cells) + " |")
    lines.append("")
    head = ["network, same weights", "diffusers fp32 ms", "ours fp32 ms", "ours bf16 ms", "fp32 speedup", "bf16 speedup"]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in record["networks"]:
        times = [row["diffusers_fp32_ms"], row["ours_fp32_ms"], row["ours_bf16_ms"]]
        ratios = [times[0] / time if time else None for time in times[1:]]
        cells = [f"{t:.0f}" if t else "-" for t in times] + [f"{r:.2f}x" if r else "-" for r in ratios]
        lines.append(f"| {row['network']} | " + " | ".join(cells) + " |")
    lines += ["", f"Machine: {record['machine']['cpu']}, {record['machine']['threads']} threads, torch {record['machine']['torch']}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
