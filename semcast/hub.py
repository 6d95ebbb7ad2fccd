"""The official networks, from the hub or from files at hand, as an ordinary model folder.

    HOME/models/NAME/          config.json, three .safetensors, source.json (where each came from), NOTICE
    HOME/models/NAME.partial/  downloads, named by their SHA-256: a fetch that was interrupted goes on there
    HOME/models/NAME.new/      the model while it is put together; renamed when it is complete
    HOME/accepted.json         licences accepted, and when

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

import torch
from filelock import FileLock, Timeout  # torch needs it too

from .cascade.checkpoint import NETWORKS, load_tensors, save_config, save_tensors, write_text
from .cascade.model import Cascade, ModelConfig
from .cascade.official import check, part_of, stranger, to_ours
from .errors import InputError
from .models import OFFICIAL, home

REPO = "stabilityai/stable-cascade"
ENCODER, STAGE_A = "effnet_encoder.safetensors", "stage_a.safetensors"
FILES = {  # of REPO, in bfloat16 where there is a choice
    "stable-cascade-lite": {"encoder": ENCODER, "stage_b": "stage_b_lite_bf16.safetensors", "stage_a": STAGE_A},
    "stable-cascade-big": {"encoder": ENCODER, "stage_b": "stage_b_bf16.safetensors", "stage_a": STAGE_A},
}
DECODERS = {"ft-hq": ("madebyollin/stage-a-ft-hq", "stage_a_ft_hq.safetensors")}  # other Stage A weights: MIT, finer grain
SUBFOLDERS = ("", "decoder_lite", "decoder", "vqgan")  # where a folder is searched; the last three are diffusers'
USUAL_NAMES = ("effnet_encoder", "stage_a.", "stage_b", "diffusion_pytorch_model")
TITLES = {"encoder": "the encoder", "stage_b": "Stage B", "stage_a": "Stage A"}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE = 64 << 20  # bytes left free on the disk
TIMEOUT_S = 20

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
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Bring encoder, Stage B and Stage A of an official model; every key, shape and SHA-256 is checked.

    Args:
        name: "stable-cascade-lite" or "stable-cascade-big".
        sources: files and folders to take instead of the hub, in the original or in diffusers' layout; a file goes before
            what is found in folders.
        revision: branch, tag or commit of the hub's repository, default its main branch.
        accept_license: needed once; remembered in `home()`.
        decoder: "ft-hq": the hub's Stage A weights with finer grain. Among `sources`, simply name its file.
        config: of another architecture than the official one.
        say: told, a line at a time, what will be fetched and how large it is.
    Returns:
        The model's folder. Fetched already, and nothing else is asked for: nothing happens.
    Raises:
        InputError: licence not accepted, hub or files not at hand, wrong files, wrong hash, full disk.
    """
    if name not in FILES:
        raise InputError(f"no model {name!r} can be fetched; there are: {', '.join(FILES)}")
    if decoder is not None and decoder not in DECODERS:
        raise InputError(f"no decoder is called {decoder!r}; there are: {', '.join(DECODERS)}")
    if sources and (revision or decoder):
        raise InputError("--from takes everything from files: leave out --revision and --decoder, and name a decoder's file itself")
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
            remedy = "free some, or point SEMCAST_HOME to another disk, and repeat the command; what has arrived is kept"
            raise InputError(f"no space left for {folder}: {remedy}") from None
        raise InputError(f"{error.filename or folder}: {error.strerror or error}") from None
    return folder


def accept(licence: str, now: bool, say) -> None:
    """Once for all models under this licence. Refuses with the terms where `now` is false and it never happened."""
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
    """Whether the very model asked for was fetched from the hub before and is whole."""
    source = read_json(folder / "source.json")
    with suppress(KeyError, TypeError, OSError):
        whole = all((folder / f"{part}.safetensors").stat().st_size == source[part]["size_bytes"] for part in NETWORKS)
        stage_a = DECODERS[decoder][0] if decoder else REPO
        same = source["stage_b"]["repo"] == REPO and source["stage_a"]["repo"] == stage_a
        return whole and same and revision in (None, source["stage_b"]["revision"])
    return False


