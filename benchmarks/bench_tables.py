"""Tables and plots of the bench's result files, for `tables.py`."""

import math
from collections import defaultdict
from statistics import median

import numpy as np

from results import CELLS, average, read, share
from semcast.bench.measures import SHIFTS
from semcast.bench.records import TIMES
from semcast.bench.report import colours, plot
from semcast.bench.summary import summarise
from semcast.cascade.config import LATENT_CHANNELS, STRIDE
from semcast.metrics.segmenter import mean_iou

HEADLINE = (
    ("lpips_vgg", "LPIPS-VGG", 3),
    ("dists", "DISTS", 3),
    ("ms_ssim", "MS-SSIM", 3),
    ("delta_e", "colour error dE2000", 2),
    ("top1_in_top5", "best label in the top 5", 2),
)
STREET_MODELS = {
    "start": "`small` of 0.1.0: photos and streets",
    "street": "then streets only",
    "mixed": "then streets and photos, 7 : 3",
}
RATE_RATIOS = (683, 96, 12)  # 1 / bandwidth ratio
FACTOR_RATIOS = (384, 683, 1536)  # 1 / bandwidth ratio: `factor` 1.0, 0.75, 0.5


def bench(name: str = "grid", snrs: tuple[float, ...] = (1.0, 5.0, 10.0)) -> str:
    """Every system at equal uses: LPIPS-Alex, PSNR and lost pictures over the SNR."""
    record = read(f"{name}.json")
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    lines = [f"| system | LPIPS-Alex at {at} | PSNR dB | lost | side information, bits |", "|---" * 5 + "|"]
    for system, groups in bench_groups(record).items():
        cells = [" / ".join(average(groups[snr], key, digits) for snr in snrs) for key, _, digits in CELLS]
        lost = " / ".join(share(groups[snr], "lost").removesuffix(" %") for snr in snrs) + " %"
        lines.append(
            f"| `{system}` | {' | '.join(cells)} | {lost} | {max(row['side_bits'] for row in groups[snrs[0]])} |"
        )
    return "\n".join(lines + bench_source(record))


def bench_camvid() -> str:
    return bench("camvid")


