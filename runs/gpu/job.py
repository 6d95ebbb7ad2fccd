"""Train `small` on one GPU by the clock: first Stage A alone, then the whole link from pixels to pixels.

Schedules follow the share of the time that is spent, so nothing depends on the machine's speed. See README.md beside
this file for what it needs, what it gives and how to rehearse it on a CPU.

    python runs/gpu/job.py --data DIR ... --nets FILE --init MODEL --stage_a FILE --out DIR --deadline SECONDS
"""

import argparse
import copy
import glob
import json
import math
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nets import Critic, Features
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

BEGAN = time.time()


def say(*words):
    print(f"[{time.time() - BEGAN:6.1f}]", *words, flush=True)


# pictures


def load_pictures(folders):
    files = sorted(f for folder in folders for f in glob.glob(f"{folder}/*.avif") + glob.glob(f"{folder}/*.webp"))

    def read(path):
        try:
            return np.asarray(Image.open(path).convert("RGB"))
        except Exception as error:
            say("cannot read", path, error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [(os.path.basename(f), p) for f, p in zip(files, pool.map(read, files)) if p is not None]
    names = [n for n, _ in found]
    people = sum(n.startswith("people") for n in names)
    drawn = sum(n.startswith("drawn") for n in names)
    others = max(1, len(names) - people - drawn)
    weight = lambda n: (
        0.32 / people if n.startswith("people") else 0.08 / drawn if n.startswith("drawn") else 0.6 / others
    )
    return [p for _, p in found], [weight(n) for n in names]


class Crops(torch.utils.data.IterableDataset):
    def __init__(self, pictures, weights, size, batch, seed):
        self.pictures, self.size, self.batch, self.seed = pictures, size, batch, seed
        weights = np.array(weights)
        if size > 300:  # small pictures would only be blown up
            weights = weights * np.array([min(p.shape[:2]) >= 0.9 * size for p in pictures])
        self.cumulative = np.cumsum(weights)

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = random.Random(self.seed * 1000 + (info.id if info else 0))
        torch.set_num_threads(1)
        while True:
            out = np.empty((self.batch, self.size, self.size, 3), np.uint8)
            for i in range(self.batch):
                pixels = self.pictures[
                    min(
                        len(self.pictures) - 1,
                        int(np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1])),
                    )
                ]
                h, w = pixels.shape[:2]
                short = min(h, w)
                smallest = min(0.85 * self.size, short)
                side = smallest * (short / smallest) ** rng.random()
                left, top = rng.random() * (w - side), rng.random() * (h - side)
                crop = np.asarray(
                    Image.fromarray(pixels).resize(
                        (self.size, self.size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
                    )
                )
                out[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
            yield torch.from_numpy(out)


def loader(pictures, weights, size, batch, seed, workers, pin):
    data = Crops(pictures, weights, size, batch, seed)
    return iter(
        torch.utils.data.DataLoader(
            data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None, pin_memory=pin
        )
    )


# model


def build(args):
    """The start: `init`, if wanted with more blocks on the way up of Stage B, or with another Stage A of its own shape."""
    from semcast.cascade.checkpoint import load_cascade
    from semcast.cascade.model import Cascade

    old = load_cascade(Path(args.init))
    stage_a, stage_b = old.config.stage_a, old.config.stage_b
    state = old.state_dict()
    if args.stage_a:
        first, second, bottleneck, fine = (int(n) for n in args.stage_a_blocks.split(","))
        stage_a = replace(
            stage_a, encoder_blocks=(first, second), bottleneck_blocks=bottleneck, fine_blocks=fine, scale_factor=1.0
        )
        state = {k: v for k, v in state.items() if not k.startswith("stage_a.")}
        state |= {"stage_a." + k: v.float() if v.is_floating_point() else v for k, v in load_file(args.stage_a).items()}
    if args.up:
        stage_b = replace(stage_b, up_blocks=tuple(int(n) for n in args.up.split(",")))
    torch.manual_seed(0)
    new = Cascade(replace(old.config, stage_a=stage_a, stage_b=stage_b, steps=1, understands=(), same_as=""))
    missing, unknown = new.load_state_dict(state, strict=False)
    assert not unknown and all(k.startswith("stage_b.up_blocks") for k in missing), (unknown, missing[:3])
    own = dict(new.named_parameters())
    for key in missing:  # new blocks do nothing until they have learnt
        if "channelwise.4." in key:
            own[key].data.zero_()
    return new.eval().requires_grad_(False), len(missing)


def to_device(cascade, device, dtype):
    cascade.to(device)
    for network in (cascade.encoder, cascade.stage_b, cascade.stage_a):
        network.to(dtype)
    for module in cascade.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.float()
    cascade.encoder.to(memory_format=torch.channels_last)
    return cascade


class Flat:
    """All that learns in three long tensors: float32 weights, their gradient, their running average. The networks' own
    parameters are views of a fourth, in the networks' precision. An update then costs a dozen kernels, not thousands."""

    def __init__(self, params, source, device, dtype):
        self.params, self.names = list(params.values()), list(params)
        sizes = [p.numel() for p in self.params]
        self.ends = dict(zip(self.names, np.cumsum(sizes).tolist()))
        self.master = torch.cat([source[n].detach().float().reshape(-1) for n in self.names]).to(device)
        self.average = self.master.clone()
        self.own = self.master.to(dtype)
        at = 0
        for p, n in zip(self.params, sizes):
            p.data = self.own[at : at + n].view(p.shape)
            p.requires_grad_(True)
            at += n
        self.slices = []

    def slice(self, prefix):
        """The part whose names start so, which lies in one piece."""
        inside = [n for n in self.names if n.startswith(prefix)]
        end = max(self.ends[n] for n in inside)
        start = end - sum(p.numel() for n, p in zip(self.names, self.params) if n in inside)
        part = torch.nn.Parameter(self.master[start:end])
        self.slices.append((part, start, end))
        return part

    @torch.no_grad()
    def gather(self, clip):
        gradient = torch.cat(
            [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in self.params]
        ).float()
        for p in self.params:
            p.grad = None
        norm = gradient.norm()
        gradient = torch.where(torch.isfinite(norm), gradient * (clip / (norm + 1e-6)).clamp(max=1.0), 0.0)
        for part, start, end in self.slices:
            part.grad = gradient[start:end]
        return norm, gradient

    def use_muon(self, edges):
        """Every matrix but those of the first and last layers (`edges`) learns by Muon, same shapes in one batch."""
        self.groups, at = {}, 0
        for n, p in zip(self.names, self.params):
            if (
                p.ndim >= 2
                and p.numel() == p.shape[0] * p.shape[1]
                and min(p.shape[:2]) >= 16
                and not any(e in n for e in edges)
            ):
                self.groups.setdefault((tuple(p.shape[:2]), n.startswith("stage_a")), []).append(
                    (n, at, at + p.numel())
                )
            at += p.numel()
        self.momenta = {
            key: torch.zeros(len(found), *key[0], device=self.master.device) for key, found in self.groups.items()
        }
        return sum(e - s for found in self.groups.values() for _, s, e in found)

    @torch.no_grad()
    def muon(self, gradient, rates, precision):
        """One step of Muon (Jordan 2024) with Nesterov momentum; `rates`: name -> lr. What it has used is set to zero."""
        for key, found in self.groups.items():
            shape = key[0]
            lrs = [rates[n] for n, _, _ in found]
            views = [gradient[s:e] for _, s, e in found]
            if any(lrs):
                g = torch.cat(views).view(len(found), *shape)
                momentum = self.momenta[key].lerp_(g, 0.05)
                x = g.lerp(momentum, 0.95)
                x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(precision)
                x = x.mT if shape[0] > shape[1] else x
                for _ in range(5):
                    a = x @ x.mT
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
                x = (x.mT if shape[0] > shape[1] else x).float().reshape(len(found), -1)
                update = x * torch.tensor([-lr * 0.2 * max(shape) ** 0.5 for lr in lrs], device=x.device)[:, None]
                torch._foreach_add_([self.master[s:e] for _, s, e in found], list(update.unbind(0)))
            torch._foreach_zero_(views)

    @torch.no_grad()
    def publish(self):
        self.own.copy_(self.master)

    @torch.no_grad()
    def follow(self, decay):
        self.average.lerp_(self.master, 1 - decay)

    def averages(self):
        host, at, found = self.average.cpu(), 0, {}
        for n, p in zip(self.names, self.params):
            found[n] = host[at : at + p.numel()].view(p.shape).clone()
            at += p.numel()
        return found


# the link


def link(cascade, images, factor, snr_db, fading=0.08, erasures=0.08):
    """images, snr_db [B, 1] -> what Stage B is told: Z and its noise, each [B, 16, hz, wz]. Differentiable."""
    from semcast.channels.base import Received
    from semcast.header import encoder_sides
    from semcast.modulation.analog import demodulate, modulate

    small = F.interpolate(images, size=encoder_sides(images.shape[-2:], factor), mode="nearest")
    if "mean" not in BUFFERS:  # the encoder's own normalisation would copy its constants from the host, and wait
        BUFFERS["mean"] = torch.tensor((0.485, 0.456, 0.406), device=images.device)[:, None, None]
        BUFFERS["std"] = torch.tensor((0.229, 0.224, 0.225), device=images.device)[:, None, None]
    z = cascade.encoder.mapper(
        cascade.encoder.backbone(((small.float() - BUFFERS["mean"]) / BUFFERS["std"]).to(images.dtype))
    ).float()
    x, gain = modulate(z)
    b, k = x.shape
    dev = x.device
    noise_var = 10 ** (-snr_db / 10)
    normal = lambda: torch.complex(torch.randn(b, k, device=dev), torch.randn(b, k, device=dev)) / math.sqrt(2)
    kind, rate = torch.rand(b, 1, device=dev), 0.5 * torch.rand(b, 1, device=dev)
    h = torch.where(kind < fading, normal(), torch.ones_like(x))
    lost = (kind >= 1 - erasures) & (torch.rand(b, k, device=dev) < rate)
    y = torch.where(lost, torch.zeros_like(x), h * x + normal() * noise_var.sqrt())
    return demodulate(Received(y, h, torch.where(lost, torch.inf, noise_var.expand(b, k))), gain, z.shape[1:], True)


BUFFERS = {}


def jump(x0, eps, t):
    """From x0 and eps to time t [B]: what a sampler that took one long step would see, with fresh noise."""
    from semcast.cascade.diffusion import scales

    a, b = scales(t)
    return a * x0 + b * torch.randn_like(x0)


# losses


def grid_loss(decoded, grid=8):
    fine = decoded - F.avg_pool2d(decoded, grid + 1, 1, grid // 2, count_include_pad=False)
    b, c, *sides = fine.shape
    h, w = (side // grid for side in sides)
    repeated = fine[..., : h * grid, : w * grid].reshape(b, c, h, grid, w, grid).mean(dim=(2, 4))
    return repeated.square().mean().clamp_min(1e-10).sqrt()


def spectrum_loss(decoded, truth):
    hann = torch.hann_window(decoded.shape[-1], periodic=False, device=decoded.device)
    hann = hann[:, None] * hann

    def power(x):
        x = (x - x.mean(dim=(-2, -1), keepdim=True)) * hann
        return torch.fft.rfft2(x).abs().square().mean(dim=(0, 1)) / hann.square().sum() + 0.005**2

    excess = (power(decoded) / power(truth)).log() - 0.5
    return excess.relu().square().sum() / excess.numel() ** 0.5


def latent_loss(x0, target):
    difference = x0 - target
    return sum(F.avg_pool2d(difference, s).abs().mean() for s in (1, 2, 4, 8, 16) if s <= min(difference.shape[-2:]))


def view(decoded, truth, window, rng):
    """The same random window of both, flipped or resized at random."""
    s = decoded.shape[-1]
    window = min(window, s)
    top, left = rng.randrange(s - window + 1), rng.randrange(s - window + 1)
    size = int(window * rng.choice((0.8334, 1.0, 1.0)) / 16 + 0.01) * 16
    flip = rng.random() < 0.5

    def make(x):
        x = x[..., top : top + window, left : left + window]
        if size != window:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        return x.flip(-1) if flip else x

    return make(decoded), make(truth)


# the job


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--data", nargs="+")
    for name, kind, default in (
        ("nets", str, ""),
        ("init", str, ""),
        ("stage_a", str, ""),
        ("critic", str, ""),
        ("out", str, "out"),
        ("device", str, "cuda"),
        ("dtype", str, "bfloat16"),
        ("deadline", float, 60.0),
        ("closing", float, 14.0),
        ("batch", int, 96),
        ("crop", int, 256),
        ("late_crop", int, 384),
        ("late_batch", int, 48),
        ("late_from", float, 0.86),
        ("window", int, 192),
        ("a_share", float, 0.2),
        ("up", str, ""),
        ("stage_a_blocks", str, "3,5,4,2"),
        ("ema", float, 0.997),
        ("workers", int, 13),
        ("a_adam", float, 8e-4),
        ("a_muon", float, 2e-3),
        ("adam", float, 4e-4),
        ("muon", float, 1e-3),
        ("enc_lr", float, 0.5),
        ("dec_lr", float, 0.7),
        ("critic_lr", float, 3e-4),
        ("share", float, 0.25),
        ("critic_from", float, 0.35),
        ("profile", int, 0),
        ("max_steps", int, 10**9),
        ("w_l1", float, 1.5),
        ("w_mean", float, 2.0),
        ("w_vgg", float, 1.0),
        ("w_half", float, 0.5),
        ("w_lite", float, 0.3),
        ("w_latent", float, 0.1),
        ("w_grid", float, 10.0),
        ("w_spectrum", float, 0.05),
        ("save_every", float, 120.0),
        ("seed", int, 0),
    ):
        a.add_argument(f"--{name}", type=kind, default=default)
    args = a.parse_args()
    os.makedirs(args.out, exist_ok=True)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    cuda = device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pictures, weights = load_pictures(args.data)
    say(len(pictures), "pictures,", sum(p.nbytes for p in pictures) >> 20, "MiB decoded")
    batches, later, late = loader(pictures, weights, args.crop, args.batch, args.seed, args.workers, cuda), None, False
    cascade, added = build(args)
    say(
        "weights",
        {n: sum(p.numel() for p in m.parameters()) for n, m in cascade.named_children()},
        "new tensors",
        added,
    )
    best = copy.deepcopy(cascade)  # float32 home of the averaged weights
    cascade = to_device(cascade, device, dtype)
    bn = {
        f"{n}.{k}"
        for n, m in cascade.named_modules()
        if isinstance(m, torch.nn.BatchNorm2d)
        for k, _ in m.named_parameters(recurse=False)
    }
    order = (
        "encoder.",
        "stage_b.",
        "stage_a.up_blocks",
        "stage_a.out_block",
        "stage_a.in_block",
        "stage_a.down_blocks",
    )
    params = {n: p for prefix in order for n, p in cascade.named_parameters() if n.startswith(prefix) and n not in bn}
    flat = Flat(params, dict(best.named_parameters()), device, dtype)
    # (part, lr of AdamW and of Muon while Stage A learns alone, and after that)
    parts = (
        ("encoder.", (0.0, 0.0), (args.adam * args.enc_lr, args.muon * args.enc_lr)),
        ("stage_b.", (0.0, 0.0), (args.adam, args.muon)),
        (
            ("stage_a.up_blocks", "stage_a.out_block"),
            (args.a_adam, args.a_muon),
            (args.adam * args.dec_lr, args.muon * args.dec_lr),
        ),
        (("stage_a.in_block", "stage_a.down_blocks"), (args.a_adam, args.a_muon), (0.0, 0.0)),
    )
    groups = [{"params": [flat.slice(prefix)], "alone": alone, "joint": joint} for prefix, alone, joint in parts]
    optimiser = torch.optim.AdamW(groups, lr=args.adam, betas=(0.9, 0.99), weight_decay=0.01, fused=cuda)
    edges = ("embedding", "clf.", "in_block", "out_block", "stage_a.up_blocks.0.", "stage_a.down_blocks.9")
    say("Muon on", flat.use_muon(edges), "of", len(flat.master), "weights")
    features = Features(args.nets, device, dtype)
    torch.manual_seed(args.seed + 1)
    critic = Critic().to(device)
    if args.critic:
        critic.load_state_dict(load_file(args.critic))
    critic_opt = torch.optim.AdamW(critic.parameters(), lr=args.critic_lr, betas=(0.5, 0.99), weight_decay=0.0)
    ratio = None
    rng = random.Random(args.seed)
    torch.manual_seed(args.seed + 7919)
    log = open(f"{args.out}/log.jsonl", "a")
    started = time.time()
    total = args.deadline - args.closing - (started - BEGAN)
    share_done = lambda: min(1.0, (time.time() - started) / total)
    sums, counted, last_say, last_save, step, since, switched, marks = (
        {},
        0,
        time.time(),
        time.time(),
        0,
        0,
        args.a_share == 0,
        {},
    )
    crops_seen = 0
    timing = False

    def mark(name, before):
        if timing:
            if cuda:
                torch.cuda.synchronize()
            marks[name] = marks.get(name, 0.0) + time.time() - before
        return time.time()

    def save():
        from semcast.cascade.checkpoint import save_model

        save_file({k: v.cpu() for k, v in critic.state_dict().items()}, f"{args.out}/critic.safetensors")
        best.load_state_dict({**best.state_dict(), **flat.averages()})
        with tempfile.TemporaryDirectory() as scratch:
            save_model(best, Path(scratch, "job_model"), torch.bfloat16)
            os.system(f"tar -C {scratch} -cf - job_model | split -d -b 15M - {os.path.abspath(args.out)}/model.tar.")

    def refit(batches):
        """Fit Stage B's last layer to the latents of the new Stage A by least squares, on features it has already."""
        from semcast.cascade.denoiser import denoise, prepare
        from semcast.cascade.diffusion import add_noise

        kept, xx, xy = {}, 0.0, 0.0
        hook = cascade.stage_b.clf[1].register_forward_pre_hook(lambda m, i: kept.update(f=i[0]))
        with torch.no_grad():
            for _ in range(12):
                images = next(batches).to(device).permute(0, 3, 1, 2).float() / 255
                b = len(images)
                target = cascade.stage_a.encode(images.to(dtype)).float()
                z, noise = link(cascade, images.to(dtype), 0.75, -3 + 27 * torch.rand(b, 1, device=device))
                t = torch.where(torch.rand(b, device=device) < 0.7, 1.0, torch.rand(b, device=device)).double()
                prepared = prepare(cascade, z, noise, target.shape[-2:], guided=False)
                denoise(cascade, add_noise(target, t, torch.randn_like(target)), t, prepared)
                f = kept["f"].float().movedim(1, -1).flatten(0, -2).double()
                f = torch.cat([f, torch.ones_like(f[:, :1])], 1)
                y = F.pixel_unshuffle(target, 2).movedim(1, -1).flatten(0, -2).double()
                xx, xy = xx + f.T @ f, xy + f.T @ y
            n = xx[-1, -1]
            solution = torch.linalg.solve(xx + 1e-3 * n * torch.eye(len(xx), device=device, dtype=xx.dtype), xy).float()
            for name, value in (("stage_b.clf.1.weight", solution[:-1].T), ("stage_b.clf.1.bias", solution[-1])):
                end = flat.ends[name]
                for long in (flat.master, flat.average):
                    long[end - value.numel() : end] = value.reshape(-1)
            flat.publish()
        hook.remove()

    say("training for", round(total), "s")
    while (p := share_done()) < 1.0 and step < args.max_steps:
        timing = 30 <= step - since < 30 + args.profile
        alone = p < args.a_share
        if not alone and not switched:  # Stage A is done: unit variance again, its averages become the start
            switched, since = True, step
            flat.master.copy_(flat.average)
            flat.publish()
            with torch.no_grad():
                images = next(batches).to(device).permute(0, 3, 1, 2).to(dtype) / 255
                deviation = cascade.stage_a.encode(images).float()
                say(
                    "latent: mean",
                    [round(v, 2) for v in deviation.mean((0, 2, 3)).tolist()],
                    "std",
                    [round(v, 2) for v in deviation.std((0, 2, 3)).tolist()],
                )
            for model in (cascade, best):
                model.stage_a.config = replace(
                    model.stage_a.config,
                    scale_factor=round(model.stage_a.config.scale_factor * deviation.std().item(), 4),
                )
                model.config = replace(model.config, stage_a=model.stage_a.config)
            refit(batches)
            say("Stage A alone: done at step", step, "scale factor", cascade.stage_a.config.scale_factor)
            marks = {}
        if p >= args.late_from and not late:
            if later is None:
                later = loader(pictures, weights, args.late_crop, args.late_batch, args.seed + 1, args.workers, cuda)
            batches, late = later, True
            say("larger crops from step", step)
        t0 = time.time()
        images = next(batches).to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        b = len(images)
        t0 = mark("wait", t0)
        warm = min(1.0, (step - since + 1) / 100)
        phase = p / args.a_share if alone else (p - args.a_share) / (1 - args.a_share)
        curve = warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * phase)))
        for g in optimiser.param_groups:
            g["lr"] = g["alone" if alone else "joint"][0] * curve
        for g in critic_opt.param_groups:
            g["lr"] = args.critic_lr * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * p)))
        with_critic = not alone and phase >= args.critic_from - 0.06  # it learns a little before it is heard
        share = args.share * min(1.0, max(0.0, (phase - args.critic_from) / 0.1))
        images16 = images.to(dtype)
        with torch.set_grad_enabled(alone):
            target = cascade.stage_a.encode(images16).float()
        t0 = mark("stage_a encode", t0)
        hidden = target + 0.05 * torch.randn_like(target) * target.detach().std()
        if alone:
            latents, truth = hidden, images
        else:
            from semcast.cascade.denoiser import denoise, prepare
            from semcast.cascade.diffusion import add_noise

            factor = 0.75 if rng.random() < 0.88 else rng.choice((0.5, 0.625, 1.0))
            z, noise = link(cascade, images16, factor, -3 + 27 * torch.rand(b, 1, device=device))
            t0 = mark("encoder", t0)
            prepared = prepare(cascade, z, noise, target.shape[-2:], guided=False)
            # 3/4 of the pictures start from pure noise, an eighth from the true latent in noise, an eighth from a guess
            e = b // 8
            t = torch.ones(b, device=device, dtype=torch.float64)
            t[b - 2 * e :] = torch.rand(2 * e, device=device, dtype=torch.float64)
            x = add_noise(target, t, torch.randn_like(target))
            if e:
                with torch.no_grad():
                    part = type(prepared)(prepared.mapped[b - e :].detach(), None, prepared.sca[b - e :])
                    guess, eps = denoise(
                        cascade,
                        torch.randn_like(target[b - e :]),
                        torch.ones(e, device=device, dtype=torch.float64),
                        part,
                    )
                    x[b - e :] = jump(guess, eps, t[b - e :])
            x0, _ = denoise(cascade, x, t, prepared)
            # the decoder keeps decoding true latents: an eighth more pictures
            latents, truth = torch.cat([x0, hidden[: max(1, e)]]), torch.cat([images, images[: max(1, e)]])
            t0 = mark("stage_b", t0)
        decoded = cascade.stage_a.decode(latents.to(dtype)).float()
        t0 = mark("decode", t0)
        y = decoded.detach().requires_grad_()
        fake, true = view(y, truth, args.window, rng)
        maps_f, lite_f = features.vgg_maps(fake), features.lite_maps(fake)
        with torch.no_grad():
            maps_t, lite_t = features.vgg_maps(true), features.lite_maps(true)
            half_t = features.vgg_maps(F.avg_pool2d(truth, 2))
        difference = y - truth
        terms = {
            "l1": difference.abs().mean(),
            "mean": F.avg_pool2d(difference, 16).abs().mean(),
            "vgg": features.lpips(maps_f, maps_t),
            "half": features.lpips(features.vgg_maps(F.avg_pool2d(y, 2)), half_t),
            "lite": features.lite_distance(lite_f, lite_t),
        }
        if not alone:
            terms |= {"grid": grid_loss(fake), "spectrum": spectrum_loss(fake, true)}
        seen = sum(getattr(args, f"w_{n}") * v for n, v in terms.items())
        t0 = mark("features", t0)
        if with_critic:
            critic.requires_grad_(False)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                scores = critic(maps_f + lite_f)
            believed = -sum(s.float().mean() for s in scores) / len(scores)
            if step % 16 == 0 or ratio is None:
                g_seen = torch.autograd.grad(seen, y, retain_graph=True)[0]
                g_adv = torch.autograd.grad(believed, y)[0]
                now = g_seen.norm() / g_adv.norm().clamp_min(1e-12)
                ratio = now if ratio is None else 0.9 * ratio + 0.1 * now
                gradient = g_seen + share * ratio * g_adv
            else:
                gradient = torch.autograd.grad(seen + share * ratio * believed, y)[0]
            terms["believed"] = believed.detach()
        else:
            gradient = torch.autograd.grad(seen, y)[0]
        t0 = mark("features backward", t0)
        if alone:
            decoded.backward(gradient)
        else:
            terms["latent"] = latent_loss(x0, target)
            torch.autograd.backward(
                [decoded, terms["latent"]], [gradient, torch.full_like(terms["latent"], args.w_latent)]
            )
        t0 = mark("backward", t0)
        norm, gradient = flat.gather(1.0)
        rates = {
            n: curve * next((a if alone else j)[1] for prefix, a, j in parts if n.startswith(prefix)) for n in params
        }
        flat.muon(gradient, rates, dtype)
        t0 = mark("muon", t0)
        optimiser.step()
        flat.publish()
        flat.follow(min(args.ema, (1 + step - since) / (10 + step - since)))
        t0 = mark("optimiser", t0)
        if with_critic:
            critic.requires_grad_(True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                false, real = critic([m.detach() for m in maps_f + lite_f]), critic(maps_t + lite_t)
            mistakes = sum(
                F.relu(1 + f.float()).mean() + F.relu(1 - r.float()).mean() for f, r in zip(false, real)
            ) / len(false)
            critic_opt.zero_grad(set_to_none=True)
            mistakes.backward()
            critic_opt.step()
            terms["critic"] = mistakes
            t0 = mark("critic", t0)
        with torch.no_grad():
            for n, v in (*terms.items(), ("norm", norm)):
                was, count = sums.get(n, (0, 0))
                sums[n] = (was + v.detach(), count + 1)
        counted += 1
        crops_seen += b
        step += 1
        if timing and step - since == 30 + args.profile:
            say(
                "profile, ms:",
                {n: round(1000 * v / args.profile, 1) for n, v in marks.items()},
                "sum",
                round(1000 * sum(marks.values()) / args.profile, 1),
            )
            marks = {}
        if time.time() - last_say > (15 if cuda else 5):
            row = {n: round(float(v) / count, 4) for n, (v, count) in sums.items()}
            row |= {
                "step": step,
                "crops": crops_seen,
                "share": round(p, 3),
                "ms": round(1000 * (time.time() - last_say) / counted, 1),
                "curve": round(curve, 4),
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
            say(json.dumps(row))
            sums, counted, last_say = {}, 0, time.time()
        if p > 0.75 and later is None and p < args.late_from:
            later = loader(pictures, weights, args.late_crop, args.late_batch, args.seed + 1, args.workers, cuda)
        if time.time() - last_save > args.save_every and switched:
            save()
            last_save = time.time()
    if cuda:
        torch.cuda.synchronize()
        say("peak memory GiB", round(torch.cuda.max_memory_allocated() / 2**30, 1))
    say("steps", step, "crops", crops_seen, "in", round(time.time() - started, 1), "s")
    save()
    say("saved")
    preview(best, pictures, device, dtype, f"{args.out}/sheet.jpg")
    say("done")
    sys.stdout.flush()
    os._exit(0)  # workers need no goodbye


def preview(cascade, pictures, device, dtype, path):
    from semcast.cascade.denoiser import denoise, prepare

    try:
        model, rows = to_device(cascade, device, dtype), []
        torch.manual_seed(3)
        for pixels in [p for p in pictures if min(p.shape[:2]) >= 320][:: max(1, len(pictures) // 7)][:7]:
            s = min(pixels.shape[:2]) // 64 * 64
            image = torch.from_numpy(pixels[:s, :s].copy()).to(device).permute(2, 0, 1)[None].float() / 255
            row = [pixels[:s, :s]]
            with torch.no_grad():
                for snr in (20.0, 10.0, 1.0):
                    z, noise = link(model, image.to(dtype), 0.75, torch.full((1, 1), snr, device=device), 0.0, 0.0)
                    prepared = prepare(model, z, noise, (s // 4, s // 4), guided=False)
                    x0, _ = denoise(
                        model,
                        torch.randn(1, 4, s // 4, s // 4, device=device),
                        torch.ones(1, device=device, dtype=torch.float64),
                        prepared,
                    )
                    out = model.stage_a.decode(x0.to(dtype)).float().clamp(0, 1)
                    row.append((out[0].permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))
            rows.append(np.concatenate([np.asarray(Image.fromarray(r).resize((320, 320))) for r in row], 1))
        Image.fromarray(np.concatenate(rows, 0)).save(path, quality=85)
    except Exception as error:
        say("no preview:", repr(error))


if __name__ == "__main__":
    main()
