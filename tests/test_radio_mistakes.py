"""Mistakes with signals and recordings on the command line: each is one line, and leaves no file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from radio_files import MODEL, noise, save
from tiny import photo

from semcast.commands.radio import OPTIONS, SUFFIXES
from semcast.signals import sound_card


@pytest.fixture
def zoo(radio_folder, cli):
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
    return radio_folder


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
    ("receive a.wav -o a.wav --model tiny --force", "a.wav is an input and would be overwritten"),
    (f"receive a.wav {RECEIVE} --report a.wav --force", "a.wav is an input and would be overwritten"),
    (f"receive pair.sigmf-meta {RECEIVE} --report pair.sigmf-data --force", "pair.sigmf-data is an input and would be"),
    (f"receive a.wav {RECEIVE} --report a.png", "a.png exists; choose another name, or --force to replace it"),
    (f"receive a.wav {RECEIVE} --report new.png", "--report and -o both name new.png"),
    (f"receive a.wav {RECEIVE} --header 1234", "--header 1234 is no header of analog symbols, which has 12 or 13"),
    (f"receive a.wav {RECEIVE} --header gone.sem", "cannot read gone.sem: No such file or directory"),
    (f"receive a.wav {RECEIVE} --header packet.sem", "packet.sem is a packet, which is not sent by radio"),
    (f"receive a.wav {RECEIVE} --pick 2 --report new.json", "--pick 2, and pictures found: 1"),
    (f"receive a.wav {RECEIVE} --model gone", "no model 'gone': "),
    (f"receive a.wav {RECEIVE} --listen 3", "--listen records from the sound card; give no files with it"),
    (f"receive a.sem {RECEIVE} --pick 1", f"--pick is for recordings ({SUFFIXES} ...), and only frames were given"),
    (f"receive a.sem {RECEIVE} --report new.json", "--report is for recordings ("),
    (f"receive a.sem {RECEIVE} --json", "--json prints what was measured of a recording, and the errors that "),
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
    ("channel a.wav -o a.wav --snr3k 5 --force", "a.wav is an input and would be overwritten"),
    ("channel pair.sigmf-meta -o pair.sigmf-data --snr3k 5 --force", "pair.sigmf-data is an input and would be"),
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
