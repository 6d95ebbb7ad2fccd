"""What the options about signals do, on the command line."""

import json
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from radio_files import FAST, MODEL, RATE_HZ, SIDE, noise, save, wav, without_header

from semcast.arguments import radio as arguments
from semcast.commands.radio import OPTIONS
from semcast.header import Header
from semcast.modem.layout import duration_s, symbols_within
from semcast.modem.profiles import PROFILES
from semcast.modem.transmit import modulate
from semcast.signals import air, audio, iq


def test_seconds_of_signal_set_the_rungs(radio_folder, cli):
    for seconds, profile in ((0.5, "fast"), (2, "fast"), (2, "narrow")):
        argv = ("--seconds", seconds, "--profile", profile, "--lead", 0.5, "--force", *MODEL)
        code, _, err = cli("send", "a.png", "-o", "x.wav", *argv)
        last = int(err.split("rungs 1-")[1].split(",")[0])
        assert code == 0 and len(wav("x.wav")) <= (seconds + 1) * RATE_HZ
        if last < 24:
            following = Header(0, SIDE, SIDE, 0.75, 1.0).rung_uses[last]
            symbols = int(err.split(" symbols")[0].split(" ")[-1])
            assert (
                duration_s(PROFILES[profile], symbols) <= seconds < duration_s(PROFILES[profile], symbols + following)
            )
    assert last < 24


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_no_more_symbols_fit_into_so_many_seconds(profile):
    for seconds in np.arange(0, 30, 0.01).round(2):
        if count := symbols_within(profile, seconds):
            assert duration_s(profile, count) <= seconds < duration_s(profile, count + 1)


def test_the_level_of_a_channel_is_kept_where_it_is_given(radio_folder, cli):
    for name, level in (("plain", ()), ("low", ("--level", -20)), ("high", ("--level", 20))):
        assert cli("channel", "a.wav", "-o", f"{name}.wav", "--snr3k", 30, *level)[0] == 0
    peak = {name: np.abs(wav(f"{name}.wav")).max() for name in ("plain", "low", "high")}
    assert peak["plain"] == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert peak["low"] == pytest.approx(0.09, abs=0.03) and peak["high"] == pytest.approx(1, abs=1e-3)


def test_the_channel_does_what_its_options_say(radio_folder, cli):
    argv = ("--snr3k", "inf", "--tone", 20, "--tone-hz", 3000, "--clip", 1)
    assert cli("channel", "a.wav", "-o", "tone.wav", *argv) == (0, "", "")
    spectrum = np.abs(np.fft.rfft(wav("tone.wav")))
    assert spectrum.argmax() * RATE_HZ / len(wav("tone.wav")) == pytest.approx(3000, abs=2)
    assert cli("channel", "a.wav", "-o", "ssb.wav", *argv, "--band", "ssb") == (0, "", "")
    spectrum = np.abs(np.fft.rfft(wav("ssb.wav")))
    assert spectrum.argmax() * RATE_HZ / len(wav("ssb.wav")) < 2700
    assert cli("channel", "a.wav", "-o", "slow.wav", "--snr3k", 9, "--clock", 2000, "--rate", 16000)[0] == 0
    assert len(wav("slow.wav")) == pytest.approx(2 * 1.002 * len(wav("a.wav")), abs=2)
    assert cli("channel", "a.wav", "-o", "seed.wav", "--snr3k", 9, "--seed", 5)[0] == 0
    assert cli("channel", "a.wav", "-o", "again.wav", "--snr3k", 9, "--seed", 5)[0] == 0
    assert Path("seed.wav").read_bytes() == Path("again.wav").read_bytes()


def test_info_lists_what_a_recording_holds(radio_folder, cli, monkeypatch):
    save("all.wav", wav("b.wav"), noise(1), without_header("a.wav"))
    code, out, err = cli("info", "all.wav", "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert (code, err) == (0, "") and (first["width"], second["width"]) == (SIDE, None)
    assert first["seconds"] == pytest.approx(duration_s(FAST, 288), abs=1e-3)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _, out, _ = cli("info", "all.wav")
    assert "profile            fast\n" in out and out.count("\n\n") == 2


def test_channels_lists_the_radio_paths(cli):
    code, out, _ = cli("channels")
    assert code == 0 and "rayleigh" in out
    radio = out.split("\nradio paths, for signals (")[1]
    assert all(f"\n{name} " in radio for name in air.PATHS) and all(f"{flag} " in radio for flag in OPTIONS)


def test_the_command_line_names_the_modems_own_figures():
    assert tuple(PROFILES) == arguments.PROFILES
    assert signature(modulate).parameters["lead_s"].default == arguments.LEAD_S
    assert (audio.RATE_HZ, iq.CENTRE_HZ) == (arguments.FILE_RATE_HZ, arguments.FILE_CENTRE_HZ)
    assert {*OPTIONS.values()} == {*air.EFFECTS} - {"adc_bits"}
