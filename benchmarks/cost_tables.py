"""Tables of what a picture costs: time, memory, bytes, channel uses; for `tables.py`."""

import math
from collections import defaultdict
from statistics import mean

from results import read, source
from semcast.header import SIDE_BITS, Header

SIZES = ((512, 512), (1024, 1024), (360, 480), (1024, 2048))


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


def phy_speed() -> str:
    """Of the digital link's decoder and of OFDM, one core."""
    record = read("phy_speed.json")
    rows = record["decoder"]
    lines = ["| | " + " | ".join(row["scheme"] for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    lines.append("| kbit/s of payload | " + " | ".join(f"{row['kbit_s']:.0f}" for row in rows) + " |")
    time_ms = record["ofdm"]["ms_per_picture"]
    text = f"OFDM over TDL-C with LS estimation, batched: {time_ms:.1f} ms for the symbols of a 512x512 picture."
    return "\n".join([*lines, "", text + f" {record['machine']['cpu']}, one core: `python benchmarks/phy_speed.py`"])


def packet_gain() -> str:
    """Bytes of a packet at one error, by its transforms."""
    record = read("packet_gain.json")
    groups = defaultdict(list)
    for row in record["rows"]:
        groups[row["transforms"]].append(row["size_bytes"])
    lines = [f"| transforms | bytes at {record['error_db']:g} dB |", "|---|---|"]
    lines += [f"| {name} | {mean(sizes):.0f} |" for name, sizes in groups.items()]
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
