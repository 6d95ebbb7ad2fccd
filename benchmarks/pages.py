"""What other programs measure of the shipped model, and the documents that show it: the end of measure.py.

Programs run beside each other, one a worker, and each goes on where it was interrupted. What they print is kept in
--work, a file each.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from semcast.bench.systems import find_system
from semcast.errors import InputError

ROOT = Path(__file__).parent.parent
CASES = 200  # of asking.py
STREETS = 16  # frames, as in the experiment `camvid`


class Program(NamedTuple):
    """A command in the repository; what it writes there is named relative to it."""

    name: str
    words: list  # after `python`
    record: str = ""  # is written at the end; if it is of the model that ships, nothing has to be done


def make_pages(args: argparse.Namespace, peers_changed: bool = False) -> None:
    """Run all programs whose pictures were given, then make the tables.

    peers_changed: the learned rivals were measured anew, and their pictures have to be made.

    Raises:
        InputError: a program failed.
    """
    args.work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.workers) as workers:
        jobs = [workers.submit(run, program, args) for program in programs(args, peers_changed)]
        try:
            for job in tqdm(as_completed(jobs), "pages", len(jobs), unit="program", leave=False, disable=None):
                job.result()
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise
    run(Program("tables", ["benchmarks/tables.py", "--write"]), args)


def programs(args: argparse.Namespace, peers_changed: bool = False) -> list[Program]:
    """The longest first."""
    found, results = [], "benchmarks/results"
    if args.kodak and args.lpips:
        words = [args.kodak, "--crop", 512, "--lpips", args.lpips, "--cases", CASES, "--out", f"{results}/asking.json"]
        found.append(Program("asking", ["benchmarks/asking.py", *words]))
    if args.photos and args.kodak and args.streets:
        record = f"{results}/confidence.json"
        words = ["--photos", *args.photos, "--kodak", args.kodak, "--streets", args.streets, "--limit", STREETS]
        found.append(Program("confidence", ["benchmarks/confidence.py", *words, "--out", record], record))
    if args.kodak and args.lpips:
        words = ["--data", args.kodak, "--every", 6, "--lpips", args.lpips, "--out", f"{results}/radio.json"]
        found.append(Program("radio", ["benchmarks/radio.py", *words]))
    found.append(Program("radio_strip", ["benchmarks/radio.py", "--strip", "docs/radio.jpg"]))
    if args.kodak:
        record = f"{results}/packet_gain.json"
        words = [args.kodak, "--crop", 512, "--out", record]
        found.append(Program("packet_gain", ["benchmarks/packet_gain.py", *words], record))
        words = [args.kodak, "--crop", 512, "--limit", 6, "--side", 280, "--out", "docs/kodak.jpg"]
        found.append(Program("contact_sheet", ["benchmarks/contact_sheet.py", *words]))
    if peers_changed:
        words = [args.streets, "--labels", args.labels, "--segmenter", args.segmenter, "--out", "docs/peers.jpg"]
        found.append(Program("peer_strip", ["benchmarks/peer_strip.py", *words]))
    found.append(Program("ladder_strip", ["benchmarks/ladder_strip.py", "--out", "docs/ladder.jpg"]))
    found.append(Program("mixed_strip", ["benchmarks/mixed_strip.py", "--out", "docs/mixed.jpg"]))
    found.append(Program("demo", ["-m", "semcast", "demo", "--out", "docs", "--force"]))
    return [program for program in found if not (program.record and is_current(ROOT / program.record))]


def is_current(record: Path) -> bool:
    """Whether a record is of the model that ships."""
    systems = json.loads(record.read_text()).get("systems", {}) if record.exists() else {}
    return bool(systems) and all(find_system(name).version() == version for name, version in systems.items())


def run(program: Program, args: argparse.Namespace) -> None:
    """Raises InputError with what the program said last, if it fails."""
    log = args.work / f"{program.name}.log"
    command = [
        sys.executable,
        *(str(word.absolute()) if isinstance(word, Path) else str(word) for word in program.words),
    ]
    one_thread = {"OMP_NUM_THREADS": "1"} if args.workers > 1 else {}
    with log.open("w") as file:
        code = subprocess.run(
            command, cwd=ROOT, env=os.environ | one_thread, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        said = log.read_text().strip().splitlines()[-1:]
        raise InputError(f"{program.name} failed with {code}: {' '.join(said)}; see {log}")
