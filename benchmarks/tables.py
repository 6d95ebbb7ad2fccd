"""Tables of README.md, MODEL_CARD.md and docs/results.md, computed from benchmarks/results/*.json. Nothing is typed by hand.

python benchmarks/tables.py            print them
python benchmarks/tables.py --write    put them between the markers <!-- table NAME --> and <!-- end NAME -->
"""

import argparse
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np

from semcast.bench.measures import SHIFTS
from semcast.bench.report import TIMES, plot, summarise
from semcast.bench.segmenter import mean_iou
from semcast.cascade.encoder import LATENT_CHANNELS, STRIDE
from semcast.transmitter import SIDE_BITS, Header

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
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
CELLS = (("lpips", "LPIPS-Alex", 3), ("psnr_db", "PSNR dB", 2))
HEADLINE = (
    ("lpips_vgg", "LPIPS-VGG", 3),
    ("dists", "DISTS", 3),
    ("ms_ssim", "MS-SSIM", 3),
    ("delta_e", "colour error dE2000", 2),
    ("top1_in_top5", "best label in the top 5", 2),
)
STREET_MODELS = {"small": "`small`: photos and streets", "street": "then streets only", "mixed": "then streets and photos, 7 : 3"}
SIZES = ((512, 512), (1024, 1024), (360, 480), (1024, 2048))
FACTOR_RATIOS = (384, 683, 1536)  # 1 / bandwidth ratio: `factor` 1.0, 0.75, 0.5
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
            if (RESULTS / "bench_grid.json").exists():
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
    makers += [bench, bench_headline, bench_grid, sizes, factor, bench_line, bench_camvid, bench_camvid_headline, street]
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


def source(record: dict) -> list[str]:
    """The lines below a table that say how it was made."""
    pictures, draws = (len({row[key] for row in record["rows"]}) for key in ("image", "draw"))
    return ["", f"{pictures} pictures, {draws} draw{'s' * (draws > 1)}: `{record['command']}`"]


def quality() -> str:
    return quality_table(json.loads((RESULTS / "kodak.json").read_text()))


def ablation_fewstep() -> str:
    """The arms of the ablation after the few-step phase too, each trained and received as it was before."""
    record = json.loads((RESULTS / "ablation_fewstep.json").read_text())
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


def average(rows: list[dict], key: str, digits: int) -> str:
    """Mean over draws, then over pictures; a dash where it was not measured."""
    by_image = defaultdict(list)
    for row in rows:
        by_image[row.get("image_sha256", row["image"])].append(row[key])
    if any(value is None for values in by_image.values() for value in values):
        return "-"
    return f"{mean(mean(values) for values in by_image.values()):.{digits}f}"


def predictability() -> str:
    record = json.loads((RESULTS / "predictability.json").read_text())
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["snr_db"]].append(row["lpips"])
    lines = ["| SNR | LPIPS-Alex, mean | standard deviation | transmissions |", "|---|---|---|---|"]
    for snr, values in sorted(groups.items(), reverse=True):
        lines.append(f"| {snr:g} dB | {mean(values):.3f} | {stdev(values):.4f} | {len(values)} |")
    return "\n".join(lines)


def robust() -> str:
    record = json.loads((RESULTS / "robust.json").read_text())
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
    records = [json.loads((RESULTS / name).read_text()) for name in ("robust.json", "robust_blind.json") if (RESULTS / name).exists()]
    groups = defaultdict(list)
    for row in (row for record in records for row in record["rows"]):
        groups[row["condition"]].append(row)
    lines = ["| channel | " + " | ".join(RECEIVERS.values()) + " |", "|---" * (len(RECEIVERS) + 1) + "|"]
    for name in groups:
        if name + ", blind" in groups or name + ", no map" in groups:
            cells = [groups.get(name + suffix) for suffix in RECEIVERS]
            cells = [f"{average(rows, 'lpips', 3)} ({average(rows, 'psnr_db', 2)})" if rows else "-" for rows in cells]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines + [line for record in records[1:] for line in source(record)])


