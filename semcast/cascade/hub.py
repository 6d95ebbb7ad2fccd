"""Fetching the official networks, from the hub or from the user's files, into an ordinary model folder.

    HOME/models/NAME/          config.json, three .safetensors, source.json (where each came from), NOTICE
    HOME/models/NAME.partial/  downloads, named by their SHA-256; an interrupted fetch is resumed from here
    HOME/models/NAME.new/      the model while it is assembled; renamed when it is complete
    HOME/accepted.json         the licences accepted, each with its date

HOME is `models.home()`. Pickled weights are never opened.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout  # a dependency of torch
from torch import Tensor

from ..errors import InputError, require
from ..files import load_tensors, save_tensors, write_text
from .checkpoint import save_config
from .config import NETWORKS, ModelConfig
from .model import Cascade
from .models import OFFICIAL, home
from .official import check, part_of, stranger, to_ours

REPO = "stabilityai/stable-cascade"
ENCODER, STAGE_A = "effnet_encoder.safetensors", "stage_a.safetensors"
FILES = {  # files of each model in REPO, in bfloat16 where there is a choice
    "stable-cascade-lite": {"encoder": ENCODER, "stage_b": "stage_b_lite_bf16.safetensors", "stage_a": STAGE_A},
    "stable-cascade-big": {"encoder": ENCODER, "stage_b": "stage_b_bf16.safetensors", "stage_a": STAGE_A},
}
DECODERS = {  # other weights of Stage A: (repository, file)
    "ft-hq": ("madebyollin/stage-a-ft-hq", "stage_a_ft_hq.safetensors"),  # finer grain; MIT licence
}
SUBFOLDERS = ("", "decoder_lite", "decoder", "vqgan")  # searched in a user's folder; the last three are diffusers'
USUAL_NAMES = ("effnet_encoder", "stage_a.", "stage_b", "diffusion_pytorch_model")
TITLES = {"encoder": "the encoder", "stage_b": "Stage B", "stage_a": "Stage A"}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE = 64 << 20  # bytes that stay free on the disk
TIMEOUT_S = 20  # for the hub to answer

Say = Callable[[str], None]  # gets one line of progress
Files = dict[str, tuple[Path, dict[str, Any]]]  # part -> (file, its entry in source.json)

TERMS = (
    "the official weights are under the Stability AI Non-Commercial Research Community License: research and other "
    "non-commercial use only, no product and no hosted service, networks trained from them stay under it "
    "(https://github.com/Stability-AI/StableCascade/blob/master/WEIGHTS_LICENSE)"
)
NOTICE = f"""Stable Cascade by Stability AI Ltd., fetched by semcast; source.json says from where.

