"""Time the link on each engine, and our Stage B and Stage A beside diffusers' classes on the same weights, in one run.

    python benchmarks/speed.py --out benchmarks/results/speed.json     `small`; on a GPU the official size too
    python benchmarks/speed.py --official --tiny                       the GPU part, rehearsed on a CPU with tiny widths

Times are medians after a warm-up, all engines in turn. Peak memory is that of a fresh process that loads the model and
passes one picture (CPU), or what torch allocated (GPU). The last line of stdout is one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from clock import matmul_tflops, medians
from diffusers_peers import TINY_B, diffusers_stage_a, diffusers_stage_b, stage_b_keys_to_diffusers
from scripts import summary
from semcast.bench.cost import cpu_name
from semcast.bench.versions import commit
from semcast.cascade.config import STAGE_B_LITE, ModelConfig, load_config
from semcast.cascade.denoiser import denoise, prepare
from semcast.cascade.device import has_bf16
from semcast.cascade.engine import Engine
from semcast.cascade.loading import Compiled, compile_networks, load_torch
from semcast.cascade.model import Cascade
from semcast.cascade.models import WEIGHTS
from semcast.cascade.onnx_engine import OnnxEngine
from semcast.cascade.stage_a import StageA
from semcast.cascade.stage_b import StageB
from semcast.cascade.torch_engine import TorchEngine
from semcast.demo import PHOTO
from semcast.errors import missing
from semcast.files import write_text
from semcast.images import read_image, round_8bit
from semcast.link import Link
from semcast.modulation.analog import demodulate
from semcast.randomness import draw_noise, seeded

SIDES = (512, 1024)
BATCHES = (1, 8)  # of the official size
STEPS = 10
STEP_COUNTS = (1, 2, 10)
PACKAGES = ("torch", "onnxruntime", "openvino")
TINY_SIDE = 64
PASS_ONE_PICTURE = """
import sys, numpy as np
from semcast import Link, load_model
side, engine = int(sys.argv[1]), sys.argv[2]
Link(load_model("small", engine=engine))(np.random.default_rng(0).random((1, 3, side, side), np.float32), 10.0)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--official", action="store_true", help="time the official size too; default on a GPU")
    p.add_argument(
        "--tiny",
        action="store_true",
        help="with tiny widths and sides in place of the official ones: a rehearsal, no result",
    )
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    gpu = torch.cuda.is_available()
    engines = engines_here(args.threads)
    link = [row for side in ((TINY_SIDE,) if args.tiny else SIDES) for row in time_link(side, engines, args.runs)]
    for row in link:
        peer = row["engine"] == "openvino"
        row["peak_mib"] = None if peer else peak_memory(row["side"], row["engine"], args.threads)
    side = TINY_SIDE if args.tiny else SIDES[0]
    networks = [
        compare(f"Stage B, {side}x{side}, ten steps", *stage_b_pair(side), args.runs),
        compare(f"Stage A decode, {side}x{side}", *stage_a_pair(side), args.runs),
    ]
    official = time_official(args.runs, "cuda" if gpu else "cpu", args.tiny) if gpu or args.official else []
    peak = matmul_tflops("cpu")
    record = {
        "schema": 4,
        "steps": load_config(WEIGHTS / "small").steps,
        "link": link,
        "cold_start_s": cold_start_s(args.threads),
        "networks": networks,
        "bf16_gap": bf16_gap() if has_bf16("cpu") else None,
        "official": official,
        "rehearsal": args.tiny,
        "cpu_matmul_tflops": peak,
        "gpu_matmul_tflops": matmul_tflops("cuda") if gpu else None,
        "commit": commit(),
        "machine": {
            "cpu": cpu_name(),
            "gpu": torch.cuda.get_device_name() if gpu else None,
            "threads": args.threads,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES if not missing(name)},
        },
    }
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")
    for row in link + networks + official:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr)
    speedups = [row["diffusers_fp32_ms"] / (row["ours_bf16_ms"] or row["ours_fp32_ms"]) for row in networks]
    print(json.dumps(link[0] | {"stage_b_speedup": speedups[0], "stage_a_speedup": speedups[1]}))