def bench_headline(name: str = "grid") -> str:
    """The slow metrics, at the headline SNRs; mIoU where pictures have labels."""
    record = read(f"{name}.json")
    snrs = [1.0, 5.0, 10.0]
    labelled = "segments" in record["rows"][0]
    heads = [label for _, label, _ in HEADLINE] + ["mIoU"] * labelled
    lines = ["| system | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for system, groups in bench_groups(record).items():
        cells = [" / ".join(average(groups[snr], key, digits) for snr in snrs) for key, _, digits in HEADLINE]
        if labelled:
            cells.append(" / ".join(miou_of(groups[snr]) for snr in snrs))
        lines.append(f"| `{system}` | {' | '.join(cells)} |")
    if labelled:
        originals = {
            row["image_sha256"]: row["segments_original"] for row in record["rows"] if row["segments_original"]
        }
        miou = f"{mean_iou(np.array([*originals.values()])):.2f}"
        lines.append(f"| the originals |{' |' * len(HEADLINE)} {miou} |")
    at = " / ".join(f"{snr:g}" for snr in snrs)
    return "\n".join([*lines, "", f"At {at} dB; LPIPS-VGG, DISTS, labels and mIoU of the first draw."])


def bench_camvid_headline() -> str:
    return bench_headline("camvid")


def bench_grid() -> str:
    """Every classical system and semcast over the whole SNR grid: LPIPS-Alex, and what a picture costs at 10 dB."""
    record = read("grid.json")
    snrs = sorted({row["snr_db"] for row in record["rows"]})
    lines = [
        "| system | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " | send, receive ms at 10 dB |",
        "|---" * (len(snrs) + 2) + "|",
    ]
    for system, groups in bench_groups(record).items():
        if len(groups) < len(snrs):
            continue
        times = [[row[name] for row in groups[10] if row[name] is not None] for name in TIMES]
        cells = [average(groups[snr], "lpips", 3) for snr in snrs] + [
            ", ".join(f"{median(t):.0f}" if t else "-" for t in times)
        ]
        lines.append(f"| `{system}` | " + " | ".join(cells) + " |")
    return "\n".join(lines + bench_source(record) + ["", f"Times: one thread of {' and '.join(record['cpus'])}."])


def bench_plot(metric: str) -> str:
    """A metric of grid.json over the SNR, as an SVG."""
    record = read("grid.json")
    summary = summarise(record["rows"])
    points = {
        s: sorted((k[2], *v[:3]) for k, v in summary.items() if (k[1], k[3]) == (s, metric)) for s in record["systems"]
    }
    return plot({system: found for system, found in points.items() if found}, metric, colours(points)) + "\n"


def bench_rate() -> str:
    """More channel uses: the ratios that DeepJSCC has networks for. Uses are what a system filled of its budget."""
    record = read("rate.json")
    of_ratio = {ratio: [row for row in record["rows"] if row["uses_rule"] == f"1/{ratio}"] for ratio in RATE_RATIOS}
    snrs = sorted({row["snr_db"] for row in record["rows"]})
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    lines = [f"| system | bandwidth ratio | channel uses | LPIPS-Alex at {at} | PSNR dB |", "|---" * 5 + "|"]
    groups = {ratio: bench_groups(record | {"rows": rows}) for ratio, rows in of_ratio.items()}
    for system in groups[RATE_RATIOS[0]]:
        for ratio in RATE_RATIOS:
            found = groups[ratio][system]
            uses = max(row["payload_uses"] for rows in found.values() for row in rows)
            cells = [" / ".join(average(found[snr], key, digits) for snr in snrs) for key, _, digits in CELLS]
            lines.append(f"| `{system}` | 1/{ratio} | {uses} | {' | '.join(cells)} |")
    return "\n".join(lines + bench_source(record))


def bench_line() -> str:
    """semcast, DeepJSCC and the best codec with LDPC and at capacity, in a sentence."""
    record = read("grid.json")
    groups, snrs = bench_groups(record), (1.0, 5.0, 10.0)
    value = lambda system: [float(average(groups[system][snr], "lpips", 5)) for snr in snrs]
    best = lambda link: min((s for s in groups if s.endswith(link)), key=lambda s: sum(value(s)))
    shown = {
        "semcast": "semcast",
        "deepjscc": "DeepJSCC",
        best("-ldpc"): "the best codec over 5G LDPC",
        best("-capacity"): "over an ideal code",
    }
    parts = [
        f"{name} {' / '.join(f'{v:.3f}' for v in value(system))}" for system, name in shown.items() if system in groups
    ]
    at = " / ".join(f"{snr:g}" for snr in snrs)
    draws = len({row["draw"] for row in record["rows"]})
    where = f"{draws} draw{'s' * (draws > 1)}; [all](docs/results.md#every-system-of-the-bench)"
    return f"Beside others at equal uses, LPIPS-Alex at {at} dB: {', '.join(parts)} ({where})."


def factor() -> str:
    """`small` with larger and smaller Z."""
    lines = ["| `factor` | Z | channel uses | LPIPS-Alex at 1 / 10 / 20 dB | DISTS | PSNR dB |", "|---" * 6 + "|"]
    record = read("factor.json")
    for ratio in FACTOR_RATIOS:
        rows = [row for row in record["rows"] if row["uses_rule"] == f"1/{ratio}"]
        (groups,) = bench_groups(record | {"rows": rows}).values()
        uses, size, snrs = rows[0]["uses"], rows[0]["size"], sorted(groups)
        side = math.isqrt(2 * uses // LATENT_CHANNELS)
        cells = [
            " / ".join(average(groups[snr], key, n) for snr in snrs)
            for key, n in (("lpips", 3), ("dists", 3), ("psnr_db", 2))
        ]
        lines.append(f"| {STRIDE * side / size:g} | [16, {side}, {side}] | {uses} | {' | '.join(cells)} |")
    return "\n".join(lines + bench_source(record))


def street() -> str:
    """`small` and its two street versions on streets and on photos: quality and colour at every SNR."""
    records = {"street": read("street.json"), "photos": read("street_photos.json")}
    snrs = sorted({row["snr_db"] for row in records["street"]["rows"]})
    at = " / ".join(f"{snr:g}" for snr in snrs) + " dB"
    heads = [
        "measured on",
        "trained on",
        f"LPIPS-Alex at {at}",
        "DISTS",
        "PSNR dB",
        "colour error dE2000",
        "shift of red, green, blue",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, record in records.items():
        for system, groups in bench_groups(record).items():
            keys = (("lpips", 3), ("dists", 3), ("psnr_db", 2), ("delta_e", 2))
            cells = [" / ".join(average(groups[snr], key, digits) for snr in snrs) for key, digits in keys]
            rows = [row for snr in snrs for row in groups[snr]]
            shift = ", ".join(f"{float(average(rows, key, 4)):+.1f}" for key in SHIFTS)
            trained = STREET_MODELS[system.partition("@")[2]]
            lines.append(f"| {name} | {trained} | {' | '.join(cells)} | {shift} |")
    counts = {name: len({row["image_sha256"] for row in record["rows"]}) for name, record in records.items()}
    draws = len({row["draw"] for row in records["street"]["rows"]})
    text = f"{counts['street']} frames of CamVid's test set, {counts['photos']} Kodak photos (centre 512x512), "
    text += f"{draws} draw{'s' * (draws > 1)}"
    return "\n".join([*lines, "", f"{text}; shifts are of 255, over all SNRs. `runs/small_street.sh`"])


def bench_groups(record: dict) -> dict[str, dict[float, list[dict]]]:
    """system -> SNR -> rows, in the order in which systems were named."""
    groups: dict[str, dict[float, list[dict]]] = {system: defaultdict(list) for system in record["systems"]}
    for row in record["rows"]:
        groups[row["system"]][row["snr_db"]].append(row)
    return groups


def bench_source(record: dict) -> list[str]:
    rows = record["rows"]
    pictures, draws = (len({row[key] for row in rows}) for key in ("image_sha256", "draw"))
    uses = sorted({row["uses"] for row in rows})
    between = f"{uses[0]}" if len(uses) == 1 else f"{uses[0]} to {uses[-1]}"
    channels = sorted({row["channel"] for row in rows})
    crop = f"centre {rows[0]['size']}x{rows[0]['size']}" if rows[0]["size"] else "whole"
    draws = f"{draws} draw{'s' * (draws > 1)}" if draws == 1 else f"up to {draws} draws"
    text = f"{pictures} pictures ({crop}), {draws}, {between} channel uses each, {', '.join(channels)}. "
    text += f"`python benchmarks/measure.py {record['experiment']}`; protocol {record['protocol']}, "
    return ["", text + f"versions and hashes: `{record['experiment']}.json`."]


TABLES = (
    bench,
    bench_headline,
    bench_grid,
    bench_rate,
    factor,
    bench_line,
    bench_camvid,
    bench_camvid_headline,
    street,
)


def miou_of(rows: list[dict], digits: int = 2) -> str:
    """Their mIoU, of the first draw; "-" where they were measured without a segmenter."""
    counts = [row.get("segments") for row in rows if not row["draw"]]
    return "-" if None in counts else f"{mean_iou(np.array(counts)):.{digits}f}"
