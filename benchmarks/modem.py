"""The modem: time and band a picture takes, what its receiver loses, what it finds, how often it is mistaken.

    python benchmarks/modem.py --out benchmarks/results/modem.json

Loss: the SNR of the MMSE estimate of x, -10 log10 of its mean square error, beside a receiver that knows the channel
and hears symbols that were never clipped. Es/N0 is that of the payload's carriers; SNRs in 3 kHz are of the whole
transmission, as `signals.air` counts. On one core.
"""

import argparse
import binascii
import json
import math
import platform
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts import command_line, script, summary
from semcast.bench.cost import cpu_name
from semcast.bench.versions import commit
from semcast.files import write_text
from semcast.modem.baseband import baseband
from semcast.modem.demodulate import Tuning, demodulate
from semcast.modem.layout import lay_out
from semcast.modem.profiles import HEADER_BYTES, PREFIX, PROFILES, RATE_HZ, SYMBOL, Profile
from semcast.modem.receive import find
from semcast.modem.reception import Reception
from semcast.modem.transmit import band_pass, envelope, modulate
from semcast.randomness import seeded
from semcast.signals import air
from semcast.signals.power import active_power

USES = 1152  # of a 512x512 picture
LEAD_S = 0.3
DETECTION = (("awgn", 0.0), ("watterson-poor", 3.0))  # the second: SNR in 3 kHz
LOSS = (("awgn", 10.0), ("watterson-poor", 10.0), ("awgn", 0.0), ("watterson-poor", 0.0))  # the second: Es/N0
HEADER_DB = -3.0  # Es/N0
STRESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "offset +100 Hz": {"offset_hz": 100.0},
    "offset -100 Hz": {"offset_hz": -100.0},
    "clock +100 ppm": {"clock_ppm": 100.0},
    "clock -100 ppm": {"clock_ppm": -100.0},
    "drift 5 Hz/min": {"drift_hz_per_min": 5.0},
    "level +20 dB": {"level_db": 20.0},
    "level -20 dB": {"level_db": -20.0},
    "tone 6 dB below": {"tone_db": -6.0, "tone_hz": 1317.0},
    "16 bits": {"level_db": -12.0, "adc_bits": 16},
    "16 bits, 8 dB too loud": {"level_db": 8.0, "adc_bits": 16},
    "SSB filter": {"band": (300.0, 2700.0)},
}
LONG_USES = 42_000  # 25 s, fast


class Sent(NamedTuple):
    x: np.ndarray
    header: bytes
    samples: np.ndarray


def send(profile: Profile, uses: int, generator: np.random.Generator, lead_s: float = LEAD_S) -> Sent:
    """A transmission of Gaussian symbols; its header says how many, and has a CRC."""
    x = generator.standard_normal((2, uses)).T @ [1, 1j]
    x /= np.sqrt(np.mean(np.abs(x) ** 2))
    data = generator.bytes(HEADER_BYTES - 5) + uses.to_bytes(3, "big")
    header = data + binascii.crc_hqx(data, 0).to_bytes(2, "big")
    return Sent(x, header, modulate(x, header, profile, lead_s))


def n_symbols(header: bytes) -> int | None:
    if binascii.crc_hqx(header[:-2], 0).to_bytes(2, "big") != header[-2:]:
        return None
    uses = int.from_bytes(header[-5:-2], "big")
    return uses if 16 <= uses <= 50_000 else None


def payload_power(profile: Profile, sent: Sent, lead_s: float = LEAD_S) -> float:
    """Mean square of the samples that carry payload."""
    layout, part = lay_out(profile, len(sent.x)), profile.header_symbols
    at = round(lead_s * RATE_HZ) + layout.data_at[part : layout.data - part]
    return float(np.mean(np.square(sent.samples[at[:, None] + np.arange(SYMBOL)], dtype=float)))


def snr3k_db(profile: Profile, sent: Sent, esn0_db: float) -> float:
    """Of the whole transmission in 3 kHz, for this Es/N0 of the payload."""
    more = active_power(sent.samples, RATE_HZ) / payload_power(profile, sent)
    return esn0_db + 10 * math.log10(profile.carriers * 50 / 3000 * more)


