"""Pictures through a sound card: `send --play` and `receive --listen`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from radio_files import MODEL, RATE_HZ, SIDE, noise, rows, wav

from semcast.commands.listening import first_whole
from semcast.signals import sound_card


@pytest.fixture
def air_waves(monkeypatch):
    """A sound card that plays into a list, and hears what is put into another, in blocks of 0.1 s."""
    played, heard = [], []
    monkeypatch.setattr(sound_card, "check_card", lambda device, kind: played.append((device, kind)))
    monkeypatch.setattr(sound_card, "play", lambda samples, device: played.append((samples, device)))

    def listen(seconds, device):
        samples = np.concatenate(heard)
        for start in range(0, len(samples) if seconds is None else min(len(samples), round(seconds * RATE_HZ)), 800):
            yield samples[start : start + 800]
            played.append(start)

    monkeypatch.setattr(sound_card, "listen", listen)
    return played, heard


def test_a_signal_is_played(radio_folder, cli, air_waves):
    played, _ = air_waves
    code, out, err = cli("send", "a.png", "--play", *MODEL)
    assert (code, out) == (0, "") and "s of signal, profile fast, rungs 1-8" in err
    assert played[0] == (None, "output") and played[1][1] is None
    expected = wav("a.wav")
    assert np.abs(played[1][0] * np.abs(expected).max() / np.abs(played[1][0]).max() - expected).max() < 1e-3
    assert cli("send", "a.png", "-o", "x.wav", "--play", "USB", *MODEL, "-q") == (0, "", "")
    assert played[2:][0] == ("USB", "output") and played[3][1] == "USB"
    assert Path("x.wav").read_bytes() == Path("a.wav").read_bytes()


def test_listening_ends_with_the_transmission(near, cli, air_waves):
    played, heard = air_waves
    heard += [noise(5.3), wav("b.wav"), noise(200)]
    code, out, err = cli("receive", "--listen", "-o", "y.png", *MODEL, "--json", "--device-in", "USB")
    assert code == 0 and near("y.png", "b") and played[0] == ("USB", "input")
    assert json.loads(out)["start_s"] == pytest.approx(5.5, abs=0.01)
    assert played[-1] / RATE_HZ < 8.5 and err.startswith(
        "semcast: listening; Ctrl-C stops\nsemcast: sound card at 5.5 s"
    )
    code, out, err = cli("receive", "--listen", 2, "-o", "z.png", *MODEL)
    assert code == 3 and err.endswith("semcast: no transmission was heard in 2 s\n") and not Path("z.png").exists()
    assert cli("receive", "--listen", 5.85, "-o", "z.png", *MODEL, "-q") == (0, "", "")  # its beginning is something
    assert cli("receive", "--listen", 2, "-o", "y.png", *MODEL)[0] == 2  # exists


def test_only_a_terminal_sees_the_waterfall(near, cli, air_waves, monkeypatch):
    _, heard = air_waves
    heard += [wav("a.wav"), noise(3)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    for quiet, lines in (((), 2), (("-q",), 0)):
        code, _, err = cli("receive", "--listen", "-o", f"{lines}.png", *MODEL, *quiet)
        assert code == 0 and err.count("|500 ") == bool(lines)
        drawn = [line for line in err.splitlines() if len(line) == 75 and "|" not in line]
        assert len(drawn) >= lines if lines else not drawn


def test_listening_for_long_keeps_the_end(radio_folder, monkeypatch):
    monkeypatch.setattr("semcast.commands.listening.KEPT_S", 5.0)
    blocks = [noise(1, seed=i) for i in range(20)] + [wav("a.wav"), noise(2)]
    (reception,), since_s = first_whole(blocks, None)
    assert since_s > 14 and since_s + reception.start / RATE_HZ == pytest.approx(20.2, abs=0.01)


def test_a_sound_card_of_files(radio_folder, cards):
    """Sent and received through PortAudio, whose devices are files here."""

    def semcast(*argv) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "semcast", *map(str, argv)]
        return subprocess.run(command, env=cards, capture_output=True, text=True, timeout=60)

    done = semcast("send", "a.png", "--play", "to_file", *MODEL, "-q")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    raw = np.fromfile("out.raw", "<i2") / np.float32(32768)
    np.pad(raw, (0, 5 * 48000)).astype("<f4").tofile("in.raw")
    listening = ("receive", "--listen", 4, "--device-in", "from_file", "-o", "y.png", "--report", "y.json", *MODEL)
    done = semcast(*listening)
    assert done.returncode == 0, done.stderr
    assert rows("y.json")[0]["noise"] < 0.05 and Image.open("y.png").size == (SIDE, SIDE)
    done = semcast("receive", "--listen", "--device-in", "absent", "-o", "z.png", *MODEL)
    assert done.returncode == 2 and "semcast: no sound card with an input is called 'absent'" in done.stderr
