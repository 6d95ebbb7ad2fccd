"""Pictures by radio, from the command line: sent as signals of every kind, over radio paths, found again in recordings."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from radio_files import FAST, MODEL, RATE_HZ, distance, noise, pixels, rows, save, wav, without_header

from semcast import cli as command_line
from semcast.channels.base import Received
from semcast.commands.reports import noise_level
from semcast.frame import read_frame
from semcast.header import Header, pack, stamp
from semcast.modem.layout import duration_s, lay_out
from semcast.modem.profiles import PROFILES, SYMBOL
from semcast.modem.side import from_air, n_symbols, to_air

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
