"""Shared by all tests: a tiny random model, random pictures, random LPIPS weights, the command line as a function."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peer_parts import street, untaught
from PIL import Image
from safetensors.torch import save_file

from semcast.bench.peers import gesco, img2img, maps, noisy_latent
from semcast.bench.peers.diffusion import ddim
from semcast.bench.peers.parts import PARTS, save_part, weights_path
from semcast.cascade.checkpoint import save_model
from semcast.cascade.config import NETWORKS, EncoderConfig, EnhancementConfig, ModelConfig, StageAConfig, small_config
from semcast.cascade.model import Cascade
from semcast.formats.kinds import say_once
from semcast.metrics.lpips import LPIPS

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # these processes share the cores, and so do those that tests start
    share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    torch.set_num_threads(share)
    os.environ.setdefault("OMP_NUM_THREADS", str(share))

TESTS = Path(__file__).parent


def tiny_config(**changes) -> ModelConfig:
    """A model with every kind of layer and almost no weights."""
    strides = ((1, 8, 8), (2, 8, 8), (2, 8, 16))
    stages = (
        *(("fused", 2, 3, s, i, o, 1) for s, i, o in strides),
        ("mbconv", 2, 3, 2, 16, 16, 1),
        ("mbconv", 2, 3, 2, 16, 16, 1),
    )
    b = replace(
        small_config().stage_b,
        hidden=(16, 16, 24, 32),
        heads=(0, 0, 0, 2),
        down_blocks=(1, 1, 1, 1),
        up_blocks=(1, 1, 1, 1),
    )
    config = replace(
        small_config(),
        name="tiny",
        encoder=EncoderConfig(stages=stages, last_channels=24),
        stage_a=StageAConfig(hidden=(8, 16), bottleneck_blocks=1, codebook_size=0),
        stage_b=replace(b, cond_channels=16, text_channels=8),
    )
    return replace(config, **changes)


TINY_ENHANCEMENT = EnhancementConfig(
    encoder=(8, 8, 16),
    encoder_blocks=(1, 1, 1),
    decoder=(8, 8, 16, 16),
    decoder_blocks=(1, 1, 1, 1),
    base_blocks=(1, 1),
)


def tiny_cascade(seed: int = 0, **changes) -> Cascade:
    """The tiny model with random weights everywhere, so that no zero initialisation hides a path."""
    torch.manual_seed(seed)
    cascade = Cascade(tiny_config(**changes))
    for p in cascade.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3 if p.ndim > 1 else 0.1)
    return cascade.eval().requires_grad_(False)


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


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture with some texture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return (np.asarray(coarse, dtype=np.float64) + rng.normal(0, 8, (height, width, 3))).clip(0, 255).astype(np.uint8)


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


@pytest.fixture
def planted_path(monkeypatch):
    """`planted:NAME` names what is in planted.py, in other processes too."""
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


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
def radio_store(tmp_path_factory) -> Path:
    """A model with all rungs, two pictures, and what `send` makes of them."""
    from radio_files import SIDE, attentive, paint

    from semcast.cli import main

    store = tmp_path_factory.mktemp("radio")
    save_model(attentive(tiny_cascade(enhancement=TINY_ENHANCEMENT)), store / "tiny")
    for i, name in enumerate("ab"):
        Image.fromarray(photo(SIDE, SIDE, i)).save(store / f"{name}.png")
        for suffix in ("sem", "wav"):
            argv = ["send", store / f"{name}.png", "-o", store / f"{name}.{suffix}", "--model", store / "tiny", "-q"]
            assert main([str(word) for word in argv]) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("semcast.link.receive", paint)
            argv = ["receive", store / f"{name}.sem", "-o", store / f"{name}-frame.png", "--model", store / "tiny"]
            assert main([str(word) for word in argv]) == 0
    return store


@pytest.fixture
def radio_folder(radio_store, tmp_path, monkeypatch) -> Path:
    """A working folder with links to all that, where received symbols are painted."""
    from radio_files import paint

    monkeypatch.setattr("semcast.link.receive", paint)
    monkeypatch.chdir(tmp_path)
    for path in radio_store.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.fixture
def near(radio_folder):
    """near(picture, name) sees whether it is nearly what the frame of `name`.png gives, and not the other's."""
    from radio_files import distance

    other = {"a": "b", "b": "a"}

    def check(picture: str, name: str = "a", share: float = 0.35) -> bool:
        apart = distance("a-frame.png", "b-frame.png")
        assert apart > 10
        return distance(picture, f"{name}-frame.png") < share * apart < distance(picture, f"{other[name]}-frame.png")

    return check


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


@pytest.fixture(scope="session")
def peer_weights(tmp_path_factory) -> Path:
    """A folder with weights of tiny random networks of the learned rivals, and a map coder."""
    folder = tmp_path_factory.mktemp("peers")
    for name in PARTS:
        save_part(untaught(name), name, weights_path(name, folder), {"steps": 0})
    maps.save_counts(maps.count_maps([street(96, 128, seed) for seed in range(6)]), weights_path("maps", folder), {})
    return folder


@pytest.fixture
def peers(peer_weights, monkeypatch) -> Path:
    """The same, as the folder that SEMCAST_PEERS names."""
    monkeypatch.setenv("SEMCAST_PEERS", str(peer_weights))
    return peer_weights


@pytest.fixture
def few_steps(monkeypatch):
    """Rivals that take two or three steps of their diffusion."""
    for module in (img2img, gesco, noisy_latent):
        monkeypatch.setattr(module, "DDIM_STEPS", 2)
    monkeypatch.setattr(gesco, "ddpm", lambda denoiser, x, generators: ddim(denoiser, x, 1000, 3))
