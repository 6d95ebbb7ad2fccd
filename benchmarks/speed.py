"""Time the link, and our Stage A and Stage B beside diffusers' classes on the same weights, in one run.

    python benchmarks/speed.py --out benchmarks/results/speed.json

Times are medians after a warm-up, alternating ours and theirs. Peak memory is that of a fresh process that loads the
model and passes one picture.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from quality import cpu_name, git

from semcast.cascade.checkpoint import write_text
from semcast.cascade.stage_b import StageBConfig
from semcast.demo import PHOTO
from semcast.images import read_image, round_8bit
from semcast.link import Link
from semcast.models import cpu_has_bf16, load_model

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
SIDES = (512, 1024)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path)
    p.add_argument("--memory", type=int, metavar="SIDE", help=argparse.SUPPRESS)  # the fresh process
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        time_link(args.memory, 1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    link = [time_link(side, args.runs) | {"peak_mib": peak_memory(side, args.threads)} for side in SIDES]
    networks = [
        compare("Stage B, 512x512, one step", *stage_b_pair(), args.runs),
        compare("Stage A decode, 512x512", *stage_a_pair(), args.runs),
    ]
    record = {
        "schema": 1,
        "link": link,
        "networks": networks,
        "bf16_gap": bf16_gap() if cpu_has_bf16() else None,
        "commit": git("rev-parse", "HEAD"),
        "machine": {"cpu": cpu_name(), "threads": args.threads, "python": platform.python_version(), "torch": torch.__version__},
    }
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")
    for row in link + networks:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr)
    by_side = {row["side"]: row for row in link}
    print(
        json.dumps(
            {
                "encode_ms": by_side[512]["encode_ms"],
                "decode_ms_10": by_side[512]["decode_ms"],
                "stage_b_speedup": networks[0]["diffusers_fp32_ms"] / (networks[0]["ours_bf16_ms"] or networks[0]["ours_fp32_ms"]),
                "stage_a_speedup": networks[1]["diffusers_fp32_ms"] / (networks[1]["ours_bf16_ms"] or networks[1]["ours_fp32_ms"]),
            }
        )
    )


def time_link(side: int, runs: int) -> dict:
    """Encode and decode of one random picture, 10 steps, model loaded."""
    link = Link(load_model("small"))
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    encode, decode = [], []
    for run in range(runs + 1):
        start = time.perf_counter()
        x, header = link.send(image)
        sent = time.perf_counter()
        received = link.transmit(x, 10.0)
        arrived = time.perf_counter()
        link.receive(received, header)
        if run:  # the first is the warm-up
            encode.append((sent - start) * 1e3)
            decode.append((time.perf_counter() - arrived) * 1e3)
    return {"side": side, "encode_ms": statistics.median(encode or [0]), "decode_ms": statistics.median(decode or [0])}


def peak_memory(side: int, threads: int) -> float:
    """MiB, of a fresh process."""
    command = [sys.executable, __file__, "--memory", str(side), "--threads", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


@torch.inference_mode()
def compare(name: str, ours, theirs, inputs: tuple, runs: int) -> dict:
    """Medians of ours and theirs, float32 and ours in bf16, and the largest difference of the float32 results."""
    half = tuple(t.bfloat16() if i != 1 else t for i, t in enumerate(inputs))  # the time stays float32
    calls = {"diffusers_fp32_ms": lambda: theirs(*inputs), "ours_fp32_ms": lambda: ours(torch.float32, *inputs)}
    if cpu_has_bf16():
        calls["ours_bf16_ms"] = lambda: ours(torch.bfloat16, *half)
    times, results = {key: [] for key in calls}, {}
    for run in range(runs + 1):
        for key, call in calls.items():
            start = time.perf_counter()
            results[key] = call()
            if run:  # the first is the warm-up
                times[key].append((time.perf_counter() - start) * 1e3)
    row = {"network": name, "ours_bf16_ms": None} | {key: statistics.median(values) for key, values in times.items()}
    return row | {"max_difference_fp32": (results["ours_fp32_ms"] - results["diffusers_fp32_ms"]).abs().max().item()}


def bf16_gap() -> dict:
    """The bundled photo received in bf16 and in float32: difference of 8-bit pixels."""
    image = read_image(PHOTO)
    exact, half = (round_8bit(Link(load_model("small", dtype=dtype))(image, 10.0, 0).image) for dtype in ("float32", "bfloat16"))
    gap = ((exact - half) * 255).abs()
    return {"mean_255": gap.mean().item(), "share_within_4_255": (gap <= 4.5).float().mean().item()}


def stage_b_pair():
    """The default model's Stage B, ours and diffusers', with the shipped weights."""
    from test_parity import diffusers_stage_b, stage_b_keys_to_diffusers

    ours = {dtype: load_model("small", dtype="float32").stage_b.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    config: StageBConfig = ours[torch.float32].config
    theirs = diffusers_stage_b(config).eval()
    theirs.load_state_dict(stage_b_keys_to_diffusers(ours[torch.float32].state_dict()))
    g = torch.Generator().manual_seed(0)
    inputs = (torch.randn(1, 4, 128, 128, generator=g), torch.rand(1, generator=g), torch.randn(1, 16, 12, 12, generator=g))
    text = torch.zeros(1, 1, config.text_channels)
    call = lambda x, r, code: theirs(sample=x, timestep_ratio=r, clip_text_pooled=text, effnet=code).sample
    return (lambda dtype, *inputs: ours[dtype](*inputs)), call, inputs


def stage_a_pair():
    """The default model's Stage A decoder, ours and diffusers' blocks with the same weights."""
    from test_parity import diffusers_stage_a

    ours = {dtype: load_model("small", dtype="float32").stage_a.to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    theirs = diffusers_stage_a(ours[torch.float32])
    scale = ours[torch.float32].config.scale_factor
    latent = ours[torch.float32].encode(torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)))
    return (lambda dtype, latent: ours[dtype].decode(latent)), (lambda latent: theirs.decode(latent * scale).sample), (latent,)


if __name__ == "__main__":
    main()
