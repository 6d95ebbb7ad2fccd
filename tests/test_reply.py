"""Asking again: what a reply says is what the sender reads, and what it sends then makes the picture better."""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY_ENHANCEMENT, photo, tiny_cascade

from semcast import Link, load_model, read_image
from semcast.cascade.checkpoint import save_model
from semcast.errors import InputError
from semcast.files import write_bytes
from semcast.frame import noiseless, read_frame, read_frames
from semcast.header import FACTOR_UNIT, RUNGS, Header
from semcast.modulation.analog import Estimate
from semcast.modulation.modems import demodulate
from semcast.modulation.reply import (
    REPLY_BITS,
    SIDE_BITS,
    SNR_ABOVE,
    SNR_MAX_DB,
    SNR_MIN_DB,
    WISHES,
    Reply,
    advise,
    pack,
    pack_bits,
    read_reply,
    round_snr,
    unpack,
    wish_at,
    write_reply,
)

REPLY = Reply(0xBEEF, 0.75, 18, 8, 9.5, "more")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reply")
    save_model(tiny_cascade(enhancement=TINY_ENHANCEMENT), path)
    return path


@pytest.fixture
def folder(model, cli, tmp_path, monkeypatch) -> Path:
    """A working folder with a photo, its base as sent and as received at 3 dB."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(model)
    Image.fromarray(photo(128, 128)).save("a.png")
    assert cli("send", "a.png", "-o", "a.sem", *TINY) == (0, "", "")
    assert cli("channel", "a.sem", "-o", "ay.sem", "--snr", 3)[0] == 0
    return tmp_path


TINY = ("--model", "tiny")


def receive(cli, *frames, wish=None, output="p.png", reply="r.reply") -> dict:
    """What `info` says of the reply to frames."""
    wishes = () if wish is None else ("--wish", wish)
    code, out, err = cli("receive", *frames, "-o", output, "--reply", reply, "--force", *wishes, *TINY)
    assert (code, out) == (0, "") and err.startswith(f"semcast: {reply}: ") and err.count("\n") == 1
    return json.loads(cli("info", reply)[1])


# The bytes


def test_every_value_of_every_field_is_read_as_it_was_written():
    steps = np.arange(SNR_MIN_DB, SNR_MAX_DB + 0.5, 0.5)
    replies = [REPLY._replace(encoder_id=i) for i in (0, 1, 0x8000, 0xFFFF)]
    replies += [REPLY._replace(factor=i / FACTOR_UNIT) for i in range(64, 129)]
    replies += [REPLY._replace(transmission_id=i) for i in range(128)]
    replies += [REPLY._replace(last_rung=i) for i in range(1, RUNGS + 1)]
    replies += [REPLY._replace(last_rung=0, snr_db=None)]
    replies += [REPLY._replace(snr_db=snr_db) for snr_db in (None, math.inf, *steps.tolist())]
    replies += [REPLY._replace(wish=wish) for wish in WISHES]
    packed = {pack(reply): reply for reply in replies}
    assert all(len(data) == 8 and unpack(data) == reply for data, reply in packed.items())
    assert len(packed) == len(set(replies)) and len(steps) == SNR_ABOVE - 1 and SIDE_BITS == 64


def test_the_bits_are_those_of_the_protocol():
    table = (Path(__file__).parent.parent / "PROTOCOL.md").read_text().split("## Asking again")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\w, ]+) \| ([\d +]+) \|", table, re.M)
    bits = {
        name: int(count)
        for names, counts in rows
        for name, count in zip(names.split(", "), counts.split(" + "), strict=True)
    }
    assert [*bits.items()] == [*REPLY_BITS.items()] and f"| **{SIDE_BITS}** |" in table
    assert f"`{pack(REPLY).hex(' ')}`" in table and f"costs {SIDE_BITS} bits" in table


def test_snrs_are_rounded_to_half_a_decibel_and_kept_in_range():
    given = [-99.0, -30.3, -0.3, 9.74, 9.76, 32.7, 32.8, 60.0, math.inf]
    assert [round_snr(snr_db) for snr_db in given] == [-30, -30, -0.5, 9.5, 10, 32.5, math.inf, math.inf, math.inf]
    assert [unpack(pack(REPLY._replace(snr_db=x))).snr_db for x in given] == [round_snr(x) for x in given]


def test_wrong_bits_are_found():
    data = pack(REPLY)
    for count in (1, 2):
        for bits in itertools.combinations(range(64), count):
            damaged = int.from_bytes(data, "big") ^ sum(1 << bit for bit in bits)
            with pytest.raises(InputError, match="^r is a damaged reply"):
                unpack(damaged.to_bytes(8, "big"), "r")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"version": 2}, "version = 2"),
        ({"factor": 65}, "factor = 1.0078125"),
        ({"last_rung": 25}, "last_rung = 25"),
        ({"last_rung": 0}, "snr = 80"),
        ({"wish": 3}, "wish = 3"),
    ],
)
def test_what_cannot_be_is_refused(fields, told):
    good = {"version": 1, "encoder_id": 1, "factor": 32, "transmission_id": 1, "last_rung": 8, "snr": 80, "wish": 1}
    assert unpack(pack_bits(good, REPLY_BITS)).snr_db == 9.5
    with pytest.raises(InputError, match=f"^r has an impossible reply: {told}$"):
        unpack(pack_bits(good | fields, REPLY_BITS), "r")


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "is not a reply of semcast"),
        (b"SEMC" + pack(REPLY), "is not a reply of semcast"),
        (b"SEMR" + pack(REPLY)[:-1], "is a damaged reply"),
        (b"SEMR" + pack(REPLY) + b"\0", "has 13 bytes; the limit for a reply is 12"),
        (b"SEMR" + bytes(10**6), "has 1000004 bytes; the limit for a reply is 12"),
        (b"SEMR" + pack(REPLY)[:-1] + b"\0", "is a damaged reply"),
        (None, "cannot read r: No such file"),
    ],
)
def test_files_that_hold_no_reply_are_refused_in_one_line(content, told, folder, cli):
    write_reply(Path("good"), REPLY)
    assert read_reply(Path("good")) == REPLY and Path("good").read_bytes() == b"SEMR" + pack(REPLY)
    if content is not None:
        write_bytes(Path("r"), content)
    code, out, err = cli("send", "a.png", "-o", "x.sem", "--reply", "r", *TINY)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1 and not Path("x.sem").exists()
    assert cli("info", "r")[0] == 2


# What a receiver answers


def layers(header: Header, noises: dict[int, float]) -> list[Estimate]:
    """Estimates with this noise of these rungs, and nothing known of the others."""
    found = []
    for i, shape in enumerate(header.layer_shapes):
        noise = np.ones((1, *shape), np.float32)
        for rung, level in noises.items():
            if 0 <= rung - 1 - 8 * i < 8:
                noise[:, rung - 1 - 8 * i :: 8] = level
        found.append(Estimate(np.zeros_like(noise), noise))
    return found


def test_a_reply_tells_what_arrived_from_the_first_rung_on():
    header = Header(7, 128, 128, 0.75, 1.0, transmission_id=0x3FF)
    tell = lambda noises: advise(header, layers(header, noises))
    base = dict.fromkeys(range(1, 9), 0.2)
    assert tell(base) == Reply(7, 0.75, 0x7F, 8, 6.0, wish_at(8, 6.0))
    assert tell(base | {10: 0.1}).last_rung == 8  # a rung after a gap
    assert tell(base | {9: 0.5}).last_rung == 9
    assert tell({2: 0.1}) == Reply(7, 0.75, 0x7F, 0, None, "more")
    assert tell(dict.fromkeys(range(1, 25), 0.0)) == Reply(7, 0.75, 0x7F, 24, math.inf, "enough")
    many = tell(base | dict.fromkeys(range(9, 17), 0.5))  # 8 rungs of 9 symbols, and 8 of 64
    assert many.snr_db == round_snr(10 * math.log10(1 / ((9 * 0.2 + 64 * 0.5) / 73) - 1))
    assert advise(header, layers(header, base), wish="enough").wish == "enough"


def test_the_rule():
    assert all(wish_at(last, -30.0) == "again" and wish_at(last, math.inf) == "more" for last in range(1, RUNGS))
    limits = {1: 1.0, 8: 8.0, 9: -2.0}
    for last, limit in ((1, 1.0), (7, 1.0), (8, 8.0), (9, -2.0), (23, -2.0)):
        assert wish_at(last, limit - 0.5, 24, limits) == "again" and wish_at(last, limit, 24, limits) == "more"
    assert wish_at(24, 20) == wish_at(8, 20, top=8) == "again" and wish_at(8, 20) == "more"
    assert wish_at(24, math.inf) == wish_at(8, math.inf, top=8) == "enough"
    assert wish_at(0, None) == wish_at(5, None) == "more"


# The commands, and back


def error(link: Link, *frames: str) -> float:
    """Mean square error of what is known of all layers."""
    known = [layer.z for layer in demodulate(link.modems, read_frames([Path(name) for name in frames]))[1]]
    header, x = link.send(read_image("a.png"), rungs=(1, RUNGS))
    sent = [layer.z for layer in demodulate(link.modems, [(noiseless(x), header)])[1]]
    known += [np.zeros_like(z) for z in sent[len(known) :]]
    return float(np.mean([np.square(a - b).mean() for a, b in zip(known, sent)]))


def test_more_extends_the_stream(folder, model, cli):
    row = receive(cli, "ay.sem", wish="more")
    assert (row["wish"], row["last_rung"], row["side_bits"]) == ("more", 8, 64) and abs(row["snr_db"] - 3) <= 1
    assert row["encoder_id"] == json.loads(cli("info", "a.sem")[1])["encoder_id"]
    first = Path("p.png").read_bytes()
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "b.sem", *TINY) == (0, "", "")
    assert json.loads(cli("info", "b.sem")[1])["rungs"] == [9, 9]  # 72 uses arrived, and rung 9 has 64
    assert cli("channel", "b.sem", "-o", "by.sem", "--snr", 3, "--seed", 1)[0] == 0
    row = receive(cli, "ay.sem", "by.sem", wish="more", output="q.png")
    assert row["last_rung"] == 9 and Path("q.png").read_bytes() != first
    link = Link(load_model(model))
    assert error(link, "ay.sem", "by.sem") < 0.99 * error(link, "ay.sem")
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "c.sem", "--uses", 800, *TINY)[0] == 0
    assert json.loads(cli("info", "c.sem")[1])["rungs"] == [10, 17]  # 7 of 64, one of 256


def test_again_makes_what_is_known_less_noisy(folder, model, cli):
    before = receive(cli, "ay.sem", wish="again")
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "b.sem", *TINY) == (0, "", "")
    assert Path("b.sem").read_bytes() == Path("a.sem").read_bytes()
    assert cli("channel", "b.sem", "-o", "by.sem", "--snr", 3, "--seed", 1)[0] == 0
    after = receive(cli, "ay.sem", "by.sem", wish="again")
    assert after["last_rung"] == 8 and after["snr_db"] == pytest.approx(before["snr_db"] + 3, abs=0.51)
    link = Link(load_model(model))
    assert error(link, "ay.sem", "by.sem") < error(link, "ay.sem")
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "c.sem", "--uses", 30, *TINY)[0] == 0
    assert json.loads(cli("info", "c.sem")[1])["rungs"] == [1, 3]  # of 9 symbols each
    assert cli("channel", "c.sem", "-o", "cy.sem", "--snr", 3, "--seed", 2)[0] == 0
    assert receive(cli, "ay.sem", "by.sem", "cy.sem")["snr_db"] >= after["snr_db"]
    assert error(link, "ay.sem", "by.sem", "cy.sem") < error(link, "ay.sem", "by.sem")


def test_the_wish_is_the_rules_unless_the_receiver_says_another(folder, cli):
    row = receive(cli, "ay.sem")
    assert row["wish"] == wish_at(8, row["snr_db"])
    assert all(receive(cli, "ay.sem", wish=wish)["wish"] == wish for wish in WISHES)


def test_nothing_is_sent_once_it_is_enough(folder, cli):
    told = "semcast: a.png has arrived well enough; nothing more is to be sent\n"
    receive(cli, "ay.sem", wish="enough")
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "x.sem", *TINY) == (0, "", told)
    receive(cli, "ay.sem", wish="again")
    ask = ("send", "a.png", "--reply", "r.reply", "-o", "x.sem", "--quality")
    assert cli(*ask, 0, *TINY) == (0, "", told) and not Path("x.sem").exists()
    assert cli(*ask, 0.999, *TINY) == (0, "", "")  # the same again
    assert json.loads(cli("info", "x.sem")[1])["rungs"] == [1, 8]
    receive(cli, "ay.sem", wish="more")
    code, out, err = cli(*ask, 0.999, "--force", *TINY)
    assert (code, out) == (2, "") and "all 24 rungs reach" in err


def test_quality_goes_on_from_what_arrived(folder, cli, monkeypatch):
    receive(cli, "ay.sem", wish="more")
    asked = []
    monkeypatch.setattr("semcast.commands.rate.quality_at", lambda *a: asked.append(a[3:]) or a[4] / 24)
    monkeypatch.setattr("semcast.commands.asking.quality_at", lambda *a: a[4] / 24)
    code, _, err = cli("send", "a.png", "--reply", "r.reply", "-o", "x.sem", "--quality", 0.5, *TINY)
    assert code == 0 and err.startswith("semcast: rungs 1-12 reach 0.500 at ")
    assert json.loads(cli("info", "x.sem")[1])["rungs"] == [9, 12]
    assert all(last > 8 and abs(snr_db - 3) <= 1 for snr_db, last in asked)


def test_a_reply_about_another_picture_or_encoder_is_refused(folder, model, cli):
    receive(cli, "ay.sem")
    Image.fromarray(photo(128, 128, seed=1)).save("b.png")
    cascade = tiny_cascade(seed=1, enhancement=TINY_ENHANCEMENT)
    save_model(cascade, folder / "other")
    for image, name, told in (
        ("b.png", "tiny", "r.reply is about another picture than b.png\n"),
        ("a.png", "other", "send with the model of the first transmission\n"),
    ):
        code, out, err = cli("send", image, "--reply", "r.reply", "-o", "x.sem", "--model", name)
        assert (code, out) == (2, "") and err.endswith(told) and err.count("\n") == 1
        assert not Path("x.sem").exists()


def test_a_factor_is_remembered(folder, cli):
    assert cli("send", "a.png", "-o", "f.sem", "--factor", 1, *TINY)[0] == 0
    assert cli("channel", "f.sem", "-o", "fy.sem", "--snr", 3)[0] == 0
    assert receive(cli, "fy.sem", wish="again")["factor"] == 1
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "x.sem", *TINY)[0] == 0
    assert read_frame(Path("x.sem"))[0].factor == 1
    code, _, err = cli("send", "a.png", "--reply", "r.reply", "-o", "x.sem", "--factor", 0.5, "--force", *TINY)
    assert (code, err) == (2, "semcast: r.reply is about a picture that was sent with --factor 1\n")


def test_all_rungs_can_be_sent_again_but_not_gone_on_from(folder, cli):
    assert cli("send", "a.png", "-o", "w.sem", "--rungs", "1-24", *TINY)[0] == 0
    assert receive(cli, "w.sem") | {"wish": "enough", "snr_db": "inf", "last_rung": 24} == receive(cli, "w.sem")
    receive(cli, "w.sem", wish="more")
    code, _, err = cli("send", "a.png", "--reply", "r.reply", "-o", "x.sem", *TINY)
    assert code == 2 and "all 24 rungs have arrived" in err
    assert cli("send", "a.png", "-o", "z.sem", "--rungs", "3-8", *TINY)[0] == 0
    assert receive(cli, "z.sem") | {"wish": "more", "snr_db": None, "last_rung": 0} == receive(cli, "z.sem")
    assert cli("send", "a.png", "--reply", "r.reply", "-o", "x.sem", *TINY)[0] == 0
    assert json.loads(cli("info", "x.sem")[1])["rungs"] == [1, 8]
    code, _, err = cli("send", "a.png", "--reply", "r.reply", "-o", "y.sem", "--quality", 0.5, *TINY)
    assert code == 2 and "r.reply knows none" in err


def test_a_recording_is_answered_too(folder, cli):
    Image.fromarray(photo(256, 256)).save("c.png")
    assert cli("send", "c.png", "-o", "c.wav", "--quiet", *TINY)[0] == 0
    assert cli("channel", "c.wav", "-o", "cy.wav", "--snr3k", 15)[0] == 0
    ask = ("receive", "cy.wav", "-o", "c2.png", "--reply", "c.reply", "--wish", "more", "--quiet", *TINY)
    assert cli(*ask) == (0, "", "")
    reply = read_reply(Path("c.reply"))
    assert reply.last_rung == 8 and reply.snr_db is not None and 5 < reply.snr_db < 25
    code, _, err = cli("send", "c.png", "--reply", "c.reply", "-o", "d.wav", "--seconds", 1, *TINY)
    assert code == 0 and "rungs 9-" in err
    code, _, err = cli("receive", "cy.wav", "ay.sem", "-o", "e.png", "--reply", "e.reply", *TINY)
    assert code == 2 and "2 pictures were found, and a reply is about one; choose with --pick N" in err
    assert not Path("e.reply").exists()


@pytest.mark.parametrize(
    "line, told",
    [
        ("send a.png -o x.sem --reply r --rungs 1-8", "--rungs is what --reply says"),
        ("send a.png -o x.sem --reply r --snr 3 --quality 0.5", "--snr is what --reply says"),
        ("send a.png -o x.sem --reply r --mode digital --bytes 99", "so there is no --reply to it"),
        ("send - -o x.sem --reply -", "stdin"),
        ("receive ay.sem -o p.png --wish more", "--wish is for a reply; give --reply R with it"),
        ("receive ay.sem -o p.png --reply p.png", "--reply and another option both name p.png"),
        ("receive ay.sem -o p.png --reply ay.sem", "ay.sem is an input and would be"),
        ("receive ay.sem -o p.png --reply a.sem", "a.sem exists"),
        ("receive ay.sem -o p.png --reply r --wish less", "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(line, told, folder, cli):
    write_reply(Path("r.reply"), REPLY)
    code, out, err = cli(*line.replace("--reply r ", "--reply r.reply ").split(), *TINY)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    assert not Path("p.png").exists() and not Path("x.sem").exists()


def test_packets_are_not_asked_for_again(folder, cli):
    assert cli("send", "a.png", "-o", "d.sem", "--mode", "digital", "--bytes", 60, *TINY)[0] == 0
    code, _, err = cli("receive", "d.sem", "-o", "d.png", "--reply", "d.reply", *TINY)
    assert code == 2 and "a packet arrives whole or is lost" in err and not Path("d.png").exists()


def test_a_person_reads_a_reply_as_text(folder, cli, monkeypatch):
    receive(cli, "ay.sem", wish="again")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = dict(line.split() for line in cli("info", "r.reply")[1].splitlines())
    assert lines["wish"] == "again" and lines["last_rung"] == "8" and lines["side_bits"] == "64"