def error_db(x: np.ndarray, reception: Reception) -> tuple[float, float]:
    """SNR of the MMSE estimate of what was heard: measured, and as the receiver believes."""
    heard = np.isfinite(reception.noise_var)
    y, h, noise_var = (part[heard].astype(complex) for part in (reception.y, reception.h, reception.noise_var))
    total = np.abs(h) ** 2 + noise_var
    error = np.mean(np.abs(h.conj() * y / total - x[heard]) ** 2)
    return -10 * math.log10(error), -10 * math.log10(np.mean((noise_var / total).real))


def genie_db(profile: Profile, sent: Sent, path: str, esn0_db: float, state: Mapping) -> float:
    """SNR of the MMSE estimate with the true gain of every symbol, which symbols without noise or clipping show.

    Args:
        state: of the generator with which the path was drawn.
    """
    layout, part = lay_out(profile, len(sent.x)), profile.header_symbols
    turns = np.exp(2j * np.pi * seeded("genie").random((layout.data, 1)))
    lead = round(LEAD_S * RATE_HZ)
    reference = band_pass(np.pad(envelope(layout, turns * profile.known("pre")), lead), profile)
    generator = seeded("genie")
    generator.bit_generator.state = state
    samples = np.real(reference).astype(np.float32)
    y = air.propagate(samples, RATE_HZ, path, snr3k_db=math.inf, generator=generator)
    total = len(y) // 2
    z = baseband(y, -800, total + 800)
    gains, _ = demodulate(Tuning(z, -800, total, lead / 2), profile, layout.data_at + PREFIX)
    power = profile.carriers * np.abs(gains[part : layout.data - part]) ** 2
    noise_var = 10 ** (-esn0_db / 10)
    return -10 * math.log10(np.mean(noise_var / (power + noise_var)))


def matching(receptions: list[Reception], sent: Sent) -> Reception | None:
    return next((r for r in receptions if r.header == sent.header), None)


def loss(profile: Profile, path: str, esn0_db: float, trials: int, **effects) -> dict:
    """Means over the transmissions that were found."""
    rows, lost = [], 0
    for trial in range(trials):
        generator = seeded("loss", path, str(esn0_db), trial)
        sent = send(profile, USES, generator)
        state = generator.bit_generator.state
        snr_db = snr3k_db(profile, sent, esn0_db)
        y = air.propagate(sent.samples, RATE_HZ, path, snr3k_db=snr_db, generator=generator, **effects)
        reception = matching(find(y, n_symbols), sent)
        if reception is None:
            lost += 1
        else:
            rows.append((genie_db(profile, sent, path, esn0_db, state), *error_db(sent.x, reception)))
    ideal, got, told = np.mean(rows, axis=0)
    return {
        "profile": profile.name,
        "path": path,
        "esn0_db": esn0_db,
        "trials": trials,
        "lost": lost,
        "genie_db": round(ideal, 2),
        "modem_db": round(got, 2),
        "told_db": round(told, 2),
        "loss_db": round(ideal - got, 2),
        "loss_p90_db": round(float(np.quantile([row[0] - row[1] for row in rows], 0.9)), 2),
    }


def detection(profile: Profile, path: str, snr_db: float, trials: int) -> dict:
    """How many headers are read at an SNR in 3 kHz."""
    counts = {"front": 0, "both": 0, "end": 0}
    for trial in range(trials):
        generator = seeded("detection", path, f"{snr_db:.1f}", trial)
        sent = send(profile, USES, generator)
        y = air.propagate(sent.samples, RATE_HZ, path, snr3k_db=snr_db, generator=generator)
        if reception := matching(find(y, n_symbols), sent):
            counts[reception.report.header_from] += 1
    share = sum(counts.values()) / trials
    return {"profile": profile.name, "path": path, "snr3k_db": snr_db, "trials": trials, "read": share, "from": counts}


def header(profile: Profile, esn0_db: float, trials: int) -> dict:
    """How many headers are read below the SNR at which the payload is of use."""
    snr_db = snr3k_db(profile, send(profile, USES, seeded("header")), esn0_db)
    return {**detection(profile, "awgn", snr_db, trials), "snr3k_db": round(snr_db, 2), "esn0_db": esn0_db}


