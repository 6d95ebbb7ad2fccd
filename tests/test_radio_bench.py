"""benchmarks/radio.py: equal peaks, what its receivers make of a clean signal, and its means."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from semcast.modem.layout import duration_s
from semcast.modem.profiles import HEADER_BYTES, RATE_HZ
from semcast.modem.transmit import modulate
from semcast.modulation import mcs
from semcast.randomness import seeded
from semcast.signals.power import active_power

pytest.importorskip("pysstv", reason="slow-scan television needs the [dev] extra")
import radio
import radio_digital
import radio_signals
import radio_sstv

TONE = (0.5 * np.cos(2 * math.pi * 1250 / RATE_HZ * np.arange(16_000))).astype(np.float32)


def picture(side: int = radio_signals.SIDE) -> np.ndarray:
    """Smooth colours, uint8 [side, side, 3]."""
    small = seeded("radio picture").integers(40, 216, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def test_a_tone_has_no_crest_and_two_tones_have_3_db():
    beat = TONE + (0.5 * np.cos(2 * math.pi * 1750 / RATE_HZ * np.arange(16_000))).astype(np.float32)
    assert radio_signals.peak_power(TONE) == pytest.approx(0.125, rel=1e-4)
    assert radio_signals.peak_power(beat) / active_power(beat, RATE_HZ) == pytest.approx(2, rel=0.01)


def test_the_noise_is_that_of_the_peak_whatever_the_mean():
    """Silence from 2 s on shows the noise: PNR less than the peak in 3 kHz, so 4/3 of it in the whole band."""
    quiet = TONE * np.where(np.arange(16_000) < 8_000, 1, 0.5).astype(np.float32)
    sent = radio_signals.Sent(np.pad(quiet, (0, 80_000)), 0.125, 2.0, None)
    noise = radio_signals.over_path(sent, "awgn", 10.0, "test")[17_000:]
    assert len(noise) == 79_800
    assert np.mean(np.square(noise)) == pytest.approx(0.125 / 10 * 4 / 3, rel=0.03)  # its standard error is 0.5 %


def test_all_signals_meet_the_same_noise():
    short, long = (radio_signals.Sent(np.pad(TONE, (0, count)), 0.125, 2.0, None) for count in (0, 8_000))
    first, second = (radio_signals.over_path(sent, "watterson-poor", 5.0, "test") for sent in (short, long))
    np.testing.assert_allclose(first[:15_000], second[:15_000], atol=1e-5)
    assert not np.allclose(
        first[:15_000], radio_signals.over_path(short, "watterson-poor", 5.0, "other")[:15_000], atol=0.1
    )


def test_robot_36_arrives(monkeypatch):
    monkeypatch.setattr(radio_sstv, "WINDOWS", (3,))
    pixels = picture()
    sent = radio_sstv.send_sstv(pixels)
    assert sent.seconds == pytest.approx(radio_sstv.START_S + radio_sstv.LINES * radio_sstv.LINE_S, abs=0.01)
    assert active_power(sent.samples, RATE_HZ) == pytest.approx(sent.peak, rel=0.01)
    shown = radio_sstv.receive_sstv(sent.samples, sent.known).astype(float)
    assert np.abs(shown - pixels).mean() < 4  # of 255; colour has half the lines


def test_a_packet_arrives_or_is_lost():
    packet = radio_digital.Packet(1152, len(mcs.TABLE) - 1, 1234, 3)
    assert radio_digital.Packet.from_air(packet.to_air()) == packet
    assert radio_digital.Packet.from_air(b"\1" + packet.to_air()[1:]) is None
    assert radio_digital.n_symbols(packet.to_air()) == 1152


def test_expected_snr_is_that_of_the_carriers_with_the_transmitters_distortion():
    assert radio_digital.expected_db(100.0, 4.5) == pytest.approx(radio_digital.SELF_NOISE_DB)
    assert radio_digital.expected_db(-20.0, 4.5) == pytest.approx(-24.5 + 10 * math.log10(3000 / 2250), abs=0.01)


def test_systems_keep_to_their_time():
    x = np.exp(1j * np.arange(1152))
    burst = len(modulate(x, bytes(HEADER_BYTES), radio_signals.PROFILE, radio_signals.LEAD_S)) / RATE_HZ
    assert burst == pytest.approx(duration_s(radio_signals.PROFILE, 1152) + 2 * radio_signals.LEAD_S)
    assert [int(seconds / burst) for seconds in radio_signals.LIMITS_S.values()] == [1, 4, 32]
    assert set(radio_digital.MARGINS_DB) == set(radio_signals.CHANNELS)


def test_means_are_over_pictures():
    shared = {"system": "a", "channel": "awgn", "seconds": 1.0, "pnr_db": 14.5, "own_snr3k_db": 10.0, "lpips": None}
    rows = [shared | {"snr3k_db": s, "psnr_db": p, "lost": p < 15} for s, p in ((10, 20.0), (10, 10.0), (0, 5.0))]
    first, second = radio.means(rows)
    assert (first["psnr_db"], first["lost"], first["lpips"], second["psnr_db"]) == (15.0, 0.5, None, 5.0)


def test_a_strip_keeps_to_its_size():
    noise = seeded("strip").integers(0, 256, (300, 300, 3)).astype(np.uint8)
    assert 20_000 < len(radio.jpeg(noise, 50_000)) <= 50_000


def test_only_what_is_missing_or_of_another_version_is_measured_again(tmp_path, monkeypatch):
    """A stand-in for the signals: what is asked for is counted."""
    asked, out = [], tmp_path / "radio.json"
    versions = {"semcast-ladder": "first"}
    monkeypatch.setattr(radio, "find_system", lambda name: SimpleNamespace(version=lambda: versions[name]))

    def pictures_of(name, pixels, channel, systems):
        for system in systems:
            asked.append((name, system))
            yield {"image": name, "system": system, "channel": channel, "snr3k_db": 0.0, "lost": False}, pixels

    monkeypatch.setattr(radio, "pictures_of", pictures_of)
    monkeypatch.setattr(radio, "means", lambda rows: [])
    for i in range(2):
        Image.fromarray(picture() // (i + 1)).save(tmp_path / f"{i}.png")

    def run(*files: str) -> set:
        asked.clear()
        flags = ["--data", *(tmp_path / file for file in files), "--systems", "semcast 1 s", "Robot 36", "--out", out]
        monkeypatch.setattr(sys, "argv", ["radio.py", *map(str, flags)])
        radio.main()
        return set(asked)

    assert run("0.png") == {("0.png", "semcast 1 s"), ("0.png", "Robot 36")}
    assert run("0.png", "1.png") == {("1.png", "semcast 1 s"), ("1.png", "Robot 36")}
    versions["semcast-ladder"] = "second"
    assert run("0.png", "1.png") == {("0.png", "semcast 1 s"), ("1.png", "semcast 1 s")}
    assert run("0.png", "1.png") == set()
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 8 and rows == radio.in_order(rows)
