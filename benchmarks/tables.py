"""Tables of README.md, MODEL_CARD.md, docs/results.md and docs/peers.md, computed from benchmarks/results/*.json.

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
import ladder_tables
import peer_tables
import radio_tables
import receiver_tables
import results
from bench_tables import bench_plot
from results import CELLS, average, read, share, source
from scripts import summary

from semcast.bench.experiments import NO_NOISE_DB
from semcast.header import SIDE_BITS, Header

ROOT = Path(__file__).parent.parent
PLOT = ROOT / "docs" / "crossing.png"
PLOTS = {metric: ROOT / "docs" / f"bench_{metric}.svg" for metric in ("lpips", "dists", "psnr_db")}
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "semcast" / "weights" / "small" / "MODEL_CARD.md",
    ROOT / "docs" / "results.md",
    ROOT / "docs" / "peers.md",
)
SYSTEMS = {"semcast": "semcast `small`", "downscale": "downscale, send analog, enlarge"}
RECEIVERS = {
    "semcast": "noise of every symbol",
    "semcast-mean-noise": "MMSE weights only",
    "semcast-one-noise": "one variance for all",
    "semcast@blind": "told nothing, and trained so",
}
CROSSING = {  # (system, error of the SNR in dB) in crossing.json
    ("semcast", 0): "analog",
    ("semcast-digital", 0): "digital, mode adapted to the SNR",
    ("semcast-digital-fixed", 0): "digital, mode for 10 dB",
    ("semcast", 6): "analog, told 6 dB too much",
    ("semcast-digital", 6): "digital, told 6 dB too much",
    ("semcast", -6): "analog, told 6 dB too little",
    ("semcast-digital", -6): "digital, told 6 dB too little",
}
RECEIVERS_TRAINED = {  # in ablation.json
    "semcast@noisy": "trained with noise from its start",
    "semcast@clean": "trained without noise",
    "semcast@tuned": "that one, fine-tuned by the paper's recipe",
}
STEPS = {"semcast-1step": 1, "semcast-2steps": 2, "semcast-4steps": 4, "semcast-10steps": 10}
SIZES = ((512, 512), (1024, 1024), (360, 480), (1024, 2048))
OUTAGE_SNR_DB = 10  # where the SNR is believed wrong by many errors


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--write", action="store_true")
    args = p.parse_args()
    for name, table in tables().items():
        if not args.write:
            print(f"## {name}\n\n{table}\n")
    if args.write:
        for path in DOCUMENTS:
            path.write_text(filled(path.read_text()))
        for metric, path in PLOTS.items():
            if (results.RESULTS / "grid.json").exists():
                path.write_text(bench_plot(metric))
        if (results.RESULTS / "ladder.json").exists():
            for snr_db in ladder_tables.SNRS_DB:
                path = ROOT / "docs" / f"ladder_{snr_db:g}db.svg"
                path.write_text(ladder_tables.ladder_plot("lpips", snr_db))
        if (results.RESULTS / "crossing.json").exists():
            crossing_plot(PLOT)


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
    makers += [sizes, *bench_tables.TABLES, *ladder_tables.TABLES, *radio_tables.TABLES, *receiver_tables.TABLES]
    makers += peer_tables.TABLES
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
    return quality_table(read("grid.json"))


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
    return "\n".join(lines + [line for record in found[1:] for line in source(record)])


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
    time_ms = record["ofdm"]["ms_per_picture"]
    text = f"OFDM over TDL-C with LS estimation, batched: {time_ms:.1f} ms for the symbols of a 512x512 picture."
    return "\n".join([*lines, "", text + f" {record['machine']['cpu']}, one core: `python benchmarks/phy_speed.py`"])


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


def sizes() -> str:
    """What is sent of a picture, by its size: from the header's own arithmetic."""
    lines = [
        "| picture | numbers of Z | of the picture's numbers | complex channel uses | side information, bits |",
        "|---" * 5 + "|",
    ]
    for height, width in SIZES:
        header = Header(0, height, width, 0.75, 1.0)
        numbers = math.prod(header.latent_shape)
        share = f"{100 * numbers / (3 * height * width):.2f} %"
        lines.append(f"| {width}x{height} | {numbers} | {share} | {header.channel_uses} | {SIDE_BITS} |")
    return "\n".join(lines)


def speed() -> str:
    record = read("speed.json")
    counts = sorted(int(key.removeprefix("decode_ms_")) for key in record["link"][0] if key.startswith("decode_ms_"))
    head = ["picture", "engine", "encode ms", *(f"decode ms, {n} step{'s' * (n > 1)}" for n in counts)]
    head += ["a step", "Stage A", "peak memory MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    keys = ("encode_ms", *(f"decode_ms_{n}" for n in counts), "step_ms", "stage_a_ms", "peak_mib")
    for row in record["link"]:
        cells = ["-" if row[key] is None else f"{row[key]:.0f}" for key in keys]
        lines.append(f"| {row['side']}x{row['side']} | {row['engine']} | " + " | ".join(cells) + " |")
    times = [
        f"{row['network']} {row['diffusers_fp32_ms']:.0f} and {row['ours_fp32_ms']:.0f}" for row in record["networks"]
    ]
    machine = record["machine"]
    packages = ", ".join(f"{name} {machine[name]}" for name in ("onnxruntime", "torch", "openvino") if name in machine)
    return "\n".join(
        [
            *lines,
            "",
            f"From the shell to the picture on disk: {record['cold_start_s']:.1f} s. The same weights in diffusers' classes "
            f"and in ours, torch, float32, ms: {'; '.join(times)}.",
            f"Machine: {machine['cpu']}, {machine['threads']} threads, {record['cpu_matmul_tflops'] * 1e3:.0f} GFLOP/s in a "
            f"matrix product; {packages}.",
        ]
    )


def scores(rows: list[dict]) -> dict[str, float]:
    return {key: mean(row[key] for row in rows) for key in ("lpips", "outage")}


STYLES = {  # colour, dashes, width
    ("semcast", 0): ("#c0392b", "-", 2.2),
    ("semcast-digital", 0): ("#1f77b4", "-", 2.2),
    ("semcast-digital-fixed", 0): ("#5d6d7e", "-", 1.4),
    ("semcast", 6): ("#c0392b", ":", 1.2),
    ("semcast-digital", 6): ("#1f77b4", ":", 1.2),
    ("semcast", -6): ("#c0392b", "--", 1.2),
    ("semcast-digital", -6): ("#1f77b4", "--", 1.2),
}


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


def interpolate(at: float, x: list[float], y: list[float]) -> float:
    i = next(i for i in range(len(x) - 1) if x[i + 1] >= at)
    return y[i] + (y[i + 1] - y[i]) * (at - x[i]) / (x[i + 1] - x[i])


if __name__ == "__main__":
    main()
