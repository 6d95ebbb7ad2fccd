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
import binascii
import functools
import importlib.metadata
import io
import json
import math
import platform
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pysstv.color import Robot36

from scripts import command_line, read_pictures, script, summary
from semcast.bench import codecs
from semcast.bench.cost import cpu_name
from semcast.bench.records import one_row_a_line
from semcast.bench.systems import find_system
from semcast.bench.versions import commit, digest
from semcast.cascade.engine import load_model
from semcast.channels.base import Received
from semcast.channels.combining import combine
from semcast.demo import contact_sheet
from semcast.files import write_bytes, write_text
from semcast.images import PHOTO, mean_colour, to_image, to_pixels
from semcast.link import Link
from semcast.metrics.lpips import load_lpips
from semcast.metrics.pixels import psnr_db
from semcast.modem import side
from semcast.modem.layout import symbols_within
from semcast.modem.profiles import HEADER_BYTES, PROFILES, RATE_HZ, SPACING_HZ
from semcast.modem.receive import find
from semcast.modem.reception import REFERENCE_HZ
from semcast.modem.transmit import SELF_NOISE_DB, SYMBOLS_MAX, SYMBOLS_MIN, modulate
from semcast.modulation import ldpc, mcs
from semcast.modulation.ladder import rungs_within
from semcast.modulation.modems import on_air
from semcast.randomness import seeded
from semcast.signals import air
from semcast.signals.filters import analytic, band_pass, resample
from semcast.signals.power import active_power
from semcast.transmitter import top_rung

SIDE = 512  # pixels of a picture
SNRS_DB = (10.0, 5.0, 0.0, -3.0)  # of semcast's signal in 3 kHz
CHANNELS = ("awgn", "watterson-poor")
PATH_S = 37.5  # how long a path is drawn
PROFILE = PROFILES["fast"]
LIMITS_S = {1: 1.11, 4: 4.44, 36: 36.0}  # on the air
LEAD_S = 0.01  # of silence at each end of one transmission
CODEC = "avif"
# How much of the expected Es/N0 the digital rival does not count on. Without fading the modem takes 0.6 dB of it. On
# watterson-poor, 9 of 10 transmissions of 4 s, and of 32 s, have an SNR of equal capacity no more than 3.4 dB below it
# (at 0 dB 2.7 and 2.3); QAM at a fixed rate needs some more. For 1 s the margin is a guess.
MARGINS_DB = {"awgn": dict.fromkeys((1, 4, 36), 1.0), "watterson-poor": {1: 6.0, 4: 4.5, 36: 3.5}}


class Sent(NamedTuple):
    """A signal, and what its receiver knows."""

    samples: np.ndarray  # float32 [N] at 8 kHz
    peak: float  # power of a steady tone as strong as the envelope at its highest
    seconds: float  # on the air
    known: Any
    about: str = ""


class System(NamedTuple):
    """A sender, (pixels, pnr_db, channel) -> Sent, and a receiver, (samples, known) -> pixels, or None: lost."""

    send: Callable[[np.ndarray, float, str], Sent]
    receive: Callable[[np.ndarray, Any], np.ndarray | None]


# power


def peak_power(samples: np.ndarray) -> float:
    """Power of a steady tone whose envelope is as high as that of samples [N] at its highest, between samples too."""
    spectrum = np.fft.rfft(samples)
    spectrum[1:] *= 2
    envelope = np.abs(np.fft.ifft(spectrum, 4 * len(samples))) * 4
    return float(envelope.max()) ** 2 / 2


def crest_db(sent: Sent) -> float:
    """Peak envelope power over mean power while active; 0 for a constant envelope."""
    return 10 * math.log10(sent.peak / active_power(sent.samples, RATE_HZ))