def download(name: str, revision: str | None, decoder: str | None, folder: Path, say) -> dict[str, tuple[Path, dict]]:
    """Files of the hub -> {part: (path, its entry in source.json)}."""
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.utils import RevisionNotFoundError, build_hf_headers
    except ImportError:
        raise InputError("fetching needs the package huggingface_hub: pip install 'semcast[hub]'") from None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    wanted = {part: (REPO, file) for part, file in FILES[name].items()}
    if decoder:
        wanted["stage_a"] = DECODERS[decoder]
    infos, files, staging = {}, {}, folder.with_name(folder.name + ".partial")
    for part, (repo, file) in wanted.items():
        asked = (revision if repo == REPO else None) or "main"
        try:
            if repo not in infos:
                infos[repo] = HfApi(endpoint=endpoint).model_info(repo, revision=asked, files_metadata=True, timeout=TIMEOUT_S)
        except RevisionNotFoundError:
            raise InputError(f"{repo} has no revision {asked!r}") from None
        except Exception as error:  # the hub's client raises many kinds
            raise InputError(f"cannot ask the hub for {repo}: {first_line(error)}; check the network, or use --from") from None
        found = next((sibling for sibling in infos[repo].siblings or () if sibling.rfilename == file), None)
        if found is None or found.lfs is None or not re.fullmatch("[0-9a-f]{64}", found.lfs.sha256 or ""):  # it will name a file
            raise InputError(f"{repo} at revision {asked} has no {file} with a SHA-256; use another --revision, or --from")
        entry = {"repo": repo, "revision": infos[repo].sha, "file": file, "size_bytes": found.lfs.size, "sha256": found.lfs.sha256}
        files[part] = (staging / entry["sha256"], entry)

    staging.mkdir(exist_ok=True)
    reuse(folder, files)
    check_space(staging, files, say)
    for path, entry in files.values():
        url = hf_hub_url(entry["repo"], entry["file"], revision=entry["revision"], endpoint=endpoint)
        download_file(url, path, entry, build_hf_headers() | {"Accept-Encoding": "identity"})
    return files


def download_file(url: str, path: Path, entry: dict, headers: dict) -> None:
    """To `path`, which appears when the SHA-256 is right; until then the bytes grow in `path`.partial.

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
            http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size, displayed_filename=entry["file"])
        except Exception as error:  # the hub's client raises many kinds
            if getattr(error, "errno", None) in DISK_FULL:
                raise
            state = f"stopped at {file.tell()} of {size} bytes ({first_line(error)})"
            raise InputError(f"{entry['file']} {state}; repeat the command, it goes on from there") from None
    if sha256_of(partial) != entry["sha256"]:
        partial.unlink()
        raise InputError(f"{entry['file']} arrived damaged: its SHA-256 is not {entry['sha256']}; it was removed, repeat the command")
    os.replace(partial, path)


def reuse(folder: Path, files: dict[str, tuple[Path, dict]]) -> None:
    """Files of the model that is here already, for another decoder or revision, need no second download."""
    for part, (path, entry) in files.items():
        old = folder / f"{part}.safetensors"
        with suppress(OSError):  # no such file, or no hard links on this disk
            if not path.exists() and old.stat().st_size == entry["size_bytes"] and sha256_of(old) == entry["sha256"]:
                os.link(old, path)


def check_space(folder: Path, files: dict[str, tuple[Path, dict]], say) -> None:
    """Say what comes from where; refuse what the disk cannot hold, before the first byte."""
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
            f"{folder} has {free >> 20} MiB free, {need + RESERVE >> 20} MiB are needed; free some or point SEMCAST_HOME to another disk"
        )


def find_files(name: str, sources: Sequence[Path], cascade: Cascade) -> dict[str, tuple[Path, dict]]:
    """Files and folders of the user -> {part: (path, its entry in source.json)}. Contents decide, not names."""
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
            raise InputError(f"{source} is no safetensors file; pickled weights (.pt, .ckpt, .bin) are never opened, convert them")
        tensors = load_tensors(source)
        part = part_of(tensors)
        if part is None:
            raise InputError(f"{source} is {stranger(tensors)} (its first tensor is {min(tensors, default='missing')}); leave it out")
        if part in named:
            raise InputError(f"{named[part][0]} and {source} both hold {TITLES[part]}; name one of them")
        named[part] = [source]
    files = {}
    for part in NETWORKS:
        candidates = named.get(part) or found.get(part)
        if not candidates:
            where = ", ".join(map(str, sources))
            raise InputError(f"{TITLES[part]} is not in {where}; name its file too (the official one is {FILES[name][part]})")
        path = first_fitting(candidates, part, cascade)
        entry = {"repo": None, "revision": None, "file": str(path.absolute()), "size_bytes": path.stat().st_size}
        files[part] = (path, entry | {"sha256": sha256_of(path)})
    return files


def first_fitting(paths: list[Path], part: str, cascade: Cascade) -> Path:
    """A folder may hold the lite and the big network. If none fits, the error is the first one's."""
    errors = []
    for path in paths:
        try:
            read_part(path, part, cascade, str(path))
            return path
        except InputError as error:
            errors.append(error)
    raise errors[0]


def read_part(path: Path, part: str, cascade: Cascade, where: str) -> tuple[dict, bool]:
    """(tensors under our names, whether the file holds just these). The tensors stay on the disk until they are used."""
    tensors = load_tensors(path)
    ours = to_ours(tensors, where)
    check(getattr(cascade, part), part, ours, where)
    return ours, ours.keys() == tensors.keys()


def assemble(folder: Path, config: ModelConfig, cascade: Cascade, files: dict[str, tuple[Path, dict]]) -> None:
    """Put the model together beside `folder`, then swap it in."""
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
    """{} where there is no such file or nothing sensible in it."""
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
