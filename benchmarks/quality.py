"""Measure pictures: a model, its ablation and the downscale rival, over a folder or tar, on AWGN.

    python benchmarks/quality.py DATA --snr 1 10 20 --draws 3 --crop 512 --out benchmarks/results/kodak.json

Every system sends the same complex channel uses. Rows (one a system, picture, SNR and draw) are the result; tables are
computed from them by benchmarks/tables.py. LPIPS weights: see `semcast.lpips`.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from semcast.baselines import downscale_and_send
from semcast.bench.cost import cpu_name
from semcast.bench.measures import commit
from semcast.cascade.checkpoint import NETWORKS, fingerprint, write_text
from semcast.cascade.model import Cascade
from semcast.channel import awgn
from semcast.data import Photos
from semcast.errors import InputError
from semcast.images import to_tensor
from semcast.link import Link, stream
from semcast.lpips import load_lpips
from semcast.memory import keep_freed_memory
from semcast.metrics import measure, reference_maps
from semcast.models import load_model
from semcast.receiver import receive


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=Path, nargs="+", help="folders, tar files or pictures")
    p.add_argument("--snr", type=float, nargs="+", default=[-5, 0, 1, 5, 10, 15, 20])
    p.add_argument("--vgg-snr", type=float, nargs="+", help="measure LPIPS-VGG at these only, default: all")
    p.add_argument("--draws", type=int, default=3)
    p.add_argument("--crop", type=int, help="centre crop to a square of this side, default: whole pictures")
    p.add_argument("--limit", type=int, help="only the first N pictures")
    p.add_argument("--model", default="small")
    p.add_argument("--ablation", help="a second model, reported as 'ablation'")
    p.add_argument("--no-rival", action="store_true", help="leave the downscale rival out")
    p.add_argument("--steps", type=int)
    p.add_argument("--dtype", default="auto")
    p.add_argument("--lpips", type=Path)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()

    links = {"semcast": Link(load_model(args.model, dtype=args.dtype))}
    if args.ablation:
        links["ablation"] = Link(load_model(args.ablation, dtype=args.dtype))
    lpips = {name: load_lpips(name, args.lpips) for name in ("alex", "vgg")}
    photos = Photos(args.data, "val")
    rows, digest = [], hashlib.sha256()
    measured_at = commit()
    for index, name in enumerate(tqdm(named(photos, args.limit), unit="picture")):
        pixels = photos.read(index)
        digest.update(pixels.tobytes())
        image = centre_crop(to_tensor(pixels), args.crop)
        maps = reference_maps(image, lpips)
        for snr_db in args.snr:
            measures = lpips if not args.vgg_snr or snr_db in args.vgg_snr else {"alex": lpips["alex"]}
            received = {name: transmit(link, image, snr_db, args.draws, args.steps) for name, link in links.items()}
            if not args.no_rival:
                uses = links["semcast"].send(image)[1].channel_uses
                draws = [downscale_and_send(image, uses, snr_db, stream(draw, "channel")) for draw in range(args.draws)]
                received["downscale"] = torch.cat(draws)
            for system, images in received.items():
                for draw in range(args.draws):
                    quality = measure(image, images[draw : draw + 1], measures, maps)
                    rows.append({"system": system, "image": name, "snr_db": snr_db, "draw": draw, **quality})
    model = links["semcast"].cascade.config
    record = {
        "schema": 1,
        "command": "python benchmarks/quality.py " + " ".join(shown(a) for a in sys.argv[1:]),
        "model": model.name,
        "code_id": f"{links['semcast'].code_id:04x}",
        "networks": networks(links["semcast"].cascade),
        "steps": args.steps or model.steps,
        "dtype": str(links["semcast"].cascade.stage_b.clf[1].weight.dtype).removeprefix("torch."),
        "crop": args.crop,
        "data_sha256": digest.hexdigest(),
        "commit": measured_at,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, one_row_a_line(record))
    print(args.out)


@torch.inference_mode()
def transmit(link: Link, image: torch.Tensor, snr_db: float, draws: int, steps: int | None) -> torch.Tensor:
    """One picture over `draws` channels, received as one batch: [draws, 3, H, W]. Draw d uses seed d."""
    x, header = link.send(image)
    channel = [stream(draw, "channel") for draw in range(draws)]
    diffusion = [stream(draw, "receiver") for draw in range(draws)]
    return receive(awgn(x.expand(draws, -1), snr_db, channel), header, header.gain, link.cascade, diffusion, steps)


def centre_crop(image: torch.Tensor, side: int | None) -> torch.Tensor:
    if side is None:
        return image
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise InputError(f"a picture is {width}x{height} pixels; --crop {side} cannot be cut out of it")
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


def one_row_a_line(record: dict) -> str:
    """JSON that a diff can be read in. NaN and infinity are refused."""
    head = json.dumps({k: v for k, v in record.items() if k != "rows"}, indent=1, allow_nan=False)
    rows = ",\n".join("  " + json.dumps(rounded(row), allow_nan=False) for row in record["rows"])
    return head.removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n ]\n}\n"


def rows_so_far(path: Path, head: dict) -> list[dict]:
    """Rows of an interrupted run that was the same in all that `head`, the record without rows, says, but for the commit.

    Raises:
        InputError: the file holds another run, or is damaged.
    """
    try:
        record = json.loads(path.read_text())
        rows = record.pop("rows")
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); move it away") from None
    if record | {"commit": None} != json.loads(json.dumps(head)) | {"commit": None}:
        raise InputError(f"{path} holds another run; move it away, or choose another --out")
    return rows


def named(photos: Photos, limit: int | None) -> list[str]:
    """Names of the first `limit` pictures, which tell them apart in a result file."""
    names = [name for name, *_ in photos.items[:limit]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two pictures are called {twice[0]}; measure their folders one after the other")
    return names


def networks(cascade: Cascade) -> dict[str, str]:
    """What tells these weights from others of the same name."""
    return {name: fingerprint(getattr(cascade, name))[:8] for name in NETWORKS}


def rounded(row: dict | list) -> dict | list:
    if isinstance(row, list):
        return [round(v, 5) if isinstance(v, float) else v for v in row]
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}


def shown(argument: str) -> str:
    """A path outside the repository is named by its last part only."""
    path = Path(argument)
    return path.name if path.is_absolute() or ".." in path.parts else argument


def git(*args: str) -> str | None:
    try:
        return subprocess.run(["git", *args], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def run(main) -> None:
    """A script: what is wrong with its input becomes one line and exit code 2."""
    keep_freed_memory()
    try:
        main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    run(main)
