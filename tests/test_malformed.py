"""Bad input of every kind is answered in one line that says what is wrong, exit code 2, and leaves no file behind."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import photo

from semcast import load_model
from semcast.channels.noise import awgn
from semcast.frame import MAX_BYTES, write_frame
from semcast.header import stamp
from semcast.link import Link
from semcast.randomness import stream


def make_pictures(zoo: Path) -> None:
    image = Image.fromarray(photo(80, 96))
    for name in ("good.png", "good.jpg", "good.webp", "good.gif"):
        image.save(zoo / name)
        data = (zoo / name).read_bytes()
        (zoo / f"cut{name[4:]}").write_bytes(data[: len(data) // 2])
    png = bytearray((zoo / "good.png").read_bytes())
    png[png.index(b"IDAT") + 300] ^= 1
    (zoo / "flipped.png").write_bytes(png)
    for name, width, height in (("small", 63, 64), ("wide", 8193, 100), ("tall", 64, 8193), ("dot", 1, 1)):
        Image.new("RGB", (width, height)).save(zoo / f"{name}.png")
    header = png[:16] + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (zoo / "bomb.png").write_bytes(header + struct.pack(">I", zlib.crc32(header[12:])) + png[33:])
    comment = b"zTXtk\0\0" + zlib.compress(bytes(50 << 20), 9)  # 50 KB that unpack to 50 MB
    comment = struct.pack(">I", len(comment) - 4) + comment + struct.pack(">I", zlib.crc32(comment))
    good = (zoo / "good.png").read_bytes()
    (zoo / "comment.png").write_bytes(good[:33] + comment + good[33:])
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(zoo / "nan.tif")
    (zoo / "empty.png").write_bytes(b"")
    (zoo / "text.png").write_text("not a picture\n")
    (zoo / "page.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n%%EOF\n")
    shutil.copy(zoo / "good.png", zoo / "same.png")
    shutil.copy(zoo / "good.jpg", zoo / "same.jpg")


def make_frames(zoo: Path) -> None:
    link = Link(load_model(zoo / "tiny"))
    header, x = link.send(np.random.default_rng(0).random((1, 3, 80, 96), np.float32))
    write_frame(zoo / "x.sem", header, x)
    write_frame(zoo / "y.sem", header, awgn(x, 10.0, [stream(0, "channel")]))
    write_frame(zoo / "other.sem", stamp(replace(header, encoder_id=header.encoder_id ^ 1), x), x)
    data = (zoo / "y.sem").read_bytes()
    flipped, newer = bytearray(data), bytearray(data)
    flipped[-1] ^= 1
    newer[4] = 7
    for name, content in (
        ("tail", data + b"\0"),
        ("head", data[:30]),
        ("cut", data[:-9]),
        ("flipped", flipped),
        ("newer", newer),
    ):
        (zoo / f"{name}.sem").write_bytes(content)
    (zoo / "empty.sem").write_bytes(b"")
    (zoo / "zip.sem").write_bytes(b"PK\3\4" + data)
    (zoo / "big.sem").write_bytes(data + bytes(MAX_BYTES))
    shutil.copy(zoo / "x.sem", zoo / "frame.png")


def make_models(zoo: Path, tiny: Path) -> None:
    def model(name: str, **settings) -> Path:
        shutil.copytree(tiny, zoo / name)
        config = json.loads((tiny / "config.json").read_text()) | settings
        (zoo / name / "config.json").write_text(json.dumps(config))
        return zoo / name

    model("tiny")
    (model("m-none") / "config.json").unlink()
    (model("m-json") / "config.json").write_text('{"name": "tiny",')
    (model("m-deep") / "config.json").write_text("[" * 100_000)
    (model("m-list") / "config.json").write_text("[1, 2]")
    model("m-key", sharpness=3)
    model("m-type", steps="ten")
    model("m-steps", steps=0)
    model("m-factor", factor=float("nan"))
    model("m-layer", encoder={"stages": [["dense", 1, 3, 1, 8, 8, 1]], "last_channels": 24})
    weights = (tiny / "encoder.safetensors").read_bytes()
    (model("m-cut") / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    (model("m-part") / "stage_a.safetensors").unlink()
    tensors = load_file(tiny / "encoder.safetensors")
    key = "mapper.0.weight"
    save_file({k: v for k, v in tensors.items() if k != key}, model("m-less") / "encoder.safetensors")
    save_file(tensors | {"extra": torch.zeros(3)}, model("m-more") / "encoder.safetensors")
    save_file(tensors | {key: tensors[key][:5].contiguous()}, model("m-shape") / "encoder.safetensors")
    save_file(tensors | {key: tensors[key].int()}, model("m-int") / "encoder.safetensors")


@pytest.fixture(scope="module")
def zoo(tiny_model, tmp_path_factory) -> Path:
    """A folder with everything that can go wrong, and a few good files."""
    zoo = tmp_path_factory.mktemp("zoo")
    make_pictures(zoo)
    make_models(zoo, tiny_model)
    make_frames(zoo)
    (zoo / "nothing").mkdir()
    (zoo / "dangling").mkdir()
    (zoo / "dangling/x.png").symlink_to("gone.png")
    (zoo / "text.tar").write_text("not a tar file\n")
    with tarfile.open(zoo / "packed.tar", "w:gz") as tar:
        tar.add(zoo / "good.png", "good.png")
    return zoo


SEND, RECEIVE = "-o new.sem --model tiny", "-o new.png --model tiny"
CHANNEL, RUN = "--snr 5 -o new.sem", "--snr 5 --model tiny --out new"
WRITERS = ("send good.png --model tiny", "channel x.sem --snr 5", "receive y.sem --model tiny")
TRAIN = "train --preset autoencoder --out new --data"
CASES = [  # command line, what the answer must contain
    # pictures
    *(
        (f"send {name} {SEND}", f"{name} is a semcast frame, not a picture; `semcast receive` makes a picture of it")
        for name in ("frame.png", "x.sem")
    ),
    (f"send empty.png {SEND}", "empty.png is empty; copy it again"),
    (f"send text.png {SEND}", "text.png: not a picture that can be read"),
    *((f"send cut.{kind} {SEND}", f"cut.{kind}: damaged (image file is truncated") for kind in ("png", "jpg", "gif")),
    *((f"send {name} {SEND}", f"{name}: damaged (") for name in ("cut.webp", "flipped.png")),
    (f"send bomb.png {SEND}", "bomb.png is far too large; more than 209715200 pixels are not decoded"),
    (f"send nan.tif {SEND}", "nan.tif: damaged (pixels are not finite)"),
    (f"send page.png {SEND}", "page.png is PostScript, a program, which is not run; convert it to PNG"),
    *(
        (f"send {name}.png {SEND}", f"picture is {size} pixels; both sides must lie between 64 and 8192, so resize it")
        for name, size in (("small", "63x64"), ("wide", "8193x100"), ("tall", "64x8193"))
    ),
    (f"run dot.png {RUN}", "picture is 1x1 pixels"),
    (f"send nothing {SEND}", "nothing is a folder; name a picture"),
    (f"send gone.png {SEND}", "cannot read gone.png: No such file or directory"),
    (f"run gone.png {RUN}", "cannot read gone.png: No such file or directory"),
    (f"send good.png/x.png {SEND}", "cannot read good.png/x.png: Not a directory"),
    (
        "run good.png --snr 5 --model tiny --out .",
        "good.png is an input and would be overwritten; choose another name",
    ),
    # frames
    (f"channel good.png {CHANNEL}", "good.png is not a semcast frame (it does not start with SEMC)"),
    *(
        (f"receive {n} {RECEIVE}", f"{n} is not a semcast frame (it does not ")
        for n in ("good.png", "empty.sem", "zip.sem")
    ),
    (f"receive head.sem {RECEIVE}", "head.sem is truncated: 30 bytes do not hold the 40-byte header; fetch it again"),
    *(
        (f"receive {n}.sem {RECEIVE}", "where its header says 628; it is truncated or has something appended")
        for n in ("cut", "tail")
    ),
    (f"receive flipped.sem {RECEIVE}", "flipped.sem has damaged samples (CRC mismatch); fetch it again"),
    (
        f"receive newer.sem {RECEIVE}",
        "newer.sem is a frame of version 7; this semcast reads versions 4 to 6, so send it again",
    ),
    (f"receive big.sem {RECEIVE}", f"bytes; the limit for a frame is {MAX_BYTES}"),
    (f"receive nothing {RECEIVE}", "nothing is a folder; name a frame"),
    (f"receive gone.sem {RECEIVE}", "cannot read gone.sem: No such file or directory"),
    (f"receive other.sem {RECEIVE}", "receive it with the sender's model"),
    (f"channel y.sem {CHANNEL}", "y.sem has been through a channel already; start from the frame that was sent"),
    # places to write
    *((f"{line} -o gone/new", "cannot write gone/new: the folder gone does not exist") for line in WRITERS),
    *((f"{line} -o nothing", "cannot write nothing: it is a folder") for line in WRITERS),
    ("run good.png --snr 5 --model tiny --out text.png", "cannot write into text.png: it is not a folder"),
    # numbers and names
    *(
        (f"run good.png {RUN} --snr {v}", f"argument --snr: {v} must lie between -30 and 60")
        for v in ("nan", "inf", "100", "-31")
    ),
    *(
        (f"run good.png {RUN} --steps {v}", f"argument --steps: {v} must lie between 1 and 1000")
        for v in ("0", "-1", "1001")
    ),
    *(
        (f"send good.png {SEND} --factor {v}", f"argument --factor: {v} must lie between 0.5 and 1")
        for v in ("2", "nan", "0.49")
    ),
    *(
        (f"receive y.sem {RECEIVE} --seed {v}", f"argument --seed: {v} must lie between 0 and 4294967295")
        for v in ("-1", "4294967296")
    ),
    (f"run good.png {RUN} --snr abc", "argument --snr: 'abc' is not a number (see `semcast run --help`)"),
    (f"run good.png {RUN} --steps x", "argument --steps: 'x' is not a whole number"),
    (f"run good.png {RUN} --seed 1.5", "argument --seed: '1.5' is not a whole number"),
    (f"run good.png same.png {RUN} --seed 4294967295", "seed 4294967295 + 1 is above 4294967295"),
    (f"run good.png {RUN} --channel rice", "no channel is called 'rice'; there are: awgn, rayleigh, "),
    (f"channel x.sem {CHANNEL} --channel rice", "no channel is called 'rice'; there are: awgn, rayleigh, "),
    (
        f"channel x.sem {CHANNEL} --channel-option taps=3",
        "channel 'awgn' has no option 'taps'; it has: snr_mismatch_db",
    ),
    (
        f"run good.png {RUN} --channel rician --channel-option k=3",
        "channel 'rician' has no option 'k'; it has: k_db, snr_mismatch_db",
    ),
    (
        f"channel x.sem {CHANNEL} --channel rician --channel-option k_db",
        "channel option 'k_db': write NAME=VALUE, where NAME is one of k",
    ),
    (f"channel x.sem {CHANNEL} --channel rician --channel-option k_db=x", "channel option k_db = x is not a number"),
    (
        f"channel x.sem {CHANNEL} --channel rician --channel-option k_db=nan",
        "channel option k_db = nan must lie between -20 and 40",
    ),
    (
        f"channel x.sem {CHANNEL} --channel erasure --channel-option rate=0.6",
        "channel option rate = 0.6 must lie between 0 and 0.5",
    ),
    (
        f"channel x.sem {CHANNEL} --channel tdl-a --channel-option pilots=1.5",
        "channel option pilots = 1.5 is not a whole number",
    ),
    (
        f"channel x.sem {CHANNEL} --channel tdl-a --channel-option estimation=best",
        "channel option estimation = best must be one of ls, lmmse, perfect",
    ),
    (
        f"channel x.sem {CHANNEL} --channel cdl-b --channel-option speed_mps=90 --channel-option carrier_ghz=28",
        "speed_mps and carrier_ghz give a Doppler shift of 8406 Hz; the model holds up to 3000 Hz",
    ),
    ("channels --plot gone/new.png", "cannot write gone/new.png: the folder gone does not exist"),
    (f"run good.png {RUN} --device gpu", "device 'gpu' cannot be used: "),
    (f"send good.png {SEND} --device meta", "device 'meta' cannot be used: "),
    (f"send good.png {SEND} --device cuda:77", "device 'cuda:77' cannot be used: "),
    (f"receive y.sem {RECEIVE} --dtype int8", "argument --dtype: invalid choice: 'int8'"),
    (f"run good.png {RUN} --lpips gone", "--lpips names a folder of weights; gone is not a folder"),
    ("compare good.png same.png --lpips good.png", "--lpips names a folder of weights; good.png is not a folder"),
    ("compare good.png gone.png", "cannot read gone.png: No such file or directory"),
    ("info good.png", "good.png is not a semcast frame"),
    ("info gone.sem", "cannot read gone.sem: No such file or directory"),
    ("completion fish", "argument shell: invalid choice: 'fish'"),
    (f"run good.png {RUN} --snr ten", "argument --snr: 'ten' is not a number"),
    ("run good.png --snr 5 --model tiny -o new.tif", "cannot write new.tif: pictures are written as .avif, .jpeg, "),
    ("run good.png --snr 5 --model tiny -o gone/new.png", "cannot write gone/new.png: the folder gone does not exist"),
    ("run nothing --snr 5 --model tiny --out new", "no pictures in nothing"),
    ("send ftp://x/a.png -o new.sem", "is an address; semcast reads files"),
    # models
    *(
        (f"send good.png -o new.sem --model {n}", f"no model '{n}': it is neither a folder nor one of small, ")
        for n in ("big", "good.png")
    ),
    (
        "send good.png -o new.sem --model stable-cascade-lite",
        "have to be fetched first: `semcast models fetch stable-cascade-lite`",
    ),
    ("send good.png -o new.sem --model m-none", "no model in m-none: config.json is missing"),
    ("send good.png -o new.sem --model m-json", "cannot read m-json/config.json: "),
    ("send good.png -o new.sem --model m-deep", "cannot read m-deep/config.json: "),
    ("send good.png -o new.sem --model m-list", "m-list/config.json is no model description: "),
    ("send good.png -o new.sem --model m-key", "m-key/config.json is no model description: unknown keys sharpness"),
    (
        "send good.png -o new.sem --model m-type",
        "m-type/config.json is no model description: wrong type of steps = 'ten'",
    ),
    ("send good.png -o new.sem --model m-steps", "m-steps/config.json has impossible settings: steps = 0"),
    ("receive y.sem -o new.png --model m-factor", "m-factor/config.json has impossible settings: factor = nan"),
    ("send good.png -o new.sem --model m-layer", "m-layer/config.json describes no network: 'dense'"),
    ("send good.png -o new.sem --model m-cut", "cannot read m-cut/encoder.safetensors: "),
    ("send good.png -o new.sem --model m-part", "m-part/stage_a.safetensors is missing"),
    (
        "send good.png -o new.sem --model m-less",
        "m-less/encoder.safetensors lacks tensor mapper.0.weight; it belongs to another network",
    ),
    ("send good.png -o new.sem --model m-more", "m-more/encoder.safetensors has the unknown tensor extra (1 such)"),
    ("send good.png -o new.sem --model m-shape", "mapper.0.weight is [5, 24, 1, 1], expected [16, 24, 1, 1]"),
    ("send good.png -o new.sem --model m-int", "mapper.0.weight holds int32, expected float32"),
    # training
    (
        "train --preset scsic-512 --out new --data good.png",
        "--preset scsic-512 trains a model that has learnt before; name it with --init",
    ),
    (f"{TRAIN} gone", "no pictures at gone: it is neither a folder nor a tar file nor a picture"),
    (f"{TRAIN} nothing", "no pictures in nothing (.apng, .avif, "),
    (f"{TRAIN} dangling --strict", "dangling/x.png: No such file or directory"),
    (f"{TRAIN} text.tar", "cannot read text.tar: "),
    (f"{TRAIN} packed.tar", "(compressed tar files: unpack them first)"),
    (f"{TRAIN} good.png --set speed=9", "--set speed=9: write NAME=VALUE, where NAME is one of phase, steps, lr, "),
    (f"{TRAIN} good.png --set steps", "--set steps: write NAME=VALUE"),
    (f"{TRAIN} good.png --set steps=1.5", "--set steps=1.5: '1.5' is not a valid int"),
    (f"{TRAIN} good.png --set bf16=maybe", "--set bf16=maybe: 'maybe' is not a valid bool"),
    (
        f"{TRAIN} good.png --set steps=0 --set lr=nan",
        "bad training settings: steps = 0, allowed: 1 or more; lr = nan, allowed: ",
    ),
    (f"{TRAIN} good.png --init large", "no model 'large': "),
    (f"{TRAIN} good.png --init tiny --lpips nothing", "nothing/lpips_vgg.safetensors is missing"),
    (f"{TRAIN} good.png --device gpu", "device 'gpu' cannot be used: "),
    ("train --preset sharper --data good.png --out new", "argument --preset: invalid choice: 'sharper'"),
    # usage
    ("", "the following arguments are required: COMMAND (see `semcast --help`)"),
    ("fly", "argument COMMAND: invalid choice: 'fly'"),
    ("send good.png", "the following arguments are required: -o/--output (see `semcast send --help`)"),
    ("run good.png --model tiny --out new", "the following arguments are required: --snr (see `semcast run --help`)"),
    (f"send good.png {SEND} --fast", "unrecognized arguments: --fast (see `semcast --help`)"),
]


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("line, text", CASES, ids=[line or "no command" for line, _ in CASES])
def test_a_mistake_is_answered_in_one_line_and_leaves_no_file(line, text, zoo, cli, monkeypatch, recwarn):
    monkeypatch.chdir(zoo)
    before = contents(zoo)
    code, out, err = cli(*line.split())
    assert text in err and err.startswith("semcast: ") and err.count("\n") == 1 and err.endswith("\n")
    assert (code, out) == (2, "") and "Traceback" not in err
    assert contents(zoo) == before
    assert not recwarn.list  # a warning would be a second line


def test_the_good_files_are_accepted(zoo, cli, tmp_path, monkeypatch):
    """The table proves nothing if its commands fail for another reason."""
    monkeypatch.chdir(zoo)
    for line in (
        "send good.png -o {}/x.sem --model tiny",
        "channel x.sem -o {}/y.sem --snr 5",
        "receive y.sem -o {}/z.png --model tiny",
    ):
        assert cli(*line.format(tmp_path).split()) == (0, "", "")
    assert sorted(os.listdir(tmp_path)) == ["x.sem", "y.sem", "z.png"]


def test_a_file_without_read_permission_is_answered_in_one_line(zoo, cli, tmp_path):
    path = tmp_path / "x.png"
    shutil.copy(zoo / "good.png", path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user (root) reads files without permission")
    assert cli("send", path, "-o", tmp_path / "new.sem") == (2, "", f"semcast: cannot read {path}: Permission denied\n")


def test_installed_program_exits_with_2_and_one_line(zoo):
    program = shutil.which("semcast", path=Path(sys.executable).parent)
    command = [program, "send", "text.png", *SEND.split()]
    result = subprocess.run(command, cwd=zoo, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "semcast: text.png: not a picture that can be read\n"
    help = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=300)
    assert help.returncode == 0 and help.stdout.startswith("usage: semcast") and help.stderr == ""
