"""Tables of README.md and MODEL_CARD.md, computed from benchmarks/results/*.json. Nothing is typed by hand.

python benchmarks/tables.py            print them
python benchmarks/tables.py --write    put them between the markers <!-- table NAME --> and <!-- end NAME -->
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "semcast" / "weights" / "small" / "MODEL_CARD.md")
SYSTEMS = {
    "semcast": "semcast `small`",
    "ablation": "the same, trained without channel noise",
    "downscale": "downscale, send analog, enlarge",
}


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


def tables() -> dict[str, str]:
    makers = {"quality": quality, "predictability": predictability, "speed": speed, "robust": robust}
    return {name: make() for name, make in makers.items()}


def filled(text: str) -> str:
    """The document with every marked table made anew."""
    for name, table in tables().items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda m, table=table: m[1] + table + "\n" + m[2], text, flags=re.S)
    return text


def quality() -> str:
    record = json.loads((RESULTS / "kodak.json").read_text())
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["system"], row["snr_db"]].append(row)
    snrs = sorted({snr for _, snr in groups})
    lines = ["| system | metric | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " |", "|---|---|" + "---|" * len(snrs)]
    for system, label in SYSTEMS.items():
        for key, metric, digits in (("lpips", "LPIPS-Alex", 3), ("lpips_vgg", "LPIPS-VGG", 3), ("psnr_db", "PSNR dB", 2)):
            if (system, snrs[0]) in groups:
                cells = [average(groups[system, snr], key, digits) for snr in snrs]
                lines.append(f"| {label} | {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def average(rows: list[dict], key: str, digits: int) -> str:
    """Mean over draws, then over pictures; a dash where it was not measured."""
    by_image = defaultdict(list)
    for row in rows:
        by_image[row["image"]].append(row[key])
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
    return "\n".join(lines)


def speed() -> str:
    record = json.loads((RESULTS / "speed.json").read_text())
    lines = ["| picture | encode ms | decode ms, 10 steps | decode ms, 2 steps | peak memory MiB |", "|---|---|---|---|---|"]
    for row in record["link"]:
        times = [row[key] for key in ("encode_ms", "decode_ms_10", "decode_ms_2", "peak_mib")]
        lines.append(f"| {row['side']}x{row['side']} | " + " | ".join(f"{value:.0f}" for value in times) + " |")
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
