"""Tables of the four learned rivals beside semcast and beside the paper's own figures, for `tables.py`."""

import math
from pathlib import Path
from statistics import mean, median, stdev

from bench_tables import bench_groups, bench_source, miou_of
from results import average, read
from semcast.bench.harness import count_uses
from semcast.bench.peers import gesco, img2img, noisy_latent
from semcast.bench.peers.diffusion import STEPS
from semcast.bench.peers.parts import PARTS
from semcast.bench.records import TIMES
from semcast.cascade.config import small_config
from semcast.modulation.mcs import choose, plan

KD = "kd_efficientnet_lite0"
METRICS = {  # name: (label, digits, whether more is better)
    "lpips": ("LPIPS-Alex", 3, False),
    "ssim": ("SSIM", 3, True),
    "psnr_db": ("PSNR dB", 2, True),
    "miou": ("mIoU", 2, True),
    KD: ("KD", 4, False),
}
SNRS_DB = (1.0, 5.0, 10.0)
GAIN_DB = 10.0  # where semcast is set beside Img2Img-SC
SIZES = ((512, 512), (360, 480))  # height, width
STRIP = Path(__file__).parent.parent / "docs" / "peers.jpg"
STEPS_OF = {  # of the diffusion, by system
    "semcast": f"{small_config().steps}",
    "img2img": f"{img2img.DDIM_STEPS} + {round(img2img.DDIM_STEPS * img2img.TEXTURE / img2img.STRENGTH)}",
    "img2img-published": f"{img2img.DDIM_STEPS}",
    "gesco": f"{gesco.DDIM_STEPS}",
    "gesco-labels": f"{gesco.DDIM_STEPS}",
    "gesco-published": f"{STEPS}",
    "diffsc": f"{noisy_latent.DDIM_STEPS}",
    "diffsc-published": f"{noisy_latent.DDIM_STEPS}",
    "casc": f"{noisy_latent.DDIM_STEPS}",
    "casc-published": f"{noisy_latent.DDIM_STEPS}",
}

# From the paper (SC-SIC, arXiv 2507.17416): Cityscapes, 1024x1024 pixels unless another size is named.
PAPER_COUNT = {  # numbers sent over numbers of the picture
    "semcast": "0.29 %",
    "img2img-published": "2.09 %",
    "diffsc-published": "1.04 %",
    "casc-published": "1.04 %",
}
PAPER_LPIPS = {  # at 20, 10 and 1 dB over 25 transmissions
    "the paper's own system": ("0.173 ± 0.003", "0.229 ± 0.003", "0.351 ± 0.006"),
    "the same, 512x512": ("0.205", "0.264", "0.371"),
    "GESCO": ("0.401", "0.424", "0.613"),
    "Img2Img-SC": ("0.520", "0.522", "0.578"),
}
PAPER_SPEED = {  # at 512x512, on one RTX A6000
    "semcast": "0.78 s, 10 steps",
    "img2img-published": "2.34 s, 30 steps",
    "gesco-published": "5 min 24 s, 1000 steps",
}
PAPER_GAINS = {KD: "FID -43 %", "lpips": "-55 %", "ssim": "+56 %", "psnr_db": "+23 %"}


def peer_payloads() -> str:
    """Channel uses of a picture, from the systems' own arithmetic."""
    heads = [f"uses at {width}x{height}" for height, width in SIZES]
    lines = [f"| system | {' | '.join(heads)} | of semcast's | ratio | the paper counts |", "|---" * 6 + "|"]
    ours, pixels = count_uses("same", *SIZES[0]), math.prod(SIZES[0])
    for system in STEPS_OF:
        uses = [payload_uses(system, *sides) for sides in SIZES]
        times, ratio = uses[0] / ours, uses[0] / (3 * pixels)
        cells = [*map(str, uses), f"{times:.0f}" if times > 9 else f"{times:.3g}"]
        cells.append(f"1/{1 / ratio:.0f}" if ratio < 1 else f"{ratio:.2g}")
        lines.append(f"| `{system}` | {' | '.join(cells)} | {PAPER_COUNT.get(system, '-')} |")
    return "\n".join(lines)