def time_link(side: int, engines: dict[str, Engine], runs: int) -> list[dict]:
    """`small` on the CPU, model loaded, a row an engine: encode a random picture, decode it, and the parts of that."""
    image, calls = np.random.default_rng(0).random((1, 3, side, side), np.float32), {}
    for name, engine in engines.items():
        link = Link(engine)
        header, x = link.send(image)
        assert isinstance(x, np.ndarray)
        received = link.propagate(x, 10.0)
        z, noise = demodulate(received, header.gain, header.latent_shape, engine.config.noise_aware)
        latent = draw_noise(np.empty((1, 4, side // 4, side // 4)), [seeded(0)])
        condition = prepare(engine, z, noise, latent.shape[-2:])
        calls[name] = {
            "encode_ms": partial(link.send, image),
            **{f"decode_ms_{n}": partial(link.receive, received, header, n) for n in STEP_COUNTS},
            "step_ms": partial(denoise, engine, latent, np.ones(1), condition),
            "stage_a_ms": partial(engine.decode, latent),
        }
    times = medians({(name, key): call for name, found in calls.items() for key, call in found.items()}, runs, "cpu")
    return [{"side": side, "engine": name, **{key: times[name, key] for key in calls[name]}} for name in engines]


def engines_here(threads: int) -> dict[str, Engine]:
    """The engines of the link, and OpenVINO on the same graphs where it is installed."""
    folder = WEIGHTS / "small"
    found: dict[str, Engine] = {"onnx": OnnxEngine(folder), "torch": TorchEngine(load_torch(folder))}
    if not missing("openvino"):
        from openvino_peer import OpenVinoEngine

        found["openvino"] = OpenVinoEngine(folder, threads)
    return found


def cold_start_s(threads: int) -> float:
    """Seconds from the shell's Enter to the picture on disk: the median of five runs of `semcast run`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "semcast", "run", str(PHOTO), "--snr", "10", "--out", folder, "--force"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        call = partial(subprocess.run, command, capture_output=True, check=True, env=environment)
        return medians({"s": call}, 5, "cpu")["s"] / 1e3


def peak_memory(side: int, engine: str, threads: int) -> float:
    """MiB, of a fresh process that passes one picture at the default steps; it imports torch only for that engine."""
    command = [sys.executable, "-c", PASS_ONE_PICTURE, str(side), engine]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout.split()[-1]) / 1024


@torch.inference_mode()
def compare(name: str, ours, theirs, inputs: tuple, runs: int) -> dict:
    """Medians of ours and theirs, float32 and ours in bf16, and the largest difference of the float32 results."""
    half = tuple(t.bfloat16() if i != 1 else t for i, t in enumerate(inputs))  # the time stays float32
    calls = {"diffusers_fp32_ms": lambda: theirs(*inputs), "ours_fp32_ms": lambda: ours(torch.float32, *inputs)}
    if has_bf16("cpu"):
        calls["ours_bf16_ms"] = lambda: ours(torch.bfloat16, *half)
    results = {}
    row = {"network": name, "ours_bf16_ms": None} | medians(calls, runs, "cpu", results)
    return row | {"max_difference_fp32": (results["ours_fp32_ms"] - results["diffusers_fp32_ms"]).abs().max().item()}


@torch.inference_mode()
def time_official(runs: int, device: str, tiny: bool) -> list[dict]:
    """Lite Stage B and Stage A, random weights in bf16, without guidance: ours plain and compiled, diffusers' plain."""
    config = ModelConfig(name="random", licence="none", stage_b=TINY_B if tiny else STAGE_B_LITE)
    if tiny:
        config = replace(config, stage_a=replace(config.stage_a, hidden=(8, 16), bottleneck_blocks=1, codebook_size=8))
    cascade = Cascade(config).eval()
    their_b = diffusers_stage_b(config.stage_b).eval()
    their_b.load_state_dict(stage_b_keys_to_diffusers(cascade.stage_b.state_dict()))
    their_a = diffusers_stage_a(cascade.stage_a)
    fast = Cascade(config).eval()
    fast.load_state_dict(cascade.state_dict())
    for network in (cascade.stage_b, cascade.stage_a, fast.stage_b, fast.stage_a, their_b, their_a):
        network.to(device, torch.bfloat16)
    compile_networks(fast)
    peak = matmul_tflops(device)
    rows = []
    for side in (TINY_SIDE,) if tiny else SIDES:
        for batch in BATCHES[:1] if tiny else BATCHES:
            g = torch.Generator().manual_seed(0)
            z = torch.randn(batch, 16, side * 3 // 128, side * 3 // 128, generator=g).to(device)
            x = torch.randn(batch, 4, side // 4, side // 4, generator=g).to(device)
            t, noise = torch.full((batch,), 0.5, device=device), torch.zeros_like(z)
            text = torch.zeros(batch, 1, config.stage_b.text_channels, device=device, dtype=torch.bfloat16)

            def sample(model, z=z, x=x, t=t, noise=noise):
                condition, x0 = prepare(model, z, noise, x.shape[-2:]), x
                for _ in range(STEPS):
                    x0, _ = denoise(model, x, t, condition)
                return model.stage_a.decode(x0.bfloat16())

            def their_sample(z=z, x=x, t=t, text=text):
                z, x, t = z.bfloat16(), x.bfloat16(), t.bfloat16()
                out = x
                for _ in range(STEPS):
                    out = their_b(sample=x, timestep_ratio=t, clip_text_pooled=text, effnet=z).sample
                return their_a.decode(out * config.stage_a.scale_factor).sample

            condition = prepare(cascade, z, noise, x.shape[-2:])
            calls = {
                "ours_ms": lambda: sample(cascade),
                "ours_compiled_ms": lambda: sample(fast),
                "diffusers_ms": their_sample,
                "step_ms": partial(denoise, cascade, x, t, condition),
                "stage_a_ms": partial(cascade.stage_a.decode, x.bfloat16()),
            }
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            row = {"model": "tiny" if tiny else "lite", "side": side, "batch": batch} | medians(calls, runs, device)
            with FlopCounterMode(display=False) as counter:
                sample(cascade)
            row["tflop"] = counter.get_total_flops() / 1e12
            if any(isinstance(f, Compiled) and f.failed for f in (fast.stage_b.step, fast.stage_a.decode)):
                row["ours_compiled_ms"] = None
            best = min(row["ours_ms"], row["ours_compiled_ms"] or row["ours_ms"])
            row["tflops"] = row["tflop"] / best * 1e3
            row["share_of_peak"] = row["tflops"] / peak
            row["speedup"] = row["diffusers_ms"] / best
            row["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
            rows.append(row)
    return rows


def bf16_gap() -> dict:
    """The bundled photo received in bf16 and in float32: difference of 8-bit pixels."""
    image, folder = read_image(PHOTO), WEIGHTS / "small"
    exact, half = (
        round_8bit(Link(TorchEngine(load_torch(folder, dtype=dtype)))(image, 10.0, 0).image)
        for dtype in ("float32", "bfloat16")
    )
    gap = np.abs(exact - half) * 255
    return {"mean_255": float(gap.mean()), "share_within_4_255": float((gap <= 4.5).mean())}


def stage_b_pair(side: int):
    """The default model's Stage B, ours and diffusers', with the shipped weights that diffusers' has too."""
    trained = load_torch(WEIGHTS / "small", dtype="float32").stage_b
    config = replace(trained.config, noise_map=False, code_unfold=0)
    state = {k: v for k, v in trained.state_dict().items() if not k.startswith(("noise_mapper.", "code_unfold."))}
    ours = {dtype: StageB(config).to(dtype).eval() for dtype in (torch.float32, torch.bfloat16)}
    for network in ours.values():
        network.load_state_dict(state)
    theirs = diffusers_stage_b(config).eval()
    theirs.load_state_dict(stage_b_keys_to_diffusers(state))
    g = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(1, 4, side // 4, side // 4, generator=g),
        torch.rand(1, generator=g),
        torch.randn(1, 16, side * 3 // 128, side * 3 // 128, generator=g),
    )
    text = torch.zeros(1, 1, config.text_channels)

    def our_steps(dtype, x, r, z):
        mapped = ours[dtype].map_z(z, None, (side // 8, side // 8))  # once a picture, as the receiver does
        return [ours[dtype].step(x, r, mapped) for _ in range(STEPS)][-1]

    def their_steps(x, r, z):
        return [theirs(sample=x, timestep_ratio=r, clip_text_pooled=text, effnet=z).sample for _ in range(STEPS)][-1]

    return our_steps, their_steps, inputs


def stage_a_pair(side: int):
    """A Stage A of the default model's widths and diffusers', with the same random weights and no replicated edges.

    diffusers' class has no more blocks in the encoder, nor at half the side.
    """
    config = replace(
        load_config(WEIGHTS / "small").stage_a, replicate_edges=False, encoder_blocks=(1, 1), fine_blocks=1
    )
    torch.manual_seed(0)
    ours = {dtype: StageA(config).to(dtype).eval() for dtype in (torch.float32, torch.bfloat16)}
    for network in ours.values():
        network.load_state_dict(ours[torch.float32].state_dict())
    theirs = diffusers_stage_a(ours[torch.float32])
    scale = config.scale_factor
    latent = ours[torch.float32].encode(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    return (
        (lambda dtype, latent: ours[dtype].decode(latent)),
        (lambda latent: theirs.decode(latent * scale).sample),
        (latent,),
    )


if __name__ == "__main__":
    main()