def stress(profile: Profile, name: str, trials: int) -> dict:
    """At Es/N0 10 dB without fading."""
    rows, lost = [], 0
    for trial in range(trials):
        generator = seeded("stress", trial)
        sent = send(profile, USES, generator)
        snr_db = snr3k_db(profile, sent, 10.0)
        y = air.propagate(sent.samples, RATE_HZ, snr3k_db=snr_db, generator=generator, **STRESS[name])
        reception = matching(find(y, n_symbols), sent)
        lost += reception is None
        rows += [error_db(sent.x, reception)] if reception else []
    got, told = np.mean(rows, axis=0)
    return {"profile": profile.name, "stress": name, "trials": trials, "lost": lost} | {
        "modem_db": round(got, 2),
        "told_db": round(told, 2),
    }


def long_transmission(profile: Profile, path: str) -> dict:
    """25 s (fast), everything wrong at once."""
    generator = seeded("long", path)
    sent = send(profile, LONG_USES, generator)
    snr_db = snr3k_db(profile, sent, 10.0)
    effects: dict[str, Any] = {"offset_hz": -80.0, "drift_hz_per_min": 5.0, "clock_ppm": 100.0}
    state = generator.bit_generator.state
    y = air.propagate(sent.samples, RATE_HZ, path, snr3k_db=snr_db, generator=generator, **effects)
    reception = matching(find(y, n_symbols), sent)
    assert reception is not None
    got, told = error_db(sent.x, reception)
    row = {"profile": profile.name, "path": path, "seconds": round(len(y) / RATE_HZ, 1)} | effects
    ideal = genie_db(profile, sent, path, 10.0, state)
    return row | {"genie_db": round(ideal, 2), "modem_db": round(got, 2), "told_db": round(told, 2)}