def payload_uses(system: str, height: int, width: int) -> int:
    """Of a picture, at the uses that semcast takes."""
    uses, (name, _, published) = count_uses("same", height, width), system.partition("-")
    if system in ("semcast", "gesco", "gesco-labels"):
        return uses
    if name == "gesco":
        return gesco.published_uses(height, width)
    if name == "img2img" and published:
        return img2img.published_uses(height, width)
    if name == "img2img":
        cells = img2img.grid(*img2img.cells(height, width), 2 * uses // img2img.CHANNELS)
        return img2img.CHANNELS * math.prod(cells) // 2
    if published:
        return noisy_latent.published_uses(height, width)
    cells = noisy_latent.latent_grid(height, width, uses, "ae32")
    return math.ceil(noisy_latent.shape_of("ae32")[0] * math.prod(cells) / 2)


def peer_speed() -> str:
    """Steps, and medians of the times at GAIN_DB."""
    record = read("peers.json")
    lines = ["| system | steps | send ms | receive ms | the paper, 512x512 |", "|---" * 5 + "|"]
    for system, groups in bench_groups(record).items():
        times = [[row[name] for row in groups[GAIN_DB] if row[name] is not None] for name in TIMES]
        cells = [f"{median(t):.0f}" if t else "-" for t in times]
        lines.append(f"| `{system}` | {STEPS_OF[system]} | {' | '.join(cells)} | {PAPER_SPEED.get(system, '-')} |")
    return "\n".join([*lines, "", f"One thread of {' and '.join(record['cpus'])}; the paper: one RTX A6000."])


def peer_predictability() -> str:
    """LPIPS-Alex of repeated transmissions of one frame: mean and standard deviation."""
    record = read("peers_predictability.json")
    groups = bench_groups(record)
    snrs = sorted({row["snr_db"] for row in record["rows"]}, reverse=True)
    lines = ["| system | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " | transmissions |", "|---" * 5 + "|"]
    for system in (system for system in STEPS_OF if system in groups):
        values = [[row["lpips"] for row in groups[system][snr]] for snr in snrs]
        cells = [f"{mean(v):.3f} ± {stdev(v):.4f}" if len(v) > 1 else "-" for v in values]
        lines.append(f"| `{system}` | {' | '.join(cells)} | {max(map(len, values))} |")
    lines += [f"| {name}, as the paper gives it | {' | '.join(cells)} | 25 |" for name, cells in PAPER_LPIPS.items()]
    return "\n".join(lines + bench_source(record))


def peer_quality() -> str:
    record = read("peers.json")
    at = " / ".join(f"{snr:g}" for snr in SNRS_DB) + " dB"
    heads = [label for label, *_ in METRICS.values()]
    lines = [f"| system | channel uses | side bits | {heads[0]} at {at} | {' | '.join(heads[1:])} |", "|---" * 8 + "|"]
    for system, groups in bench_groups(record).items():
        rows = [row for snr in SNRS_DB for row in groups[snr]]
        counts = [f"{mean(row[name] for row in rows):.0f}" for name in ("payload_uses", "side_bits")]
        cells = [" / ".join(text(score(record, system, snr, name), name) for snr in SNRS_DB) for name in METRICS]
        lines.append(f"| `{system}` | {' | '.join(counts + cells)} |")
    return "\n".join(lines + bench_source(record) + fewer_pictures(record))


def fewer_pictures(record: dict) -> list[str]:
    """A line for the systems that were measured on fewer pictures than the others."""
    count = lambda rows: len({row["image_sha256"] for row in rows})
    found = {
        system: count(row for rows in groups.values() for row in rows)
        for system, groups in bench_groups(record).items()
    }
    most = max(found.values())
    return [f"`{system}`: {pictures} of these pictures." for system, pictures in found.items() if pictures < most]


def peer_winners() -> str:
    """Of every metric and SNR, the best system at equal uses; where that is a rival, semcast's figure too."""
    record = read("peers.json")
    equal = [system for system in record["systems"] if not system.endswith("-published")]
    lines = ["| metric | " + " | ".join(f"{snr:g} dB" for snr in SNRS_DB) + " |", "|---" * (1 + len(SNRS_DB)) + "|"]
    won = lost = 0
    for name, (label, _, more) in METRICS.items():
        cells = []
        for snr in SNRS_DB:
            found = {system: score(record, system, snr, name) for system in equal}
            known = {system: value for system, value in found.items() if value is not None}
            if not known or found["semcast"] is None:
                cells.append("-")
                continue
            best = (max if more else min)(known, key=lambda system: known[system])
            beside = "" if best == "semcast" else f" (semcast {text(found['semcast'], name)})"
            won, lost = won + (best == "semcast"), lost + (best != "semcast")
            cells.append(f"`{best}` {text(known[best], name)}{beside}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"At equal uses semcast is the best in {won} of {won + lost} places, a rival in {lost}."]
    )


def peer_gains() -> str:
    """semcast relative to Img2Img-SC, as published and repaired, beside the paper's percentages."""
    record = read("peers.json")
    lines = ["| metric | beside `img2img-published` | beside `img2img`, equal uses | the paper |", "|---" * 4 + "|"]
    for name, paper in PAPER_GAINS.items():
        ours = score(record, "semcast", GAIN_DB, name)
        cells = [gain(ours, score(record, rival, GAIN_DB, name)) for rival in ("img2img-published", "img2img")]
        lines.append(f"| {METRICS[name][0]} | {' | '.join(cells)} | {paper} |")
    uses = [
        mean(row["payload_uses"] for row in record["rows"] if row["system"] == s)
        for s in ("img2img-published", "semcast")
    ]
    said = f"At {GAIN_DB:g} dB. `img2img-published` takes {uses[0] / uses[1]:.0f} times the channel uses of semcast."
    return "\n".join([*lines, "", said])


def gain(ours: float | None, theirs: float | None) -> str:
    """The change in percent; a dash where a figure is missing, or is zero or less, as KD can be."""
    return "-" if ours is None or theirs is None or theirs <= 0 else f"{100 * (ours / theirs - 1):+.0f} %"


def peer_training() -> str:
    """How the networks were trained, and whether the loss had stopped falling."""
    record = read("peers_training.json")["parts"]
    shares = (0.2, 0.4, 0.6, 0.8, 1.0)
    heads = ["network", "weights", "photos", "batch", "minutes", "steps", *(f"loss at {s:.0%}" for s in shares)]
    lines = ["| " + " | ".join([*heads, "fall of the last fifth", "flattened"]) + " |", "|---" * (len(heads) + 2) + "|"]
    for part in (part for part in PARTS if part in record):
        held, curve = record[part], [loss for *_, loss in record[part]["curve"]]
        losses = [f"{curve[round(share * len(curve)) - 1]:.4f}" for share in shares] if len(curve) > 4 else ["-"] * 5
        fallen = "-" if held["fall_of_last_fifth"] is None else f"{held['fall_of_last_fifth']:.1%}"
        verdict = {True: "yes", False: "no", None: "too short to say"}[held["flattened"]]
        counts = [f"{held['parameters'] / 1e6:.1f} M", str(held["pictures"]), str(held["batch"])]
        counts += [f"{held['minutes']:.0f}", str(held["steps"])]
        lines.append(f"| `{part}` | {' | '.join([*counts, *losses, fallen, verdict])} |")
    devices = " and ".join(sorted({held["device"] for held in record.values()}))
    return "\n".join(
        [*lines, "", f"On {devices}. Losses are means of a fortieth of the run, with the weights in training."]
    )


def peer_maps() -> str:
    """What a map of classes takes at every scale, and the lowest SNR at which the digital link carries it."""
    held = read("peers_training.json")["maps"]
    height, width = held["height"], held["width"]
    uses, snrs = count_uses("same", height, width), [n / 2 for n in range(-20, 61)]
    carried = [(snr, plan(uses, mcs).payload_bytes) for snr in snrs if (mcs := choose(uses, snr))]
    lines = [f"| map | bytes, mean | fits {uses} uses from |", "|---" * 3 + "|"]
    for scale, size in ((int(scale), size) for scale, size in held["bytes"].items()):
        lowest = next((f"{snr:g} dB" for snr, most in carried if most >= size), "never")
        lines.append(f"| {-(-width // scale)}x{-(-height // scale)} | {size:.0f} | {lowest} |")
    return "\n".join([*lines, "", f"True classes of {held['pictures']} frames."])


def peer_strip() -> str:
    if not STRIP.exists():
        return "Not made yet: `python benchmarks/peer_strip.py`."
    return f"![A street scene as each system receives it]({STRIP.name})"


def score(record: dict, system: str, snr_db: float, metric: str) -> float | None:
    """The mean over draws, then over pictures; None where it was not measured."""
    if metric == KD:
        found = [one["mean"] for one in record.get("distances", ()) if key_of(one) == (system, snr_db, metric)]
        return found[0] if found else None
    rows = [row for row in record["rows"] if (row["system"], row["snr_db"]) == (system, snr_db)]
    shown = (miou_of(rows, 6) if rows else "-") if metric == "miou" else average(rows, metric, 6)
    return None if shown == "-" else float(shown)


def key_of(distance: dict) -> tuple[str, float, str]:
    return distance["system"], distance["snr_db"], distance["metric"]


def text(value: float | None, metric: str) -> str:
    return "-" if value is None else f"{value:.{METRICS[metric][1]}f}"


TABLES = (
    peer_payloads,
    peer_quality,
    peer_winners,
    peer_gains,
    peer_speed,
    peer_predictability,
    peer_maps,
    peer_training,
    peer_strip,
)
