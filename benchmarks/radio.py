"""Pictures by radio: semcast beside slow-scan television and a digital rival, at the same peak envelope power.

    python benchmarks/radio.py --data KODAK --every 6 --lpips LPIPS --strip docs/radio.jpg \\
        --out benchmarks/results/radio.json

What a transmitter's final stage limits is the peak of the envelope, so all systems share that: they get the PNR, peak
envelope power over noise in 3 kHz, at which semcast's own signal has the SNR of the column. Their mean powers differ;
every row says which SNR its signal had. All signals of a picture begin together on one path of 37.5 s, so they meet
the same fading and the same noise.

semcast    the whole base (1152 symbols for 512x512), profile `fast`, once (1.1 s), 4 times (4.4 s), and as often as fits
           into 36 s; found in the recording and combined. "semcast more" sends it once and goes on with rungs of the
           ladder as far as the time allows, in one transmission.
Robot 36   the picture stretched to 320x240 pixels, so that none are wasted on borders, and enlarged back. The sender is
           pysstv's. The receiver is ours and favours it: it is told where the lines begin, and of 54 filters it takes
           the one whose picture is nearest to the original. The envelope counts as constant, although a sound card and
           an SSB filter make peaks of almost 2 dB. (Told nothing, the decoder of the package sstv 0.2.0 found no
           picture without fading at an SNR of 9 dB.)
digital    AVIF, 5G LDPC and QAM; the symbols are interleaved over the whole transmission and sent by the modem, as its
           payload. The scheme is the best for the expected SNR less MARGINS_DB. The modem takes 50,000 symbols, so the
           longest transmission takes 32.4 s. Scheme and size travel in the modem's header; the picture's sides are known.

Given again, the command measures what is missing in --out, or of another version: of the model, a codec or a package.

Of a picture that is lost, the mean colour is shown. Published figures of another analog system, SSTVAE, on pictures and
simulations of its own, so not to be put beside these: 640x480 pixels in 32 s and 1200 Hz, at an SNR of 10 and 0 dB in
2.5 kHz, have a PSNR of 25.5 and 22.6 dB; on a poor Watterson path, 24.6 dB at 10 dB.
"""

import argparse
import importlib.metadata
import io
import json
import platform
from collections.abc import Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

from radio_digital import CODEC, MARGINS_DB, receive_digital, send_digital
from radio_semcast import receive_semcast, send_more, send_semcast
from radio_signals import CHANNELS, LIMITS_S, SIDE, SNRS_DB, System, crest_db, over_path
from radio_sstv import receive_sstv, send_sstv
from scripts import command_line, read_pictures, script, summary
from semcast.bench import codecs
from semcast.bench.cost import cpu_name
from semcast.bench.records import one_row_a_line
from semcast.bench.systems import find_system
from semcast.bench.versions import commit, digest
from semcast.demo import contact_sheet
from semcast.files import write_bytes, write_text
from semcast.images import PHOTO, mean_colour, to_image, to_pixels
from semcast.metrics.lpips import load_lpips
from semcast.metrics.pixels import psnr_db

SYSTEMS = {f"semcast {limit} s": System(partial(send_semcast, limit), receive_semcast) for limit in LIMITS_S}
SYSTEMS |= {f"semcast more {limit} s": System(partial(send_more, limit), receive_semcast) for limit in (4, 36)}
SYSTEMS["Robot 36"] = System(send_sstv, receive_sstv)
SYSTEMS |= {f"digital {limit} s": System(partial(send_digital, limit), receive_digital) for limit in LIMITS_S}
STRIP = ("Robot 36", *(name for name in SYSTEMS if name != "Robot 36"))


def pictures_of(
    name: str, pixels: np.ndarray, channel: str, *seed: str, systems: Iterable[str] = SYSTEMS
) -> Iterator[tuple[dict, np.ndarray]]:
    """What systems make of a picture at all SNRs: the fields of a row, and the picture received."""
    reference_db = crest_db(send_semcast(1, pixels))
    for system in systems:
        send, receive = SYSTEMS[system]
        for snr3k_db in SNRS_DB:
            pnr_db = snr3k_db + reference_db
            sent = send(pixels, pnr_db, channel)
            shown = receive(over_path(sent, channel, pnr_db, name, *seed), sent.known)
            row = {"image": name, "draw": 0, "system": system, "seconds": sent.seconds, "channel": channel}
            row |= {"snr3k_db": snr3k_db, "pnr_db": pnr_db, "own_snr3k_db": pnr_db - crest_db(sent)}
            row |= {"sent": sent.about, "lost": shown is None}
            yield row, mean_picture(pixels) if shown is None else shown


def mean_picture(pixels: np.ndarray) -> np.ndarray:
    image = to_image(pixels)
    return to_pixels(np.broadcast_to(mean_colour(image), image.shape))


