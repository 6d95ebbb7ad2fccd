"""Pictures from recordings: `semcast receive` and `info` where files are signals, alone or together with frames."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..cascade.models import find_model
from ..channels.base import Received
from ..channels.combining import DISAGREEMENT_MIN, combine, disagreement
from ..errors import InputError, Lost
from ..files import STDIO, check_file, check_output, check_suffix, write_bytes
from ..frame import noiseless, read_frame
from ..header import HEADER_BYTES, Header
from ..modem import profiles
from ..modem.receive import find
from ..modem.reception import Reception
from ..modem.side import from_air, n_symbols, to_air
from ..modulation.ladder import identity
from ..signals.files import files_of
from .asking import answer, check_asking
from .common import load_link, notice, progress_bar
from .confidence import check_calibration, check_confidence, tell_confidence
from .radio import is_recording, read
from .reports import as_json, noise_level, row_of, sentence

if TYPE_CHECKING:
    import numpy as np

    from ..link import Link


class Part(NamedTuple):
    """One reception of one transmission."""

    name: str  # of the file, and when in a recording
    header: Header
    received: Received


class Heard(NamedTuple):
    """What recordings hold: what can be decoded, and a row of measurements for each transmission that was found."""

    parts: list[Part]
    rows: list[dict]


def receive(args) -> None:
    """`semcast receive` with at least one recording among its files."""
    check_receive(args)
    header = known_header(args.header)
    for path in args.frames:
        check_file(path, "recording" if is_recording(path) else "frame")
    heard = [hear(path, read(path, args), header) if is_recording(path) else from_frame(path) for path in args.frames]
    parts, rows = ([one for some in found for one in some] for found in zip(*heard))
    show(args, Heard(parts, rows), f"no transmission was found in {', '.join(map(str, args.frames))}")


def check_receive(args) -> None:
    """What can be refused before recordings are read."""
    inputs = [file for path in args.frames for file in files_of(path)]
    check_output(args.output, inputs, args.force)
    check_suffix(args.output)
    if args.report:
        check_output(args.report, inputs, args.force)
        if args.report.resolve() == args.output.resolve():
            raise InputError(f"--report and -o both name {args.report}")
    check_asking(args, inputs)
    check_confidence(args, inputs)
    find_model(args.model)


def known_header(given: str | None) -> bytes | None:
    """The header that --header gives: in hexadecimal digits, or that of a frame."""
    if given is None:
        return None
    try:
        data = bytes.fromhex(given)
    except ValueError:
        header, _ = read_frame(Path(given))
        if header.mode != "analog":
            raise InputError(f"{given} is a packet, which is not sent by radio") from None
        return to_air(header)
    if len(data) not in (HEADER_BYTES, profiles.HEADER_BYTES) or from_air(data) is None:
        raise InputError(f"--header {given} is no header of analog symbols, which has 12 or 13 bytes; is it complete?")
    return data.ljust(profiles.HEADER_BYTES, b"\0")


def from_frame(path: Path) -> Heard:
    header, signal = read_frame(path)
    if isinstance(signal, bytes) or header.mode != "analog":
        raise InputError(f"{path} holds a packet, which does not mix with recordings; receive it alone")
    received = signal if isinstance(signal, Received) else noiseless(signal)
    return Heard([Part(str(path), header, received)], [])


def hear(path: Path, samples: "np.ndarray", header: bytes | None, since_s: float = 0.0) -> Heard:
    """All transmissions in samples at 8 kHz, the first of which was recorded at `since_s`."""
    return describe(path, find(samples, n_symbols, header), since_s)


def describe(path: Path, receptions: list[Reception], since_s: float = 0.0) -> Heard:
    parts, rows = [], []
    for reception in receptions:
        start_s = since_s + reception.start / profiles.RATE_HZ
        header = reception.header and from_air(reception.header)
        rows.append(row_of(path, start_s, reception, header or None))
        if header:
            parts.append(Part(f"{path} at {start_s:.1f} s", header, reception.received))
    return Heard(parts, rows)


def show(args, heard: Heard, nothing: str) -> None:
    """Report what was heard and make pictures of it. Raises Lost(`nothing`) if nothing was heard."""
    for row in heard.rows:
        notice("%s", sentence(row))
    pictures = group(heard.parts)
    if len(pictures) > 1:
        notice("%d pictures, from %s", len(pictures), ", ".join(parts[0].name for parts in pictures))
    if args.pick and pictures:
        if args.pick > len(pictures):
            raise InputError(f"--pick {args.pick}, and pictures found: {len(pictures)}")
        pictures = [pictures[args.pick - 1]]
    outputs = name_outputs(args, args.output, len(pictures))
    maps = name_outputs(args, args.confidence, len(pictures)) if args.confidence else [None] * len(outputs)
    if args.report:
        write_bytes(args.report, "".join(as_json(row) + "\n" for row in heard.rows).encode())
    if args.json:
        for row in heard.rows:
            print(as_json(row), file=sys.stderr if args.output == STDIO else sys.stdout, flush=True)
    if not pictures:
        unread = [f"{row['recording']} at {row['start_s']:.1f} s" for row in heard.rows]
        damaged = f"the header of the transmission in {', '.join(unread)} is damaged; give it with --header"
        raise Lost(damaged if unread else nothing)
    make_pictures(args, pictures, outputs, maps)


def name_outputs(args, path: Path, count: int) -> list[Path]:
    """One picture goes to the path, several to numbered ones."""
    if count < 2:
        return [path]
    if path == STDIO or args.reply:
        one = "- takes" if path == STDIO else "a reply is about"
        raise InputError(f"{count} pictures were found, and {one} one; choose with --pick N")
    outputs = [path.with_stem(f"{path.stem}-{i + 1}") for i in range(count)]
    for output in outputs:
        check_output(output, args.frames, args.force)
    return outputs


def group(parts: list[Part]) -> list[list[Part]]:
    """Group receptions by picture. Ids are short: transmissions that contradict each other are of two pictures."""
    pictures: list[list[Part]] = []
    for part in parts:
        for picture in pictures:
            if all(agree(part.header, other.header) for other in picture):
                picture.append(part)
                break
        else:
            pictures.append([part])
    return pictures


def agree(a: Header, b: Header) -> bool:
    return identity(a) == identity(b) and (a.rungs != b.rungs or a == b)


def make_pictures(args, pictures: list[list[Part]], outputs: list[Path], maps: Sequence[Path | None]) -> None:
    link, bad = load_link(args), 0
    check_calibration(args, link)
    for parts, output, errors in zip(pictures, outputs, maps):
        try:
            make_picture(args, link, parts, output, errors)
        except InputError as error:
            if len(pictures) == 1:
                raise
            print(f"semcast: {parts[0].name}: {error}", file=sys.stderr)  # the others go on
            bad += 1
    if bad:
        raise InputError(f"{bad} of {len(pictures)} pictures could not be made")


def make_picture(args, link: "Link", parts: list[Part], output: Path, errors: Path | None) -> None:
    from ..images import write_image

    merged = merge_receptions(parts)
    (arrived, header), *others = merged
    with progress_bar(args.steps or link.engine.config.steps, output.name, quiet=args.quiet) as tick:
        image = link.receive(arrived, header, args.steps, tick, args.seed, others)
    write_image(output, image)
    if errors:
        tell_confidence(args, link, merged, image, output, errors)
    if args.reply:
        answer(args, link, merged)
    if len(parts) > 1:
        levels = ", ".join(f"rungs {h.rungs[0]}-{h.rungs[1]} {noise_level(y):.3f}" for y, h in merged)
        notice("%s: from %d receptions; noise of %s", output, len(parts), levels)


def merge_receptions(parts: list[Part]) -> list[tuple[Received, Header]]:
    """The receptions of each transmission as one."""
    found: dict[Header, list[Part]] = {}
    for part in parts:
        same = found.setdefault(part.header, [])
        if twin := next((other for other in same if share_noise(part.received, other.received)), None):
            worse, better = sorted((part, twin), key=lambda one: -noise_level(one.received))
            same[same.index(twin)] = better
            notice("%s carries the same noise as %s, so it adds nothing", worse.name, better.name)
        else:
            same.append(part)
    return [(combine([part.received for part in same]), header) for header, same in found.items()]


def share_noise(a: Received, b: Received) -> bool:
    """Whether two receptions are one recording, or so clean that only the transmitter's distortion is left in them."""
    return bool((a.y == b.y).all()) or disagreement(a, b) < DISAGREEMENT_MIN


def info(args) -> None:
    """What transmissions a recording holds."""
    check_file(args.frame, "recording")
    heard = hear(args.frame, read(args.frame, args), known_header(args.header))
    if not heard.rows:
        raise Lost(f"no transmission was found in {args.frame}")
    for row in heard.rows:
        if args.json or not sys.stdout.isatty():
            print(as_json(row))
            continue
        for name, value in row.items():
            if value is not None:
                print(f"{name:18s} {value}")
        print()
