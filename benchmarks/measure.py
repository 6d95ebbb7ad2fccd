"""Measure experiments of the bench and keep their rows: after new weights, what depends on them, and nothing else.

    python benchmarks/measure.py --kodak KODAK --streets TEST --labels LABELS --segmenter FILE \\
        --photos PHOTOS ... --lpips LPIPS
    python benchmarks/measure.py blind --kodak KODAK --lpips LPIPS --model blind=DIR

Without names: every experiment that shows the shipped model (semcast/bench/experiments.py). A system is measured if its
version differs from the one whose rows are kept in benchmarks/results/; the rows of all others stay. So do those of
learned rivals whose weights are not here; SEMCAST_PEERS names the folder of these, and `runs/peers.sh` fills it. Given
again after an interrupt, the command goes on where it stopped. At the end pages.py does the same for what other programs
measure of the model, and makes every table, plot and contact sheet anew.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

from pages import make_pages
from scripts import command_line, script, summary
from semcast.bench import harness, records
from semcast.bench.experiments import EXPERIMENTS, OF_THE_MODEL, Experiment
from semcast.bench.peers.maps import SCALES, map_bytes
from semcast.bench.peers.parts import MAP_CODER, PARTS, STAGE_A, training_record, weights_path
from semcast.bench.peers.systems import PEERS
from semcast.bench.pictures import Pictures
from semcast.bench.progress import work_bar
from semcast.bench.summary import distances
from semcast.bench.systems import find_system
from semcast.bench.unit import PROTOCOL, Setting
from semcast.bench.versions import versions
from semcast.bench.workers import default_workers, pool
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.files import make_folder, write_text
from semcast.images import PHOTO

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OF_THE_PEERS = "peers"  # the experiment with which it is kept how the learned rivals were trained
METRIC_WEIGHTS = ("lpips_alex", "lpips_vgg", "dists", "efficientnet_lite0", "segmenter")


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument(
        "names", nargs="*", choices=[[], *EXPERIMENTS], metavar="EXPERIMENT", help=f"default: {' '.join(OF_THE_MODEL)}"
    )
    p.add_argument("--kodak", type=Path, help="folder of the 24 Kodak photos")
    p.add_argument("--streets", type=Path, help="CamVid's test frames, folder or tar")
    p.add_argument("--labels", type=Path, help="CamVid's labels, for mIoU")
    p.add_argument("--segmenter", type=Path, help="from benchmarks/train_segmenter.py, for mIoU")
    p.add_argument(
        "--photos", type=Path, nargs="+", help="to calibrate --confidence on: folders, tar files or pictures"
    )
    p.add_argument("--lpips", type=Path, help="folder of LPIPS weights")
    p.add_argument(
        "--model", action="append", default=[], metavar="NAME=DIR", help="the folder behind the systems semcast@NAME"
    )
    p.add_argument("--all", action="store_true", help="measure every system again, not only those of another version")
    p.add_argument("--workers", type=int, default=default_workers(), help="processes, default: one a core")
    p.add_argument(
        "--work", type=Path, default=ROOT / "out" / "measure", help="rows while they are made, default: %(default)s"
    )
    p.add_argument("--results", type=Path, default=RESULTS, help="where records are kept, default: %(default)s")
    p.add_argument("--no-pages", action="store_true", help="leave what pages.py makes as it is")
    args = p.parse_args()
    models = named_models(args.model)
    with pool(args.workers) as executor:
        changed = [
            name for name in args.names or OF_THE_MODEL if measure(name, EXPERIMENTS[name], args, models, executor)
        ]
    print(f"measured: {', '.join(changed) or 'nothing, all is up to date'}")
    if not args.no_pages:
        make_pages(args, OF_THE_PEERS in changed and not cannot(PEERS, {}, args.segmenter))


def measure(
    name: str, experiment: Experiment, args: argparse.Namespace, models: dict[str, str], executor: ProcessPoolExecutor
) -> bool:
    """Measure what is out of date. Returns whether anything was."""
    path = args.results / f"{name}.json"
    kept = records.read(path) if path.exists() else None
    now = {system: version(system, models) for run in experiment.runs for system in run.systems}
    stale = {system: v for system, v in now.items() if args.all or not kept or kept["systems"].get(system) != v}
    if not stale:
        return False
    if kept and kept["protocol"] != PROTOCOL:
        stale = now  # rows of two protocols must not stand in one table
    pictures = find_pictures(name, experiment, args)
    if pictures is None:
        return False
    labelled = experiment.pictures == "streets" and args.labels and args.segmenter
    segmenter = args.segmenter if labelled else None
    if lacking := cannot(stale, models, segmenter):
        whole = not kept or kept["protocol"] != PROTOCOL
        what = f"{name} is left out" if whole else f"{name}: the kept rows of {', '.join(lacking)} stay"
        print(f"{what}: {next(iter(lacking.values()))}", file=sys.stderr)
        stale = {} if whole else {system: v for system, v in stale.items() if system not in lacking}
        if not stale:
            return False
    if kept and len(stale) < len(now):
        check_metrics(kept["versions"], versions(args.lpips, segmenter), name)
    folder = work_folder(args, name, stale, segmenter)
    for i, run in enumerate(experiment.runs):
        if systems := [with_model(s, models) for s in run.systems if s in stale]:
            options = find_channel(run.channel).check(run.options)
            setting = Setting(
                channel=run.channel,
                options=tuple(options.items()),
                uses=run.uses,
                copies=run.copies,
                snr_error_db=run.snr_error_db,
                headline=run.headline,
                lpips=args.lpips,
                segmenter=segmenter,
                size=experiment.size,
            )
            shown = pictures if run.limit is None else find_pictures(name, replace(experiment, limit=run.limit), args)
            assert shown is not None  # the others were found
            with work_bar(f"{name} {i + 1}/{len(experiment.runs)}") as tick:
                harness.bench(
                    systems,
                    shown,
                    list(run.snrs),
                    run.draws,
                    folder,
                    setting,
                    args.workers,
                    executor=executor,
                    progress=tick,
                )
    rows = harness.read_rows(folder / harness.ROWS)
    rows = [row | {"system": without_model(row["system"], models)} for row in rows]
    new = records.record(rows, name, command_line(), set_distances(rows, folder))
    records.write(path, records.merged(records.read_raw(path), new) if kept and len(stale) < len(now) else new)
    shutil.rmtree(folder)
    if name == OF_THE_PEERS and {*stale} & {*PEERS}:
        keep_training(args.results / "peers_training.json", pictures)
    return True


def keep_training(path: Path, pictures: Pictures) -> None:
    """How the rivals' networks were trained, and what maps of the pictures' classes take at every scale."""
    held: dict = {
        "parts": {part: training_record(part) for part in PARTS if part != STAGE_A and weights_path(part).exists()}
    }
    maps = [truth for i in range(len(pictures)) if (truth := pictures.truth(i)) is not None]
    if maps and weights_path(MAP_CODER).exists():
        sizes = [map_bytes(classes) for classes in maps]
        means = {str(scale): round(mean(found), 1) for scale, found in zip(SCALES, zip(*sizes))}
        height, width = maps[0].shape
        held["maps"] = {"height": height, "width": width, "pictures": len(maps), "bytes": means}
    write_text(path, json.dumps(held, indent=1) + "\n")


def cannot(systems: Iterable[str], models: dict[str, str], segmenter: Path | None) -> dict[str, str]:
    """The systems that lack weights, labels or packages, and what to do about it."""
    setting = Setting(segmenter=segmenter)
    found = {name: harness.obstacle(with_model(name, models), setting) for name in systems}
    return {name: why[1] for name, why in found.items() if why}


def set_distances(rows: list[dict], folder: Path) -> list[dict]:
    """What `records.record` takes as distances, from the features that the run kept in its folder."""
    found = distances(rows, harness.read_features(folder / harness.FEATURES))
    fields = ("setting", "system", "snr_db", "metric", "mean", "low", "high", "pictures")
    return [dict(zip(fields, (*key, *(round(v, 6) for v in value)))) for key, value in found.items()]


def work_folder(args: argparse.Namespace, name: str, systems: dict[str, str], segmenter: Path | None) -> Path:
    """The folder of the rows; that of an interrupted run, if all that its rows depend on is still the same."""
    same = {k: v for k, v in versions(args.lpips, segmenter).items() if k not in records.MAY_DIFFER}
    words = json.dumps([systems, same, repr(EXPERIMENTS[name])], sort_keys=True)
    return make_folder(args.work / f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:16]}")


def version(system: str, models: dict[str, str]) -> str:
    return find_system(with_model(system, models)).version()


def named_models(texts: list[str]) -> dict[str, str]:
    """`--model noisy=DIR` -> {"noisy": "DIR"}."""
    pairs = [text.partition("=") for text in texts]
    if bad := [text for text, (name, _, folder) in zip(texts, pairs) if not (name and folder)]:
        raise InputError(f"--model {bad[0]}: write NAME=DIR")
    return {name: folder for name, _, folder in pairs}


def with_model(system: str, models: dict[str, str]) -> str:
    """ "semcast@noisy" -> "semcast@DIR"."""
    base, at, model = system.partition("@")
    if at and model not in models:
        raise InputError(f"{system} needs --model {model}=DIR")
    return f"{base}@{models[model]}" if at else system


def without_model(system: str, models: dict[str, str]) -> str:
    base, at, folder = system.partition("@")
    return f"{base}@{next(name for name, d in models.items() if d == folder)}" if at else system


def find_pictures(name: str, experiment: Experiment, args: argparse.Namespace) -> Pictures | None:
    """The pictures of an experiment; None, with a line, where their folder was not given."""
    source = {"kodak": args.kodak, "streets": args.streets, "photo": PHOTO}[experiment.pictures]
    if source is None:
        print(f"{name} is left out: it needs --{experiment.pictures}", file=sys.stderr)
        return None
    labels = args.labels if experiment.pictures == "streets" and args.segmenter else None  # both, or no mIoU
    return Pictures([source], experiment.size, experiment.limit, labels, experiment.names)


def check_metrics(before: dict, now: dict, name: str) -> None:
    """Rows of different metric weights must not stand in one table."""
    for weights in METRIC_WEIGHTS:
        old, new = before.get(weights), now.get(weights)
        if weights == "segmenter" and old is not None and new is None:
            print(f"{name}: new rows have no mIoU, which needs --labels and --segmenter", file=sys.stderr)
        elif old is not None and new is None:
            raise InputError(
                f"{name}: the kept rows have {weights}, which is missing now; give --lpips, --segmenter ..."
            )
        elif old is not None and old != new:
            raise InputError(
                f"{name}: the kept rows have {weights} {old}, now it is {new}; measure all systems again with --all"
            )


if __name__ == "__main__":
    script(main)
