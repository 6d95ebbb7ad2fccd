"""The command line as a user meets it: nothing is overwritten, streams, folders, several SNRs, odd places to run in."""

import io
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny import photo

import semcast
from semcast.commands.run import show
from semcast.errors import brings
from semcast.images import read_image
from semcast.process import WAITING

SIDE = 96


@pytest.fixture
def folder(tiny_model, tmp_path, monkeypatch) -> Path:
    """A working folder with pictures, frames and the model `tiny`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_model)
    for i, name in enumerate(("a.png", "b.png", "c.jpg")):
        Image.fromarray(photo(SIDE, SIDE, i)).save(name)
    return tmp_path


@pytest.fixture
def frames(folder, cli) -> Path:
    assert cli("send", "a.png", "-o", "x.sem", "--model", "tiny") == (0, "", "")
    assert cli("channel", "x.sem", "-o", "y.sem", "--snr", 10) == (0, "", "")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


RUN = ("--model", "tiny", "--quiet")


# nothing of the user's is lost


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("other", ["same", "link", "hard link", "path"])
@pytest.mark.parametrize("command", ["send", "channel", "receive", "run"])
def test_an_input_is_never_overwritten(command, other, force, frames, cli):
    name = {"send": "a.png", "channel": "x.sem", "receive": "y.sem", "run": "a.png"}[command]
    output = {"same": name, "path": f"../{frames.name}/{name}"}.get(other, f"other{Path(name).suffix}")
    if other == "link":
        Path(output).symlink_to(name)
    if other == "hard link":
        os.link(name, output)
    before = files(frames)
    options = {"send": RUN, "channel": ("--snr", 5), "receive": RUN, "run": (*RUN, "--snr", 5)}[command]
    code, out, err = cli(command, name, "-o", output, *options, *force)
    assert (code, out) == (2, "") and files(frames) == before
    if command != "receive":  # whose output must be a picture, which is refused first where it is not
        assert err == f"semcast: {output} is an input and would be overwritten; choose another name\n"


@pytest.mark.parametrize(
    "line",
    [
        "send a.png -o old.sem --model tiny",
        "channel x.sem -o old.sem --snr 5",
        "receive y.sem -o old.png --model tiny",
        "run a.png --snr 5 -o old.png --model tiny --quiet",
    ],
)
def test_a_file_that_exists_is_replaced_only_by_force(line, frames, cli):
    output = next(word for word in line.split() if word.startswith("old"))
    Path(output).write_bytes(b"mine")
    told = f"semcast: {output} exists; choose another name, or --force to replace it\n"
    assert cli(*line.split()) == (2, "", told)
    assert Path(output).read_bytes() == b"mine"
    code, _, err = cli(*line.split(), "--force")
    assert (code, err) == (0, "") and Path(output).stat().st_size > 100


def test_run_does_not_replace_a_neighbour_or_an_earlier_result(folder, cli):
    Image.fromarray(photo(SIDE, SIDE)).save("a.jpg")
    neighbour = Path("a.png").read_bytes()
    code, _, err = cli("run", "a.jpg", "--snr", 10, "--out", ".", *RUN)
    assert code == 2 and "a.png exists" in err and Path("a.png").read_bytes() == neighbour
    assert cli("run", "a.jpg", "--snr", 10, *RUN)[0] == 0
    first = Path("out/a.png").read_bytes()
    assert cli("run", "a.jpg", "--snr", 1, *RUN)[0] == 2 and Path("out/a.png").read_bytes() == first
    assert cli("run", "a.jpg", "--snr", 1, "--force", *RUN)[0] == 0 and Path("out/a.png").read_bytes() != first


# several pictures and SNRs


def rows(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("snrs", [("--snr", 5, "1e1", "c.jpg"), ("c.jpg", "--snr", 5, "--snr", 10)])
def test_several_snrs_in_one_run(snrs, folder, cli):
    code, out, err = cli("run", *snrs, *RUN)
    assert (code, err) == (0, "")
    assert [(row["snr_db"], row["output"]) for row in rows(out)] == [(5, "out/c_5dB.png"), (10, "out/c_10dB.png")]
    assert cli("run", "c.jpg", "--snr", 10, "-o", "alone.png", *RUN)[0] == 0
    assert Path("alone.png").read_bytes() == Path("out/c_10dB.png").read_bytes()


def test_a_negative_snr_may_have_an_exponent(folder, cli):
    code, out, _ = cli("run", "a.png", "--snr", "-1e1", *RUN)
    assert code == 0 and rows(out)[0]["snr_db"] == -10


def test_a_folder_is_run_with_its_subfolders(folder, cli):
    for path in ("in/x/a.png", "in/y/a.png", "in/y/a.jpg", "in/._a.png", "in/notes.txt"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("c.jpg" if path.endswith("jpg") else "a.png", path)
    code, out, err = cli("run", "in", "--snr", 10, "--out", "in/out", *RUN)
    assert (code, err) == (0, "")
    written = ["in/out/x/a.png", "in/out/y/a_jpg.png", "in/out/y/a_png.png"]
    assert sorted(row["output"] for row in rows(out)) == written
    code, out, err = cli(
        "run", "in", "--snr", 10, "--out", "in/out", *RUN, "--force"
    )  # results are not pictures to send
    assert code == 0 and sorted(row["output"] for row in rows(out)) == written
    (folder / "empty").mkdir()
    assert cli("run", "empty", "--snr", 10, *RUN) == (2, "", "semcast: no pictures in empty\n")
    code, _, err = cli("run", "in/x", "--snr", 10, "--out", "in/x", *RUN)
    assert code == 2 and "in/x/a.png is an input and would be" in err


def test_two_pictures_of_one_stem_have_two_results(folder, cli):
    Image.fromarray(photo(SIDE, SIDE)).save("a.jpg")
    code, out, _ = cli("run", "a.png", "a.jpg", "--snr", 10, *RUN)
    assert code == 0 and [row["output"] for row in rows(out)] == ["out/a_png.png", "out/a_jpg.png"]
    (folder / "sub").mkdir()
    shutil.copy("a.png", "sub/a.png")
    code, out, err = cli("run", "a.png", "sub/a.png", "--snr", 10, "--out", "new", *RUN)
    assert (code, out) == (2, "") and "two pictures would be written to new/a_png.png" in err
    assert not Path("new").exists()


def test_one_bad_picture_is_named_and_the_others_go_on(folder, cli):
    Path("b.png").write_bytes(Path("b.png").read_bytes()[:300])
    Image.new("RGB", (40, 90)).save("small.png")
    code, out, err = cli("run", "a.png", "b.png", "small.png", "c.jpg", "--snr", 10, *RUN)
    assert code == 2 and [row["image"] for row in rows(out)] == ["a.png", "c.jpg"]
    first, second, last = err.splitlines()
    assert first.startswith("semcast: b.png: damaged (")
    assert second == (
        "semcast: small.png: picture is 40x90 pixels; both sides must lie between 64 and 8192, so resize it"
    )
    assert last == "semcast: 2 of 4 transmissions were not made"
    seeds = [row["seed"] for row in rows(out)]
    assert seeds == [0, 3]  # a bad picture does not change the noise of those after it


def test_one_output_for_several_pictures_is_refused(folder, cli):
    code, out, err = cli("run", "a.png", "b.png", "--snr", 10, "-o", "x.png", *RUN)
    assert (code, out) == (2, "") and "-o names one file, and 2 pictures would be received; use --out" in err


# streams and formats


def pipe(data: bytes, *argv) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "semcast", *map(str, argv)], input=data, capture_output=True)


def test_everything_may_come_from_stdin_and_go_to_stdout(frames):
    sent = pipe(Path("a.png").read_bytes(), "send", "-", "-o", "-", "--model", "tiny")
    assert (sent.returncode, sent.stderr) == (0, b"") and sent.stdout == Path("x.sem").read_bytes()
    arrived = pipe(sent.stdout, "channel", "-", "--snr", 10, "-o", "-")
    assert arrived.stdout == Path("y.sem").read_bytes()
    seen = json.loads(pipe(arrived.stdout, "info", "-").stdout)
    assert seen["state"] == "received" and (seen["width"], seen["height"]) == (SIDE, SIDE)
    received = pipe(arrived.stdout, "receive", "-", "-o", "-", "--model", "tiny")
    whole = pipe(Path("a.png").read_bytes(), "run", "-", "--snr", 10, "-o", "-", *RUN)
    assert received.stdout == whole.stdout and Image.open(io.BytesIO(whole.stdout)).format == "PNG"
    assert json.loads(whole.stderr)["output"] == "-"
    assert "-" not in os.listdir()


@pytest.mark.parametrize("name, form", [("x.jpg", "JPEG"), ("x.webp", "WEBP"), ("x.avif", "AVIF"), ("x.PNG", "PNG")])
def test_the_suffix_names_the_format(name, form, frames, cli):
    assert cli("receive", "y.sem", "-o", name, "--model", "tiny") == (0, "", "")
    assert Image.open(name).format == form


@pytest.mark.parametrize("line", ["receive y.sem -o x.gif --model tiny", "run a.png --snr 5 -o x --model tiny"])
def test_another_suffix_is_refused_before_any_work(line, frames, cli, monkeypatch):
    monkeypatch.setattr("semcast.cascade.engine.load_model", lambda *args: pytest.fail("loaded"))
    code, out, err = cli(*line.split())
    assert (code, out) == (2, "") and "pictures are written as .avif, .jpeg, .jpg, .png or .webp" in err


def test_a_plot_of_an_unknown_format_is_refused(folder, cli):
    told = "semcast: cannot write x.abc: plots are written as .png, .svg, .pdf, .jpg\n"
    assert cli("channels", "--plot", "x.abc") == (2, "", told)


def test_an_address_is_refused_by_name(folder, cli):
    for line in ("send https://x.org/a.png -o x.sem", "run https://x.org/a.png --snr 5"):
        code, _, err = cli(*line.split())
        assert code == 2 and "is an address; semcast reads files, so fetch it first" in err


# odd places to run in


def test_long_names_are_written(frames, cli):
    name = "n" * 251 + ".sem"
    assert cli("send", "a.png", "-o", name, "--model", "tiny") == (0, "", "") and Path(name).stat().st_size > 100
    code, _, err = cli("send", "a.png", "-o", "n" + name, "--model", "tiny")
    assert code == 2 and "a file name has at most 255 bytes" in err


def test_names_that_are_not_utf8_are_shown_with_escapes(folder):
    name = os.fsdecode(b"\xff\xfe.png")
    shutil.copy("a.png", name)
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "semcast", "run", name, "--snr", "10", "--out", "out", *RUN]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and Path("out", name).exists()
    assert json.loads(done.stdout)["image"] == name
    done = subprocess.run([*command[:3], "send", name, "-o", name], env=environment, capture_output=True)
    assert done.returncode == 2 and rb"\udcff\udcfe.png" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_mistake(closed, folder):
    line = f'"{sys.executable}" -m semcast run a.png --snr 10 -o x.png --model tiny {closed}'
    assert subprocess.run(line, shell=True, capture_output=True).returncode == 0
    assert np.isfinite(read_image("x.png")).all()


def test_a_user_without_a_home_folder_can_send(folder, cli, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "XDG_CACHE_HOME", "SEMCAST_HOME", "SEMCAST_LPIPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cli("send", "a.png", "-o", "x.sem", "--model", "tiny") == (0, "", "")
    assert cli("run", "a.png", "--snr", 10, *RUN)[0] == 0 and cli("models")[0] == 0


def test_threads_wait_passively_unless_told_otherwise(cli, monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    cli("channels")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and os.environ["GOMP_SPINCOUNT"] == "0"


def test_streams_of_files_are_written_with_the_rights_of_the_umask(folder):
    line = f'umask 077; "{sys.executable}" -m semcast send a.png -o x.sem --model tiny'
    assert subprocess.run(line, shell=True).returncode == 0
    assert stat.S_IMODE(Path("x.sem").stat().st_mode) == 0o600


# what is said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_reads_rounded_figures_and_where_the_picture_is(folder, cli):
    row = rows(cli("run", "a.png", "--snr", 10, *RUN)[1])[0] | {"lpips": 0.54321}
    terminal = Terminal()
    show(row, False, terminal)
    line = terminal.getvalue()
    assert line.startswith("a.png  10 dB  72 uses + 96 bits  PSNR ") and line.endswith(" s -> out/a.png\n")
    assert "LPIPS 0.543" in line and len(line) < 140
    terminal = Terminal()
    show(row, True, terminal)
    assert json.loads(terminal.getvalue()) == row


def test_quiet_leaves_only_errors(folder, cli):
    Image.fromarray(photo(64, 64)).save("dot.png")
    code, _, loud = cli("run", "dot.png", "--snr", 10, "--model", "tiny", "--out", "loud")
    assert code == 0 and "no LPIPS weights; `semcast models fetch lpips`" in loud
    assert "dot.png is 64x64 pixels, so that only " in loud
    assert cli("run", "dot.png", "--snr", 10, *RUN)[2] == ""
    assert (
        cli("send", "gone.png", "-o", "x.sem", "-q")[2] == "semcast: cannot read gone.png: No such file or directory\n"
    )


def test_one_hint_about_lpips_for_many_pictures(folder, cli):
    _, out, err = cli("run", "a.png", "b.png", "c.jpg", "--snr", 1, 10, "--model", "tiny")
    assert len(rows(out)) == 6 and err.count("LPIPS") == 1


@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(bad, engine, tiny_model, folder, cli):
    shutil.copytree(tiny_model, "broken")
    for name in ("encoder", "stage_a", "stage_b"):
        path = Path(f"broken/{name}.safetensors")
        whole = load_file(path)
        key = max(whole, key=lambda k: whole[k].size)
        tensors = {k: v.copy() for k, v in whole.items()}
        tensors[key].reshape(-1)[-1] = bad
        save_file(tensors, path)
        code, out, err = cli("run", "a.png", "--snr", 10, "--model", "broken", "--engine", engine, "-q")
        assert (code, out) == (2, "") and f"broken/{name}.safetensors: {key} holds NaN or infinite values" in err
        assert err.count("\n") == 1 and not Path("out").exists()
        save_file(whole, path)


def test_lost_pictures_are_said_by_the_exit_code(folder, cli):
    pytest.importorskip("sionna")
    code, out, err = cli("run", "a.png", "c.jpg", "--mode", "digital", "--snr", -20, "--model", "tiny")
    assert code == 3 and [row["lost"] for row in rows(out)] == [True, True]
    assert "a.png was lost at -20 dB; out/a.png shows its mean colour" in err
    assert err.endswith("semcast: 2 of 2 pictures did not arrive\n") and Path("out/c.png").exists()


def test_info_names_what_a_frame_holds(frames, cli):
    code, out, _ = cli("info", "x.sem")
    row = json.loads(out)
    assert code == 0 and row["state"] == "sent" and row["symbols"] == 72 and row["side_bits"] == 96
    assert cli("info", "a.png")[0] == 2


def test_compare_measures_two_pictures(folder, cli):
    code, out, _ = cli("compare", "a.png", "b.png", "-q")
    row = json.loads(out)
    mse = np.square(read_image("a.png") - read_image("b.png")).mean()
    assert code == 0 and np.isclose(row["psnr_db"], -10 * np.log10(mse), atol=1e-3)
    Image.new("RGB", (99, SIDE)).save("d.png")
    told = "semcast: a.png is 96x96 pixels and d.png 99x96; only equal sizes compare\n"
    assert cli("compare", "a.png", "d.png", "-q") == (2, "", told)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_is_a_script_of_that_shell(shell, cli):
    code, out, _ = cli("completion", shell)
    assert code == 0 and "semcast" in out and "receive" in out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=out, text=True, capture_output=True).returncode == 0


def test_lpips_weights_are_fetched_from_a_folder(folder, cli, tmp_path, monkeypatch, vgg):
    from safetensors.torch import save_file as save_tensors

    from semcast.metrics.lpips import LPIPS, load_lpips

    monkeypatch.setenv("SEMCAST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SEMCAST_LPIPS", raising=False)
    (tmp_path / "given").mkdir()
    save_tensors(vgg.state_dict(), tmp_path / "given/lpips_vgg.safetensors")
    save_tensors(LPIPS("alex").state_dict(), tmp_path / "given/lpips_alex.safetensors")
    code, out, err = cli("models", "fetch", "lpips", "--from", "given")
    assert (code, err) == (0, "") and out.startswith(f"LPIPS weights are in {tmp_path}/home/lpips; ")
    image = read_image("a.png")
    assert load_lpips("vgg").distance_to(vgg.maps_of(image), image * 0.5) > 0
    assert rows(cli("run", "a.png", "--snr", 10, *RUN)[1])[0]["lpips"] is not None


def test_extras_are_installed_from_where_semcast_came_from(monkeypatch):
    class Distribution:
        def __init__(self, text):
            self.text = text

        def read_text(self, name):
            return self.text

    assert brings("phy") == f"pip install -e '{Path(semcast.__file__).parents[1]}[phy]'"  # the tests run in a clone
    monkeypatch.setattr("semcast.errors.__file__", "/usr/lib/python3/site-packages/semcast/errors.py")
    for text, told in (
        ('{"url": "file:///home/me/my%20clone", "dir_info": {}}', "pip install '/home/me/my clone[phy]'"),
        ('{"url": "https://x.org/semcast.whl", "archive_info": {}}', "pip install 'semcast[phy]'"),
        (None, "pip install 'semcast[phy]'"),
    ):
        monkeypatch.setattr("importlib.metadata.distribution", lambda name, text=text: Distribution(text))
        assert brings("phy") == told


def test_nothing_is_reported_and_nothing_left_in_the_home_folder(folder):
    home = folder / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG", "ORT"))} | {"HOME": str(home)}
    command = [sys.executable, "-m", "semcast", "run", "a.png", "--snr", "10", "--engine", "onnx", *RUN]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert not files(home)


def test_python_may_be_started_in_the_folder_above_a_clone(tmp_path):
    (tmp_path / "semcast").symlink_to(Path(semcast.__file__).parents[1])
    run = lambda *argv: subprocess.run([sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True)
    done = run("-c", "import semcast; from semcast import Link; print(semcast.__file__, semcast.__version__, Link)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/semcast/__init__.py {semcast.__version__} ")
    assert run("-m", "semcast", "--version").stdout == f"semcast {semcast.__version__}\n"