def over_path(sent: Sent, channel: str, pnr_db: float, *seed: int | str) -> np.ndarray:
    """What a receiver hears of a signal, float32 [N]. Equal seeds give equal fading and noise, whatever is sent."""
    padded = np.pad(sent.samples, (0, round(PATH_S * RATE_HZ) - len(sent.samples)))
    snr_db = pnr_db - crest_db(sent)
    heard = air.propagate(padded, RATE_HZ, channel, snr3k_db=snr_db, generator=seeded("radio", channel, *seed))
    return heard[: len(sent.samples) + RATE_HZ // 10]


# semcast


@functools.cache
def semcast_link() -> Link:
    return Link(load_model("small"))


@functools.lru_cache(maxsize=3)
def one_transmission(picture: bytes, limit: int | None = None) -> tuple[np.ndarray, int]:
    """Samples, and symbols of payload, of one transmission of a picture [SIDE, SIDE, 3]: of the whole base, or of all
    rungs of the ladder that fit into LIMITS_S[limit]."""
    link, image = semcast_link(), to_image(np.frombuffer(picture, np.uint8).reshape(SIDE, SIDE, 3))
    sent = link.send(image)
    if limit:
        uses = min(symbols_within(PROFILE, LIMITS_S[limit] - 2 * LEAD_S), SYMBOLS_MAX)
        sent = link.send(image, rungs=rungs_within(uses, sent.header, top=top_rung(link.engine.config)))
    return modulate(on_air(sent)[0], side.to_air(sent.header), PROFILE, LEAD_S), sent.header.channel_uses


def send_semcast(limit: int, pixels: np.ndarray, pnr_db: float = 0.0, channel: str = "") -> Sent:
    """As many transmissions as fit into LIMITS_S[limit]."""
    burst, uses = one_transmission(pixels.tobytes())
    copies = int(LIMITS_S[limit] * RATE_HZ / len(burst))
    samples = np.tile(burst, copies)
    return Sent(samples, peak_power(burst), len(samples) / RATE_HZ, copies, f"{copies} x {uses} symbols")


def send_more(limit: int, pixels: np.ndarray, pnr_db: float = 0.0, channel: str = "") -> Sent:
    """The base and as many rungs above it as fit into LIMITS_S[limit]."""
    samples, uses = one_transmission(pixels.tobytes(), limit)
    return Sent(samples, peak_power(samples), len(samples) / RATE_HZ, 1, f"{uses} symbols")


def receive_semcast(samples: np.ndarray, copies: int) -> np.ndarray | None:
    """Search a recording for transmissions of one picture; those whose header is damaged are used once another's is read."""
    found = find(samples, side.n_symbols)
    headers = Counter(one.header for one in found if one.header)
    if not headers:
        return None
    header = headers.most_common(1)[0][0]
    if headers[header] < copies:
        found = find(samples, side.n_symbols, header)
    receptions = [one.received for one in found if one.header == header and np.isfinite(one.noise_var).any()]
    known = side.from_air(header)
    assert known is not None
    return to_pixels(semcast_link().receive(combine(receptions), known))


# slow-scan television

COLUMNS, LINES = 320, 240
ENCODER_HZ = 48000  # at 8 kHz pysstv's pixels would have 1 or 2 samples; the signal is made at this rate
BLACK_HZ, WHITE_HZ = 1500.0, 2300.0
# Robot 36, seconds: leader and VIS code; a line; what precedes its brightness and its colour; how long these take
START_S, LINE_S, LUMA_S, CHROMA_S = 0.91, 0.15, (0.012, 0.088), (0.106, 0.044)
BANDS_HZ = ((300.0, 2700.0), (1100.0, 2600.0), (1300.0, 2500.0))
WINDOWS = (3, 5, 9, 15, 25, 41)  # samples over which the discriminator averages
SHIFTS_S = (0.0, 0.001, 0.002)  # of the lines, for the two echoes of watterson-poor


def send_sstv(pixels: np.ndarray, pnr_db: float = 0.0, channel: str = "") -> Sent:
    small = Image.fromarray(pixels).resize((COLUMNS, LINES), Image.Resampling.LANCZOS)
    samples = robot36(small.tobytes())
    return Sent(samples, 0.5, len(samples) / RATE_HZ, small, f"{COLUMNS}x{LINES} pixels")


@functools.lru_cache(maxsize=1)
def robot36(picture: bytes) -> np.ndarray:
    """Samples of a picture of 320x240 pixels."""
    image = Image.frombytes("RGB", (COLUMNS, LINES), picture)
    return resample(np.fromiter(Robot36(image, ENCODER_HZ, 16).gen_values(), np.float32), ENCODER_HZ, RATE_HZ)


def receive_sstv(samples: np.ndarray, sent: Image.Image) -> np.ndarray:
    """Robot 36 by an FM discriminator that knows where lines begin. `sent` chooses filter, window and shift."""
    best, least = None, math.inf
    original = np.asarray(sent, float)
    for band_hz in BANDS_HZ:
        a = analytic(band_pass(samples, RATE_HZ, *band_hz), RATE_HZ, 0, len(samples))
        turn = np.append(a[1:] * a[:-1].conj(), 0)  # its angle is the frequency half a sample later
        for window in WINDOWS:
            smooth = np.convolve(turn, np.hanning(window + 2), "same")
            for shift_s in SHIFTS_S:
                picture = scan(smooth, START_S + shift_s)
                error = float(np.mean((np.asarray(picture, float) - original) ** 2))
                if error < least:
                    best, least = picture, error
    assert best is not None
    return np.asarray(best.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def scan(turn: np.ndarray, start_s: float) -> Image.Image:
    """The picture of 320x240 pixels in a discriminator's output, complex [N], whose first line begins at `start_s`."""
    place = lambda at_s, length_s: (
        start_s + LINE_S * np.arange(LINES)[:, None] + at_s + length_s * (np.arange(COLUMNS) + 0.5) / COLUMNS
    )
    at = np.stack([place(*LUMA_S), place(*CHROMA_S)]) * RATE_HZ - 0.5  # [2, LINES, COLUMNS]
    hz = np.angle(np.interp(at, np.arange(len(turn)), turn)) * (RATE_HZ / (2 * math.pi))
    luma, chroma = np.clip(255 * (hz - BLACK_HZ) / (WHITE_HZ - BLACK_HZ), 0, 255)
    red, blue = (np.repeat(chroma[first::2], 2, axis=0) for first in (0, 1))  # a line sends one of them, for two lines
    return Image.fromarray(np.stack([luma, blue, red], axis=2).round().astype(np.uint8), "YCbCr").convert("RGB")


# digital


class Packet(NamedTuple):
    """What the header of the digital rival says: 12 of the modem's 13 bytes."""

    uses: int
    scheme: int  # row of mcs.TABLE
    size: int  # bytes of payload
    scale: int  # of the codec

    def to_air(self) -> bytes:
        data = b"\0" * (HEADER_BYTES - 9) + self.uses.to_bytes(3, "big") + bytes([self.scheme << 2 | self.scale])
        data += self.size.to_bytes(3, "big")
        return data + binascii.crc_hqx(data, 0).to_bytes(2, "big")

    @classmethod
    def from_air(cls, data: bytes) -> "Packet | None":
        if binascii.crc_hqx(data[:-2], 0).to_bytes(2, "big") != data[-2:] or len(data) != HEADER_BYTES:
            return None
        uses, size = (int.from_bytes(data[at : at + 3], "big") for at in (-9, -5))
        fine = SYMBOLS_MIN <= uses <= SYMBOLS_MAX and data[-6] >> 2 < len(mcs.TABLE)
        return cls(uses, data[-6] >> 2, size, data[-6] & 3) if fine else None


def n_symbols(header: bytes) -> int | None:
    packet = Packet.from_air(header)
    return packet.uses if packet else None


@functools.cache
def usual_crest_db(uses: int) -> float:
    """`crest_db` of a signal of QPSK symbols."""
    x = np.exp(0.5j * np.pi * (seeded("crest").integers(0, 4, uses) + 0.5))
    samples = modulate(x, bytes(HEADER_BYTES), PROFILE, LEAD_S)
    return crest_db(Sent(samples, peak_power(samples), 0.0, None))


def expected_db(pnr_db: float, crest_db: float) -> float:
    """Es/N0 of the payload with the transmitter's distortion, before the modem's losses and fading."""
    esn0_db = pnr_db - crest_db + 10 * math.log10(REFERENCE_HZ / (PROFILE.carriers * SPACING_HZ))
    return -10 * math.log10(10 ** (-esn0_db / 10) + 10 ** (-SELF_NOISE_DB / 10))


def send_digital(limit: int, pixels: np.ndarray, pnr_db: float, channel: str) -> Sent:
    """As many bytes as arrive within LIMITS_S[limit] at the expected SNR."""
    uses = min(symbols_within(PROFILE, LIMITS_S[limit] - 2 * LEAD_S), SYMBOLS_MAX)
    counted_db = expected_db(pnr_db, usual_crest_db(uses)) - MARGINS_DB[channel][limit]
    scheme = mcs.choose(uses, counted_db) or mcs.TABLE[0]
    payload, scale = codecs.fit(CODEC, pixels, mcs.plan(uses, scheme).payload_bytes) or (b"", 0)  # none is so small
    x = ldpc.encode([payload], uses, scheme)[0][interleaver(uses)]
    packet = Packet(uses, mcs.TABLE.index(scheme), len(payload), scale)
    samples = modulate(x / np.sqrt(np.mean(np.abs(x) ** 2)), packet.to_air(), PROFILE, LEAD_S)
    about = f"{scheme}, {len(payload)} bytes"
    return Sent(samples, peak_power(samples), len(samples) / RATE_HZ, pixels.shape[:2], about)


def receive_digital(samples: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    for one in find(samples, n_symbols):
        packet = Packet.from_air(one.header) if one.header else None
        if packet is None:
            continue
        back = np.argsort(interleaver(packet.uses))
        received = Received(*(part[:, back] for part in one.received))
        payload = ldpc.decode(received, mcs.TABLE[packet.scheme], [packet.size])[0]
        if payload:
            return codecs.show(CODEC, payload, packet.scale, *size)
    return None


@functools.cache
def interleaver(uses: int) -> np.ndarray:
    return seeded("radio interleaver").permutation(uses)


# the bench

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