def crossing_rows(record: dict) -> dict[tuple, list[dict]]:
    """(system, snr_db, error_db) -> rows."""
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["system"], row["snr_db"], row["error_db"]].append(row)
    return dict(groups)


def crossing() -> str:
    record = json.loads((RESULTS / "crossing.json").read_text())
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


def share(rows: list[dict], key: str) -> str:
    return f"{100 * mean(row[key] for row in rows):.0f} %"


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
    groups = crossing_rows(json.loads((RESULTS / "crossing.json").read_text()))
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
    record = json.loads((RESULTS / "packet_gain.json").read_text())
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["transforms"]].append(row["size_bytes"])
    lines = [f"| transforms | bytes at {record['error_db']:g} dB |", "|---|---|"]
    lines += [f"| {name} | {mean(sizes):.0f} |" for name, sizes in groups.items()]
    return "\n".join(lines + source(record))


def phy_speed() -> str:
    """Of the digital link's decoder and of OFDM, one core."""
    record = json.loads((RESULTS / "phy_speed.json").read_text())
    rows = record["decoder"]
    lines = ["| | " + " | ".join(row["scheme"] for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    lines.append("| kbit/s of payload | " + " | ".join(f"{row['kbit_s']:.0f}" for row in rows) + " |")
    text = f"OFDM over TDL-C with LS estimation, batched: {record['ofdm']['ms_per_picture']:.1f} ms for the symbols of a 512x512 picture."
    return "\n".join([*lines, "", text + f" {record['machine']['cpu']}, one core: `python benchmarks/phy_speed.py`"])


def ablation(record: dict | None = None) -> str:
    """Of the record given, else of ablation.json."""
    record = record or json.loads((RESULTS / "ablation.json").read_text())
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
    records = {count: json.loads((RESULTS / f"steps_{count}.json").read_text()) for count in (1, 2, 4, 10)}
    lines = ["| steps | LPIPS-Alex | beside 10 steps | PSNR dB |", "|---|---|---|---|"]
    reference = float(average(records[10]["rows"], "lpips", 5))
    for count, record in records.items():
        lpips = float(average(record["rows"], "lpips", 5))
        lines.append(f"| {count} | {lpips:.3f} | {lpips / reference:.3f} | {average(record['rows'], 'psnr_db', 2)} |")
    return "\n".join(lines + source(records[10]))


def bench_groups(record: dict) -> dict[str, dict[float, list[dict]]]:
    """system -> SNR -> rows, in the order in which systems were named."""
    groups = {system: defaultdict(list) for system in record["systems"]}
    for row in record["rows"]:
        groups[row["system"]][row["snr_db"]].append(row)
    return groups


def bench_line() -> str:
    """semcast, DeepJSCC and the best codec with LDPC and at capacity, in a sentence."""
    record = json.loads((RESULTS / "bench_kodak.json").read_text())
    groups, snrs = bench_groups(record), sorted({row["snr_db"] for row in record["rows"]})
    value = lambda system: [float(average(groups[system][snr], "lpips", 5)) for snr in snrs]  # noqa: E731
    best = lambda link: min((s for s in groups if s.endswith(link)), key=lambda s: sum(value(s)))  # noqa: E731
    shown = {
        "semcast": "semcast",
        "deepjscc": "DeepJSCC",
        best("-ldpc"): "the best codec over 5G LDPC",
        best("-capacity"): "over an ideal code",
    }
    parts = [f"{name} {' / '.join(f'{v:.3f}' for v in value(system))}" for system, name in shown.items() if system in groups]
    at = " / ".join(f"{snr:g}" for snr in snrs)
    draws = len({row["draw"] for row in record["rows"]})
    where = f"{draws} draw{'s' * (draws > 1)}; [all](docs/results.md#every-system-of-the-bench)"
    return f"Beside others at equal uses, LPIPS-Alex at {at} dB: {', '.join(parts)} ({where})."


def sizes() -> str:
    """What is sent of a picture, by its size: from the header's own arithmetic."""
    lines = ["| picture | numbers of Z | of the picture's numbers | complex channel uses | side information, bits |", "|---" * 5 + "|"]
    for height, width in SIZES:
        header = Header(0, height, width, 0.75, 1.0, 0)
        numbers = math.prod(header.code_shape)
        share = f"{100 * numbers / (3 * height * width):.2f} %"
        lines.append(f"| {width}x{height} | {numbers} | {share} | {header.channel_uses} | {SIDE_BITS} |")
    return "\n".join(lines)


def factor() -> str:
    """`small` with larger and smaller codes."""
    lines = ["| `factor` | Z | channel uses | LPIPS-Alex at 1 / 10 / 20 dB | DISTS | PSNR dB |", "|---" * 6 + "|"]
    for ratio in FACTOR_RATIOS:
        record = json.loads((RESULTS / f"factor_{ratio}.json").read_text())
        (groups,) = bench_groups(record).values()
        uses, snrs = record["rows"][0]["uses"], sorted(groups)
        side = math.isqrt(2 * uses // LATENT_CHANNELS)
        cells = [" / ".join(average(groups[snr], key, n) for snr in snrs) for key, n in (("lpips", 3), ("dists", 3), ("psnr_db", 2))]
        lines.append(f"| {STRIDE * side / record['size']:g} | [16, {side}, {side}] | {uses} | {' | '.join(cells)} |")
    pictures, draws = (len({row[key] for row in record["rows"]}) for key in ("image_sha256", "draw"))
    return "\n".join([*lines, "", f"{pictures} pictures (centre 512x512), {draws} draw{'s' * (draws > 1)}. `runs/bench_factor.sh`"])


def bench_camvid() -> str:
    return bench("bench_camvid")


def bench_camvid_headline() -> str:
    return bench_headline("bench_camvid")


def bench(name: str = "bench_kodak") -> str:
    """Every system at equal uses: LPIPS-Alex, PSNR and lost pictures over the SNR."""
    record = json.loads((RESULTS / f"{name}.json").read_text())
    snrs = sorted({row["snr_db"] for row in record["rows"]})
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    lines = [f"| system | LPIPS-Alex at {at} | PSNR dB | lost | side information, bits |", "|---" * 5 + "|"]
    for system, groups in bench_groups(record).items():
        cells = [" / ".join(average(groups[snr], key, digits) for snr in snrs) for key, _, digits in CELLS]
        lost = " / ".join(share(groups[snr], "lost").removesuffix(" %") for snr in snrs) + " %"
        lines.append(f"| `{system}` | {' | '.join(cells)} | {lost} | {max(row['side_bits'] for row in groups[snrs[0]])} |")
    return "\n".join(lines + bench_source(record, name))


def bench_grid() -> str:
    """Every classical system and semcast over the whole SNR grid: LPIPS-Alex, and what a picture costs at 10 dB."""
    record = json.loads((RESULTS / "bench_grid.json").read_text())
    snrs = sorted({row["snr_db"] for row in record["rows"]})
    lines = ["| system | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " | send, receive ms at 10 dB |", "|---" * (len(snrs) + 2) + "|"]
    for system, groups in bench_groups(record).items():
        times = [[row[name] for row in groups[10] if row[name] is not None] for name in TIMES]
        cells = [average(groups[snr], "lpips", 3) for snr in snrs] + [", ".join(f"{median(t):.0f}" if t else "-" for t in times)]
        lines.append(f"| `{system}` | " + " | ".join(cells) + " |")
    return "\n".join(lines + bench_source(record, "bench_grid") + ["", f"Times: one thread of {' and '.join(record['cpus'])}."])


def bench_plot(metric: str) -> str:
    """Of bench_grid.json over the SNR, as an SVG."""
    record = json.loads((RESULTS / "bench_grid.json").read_text())
    shared = {field: value for field, value in record.items() if field not in ("rows", "systems")}
    summary = summarise([shared | row for row in record["rows"]])
    points = {s: sorted((k[2], *v[:3]) for k, v in summary.items() if (k[1], k[3]) == (s, metric)) for s in record["systems"]}
    return plot({system: found for system, found in points.items() if found}, metric) + "\n"


def bench_headline(name: str = "bench_kodak") -> str:
    """The slow metrics, at the headline SNRs; mIoU where pictures have labels."""
    record = json.loads((RESULTS / f"{name}.json").read_text())
    snrs = sorted({row["snr_db"] for row in record["rows"] if row["headline"]})
    labelled = "segments" in record["rows"][0]
    heads = [label for _, label, _ in HEADLINE] + ["mIoU"] * labelled
    lines = ["| system | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for system, groups in bench_groups(record).items():
        cells = [" / ".join(average(groups[snr], key, digits) for snr in snrs) for key, _, digits in HEADLINE]
        if labelled:
            cells.append(" / ".join(f"{mean_iou(np.array([row['segments'] for row in groups[snr]])):.2f}" for snr in snrs))
        lines.append(f"| `{system}` | {' | '.join(cells)} |")
    if labelled:
        originals = {row["image_sha256"]: row["segments_original"] for row in record["rows"] if row["segments_original"]}
        miou = f"{mean_iou(np.array([*originals.values()])):.2f}"
        lines.append(f"| the originals |{' |' * len(HEADLINE)} {miou} |")
    return "\n".join(lines + ["", "At " + " / ".join(f"{snr:g}" for snr in snrs) + " dB."])


def street() -> str:
    """`small` and its two street versions on streets and on photos: quality and colour at every SNR."""
    records = {name: json.loads((RESULTS / f"street_{name}.json").read_text()) for name in ("street", "photos")}
    snrs = sorted({row["snr_db"] for row in records["street"]["rows"]})
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    heads = ["measured on", "trained on", f"LPIPS-Alex at {at}", "DISTS", "PSNR dB", "colour error dE2000", "shift of red, green, blue"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, record in records.items():
        for system, groups in bench_groups(record).items():
            keys = (("lpips", 3), ("dists", 3), ("psnr_db", 2), ("delta_e", 2))
            cells = [" / ".join(average(groups[snr], key, digits) for snr in snrs) for key, digits in keys]
            rows = [row for snr in snrs for row in groups[snr]]
            shift = ", ".join(f"{float(average(rows, key, 4)):+.1f}" for key in SHIFTS)
            trained = STREET_MODELS[Path(system.partition("@")[2] or "small/model").parent.name]
            lines.append(f"| {name} | {trained} | {' | '.join(cells)} | {shift} |")
    counts = {name: len({row["image_sha256"] for row in record["rows"]}) for name, record in records.items()}
    draws = len({row["draw"] for row in records["street"]["rows"]})
    text = (
        f"{counts['street']} frames of CamVid's test set, {counts['photos']} Kodak photos (centre 512x512), {draws} draw{'s' * (draws > 1)}"
    )
    return "\n".join([*lines, "", f"{text}; shifts are of 255, over all SNRs. `runs/small_street.sh`"])


def bench_source(record: dict, name: str) -> list[str]:
    pictures, draws = (len({row[key] for row in record["rows"]}) for key in ("image_sha256", "draw"))
    uses = sorted({row["uses"] for row in record["rows"]})
    between = f"{uses[0]}" if len(uses) == 1 else f"{uses[0]} to {uses[-1]}"
    options = "".join(f", {key} {value}" for key, value in record["channel_options"].items())
    crop = f"centre {record['size']}x{record['size']}" if record["size"] else "whole"
    text = f"{pictures} pictures ({crop}), {draws} draw{'s' * (draws > 1)}, {between} channel uses each, {record['channel']}{options}."
    text += f" By `runs/{name}.sh` or a part of it; protocol {record['protocol']}, versions and hashes: `{name}.json`."
    return ["", text]


def speed() -> str:
    record = json.loads((RESULTS / "speed.json").read_text())
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
