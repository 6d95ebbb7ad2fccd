"""The sound card, through ALSA's own devices that are files; the waterfall."""

import subprocess
import sys

import numpy as np
import pytest

from semcast.errors import InputError
from semcast.signals import sound_card
from semcast.signals.waterfall import COLOURS, SHADES, axis, spectrum, waterfall

RATE_HZ = 8000


def tone(hz: float, seconds: float = 1.0, rate_hz: float = RATE_HZ) -> np.ndarray:
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * t) * np.sin(np.pi * t / seconds) ** 2).astype(np.float32)


@pytest.fixture
def card(cards):
    """card(code) runs code in a process whose sound cards are files in tmp_path -> stdout, stderr."""

    def call(code: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", "import numpy as np\nfrom semcast.signals.sound_card import *\n" + code],
            env=cards,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout, done.stderr

    return call


def test_a_signal_is_played_to_the_end(card, tmp_path):
    np.save(tmp_path / "x.npy", tone(1200))
    out, err = card(f"print(devices())\nplay(np.load({str(tmp_path / 'x.npy')!r}), 'TO_f')")
    assert not err and "('to_file', " in out
    raw = np.fromfile(tmp_path / "out.raw", "<i2") / 32768
    for rate_hz in (44100, 48000):  # PortAudio names the card's own rate
        expected = tone(1200, rate_hz=rate_hz)
        if len(raw) >= len(expected) and len(raw) - len(expected) < 2000:
            break
    expected *= 10 ** (-1 / 20) / 0.5
    assert np.abs(raw[: len(expected)] - expected).max() < 1e-3
    assert not raw[len(expected) + 1 :].any()


def test_what_comes_in_is_heard_block_by_block(card, tmp_path):
    sound = np.concatenate([tone(1200, 1, 48000), tone(1200, 1, 44100)])  # enough for either rate
    sound.astype("<f4").tofile(tmp_path / "in.raw")
    code = f"""
blocks = list(listen(0.5, 'from_file'))
print(*[len(block) for block in blocks])
np.save({str(tmp_path / "y.npy")!r}, np.concatenate(blocks))"""
    out, err = card(code)
    lengths = [int(word) for word in out.split()]
    assert sum(lengths) == 4000 and max(lengths) <= 1600 and "Traceback" not in err
    found = np.load(tmp_path / "y.npy")
    rates = [48000, 44100]
    assert min(np.abs(found - tone(1200 * rate / 48000, 48000 / rate)[:4000]).max() for rate in rates) < 1e-2


def test_unknown_cards_are_named(card):
    _, err = card("play(np.ones(9, np.float32), 'absent')")
    assert "InputError: no sound card with an output is called 'absent'; there are: " in err
    assert "to_file" in err


def test_a_computer_without_sound_says_so(monkeypatch):
    def portaudio():
        class Nothing:
            query_devices = staticmethod(list)

        return Nothing

    monkeypatch.setattr(sound_card, "_portaudio", portaudio)
    with pytest.raises(InputError, match="this computer has no sound card with an input; connect one, or use a file"):
        next(sound_card.listen(1))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="the sound card needs sounddevice: pip install"):
        sound_card.devices()


# The waterfall


@pytest.mark.parametrize("hz", [100, 1480, 2960])
def test_a_tone_stands_where_its_frequency_is(hz):
    noise = np.random.default_rng(0).normal(0, 1e-3, 4000)
    line = waterfall(noise + np.sin(2 * np.pi * hz / RATE_HZ * np.arange(4000)))
    assert len(line) == 75 and set(line) <= set(SHADES)
    assert abs(line.index("@") - int(hz / 40)) <= 1 and line.count("@") <= 3
    assert line.count(" ") > 40


def test_noise_is_nearly_blank_and_does_not_depend_on_the_level():
    noise = np.random.default_rng(0).normal(0, 1, 8000)
    line = waterfall(noise)
    assert set(line) <= set(" .")
    assert waterfall(1000 * noise) == line
    assert waterfall(np.zeros(100)) == " " * 75 == waterfall(np.zeros(0))


def test_a_sine_has_the_power_of_its_amplitude():
    sine = 0.5 * np.sin(2 * np.pi * 1000 / RATE_HZ * np.arange(RATE_HZ))
    assert spectrum(sine, RATE_HZ, 75, 3000).max() == pytest.approx(0.25, rel=1e-3)
    assert spectrum(sine, RATE_HZ, 600, 3000).max() == pytest.approx(0.25, rel=1e-3)  # columns narrower than lines


def test_colours_and_the_axis():
    sine = np.sin(2 * np.pi * 1500 / RATE_HZ * np.arange(4000))
    line = waterfall(sine, colour=True)
    assert line.count(" ") == 75 and line.endswith("\x1b[0m") and f"48;5;{COLOURS[-1]}m" in line
    assert axis() == "|0          |500         |1000       |1500        |2000       |2500        "
    assert [axis(150)[int(hz / 20)] for hz in (0, 500, 1500)] == ["|"] * 3