def measured(args, done: Container[tuple[str, str]]) -> Iterator[list[dict]]:
    """After every picture its rows, one for every channel, system and SNR, without those of (picture, system) in `done`."""
    lpips = load_lpips("alex", args.lpips) if args.lpips else None
    names, pictures = read_pictures(args.data or [PHOTO], SIDE)
    for name, read in list(zip(names, pictures))[:: args.every]:
        systems = [system for system in args.systems if (name, system) not in done]
        if not systems:
            continue
        image, rows = read(), []
        maps = lpips.maps_of(image) if lpips else None
        for channel in CHANNELS:
            for row, shown in pictures_of(name, to_pixels(image), channel, systems=systems):
                seen = to_image(shown)
                row["lpips"] = lpips.distance_to(maps, seen) if lpips and maps else None
                row["psnr_db"] = psnr_db(image, seen)
                rows.append(row)
                print(json.dumps(row), flush=True)
        yield rows


def means(rows: list[dict]) -> list[dict]:
    """Over the pictures: a row for every channel, system and SNR, for reading on the screen."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["channel"], row["system"], row["snr3k_db"]), []).append(row)
    over = ("seconds", "pnr_db", "own_snr3k_db", "lpips", "psnr_db", "lost")
    average = lambda group, key: None if group[0][key] is None else round(mean(row[key] for row in group), 3)
    shared = ("channel", "system", "snr3k_db")
    return [dict(zip(shared, key)) | {k: average(group, k) for k in over} for key, group in groups.items()]


def strip(channel: str, side: int) -> np.ndarray:
    """The bundled photo: one row a system, one column an SNR."""
    (name,), (read,) = read_pictures([PHOTO], SIDE)
    shown: dict[str, list[np.ndarray | None]] = {}
    seconds, crests = {}, {}
    for row, picture in pictures_of(name, to_pixels(read()), channel):
        shown.setdefault(row["system"], []).append(picture)
        seconds[row["system"]] = row["seconds"]
        crests[row["system"]] = row["own_snr3k_db"] - row["snr3k_db"]
    lines = [
        f"{system.rsplit(' ', 2)[0] if system.endswith(' s') else system}: {seconds[system]:.1f} s" for system in STRIP
    ]
    columns = [f"{snr_db:g} dB" for snr_db in SNRS_DB]
    return contact_sheet([shown[system] for system in STRIP], columns, lines, side)


def jpeg(pixels: np.ndarray, limit: int = 250_000) -> bytes:
    """A JPEG file of at most `limit` bytes, at the highest quality that allows it."""
    for quality in range(90, 20, -2):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    return file.getvalue()


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--data", type=Path, nargs="+", help="folders or pictures; default: the bundled photo")
    p.add_argument("--every", type=int, default=1, help="take only every Nth picture")
    p.add_argument("--lpips", type=Path, metavar="DIR", help="weights of LPIPS; without it, no LPIPS")
    p.add_argument("--strip", type=Path, metavar="FILE.jpg", help="the bundled photo, as all systems show it")
    p.add_argument("--strip-channel", choices=CHANNELS, default="watterson-poor")
    p.add_argument("--side", type=int, default=200, help="of a picture on the strip")
    p.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="only these; default: all")
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    for file in (args.strip, args.out):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
    if args.strip:
        write_bytes(args.strip, jpeg(strip(args.strip_channel, args.side)))
        print(args.strip)
    if not args.out:
        return
    versions: dict = {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "torch", "pysstv")}
    versions |= {"link": importlib.metadata.version("sionna-no-rt"), "codec": codecs.CODECS[CODEC].version()}
    versions["lpips_alex"] = digest(load_lpips("alex", args.lpips).state_dict()) if args.lpips else None
    record: dict = {"schema": 1, "command": command_line(), "commit": commit()}
    record["machine"] = {"cpu": cpu_name(), "python": platform.python_version()}
    record |= {"systems": {"semcast-ladder": find_system("semcast-ladder").version()}}
    record |= {"versions": versions, "margins_db": MARGINS_DB}
    held = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    rows = up_to_date(held, record)
    if rows and record["command"] not in held["command"]:
        record["command"] = f"{held['command']}; {record['command']}"
    for new in measured(args, {(row["image"], row["system"]) for row in rows}):
        rows = in_order([*rows, *new])
        write_text(args.out, one_row_a_line(record | {"rows": rows}))
    for row in means(rows):
        print(json.dumps(row))


def up_to_date(held: dict, record: dict) -> list[dict]:
    """The rows of an earlier run, or of one that was interrupted, whose systems are still of the same version."""

    def depends_on(system: str, record: dict) -> list:
        versions = record["versions"]
        own = {
            "semcast": [record["systems"]],
            "Robot": [versions["pysstv"]],
            "digital": [versions["link"], versions["codec"], record["margins_db"]],
        }
        return [versions["lpips_alex"], *own[system.split()[0]]]

    past = json.loads(json.dumps(record))  # with its keys as text, as a file has them
    return [row for row in held["rows"] if depends_on(row["system"], held) == depends_on(row["system"], past)]


def in_order(rows: list[dict]) -> list[dict]:
    """By picture, channel, system and SNR, as a run of all systems has them."""
    names, systems = list(dict.fromkeys(row["image"] for row in rows)), list(SYSTEMS)
    place = lambda row: (names.index(row["image"]), CHANNELS.index(row["channel"]), systems.index(row["system"]))
    return sorted(rows, key=lambda row: (*place(row), -row["snr3k_db"]))


if __name__ == "__main__":
    script(main)