def shape(profile: Profile, uses: int) -> dict:
    """Seconds, bandwidth and peak of a transmission."""
    samples = send(profile, uses, seeded("shape", uses), lead_s=0.0).samples
    power = np.abs(np.fft.rfft(samples)) ** 2
    share = np.cumsum(power) / power.sum()
    low, high = (np.searchsorted(share, at) * RATE_HZ / len(samples) for at in (0.005, 0.995))
    spectrum = np.fft.fft(samples)
    spectrum[len(samples) // 2 :] = 0
    size = np.abs(2 * np.fft.ifft(spectrum)) ** 2
    return {
        "profile": profile.name,
        "uses": uses,
        "seconds": round(len(samples) / RATE_HZ, 3),
        "band99_hz": round(float(high - low)),
        "papr9999_db": round(10 * math.log10(np.quantile(size, 0.9999) / size.mean()), 2),
    }


def speed(profile: Profile, runs: int) -> dict:
    """Milliseconds of the processor for one picture: medians."""
    generator = seeded("speed")
    sent = send(profile, USES, generator)
    y = air.propagate(sent.samples, RATE_HZ, snr3k_db=10.0, generator=generator)
    out, back = [], []
    for _ in range(runs + 1):
        times = [time.process_time()]
        modulate(sent.x, sent.header, profile)
        times.append(time.process_time())
        find(y, n_symbols)
        times.append(time.process_time())
        out.append(times[1] - times[0])
        back.append(times[2] - times[1])
    ms = lambda values: round(1e3 * float(np.median(values[1:])), 1)
    return {"profile": profile.name, "uses": USES, "modulate_ms": ms(out), "find_ms": ms(back)}


def audio(seconds: int, generator: np.random.Generator) -> np.ndarray:
    """What is like speech and music: voiced syllables with formants, hisses, chords; float32 [8000 seconds]."""
    out, start = np.zeros(seconds * RATE_HZ), 0
    while start < out.size - RATE_HZ:
        count = round(generator.uniform(0.08, 0.5) * RATE_HZ)
        t = np.arange(count) / RATE_HZ
        kind = generator.choice(["vowel", "vowel", "hiss", "chord"])
        if kind == "vowel":
            pitch = generator.uniform(80, 250) * (1 + generator.uniform(-0.15, 0.15) * t / t[-1])
            formants = generator.uniform([300, 900, 2200], [900, 2200, 3000])
            partial = np.arange(1, int(3700 / pitch.max()) + 1)[:, None]
            gain = np.sum(1 / (1 + ((partial * pitch.mean() - formants) / 90) ** 2), axis=1) + 0.02
            sound = gain @ np.cos(2 * np.pi * partial * np.cumsum(pitch) / RATE_HZ + 0.3 * partial**2)
        elif kind == "hiss":
            spectrum = np.fft.rfft(generator.standard_normal(count))
            sound = np.fft.irfft(spectrum * (np.fft.rfftfreq(count, 1 / RATE_HZ) > generator.uniform(800, 2500)), count)
        else:
            root = 110 * 2 ** (generator.integers(0, 24) / 12)
            tones = np.outer(root * 2 ** (np.array([0, 4, 7, 12]) / 12), np.arange(1, 8)).ravel()
            tones = tones[tones < 3700]
            sound = np.sum(np.cos(2 * np.pi * tones[:, None] * t + generator.uniform(0, 6, (tones.size, 1))), axis=0)
        out[start : start + count] += sound / np.sqrt(np.mean(sound**2)) * np.sqrt(np.hanning(count))
        start += round(count * generator.uniform(0.6, 1.4))
    return (0.1 * out + 1e-3 * generator.standard_normal(out.size)).astype(np.float32)


def false_alarms(kind: str, seconds: int) -> dict:
    generator = seeded("alarms", kind)
    noise = lambda: generator.standard_normal(seconds * RATE_HZ, np.float32)
    samples = noise() if kind == "noise" else audio(seconds, generator)
    start = time.process_time()
    alarms = len(find(samples, n_symbols))
    spent = time.process_time() - start
    return {"kind": kind, "seconds": seconds, "alarms": alarms, "times_real_time": round(seconds / spent)}


def hour() -> dict:
    """An hour of noise from a file: how much memory its search takes."""
    with tempfile.TemporaryDirectory() as folder:
        samples = np.memmap(Path(folder) / "hour", np.float32, "w+", shape=(3600 * RATE_HZ,))
        generator = seeded("hour")
        for start in range(0, samples.size, 60 * RATE_HZ):
            samples[start : start + 60 * RATE_HZ] = generator.standard_normal(60 * RATE_HZ, np.float32)
        samples.flush()
        del samples
        samples = np.memmap(Path(folder) / "hour", np.float32, "r")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        alarms = len(find(samples, n_symbols))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mapped = 3600 * RATE_HZ * 4 / 2**20  # pages of the file count as well, though they can be dropped
    return {"alarms": alarms, "peak_more_mib": round((after - before) / 1024), "file_mib": round(mapped)}


def main() -> None:
    p = argparse.ArgumentParser(description=summary(__doc__))
    p.add_argument("--trials", type=int, default=200)
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    record: dict = {"schema": 1, "command": command_line(), "commit": commit()}
    record["machine"] = {"cpu": cpu_name(), "python": platform.python_version(), "numpy": np.__version__}
    profiles = PROFILES.values()
    record["hour"] = hour()
    record["shape"] = [shape(profile, uses) for profile in profiles for uses in (864, USES, 2050, 4608)]
    record["speed"] = [speed(profile, 10) for profile in profiles]
    record["false_alarms"] = [false_alarms("noise", 1200), false_alarms("speech and music", 600)]
    record["loss"] = [loss(profile, *at, args.trials // 2) for profile in profiles for at in LOSS]
    record["detection"] = [detection(profile, *at, args.trials) for profile in profiles for at in DETECTION]
    record["header"] = [header(profile, HEADER_DB, args.trials) for profile in profiles]
    record["stress"] = [stress(profile, name, max(args.trials // 20, 1)) for profile in profiles for name in STRESS]
    record["long"] = [long_transmission(PROFILES["fast"], path) for path in ("awgn", "watterson-poor")]
    for name, rows in record.items():
        for row in rows if isinstance(rows, list) else [rows]:
            print(name, json.dumps(row), flush=True)
    if args.out:
        write_text(args.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    script(main)
