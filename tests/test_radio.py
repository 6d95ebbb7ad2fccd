"""Pictures by radio, from the command line: sent as signals of every kind, over radio paths, found again in recordings."""

import io
import json
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY_ENHANCEMENT, photo, tiny_cascade
from PIL import Image

from semcast import cli as command_line
from semcast.arguments import radio as arguments
from semcast.cascade.checkpoint import save_model
from semcast.cascade.model import Cascade
from semcast.channels.base import Received
from semcast.commands.listening import first_whole
from semcast.commands.radio import OPTIONS, SUFFIXES
from semcast.commands.reports import noise_level
from semcast.frame import read_frame
from semcast.header import Header, pack, stamp
from semcast.images import to_image
from semcast.modem.layout import duration_s, lay_out, symbols_within
from semcast.modem.profiles import PROFILES, SYMBOL
from semcast.modem.side import from_air, n_symbols, to_air
from semcast.modem.transmit import modulate
from semcast.signals import air, audio, iq, sound_card

SIDE = 256
RATE_HZ = 8000
MODEL = ("--model", "tiny")
FAST = PROFILES["fast"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A model with all rungs, two pictures, and what `send` makes of them."""
    store = tmp_path_factory.mktemp("radio")
    save_model(attentive(tiny_cascade(enhancement=TINY_ENHANCEMENT)), store / "tiny")
    for i, name in enumerate("ab"):
        Image.fromarray(photo(SIDE, SIDE, i)).save(store / f"{name}.png")
        for suffix in ("sem", "wav"):
            argv = ["send", store / f"{name}.png", "-o", store / f"{name}.{suffix}", "--model", store / "tiny", "-q"]
            assert command_line.main([str(word) for word in argv]) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("semcast.link.receive", paint)
            argv = ["receive", store / f"{name}.sem", "-o", store / f"{name}-frame.png", "--model", store / "tiny"]
            assert command_line.main([str(word) for word in argv]) == 0
    return store


def attentive(cascade: Cascade) -> Cascade:
    """With a Z that tells pictures apart: the last normalisation of a random encoder knows no picture yet."""
    images = torch.from_numpy(np.concatenate([to_image(photo(SIDE, SIDE, seed)) for seed in range(8)]))
    norm: Any = cascade.encoder.mapper[1]
    z = cascade.encoder(images)  # [8, 16, 8, 8]
    norm.running_mean += z.mean((0, 2, 3)) * torch.sqrt(norm.running_var)
    norm.running_var *= z.var((0, 2, 3))
    return cascade


def paint(header, layers, *_) -> np.ndarray:
    """In place of the networks, of which tiny random ones hardly look at what arrived: it is shown as it is.

    The 16 channels of Z are red tiles of the picture, those of the layers above are green and blue.
    """
    tiles = np.full((3, 4, SIDE // 4, 4, SIDE // 4), 0.5)
    for colour, layer, scale in zip(tiles, layers, (0.7, 0.2, 0.2)):  # about what they are
        side = SIDE // 4
        rows = np.arange(side) * layer.z.shape[-1] // side
        colour += scale * layer.z[0].reshape(4, 4, *layer.z.shape[-2:])[..., rows, :][..., rows].transpose(0, 2, 1, 3)
    return tiles.reshape(1, 3, SIDE, SIDE).clip(0, 1).astype(np.float32)


@pytest.fixture
def folder(store, tmp_path, monkeypatch) -> Path:
    """A working folder with links to all that, where received symbols are painted."""
    monkeypatch.setattr("semcast.link.receive", paint)
    monkeypatch.chdir(tmp_path)
    for path in store.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def wav(name: str) -> np.ndarray:
    return soundfile.read(name, dtype="float32")[0]


def save(name: str, *pieces: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> None:
    soundfile.write(name, np.concatenate(pieces), rate_hz, subtype)


def noise(seconds: float, level: float = 0.05, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE_HZ)).astype(np.float32)


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name), dtype=float)


def distance(a: str, b: str) -> float:
    return float(np.sqrt(np.mean((pixels(a) - pixels(b)) ** 2)))


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def near(folder):
    """near(picture, name) sees whether it is nearly what the frame of `name`.png gives, and not the other's."""
    other = {"a": "b", "b": "a"}

    def check(picture: str, name: str = "a", share: float = 0.35) -> bool:
        apart = distance("a-frame.png", "b-frame.png")
        assert apart > 10
        return distance(picture, f"{name}-frame.png") < share * apart < distance(picture, f"{other[name]}-frame.png")

    return check


# From picture to picture


@pytest.mark.parametrize(
    "profile, form, options",
    [
        ("fast", "wav", ()),
        ("narrow", "wav", ()),
        ("fast", "flac", ("--rate", 48000)),
        ("narrow", "sigmf-meta", ("--rate", 12000)),
        ("fast", "sigmf", ("--centre", 0)),
        ("fast", "cfile", ("--rate", 48000, "--centre", 1000)),
    ],
)
def test_a_picture_travels_by_radio(profile, form, options, near, cli):
    code, out, err = cli("send", "a.png", "-o", f"x.{form}", "--profile", profile, *options, *MODEL)
    seconds = duration_s(PROFILES[profile], 288)
    assert (code, out) == (0, "")
    assert err == f"semcast: {seconds:.1f} s of signal, profile {profile}, rungs 1-8, 288 symbols\n"
    path = ("--channel", "watterson-good", "--snr3k", 30, "--seed", 2)
    effects = ("--offset", 60, "--clock", 40)
    assert cli("channel", f"x.{form}", "-o", f"y.{form}", *path, *effects, *options) == (0, "", "")
    code, out, err = cli("receive", f"y.{form}", "-o", "y.png", *options, *MODEL, "--report", "y.json")
    assert (code, out) == (0, "") and near("y.png")
    (row,) = rows("y.json")
    assert err.startswith(f"semcast: y.{form} at 0.2 s: {profile}, 256x256 pixels, rungs 1-8, Es/N0 ")
    assert row["profile"] == profile and row["rungs"] == [1, 8] and row["symbols"] == 288
    assert row["start_s"] == pytest.approx(0.2, abs=0.002) and row["offset_hz"] == pytest.approx(60, abs=1)
    assert row["header"] == to_air(read_frame(Path("a.sem"))[0]).hex()


@pytest.fixture
def pipe(monkeypatch):
    """pipe(stdin, "send", ...) -> what the command writes to stdout."""

    def call(data: bytes, *argv) -> bytes:
        written = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
            patch.setattr(sys, "stdout", io.TextIOWrapper(written))
            assert command_line.main([str(word) for word in argv]) == 0
            return written.getvalue()

    return call


def test_raw_samples_travel_through_pipes(near, pipe, capsys):
    sent = pipe(Path("a.png").read_bytes(), "send", "-", "-o", "-", "--profile", "fast", *MODEL, "-q")
    assert len(sent) == 2 * round((0.4 + duration_s(FAST, 288)) * RATE_HZ)
    arrived = pipe(sent, "channel", "-", "-o", "-", "--snr3k", 25)
    assert arrived != sent and len(arrived) == len(sent)
    Path("y.png").write_bytes(pipe(arrived, "receive", "-", "-o", "-", *MODEL, "-q"))
    assert near("y.png")
    frame = pipe(b"", "receive", "a.sem", "-o", "-", *MODEL)  # stdin that begins like a frame still is one
    assert pipe(Path("a.sem").read_bytes(), "receive", "-", "-o", "-", *MODEL) == frame
    assert capsys.readouterr().err == ""
    done = subprocess.run([sys.executable, "-m", "semcast", "info", "-"], input=arrived, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and json.loads(done.stdout)["rungs"] == [1, 8]


def test_two_pictures_in_one_recording(near, cli):
    save("all.wav", noise(1), wav("b.wav"), noise(2, seed=1), wav("a.wav"), noise(1, seed=2))
    code, out, err = cli("receive", "all.wav", "-o", "y.png", *MODEL, "--json")
    assert code == 0 and near("y-1.png", "b") and near("y-2.png", "a") and not Path("y.png").exists()
    first, second = (json.loads(line)["start_s"] for line in out.splitlines())
    assert first == pytest.approx(1.2, abs=0.01) and second == pytest.approx(3.6 + duration_s(FAST, 288), abs=0.01)
    assert f"semcast: 2 pictures, from all.wav at {first:.1f} s, all.wav at {second:.1f} s\n" in err
    assert cli("receive", "all.wav", "-o", "z.png", *MODEL, "-q", "--pick", 2) == (0, "", "")
    assert (pixels("z.png") == pixels("y-2.png")).all()
    told = "semcast: --pick 3, and pictures found: 2\n"
    assert cli("receive", "all.wav", "-o", "n.png", *MODEL, "-q", "--pick", 3) == (2, "", told)
    told = "semcast: 2 pictures were found, and - takes one; choose with --pick N\n"
    assert cli("receive", "all.wav", "-o", "-", *MODEL, "-q") == (2, "", told)
    Path("n-2.png").write_bytes(b"mine")
    told = "semcast: n-2.png exists; choose another name, or --force to replace it\n"
    assert cli("receive", "all.wav", "-o", "n.png", *MODEL, "-q") == (2, "", told)
    assert not Path("n-1.png").exists() and Path("n-2.png").read_bytes() == b"mine"


def test_two_recordings_beat_one(near, cli):
    for seed in (1, 2):
        assert cli("channel", "a.wav", "-o", f"{seed}.wav", "--snr3k", 3, "--seed", seed)[0] == 0
        assert cli("receive", f"{seed}.wav", "-o", f"{seed}.png", *MODEL, "-q", "--report", f"{seed}.json")[0] == 0
    code, _, err = cli("receive", "1.wav", "2.wav", "-o", "both.png", *MODEL)
    assert code == 0 and err.count(" at 0.2 s: fast") == 2
    level = float(err.split("semcast: both.png: from 2 receptions; noise of rungs 1-8 ")[1])
    assert level < 0.7 * min(rows(f"{seed}.json")[0]["noise"] for seed in (1, 2))
    assert distance("both.png", "a-frame.png") < min(distance(f"{seed}.png", "a-frame.png") for seed in (1, 2))


def test_the_same_recording_counts_once(near, cli):
    assert cli("channel", "a.wav", "-o", "y.wav", "--snr3k", 10)[0] == 0
    for other in ("y.wav", "z.wav"):
        save("z.wav", noise(1), 0.3 * wav("y.wav"))  # later and weaker, which makes it another reception, hardly
        assert cli("receive", "y.wav", "-o", "one.png", *MODEL, "-q", "--force")[0] == 0
        code, _, err = cli("receive", "y.wav", other, "-o", "two.png", *MODEL, "--force")
        assert code == 0 and " carries the same noise as " in err and " so it adds nothing\n" in err
        assert near("two.png", share=0.6)


def test_recordings_and_frames_together(near, cli):
    assert cli("channel", "a.wav", "-o", "y.wav", "--snr3k", 3)[0] == 0
    assert cli("channel", "a.sem", "-o", "y.sem", "--snr", 3)[0] == 0
    code, _, err = cli("receive", "y.sem", "y.wav", "-o", "y.png", *MODEL)
    assert code == 0 and float(err.split("y.png: from 2 receptions; noise of rungs 1-8 ")[1]) == pytest.approx(
        0.2, abs=0.03
    )


def test_rungs_of_several_transmissions_in_one_recording(near, cli):
    for run in ("1-5", "6-8", "9-16"):
        assert cli("send", "a.png", "-o", f"{run}.wav", "--rungs", run, *MODEL, "-q")[0] == 0
    save("base.wav", wav("6-8.wav"), noise(1), wav("1-5.wav"))
    code, _, err = cli("receive", "base.wav", "-o", "base.png", *MODEL)
    assert code == 0 and "rungs 6-8" in err and "rungs 1-5" in err and near("base.png")
    assert cli("receive", "1-5.wav", "-o", "part.png", *MODEL, "-q")[0] == 0
    assert distance("base.png", "a-frame.png") < 0.7 * distance("part.png", "a-frame.png")
    assert cli("receive", "base.wav", "9-16.wav", "-o", "more.png", *MODEL, "-q")[0] == 0
    assert distance("more.png", "base.png") > 0.5
    code, out, err = cli("receive", "9-16.wav", "-o", "none.png", *MODEL, "-q")
    assert (code, out) == (2, "") and "rungs above 8 refine a picture; give the transmission of its first" in err
    save("mixed.wav", wav("9-16.wav"), noise(1), wav("b.wav"))
    code, out, err = cli("receive", "mixed.wav", "-o", "mixed.png", *MODEL, "-q")  # the other picture is made
    assert code == 2 and "mixed.wav at 0.2 s: rungs above 8" in err and near("mixed-2.png", "b")
    assert err.endswith("semcast: 1 of 2 pictures could not be made\n") and not Path("mixed-1.png").exists()


# What is left of a recording


def test_a_recording_that_starts_late(near, cli):
    late = wav("a.wav")[round(0.3 * RATE_HZ) :]
    save("late.wav", noise(0.5), late)
    code, _, _ = cli("receive", "late.wav", "-o", "y.png", *MODEL, "--report", "y.json")
    assert code == 0 and near("y.png", share=0.6) and rows("y.json")[0]["header_from"] == "end"
    assert rows("y.json")[0]["start_s"] == pytest.approx(0.4, abs=0.01)


def test_a_recording_that_ends_early(near, cli):
    layout = lay_out(FAST, 288)
    save("early.wav", wav("a.wav")[: round(0.2 * RATE_HZ) + int(layout.data_at[-5])])
    assert cli("receive", "early.wav", "-o", "y.png", *MODEL, "--report", "y.json")[0] == 0
    (row,) = rows("y.json")
    assert row["header_from"] == "front" and 0.1 < row["noise"] < 0.6 and near("y.png", share=0.95)


def without_header(name: str) -> np.ndarray:
    """The signal, with noise where the header is."""
    samples, layout = wav(name), lay_out(FAST, 288)
    for part in layout.header_parts:
        for at in layout.data_at[part] + round(0.2 * RATE_HZ):
            samples[at : at + SYMBOL] = noise(SYMBOL / RATE_HZ, 0.2, seed=int(at))
    return samples


def test_a_header_that_was_lost_may_come_from_elsewhere(near, cli):
    save("y.wav", noise(0.5), without_header("a.wav"), noise(0.5))
    code, out, err = cli("receive", "y.wav", "-o", "y.png", *MODEL, "--report", "y.json")
    assert (code, out) == (3, "") and not Path("y.png").exists()
    notice, last = err.splitlines()
    assert notice.startswith("semcast: y.wav at 0.7 s: fast, header damaged, Es/N0 ")
    told = "semcast: the header of the transmission in y.wav at 0.7 s is damaged; give it with --header"
    assert last == told and rows("y.json")[0]["header"] is None
    given = pack(read_frame(Path("a.sem"))[0])
    for i, header in enumerate(("a.sem", given.hex(), given.hex().upper() + "00")):
        code, _, _ = cli("receive", "y.wav", "-o", f"{i}.png", *MODEL, "--header", header, "--report", f"{i}.json")
        assert code == 0 and near(f"{i}.png") and rows(f"{i}.json")[0]["header_from"] == "caller"
    assert json.loads(cli("info", "y.wav", "--header", "a.sem")[1])["rungs"] == [1, 8]
    save("z.wav", noise(0.5), without_header("a.wav"), noise(0.5), wav("b.wav"))
    code, _, err = cli("receive", "z.wav", "-o", "z.png", *MODEL)  # the other is received
    assert code == 0 and "header damaged" in err and near("z.png", "b")


@pytest.mark.parametrize(
    "make",
    [
        lambda x: save("y.wav", np.stack([noise(len(x) / RATE_HZ, 1e-3), x], axis=1)),
        lambda x: save("y.wav", x, subtype="PCM_24"),
        lambda x: save("y.wav", 0.1 + 0.5 * x, subtype="FLOAT"),
        lambda x: save("y.wav", np.clip(2.5 * x, -1, 1)),
        lambda x: save("y.wav", 1e-3 * x),
        lambda x: Path("y.wav").write_bytes(Path("a.wav").read_bytes()[:-1001]),
    ],
    ids=["stereo", "24 bits", "float with an offset", "clipped", "quiet", "cut off"],
)
def test_recordings_as_people_make_them(make, near, cli):
    make(wav("a.wav"))
    assert cli("receive", "y.wav", "-o", "y.png", *MODEL, "-q") == (0, "", "")
    assert near("y.png", share=0.6)


def test_receptions_with_symbols_that_did_not_arrive_are_combined(near, cli):
    layout = lay_out(FAST, 288)
    middle = round(0.2 * RATE_HZ) + int(layout.data_at[7])
    save("first.wav", wav("a.wav")[:middle])
    save("second.wav", wav("a.wav")[middle - 2 * SYMBOL :])
    assert cli("receive", "first.wav", "second.wav", "-o", "y.png", *MODEL, "-q") == (0, "", "")
    assert near("y.png")


# Mistakes


@pytest.fixture
def zoo(folder, cli):
    save("silent.wav", np.zeros(8000, np.float32))
    save("noise.wav", noise(10))
    Path("empty.wav").write_bytes(b"")
    Path("text.wav").write_text("not a recording\n")
    Path("none.wav").write_bytes(Path("a.wav").read_bytes()[:44])
    Path("odd.cfile").write_bytes(np.full(8000, np.nan, np.complex64).tobytes())
    Path("x.ogg").write_bytes(b"")
    assert cli("send", "a.png", "-o", "pair.sigmf-meta", *MODEL, "-q")[0] == 0
    assert cli("send", "a.png", "-o", "packet.sem", "--mode", "digital", "--bytes", 300, *MODEL, "-q")[0] == 0
    Image.fromarray(photo(64, 64)).save("dot.png")
    return folder


SEND, RECEIVE, CHANNEL = "--model tiny", "-o new.png --model tiny", "-o new.wav"
LOST = [
    (f"receive silent.wav {RECEIVE}", "no transmission was found in silent.wav"),
    (f"receive noise.wav silent.wav {RECEIVE}", "no transmission was found in noise.wav, silent.wav"),
    ("info noise.wav", "no transmission was found in noise.wav"),
]
MISTAKES = [
    (f"receive empty.wav {RECEIVE}", "empty.wav is empty; was the recording stopped at once?"),
    (f"receive text.wav {RECEIVE}", "cannot read text.wav: "),
    (f"receive none.wav {RECEIVE}", "none.wav holds no samples; was the recording stopped at once?"),
    (f"receive odd.cfile {RECEIVE}", "odd.cfile holds samples that are no numbers"),
    (f"receive gone.wav {RECEIVE}", "cannot read gone.wav: No such file or directory"),
    (f"receive a.wav gone.sem {RECEIVE}", "cannot read gone.sem: No such file or directory"),
    (f"receive a.wav b.png {RECEIVE}", "b.png is not a semcast frame (it does not start with SEMC)"),
    (f"receive a.wav packet.sem {RECEIVE}", "packet.sem holds a packet, which does not mix with recordings"),
    ("receive a.wav -o new.wav --model tiny", "cannot write new.wav: pictures are written as .avif, .jpeg, "),
    ("receive a.wav -o a.wav --model tiny --force", "a.wav is what is to be read; it would be overwritten"),
    (f"receive a.wav {RECEIVE} --report a.wav --force", "a.wav is what is to be read; it would be overwritten"),
    (f"receive pair.sigmf-meta {RECEIVE} --report pair.sigmf-data --force", "pair.sigmf-data is what is to be read"),
    (f"receive a.wav {RECEIVE} --report a.png", "a.png exists; choose another name, or --force to replace it"),
    (f"receive a.wav {RECEIVE} --report new.png", "--report and -o both name new.png"),
    (f"receive a.wav {RECEIVE} --header 1234", "--header 1234 is no header of analog symbols, which has 12 or 13"),
    (f"receive a.wav {RECEIVE} --header gone.sem", "cannot read gone.sem: No such file or directory"),
    (f"receive a.wav {RECEIVE} --header packet.sem", "packet.sem is a packet, which is not sent by radio"),
    (f"receive a.wav {RECEIVE} --pick 2 --report new.json", "--pick 2, and pictures found: 1"),
    (f"receive a.wav {RECEIVE} --model gone", "no model 'gone': "),
    (f"receive a.wav {RECEIVE} --listen 3", "--listen records from the sound card; give no files with it"),
    (f"receive a.sem {RECEIVE} --pick 1", f"--pick is for recordings ({SUFFIXES} ...), and there are only frames"),
    (f"receive a.sem {RECEIVE} --report new.json", "--report is for recordings ("),
    (f"receive a.sem {RECEIVE} --json", "--json is for recordings ("),
    (f"receive {RECEIVE}", "name a frame or a recording, or give --listen (see `semcast receive --help`)"),
    (f"receive - - {RECEIVE}", "stdin holds one frame; give - once"),
    ("info a.sem --header a.sem", "--header is for recordings ("),
    ("info empty.wav", "empty.wav is empty"),
    # send
    (f"send a.png -o x.ogg {SEND} --force", "cannot write x.ogg: signals are written as .wav, .flac, .sigmf-meta, "),
    (f"send a.png -o new.sem --profile fast {SEND}", "cannot write new.sem: signals are written as .wav, .flac, "),
    (f"send a.png -o new.wav --mode digital --bytes 300 {SEND}", "a packet is not sent by radio, whose modem carries"),
    (f"send a.png -o new.sem --seconds 3 {SEND}", "--seconds is for signals; give --profile, --play or -o X with one"),
    (f"send a.png -o new.sem --lead 1 {SEND}", "--lead is for signals; give --profile, --play or -o X with one of "),
    (f"send a.png -o new.wav --rate 4000 {SEND}", "--rate 4000 is too low for the modem, which needs 8000 at least"),
    (f"send a.png -o new.wav --rate 9000000 {SEND}", "9e+06 samples a second cannot be written; 4000 to 768000 can"),
    (f"send a.png -o new.wav --seconds 0.3 {SEND}", "--seconds 0.3 is too short: 0.37 s, profile fast, hold a rung"),
    (f"send a.png -o new.wav --seconds 3 --uses 9 {SEND}", "argument --uses: not allowed with argument --seconds"),
    (f"send a.png -o new.wav --profile wide {SEND}", "argument --profile: invalid choice: 'wide'"),
    (f"send dot.png -o new.wav {SEND}", "dot.png makes 8 symbols; a transmission has 16 to 50000, so enlarge it"),
    (f"send a.png {SEND}", "the following arguments are required: -o/--output (see `semcast send --help`)"),
    (f"send a.png -o pair.sigmf-data {SEND}", "pair.sigmf-data exists; choose another name, or --force"),
    (f"send a.png -o gone/new.wav {SEND}", "cannot write gone/new.wav: the folder gone does not exist"),
    # channel
    (f"channel a.wav {CHANNEL} --snr 5", "a.wav is a signal, and --snr is Es/N0 of a frame's symbols; give --snr3k DB"),
    (f"channel a.wav {CHANNEL}", "a.wav is a signal; give --snr3k DB, its power over that of the noise in 3 kHz"),
    ("channel a.sem -o new.sem --snr3k 5", f"a.sem is no signal ({SUFFIXES}), and --snr3k is for those; give --snr DB"),
    (
        "channel a.sem -o new.sem",
        "give --snr DB for a frame, or --snr3k DB for a signal (see `semcast channel --help`)",
    ),
    (f"channel a.wav {CHANNEL} --snr3k 5 --channel tdl-a", "channel tdl-a is for the symbols of a frame; on signals "),
    (
        f"channel a.wav {CHANNEL} --snr3k 5 --channel rice",
        "no radio path is called 'rice'; there are: awgn, watterson-",
    ),
    (
        f"channel a.wav {CHANNEL} --snr3k 5 --channel-option x=1",
        "--channel-option is for frames; `semcast channel --help`",
    ),
    ("channel a.sem -o new.sem --snr 5 --channel watterson-poor", "channel watterson-poor is for signals ("),
    *(
        (f"channel a.sem -o new.sem --snr 5 {flag} {'ssb' if flag == '--band' else 1}", f"{flag} is for signals (")
        for flag in OPTIONS
    ),
    ("channel a.sem -o new.sem --snr 5 --rate 9000", "--rate is for signals ("),
    ("channel a.sem -o new.wav --snr 5", "a.sem is a frame, and stays one; new.wav names a signal, which `send` can"),
    ("channel a.wav -o new.sem --snr3k 5", "cannot write new.sem: signals are written as .wav, "),
    ("channel a.wav -o a.wav --snr3k 5 --force", "a.wav is what is to be read; it would be overwritten"),
    ("channel pair.sigmf-meta -o pair.sigmf-data --snr3k 5 --force", "pair.sigmf-data is what is to be read"),
    (f"channel silent.wav {CHANNEL} --snr3k 5", "the signal is silent or damaged, so that no SNR can be set"),
    (f"channel a.wav {CHANNEL} --snr3k x", "argument --snr3k: 'x' is not a number"),
    (f"channel a.wav {CHANNEL} --snr3k nan", "argument --snr3k: nan must lie between -40 and inf"),
    (f"channel a.wav {CHANNEL} --snr3k 5 --offset 3000", "argument --offset: 3000 must lie between -2000.0 and 2000.0"),
    (f"channel a.wav {CHANNEL} --snr3k 5 --band am", "argument --band: invalid choice: 'am'"),
    (f"channel a.wav {CHANNEL} --snr3k 5 --tone-hz 900", "--tone-hz says where a tone is; give its power, too: --tone"),
    (f"channel a.wav {CHANNEL} --snr3k 5 --tone 0 --tone-hz 5000", "--tone-hz 5000 lies beyond the signal, which ends"),
]


def test_mistakes_are_answered_in_one_line_and_leave_no_file(zoo, cli, monkeypatch):
    monkeypatch.setattr(sound_card, "_portaudio", lambda: pytest.fail("played"))
    before = {path.name: path.lstat().st_mtime_ns for path in zoo.iterdir()}
    for line, text in [*MISTAKES, *LOST]:
        code, out, err = cli(*line.split(), *(() if line.startswith("info") else ("-q",)))
        assert text in err and err.startswith("semcast: ") and err.count("\n") == 1, (line, err)
        assert (code, out) == (3 if (line, text) in LOST else 2, ""), line
        assert {path.name: path.lstat().st_mtime_ns for path in zoo.iterdir()} == before, line


# What the options do


def test_seconds_of_signal_set_the_rungs(folder, cli):
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


def test_the_level_of_a_channel_is_kept_where_it_is_given(folder, cli):
    for name, level in (("plain", ()), ("low", ("--level", -20)), ("high", ("--level", 20))):
        assert cli("channel", "a.wav", "-o", f"{name}.wav", "--snr3k", 30, *level)[0] == 0
    peak = {name: np.abs(wav(f"{name}.wav")).max() for name in ("plain", "low", "high")}
    assert peak["plain"] == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert peak["low"] == pytest.approx(0.09, abs=0.03) and peak["high"] == pytest.approx(1, abs=1e-3)


def test_the_channel_does_what_its_options_say(folder, cli):
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


def test_info_lists_what_a_recording_holds(folder, cli, monkeypatch):
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


# The header on the air


@pytest.mark.parametrize("rungs, size", [((1, 8), 12), ((1, 24), 13), ((9, 16), 13)])
def test_headers_of_both_lengths_are_thirteen_bytes_on_the_air(rungs, size):
    header = Header(0x1234, 300, 400, 0.75, 0.5, transmission_id=77, first_rung=rungs[0], last_rung=rungs[1])
    data = to_air(header)
    assert len(data) == 13 and len(pack(header)) == size and from_air(data) == header
    assert n_symbols(data) == header.channel_uses
    for bit in range(13 * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 128 >> bit % 8
        assert from_air(bytes(damaged)) is None and n_symbols(bytes(damaged)) is None
    assert from_air(bytes(13)) is None


def test_packets_are_not_announced_on_the_air():
    assert n_symbols(to_air(stamp(Header(1, 300, 400, 0.75, 1.0, scheme=3), b"xy"))) is None


def test_the_noise_level_counts_what_did_not_arrive():
    y = np.ones((1, 4), np.complex64)
    h = np.array([[1, 1, 2, 0]], np.complex64)
    assert noise_level(Received(y, h, np.array([[0, 1, 4, np.inf]], np.float32))) == pytest.approx((0.5 + 0.5 + 1) / 4)
    assert noise_level(Received(y, h[:, :1], np.array([[3]], np.float32))) == pytest.approx(0.75)


# The sound card


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


def test_a_signal_is_played(folder, cli, air_waves):
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


def test_listening_for_long_keeps_the_end(folder, monkeypatch):
    monkeypatch.setattr("semcast.commands.listening.KEPT_S", 5.0)
    blocks = [noise(1, seed=i) for i in range(20)] + [wav("a.wav"), noise(2)]
    (reception,), since_s = first_whole(blocks, None)
    assert since_s > 14 and since_s + reception.start / RATE_HZ == pytest.approx(20.2, abs=0.01)


def test_a_sound_card_of_files(folder, cards):
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