In short, and in our words, {TERMS}.
Whoever passes these files on has to pass on that licence and this notice too.
The optional decoder ft-hq is by madebyollin, MIT licence (https://huggingface.co/madebyollin/stage-a-ft-hq).
"""


def fetch(
    name: str,
    sources: Sequence[Path] | None = None,
    revision: str | None = None,
    accept_license: bool = False,
    decoder: str | None = None,
    config: ModelConfig | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Fetch the encoder, Stage B and Stage A of an official model, and check every key, shape and SHA-256.

    A model that was fetched before is not fetched again, unless another revision or decoder is asked for.

    Args:
        name: "stable-cascade-lite" or "stable-cascade-big".
        sources: files and folders to use instead of the hub, in the original or in diffusers' layout; files take
            precedence over the contents of folders.
        revision: branch, tag or commit of the hub's repository; the default is its main branch.
        accept_license: needed once; it is remembered in `home()`.
        decoder: "ft-hq" for the Stage A weights with finer grain. With `sources`, name its file there instead.
        config: the architecture, if it is not the official one.
        say: called with each line of the list of what will be fetched and how large it is.
    Returns:
        The model's folder.
    Raises:
        InputError: the licence is not accepted, the hub or a file cannot be reached, a file is wrong or damaged, or
            the disk is full.
    """
    if name not in FILES:
        raise InputError(f"no model {name!r} can be fetched; there are: {', '.join(FILES)}")
    if decoder is not None and decoder not in DECODERS:
        raise InputError(f"no decoder is called {decoder!r}; there are: {', '.join(DECODERS)}")
    if sources and (revision or decoder):
        raise InputError(
            "--from takes everything from files: leave out --revision and --decoder, and name a decoder's file itself"
        )
    accept(OFFICIAL[name].licence, accept_license, say)
    config = config or OFFICIAL[name]
    with torch.device("meta"):
        cascade = Cascade(config)
    folder = home() / "models" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", blocking=False):
            if sources:
                files = find_files(name, sources, cascade)
                check_space(folder.parent, files, say)
            elif is_here(folder, decoder, revision):
                say(f"{name} is here already")
                return folder
            else:
                files = download(name, revision, decoder, folder, say)
            assemble(folder, config, cascade, files)
    except Timeout:
        raise InputError(f"{name} is being fetched by another semcast; wait for it") from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise InputError(
                f"no space left for {folder}: free some, or point SEMCAST_HOME to another disk, and repeat the "
                "command; what has arrived is kept"
            ) from None
        raise InputError(f"{error.filename or folder}: {error.strerror or error}") from None
    return folder


def accept(licence: str, now: bool, say: Say) -> None:
    """Record that the user accepts `licence`, once for all models under it.

    Raises:
        InputError: the licence was not accepted before and `now` is false; the message states the terms.
    """
    path = home() / "accepted.json"
    accepted = read_json(path)
    if licence in accepted:
        return
    if not now:
        raise InputError(f"{TERMS}; if you accept that, repeat the command with --accept-license, once")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(accepted | {licence: date.today().isoformat()}, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; point SEMCAST_HOME to a folder of yours") from None
    say(f"accepted: {TERMS}")


def is_here(folder: Path, decoder: str | None, revision: str | None) -> bool:
    """Whether `folder` holds the complete model, fetched from the hub with this decoder and revision."""
    source = read_json(folder / "source.json")
    with suppress(KeyError, TypeError, OSError):
        whole = all((folder / f"{part}.safetensors").stat().st_size == source[part]["size_bytes"] for part in NETWORKS)
        stage_a = DECODERS[decoder][0] if decoder else REPO
        same = source["stage_b"]["repo"] == REPO and source["stage_a"]["repo"] == stage_a
        return whole and same and revision in (None, source["stage_b"]["revision"])
    return False


def download(name: str, revision: str | None, decoder: str | None, folder: Path, say: Say) -> Files:
    """Download the model's files from the hub into `folder`.partial."""
    require("fetching", "huggingface_hub")
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import RevisionNotFoundError, build_hf_headers

    endpoint = os.environ.get("HF_ENDPOINT") or None
    wanted = {part: (REPO, file) for part, file in FILES[name].items()}
    if decoder:
        wanted["stage_a"] = DECODERS[decoder]
    infos, files, staging = {}, {}, folder.with_name(folder.name + ".partial")
    for part, (repo, file) in wanted.items():
        asked = (revision if repo == REPO else None) or "main"
        try:
            if repo not in infos:
                api = HfApi(endpoint=endpoint)
                infos[repo] = api.model_info(repo, revision=asked, files_metadata=True, timeout=TIMEOUT_S)
        except RevisionNotFoundError:
            raise InputError(f"{repo} has no revision {asked!r}") from None
        except Exception as error:  # the hub's client raises exceptions of many types
            raise InputError(
                f"cannot ask the hub for {repo}: {first_line(error)}; check the network, or use --from"
            ) from None
        found = next((sibling for sibling in infos[repo].siblings or () if sibling.rfilename == file), None)
        # The SHA-256 becomes a file name here, so it must be nothing but hexadecimal digits.
        if found is None or found.lfs is None or not re.fullmatch("[0-9a-f]{64}", found.lfs.sha256 or ""):
            raise InputError(
                f"{repo} at revision {asked} has no {file} with a SHA-256; use another --revision, or --from"
            )
        size, sha256 = found.lfs.size, found.lfs.sha256
        entry = {"repo": repo, "revision": infos[repo].sha, "file": file, "size_bytes": size, "sha256": sha256}
        files[part] = (staging / sha256, entry)

    staging.mkdir(exist_ok=True)
    reuse(folder, files)
    check_space(staging, files, say)
    for path, entry in files.values():
        url = hf_hub_url(entry["repo"], entry["file"], revision=entry["revision"], endpoint=endpoint)
        download_file(url, path, entry, build_hf_headers() | {"Accept-Encoding": "identity"})
    return files


def download_file(url: str, path: Path, entry: dict[str, Any], headers: dict[str, str]) -> None:
    """Download to `path`.partial, resuming where an earlier run stopped; rename to `path` if the SHA-256 is right.

    `hf_hub_download` would be shorter, but in huggingface_hub 2 it discards what an interrupted run has fetched.
    """
    from huggingface_hub.file_download import http_get

    if path.exists():
        return
    partial, size = partial_of(path), entry["size_bytes"]
    if partial.exists() and partial.stat().st_size > size:
        partial.unlink()
    with partial.open("ab") as file:
        try:
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=size,
                displayed_filename=entry["file"],
            )
        except Exception as error:  # the hub's client raises exceptions of many types
            if getattr(error, "errno", None) in DISK_FULL:
                raise
            state = f"stopped at {file.tell()} of {size} bytes ({first_line(error)})"
            raise InputError(f"{entry['file']} {state}; repeat the command, it goes on from there") from None
    if sha256_of(partial) != entry["sha256"]:
        partial.unlink()
        raise InputError(
            f"{entry['file']} arrived damaged: its SHA-256 is not {entry['sha256']}; it was removed, repeat the command"
        )
    os.replace(partial, path)


def reuse(folder: Path, files: Files) -> None:
    """Link files that `folder` already holds, for another decoder or revision, instead of downloading them again."""
    for part, (path, entry) in files.items():
        old = folder / f"{part}.safetensors"
        with suppress(OSError):  # no such file, or no hard links on this disk
            if not path.exists() and old.stat().st_size == entry["size_bytes"] and sha256_of(old) == entry["sha256"]:
                os.link(old, path)


def check_space(folder: Path, files: Files, say: Say) -> None:
    """List the files with their sizes and origins, and raise InputError if the disk cannot hold them."""
    need = 0
    for part, (path, entry) in files.items():
        origin = f"{entry['repo']}/{entry['file']} at {entry['revision'][:12]}" if entry["repo"] else entry["file"]
        say(f"{part:8s} {entry['size_bytes'] / 2**20:7.1f} MiB  {origin}")
        have = next((p.stat().st_size for p in (path, partial_of(path)) if entry["repo"] and p.exists()), 0)
        need += max(entry["size_bytes"] - have, 0)
    say(f"{'to get':8s} {need / 2**20:7.1f} MiB")
    free = shutil.disk_usage(folder).free
    if need + RESERVE > free:
        raise InputError(
            f"{folder} has {free >> 20} MiB free, {need + RESERVE >> 20} MiB are needed; "
            "free some or point SEMCAST_HOME to another disk"
        )


def find_files(name: str, sources: Sequence[Path], cascade: Cascade) -> Files:
    """Find the parts of a model in the user's files and folders, by the contents of the files, not by their names."""
    named, found = {}, {}
    for source in map(Path, sources):
        if source.is_dir():
            paths = [path for sub in SUBFOLDERS for path in (source / sub).glob("*.safetensors")]
            paths.sort(key=lambda p: (not p.name.startswith(USUAL_NAMES), p.parent != source, p.stat().st_size, str(p)))
            for path in paths:
                found.setdefault(part_of(load_tensors(path)), []).append(path)
            continue
        if not source.exists():
            raise InputError(f"{source} does not exist; name a safetensors file or a folder of them")
        if source.suffix != ".safetensors":
            raise InputError(
                f"{source} is no safetensors file; pickled weights (.pt, .ckpt, .bin) are never opened, convert them"
            )
        tensors = load_tensors(source)
        part = part_of(tensors)
        if part is None:
            first = min(tensors, default="missing")
            raise InputError(f"{source} is {stranger(tensors)} (its first tensor is {first}); leave it out")
        if part in named:
            raise InputError(f"{named[part][0]} and {source} both hold {TITLES[part]}; name one of them")
        named[part] = [source]
    files = {}
    for part in NETWORKS:
        candidates = named.get(part) or found.get(part)
        if not candidates:
            where = ", ".join(map(str, sources))
            raise InputError(
                f"{TITLES[part]} is not in {where}; name its file too (the official one is {FILES[name][part]})"
            )
        path = first_fitting(candidates, part, cascade)
        entry = {"repo": None, "revision": None, "file": str(path.absolute()), "size_bytes": path.stat().st_size}
        files[part] = (path, entry | {"sha256": sha256_of(path)})
    return files


def first_fitting(paths: list[Path], part: str, cascade: Cascade) -> Path:
    """The first of `paths` that fits, as a folder may hold both the lite and the big network.

    Raises:
        InputError: none fits; the message is about the first one.
    """
    errors = []
    for path in paths:
        try:
            read_part(path, part, cascade, str(path))
            return path
        except InputError as error:
            errors.append(error)
    raise errors[0]


def read_part(path: Path, part: str, cascade: Cascade, where: str) -> tuple[dict[str, Tensor], bool]:
    """Read and check a part: (tensors under our names, whether the file has the same names).

    The tensors are memory-mapped: they are read when they are used.
    """
    tensors = load_tensors(path)
    ours = to_ours(tensors, where)
    check(getattr(cascade, part), part, ours, where)
    return ours, ours.keys() == tensors.keys()


def assemble(folder: Path, config: ModelConfig, cascade: Cascade, files: Files) -> None:
    """Assemble the model beside `folder`, then replace `folder` by it."""
    new, old, staging = (folder.with_name(folder.name + end) for end in (".new", ".old", ".partial"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for part, (path, entry) in files.items():
        target = new / f"{part}.safetensors"
        tensors, same = read_part(path, part, cascade, entry["file"])
        if not same:
            save_tensors(tensors, target)
        elif entry["repo"] is None:
            shutil.copyfile(path, target)
        else:
            try:
                os.link(path, target)
            except OSError:  # no hard links on this disk
                os.replace(path, target)
    write_text(new / "NOTICE", NOTICE)
    write_text(new / "source.json", json.dumps({part: entry for part, (_, entry) in files.items()}, indent=1) + "\n")
    save_config(config, new)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    for leftover in (old, staging):
        shutil.rmtree(leftover, ignore_errors=True)


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def read_json(path: Path) -> dict:
    """The JSON object in a file; {} if there is no such file or it holds anything else."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
