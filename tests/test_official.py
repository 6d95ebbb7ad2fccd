"""The official networks: both layouts, wrong files, what they take of memory."""

import hashlib
import json

import numpy as np
import pytest
import torch
from filelock import FileLock
from official_files import LITE, fetch, official_tiny, parameters, same, to_diffusers, write
from PIL import Image
from tiny import photo

from semcast import load_model
from semcast.cascade import hub, models
from semcast.cascade.checkpoint import load_cascade
from semcast.cascade.config import NETWORKS
from semcast.cascade.device import visiting
from semcast.cascade.loading import load_torch
from semcast.cascade.model import Cascade
from semcast.cascade.models import OFFICIAL, OFFICIAL_PARAMETERS, find_model
from semcast.cascade.official import check, part_of, to_ours
from semcast.errors import InputError
from semcast.link import Link


@pytest.fixture
def in_diffusers(official_weights, tmp_path):
    """A folder in diffusers' layout, as on the hub: the encoder is at its top, and it holds other networks too."""
    folder = tmp_path / "hub"
    write(
        folder / "decoder_lite/diffusion_pytorch_model.bf16.safetensors",
        to_diffusers("stage_b", official_weights["stage_b"]),
    )
    write(folder / "vqgan/diffusion_pytorch_model.safetensors", to_diffusers("stage_a", official_weights["stage_a"]))
    write(folder / "effnet_encoder.safetensors", official_weights["encoder"])
    write(folder / "stage_c_bf16.safetensors", {"clip_img_mapper.weight": torch.zeros(1)})
    return folder


# layouts


def test_both_layouts_become_the_same_tensors_in_the_same_precision(official_weights):
    for part, tensors in official_weights.items():
        assert part_of(tensors) == part_of(to_diffusers(part, tensors)) == part
        assert to_ours(tensors, "x") == tensors  # the very same objects
        ours = to_ours(to_diffusers(part, tensors), "x")
        assert ours.keys() == tensors.keys()
        assert all(ours[k].dtype == v.dtype and torch.equal(ours[k], v) for k, v in tensors.items())


@pytest.fixture(scope="module")
def official() -> dict[str, Cascade]:
    with torch.device("meta"):
        return {name.removeprefix("stable-cascade-"): Cascade(config) for name, config in OFFICIAL.items()}


@pytest.mark.parametrize("size", ["lite", "big"])
def test_official_networks_have_the_stated_numbers_of_parameters(official, size):
    assert parameters(official[size]) == OFFICIAL_PARAMETERS[f"stable-cascade-{size}"]


@pytest.mark.parametrize("size, count", [("lite", 970), ("big", 1726)])
def test_official_networks_are_recognised_in_both_layouts(official, size, count):
    for part in NETWORKS:
        network = getattr(official[size], part)
        theirs = to_diffusers(part, network.state_dict())
        assert part_of(theirs) == part
        check(network, part, to_ours(theirs, "x"), "x")
        check(network, part, network.state_dict(), "x")
        if part == "stage_b":
            assert len(theirs) == count  # of tensors in diffusers' file


def test_the_message_names_the_wrong_network(official):
    lite, big = (official[size].stage_b.state_dict() for size in ("lite", "big"))
    encoder, key = official["lite"].encoder.state_dict(), "down_blocks.0.0.depthwise.weight"
    wuerstchen = encoder | {f"mapper.1.{kind}": encoder["mapper.1.running_mean"] for kind in ("weight", "bias")}
    cases = [
        (
            ("big", "stage_b", lite),
            "x lacks tensor down_blocks.1.10.channelwise.0.bias (628 such); "
            "it is the lite network, which `semcast models fetch stable-cascade-lite` takes",
        ),
        (
            ("lite", "stage_b", big),
            "x has the unknown tensor down_blocks.1.10.channelwise.0.bias (628 such); "
            "it is the big network, which `semcast models fetch stable-cascade-big` takes",
        ),
        (
            ("lite", "encoder", wuerstchen),
            "x has the unknown tensor mapper.1.bias (2 such); it is Wuerstchen's encoder, whose codes Stable Cascade "
            "does not understand; take effnet_encoder.safetensors",
        ),
        (
            ("lite", "stage_b", {k: v for k, v in lite.items() if k != key}),
            f"x lacks tensor {key} (1 such); it belongs to another network",
        ),
        (
            ("lite", "stage_b", lite | {key: torch.zeros(320, 1, 5, 5)}),
            f"x: {key} is [320, 1, 5, 5], expected [320, 1, 3, 3]; it belongs to another network",
        ),
        (("lite", "stage_b", lite | {key: lite[key].int()}), f"x: {key} holds torch.int32, expected torch.float32"),
    ]
    for (size, part, tensors), text in cases:
        with pytest.raises(InputError) as error:
            check(getattr(official[size], part), part, tensors, "x")
        assert str(error.value) == text


def test_damaged_attention_weights_are_named(official_weights):
    theirs = to_diffusers("stage_b", official_weights["stage_b"])
    name = next(k for k in theirs if k.endswith("attention.to_q.weight"))
    other = name.replace("to_q", "to_k")
    for damaged in ({k: v for k, v in theirs.items() if k != other}, theirs | {other: torch.zeros(3, 3, 3)}):
        with pytest.raises(InputError) as error:
            to_ours(damaged, "x")
        assert str(error.value) == f"x: {name} and its to_k and to_v are not three of a kind; the file is damaged"


# from files


@pytest.mark.parametrize("layout", ["original", "in_diffusers"])
def test_local_folders_in_either_layout_become_the_same_model(layout, request, official_weights, home):
    folder = fetch(sources=[request.getfixturevalue(layout)])
    assert folder == home / "models" / LITE and same(folder, official_weights)
    assert sorted(p.name for p in folder.iterdir()) == [
        *("NOTICE", "config.json", "encoder.safetensors", "source.json", "stage_a.safetensors", "stage_b.safetensors"),
    ]
    assert not [p.name for p in folder.parent.iterdir() if p.name not in (LITE, f"{LITE}.lock")]
    for entry in json.loads((folder / "source.json").read_text()).values():
        data = open(entry["file"], "rb").read()
        assert entry["size_bytes"] == len(data) and entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["repo"] is entry["revision"] is None
    cascade = load_torch(find_model(LITE).folder, dtype="bfloat16")
    assert cascade.stage_a.config.scale_factor == 0.43 and cascade.config.guidance == 1.1


def test_single_files_take_precedence_over_folders_whatever_their_names(in_diffusers, official_weights, tmp_path, home):
    other = {k: v + 1 for k, v in official_weights["stage_a"].items()}
    write(tmp_path / "whatever.safetensors", other)
    folder = fetch(sources=[in_diffusers, tmp_path / "whatever.safetensors"])
    assert same(folder, official_weights | {"stage_a": other})


def test_a_folder_with_both_sizes_gives_the_one_asked_for(original, official_weights, home):
    fitting = hub.FILES[LITE]["stage_b"]
    wide = official_weights["stage_b"] | {"down_blocks.1.0.channelwise.0.weight": torch.zeros(4, 640)}
    write(original / "stage_b.safetensors", wide)
    assert same(fetch(sources=[original]), official_weights)
    (original / fitting).unlink()
    with pytest.raises(InputError) as error:
        fetch(sources=[original])
    assert str(error.value) == (
        f"{original}/stage_b.safetensors: down_blocks.1.0.channelwise.0.weight is [4, 640], expected [64, 16]; "
        "it is the big network, which `semcast models fetch stable-cascade-big` takes"
    )
    assert same(home / "models" / LITE, official_weights)  # the model that was there still is


STRANGERS = {
    "clip_img_mapper.weight": "Stage C, the text-to-image prior",
    "effnet_mappers.0.0.weight": "Stage B of Wuerstchen, another model",
    "text_model.embeddings.token_embedding.weight": "a text encoder",
    "model.diffusion_model.clf.1.weight": "a checkpoint packed for ComfyUI",
    "blocks.0.weight": "the previewer",
    "layer.weight": "an unknown network",
}


@pytest.mark.parametrize("key, what", STRANGERS.items())
def test_other_networks_are_named(key, what, original, tmp_path, home):
    write(tmp_path / "x.safetensors", {key: torch.zeros(2), "z": torch.zeros(1)})
    with pytest.raises(InputError) as error:
        fetch(sources=[original, tmp_path / "x.safetensors"])
    assert str(error.value) == f"{tmp_path}/x.safetensors is {what} (its first tensor is {key}); leave it out"


def test_bad_sources_are_refused(original, tmp_path, home, official_weights):
    (tmp_path / "x.ckpt").write_bytes(b"pickle")
    (tmp_path / "cut.safetensors").write_bytes((original / "stage_a.safetensors").read_bytes()[:1000])
    write(
        tmp_path / "only/decoder_lite/diffusion_pytorch_model.safetensors",
        to_diffusers("stage_b", official_weights["stage_b"]),
    )
    a, b = original / "stage_a.safetensors", tmp_path / "only"
    cases = [
        (
            dict(sources=[tmp_path / "x.ckpt"]),
            f"{tmp_path}/x.ckpt is no safetensors file; pickled weights (.pt, .ckpt, .bin) are ",
        ),
        (
            dict(sources=[tmp_path / "gone"]),
            f"{tmp_path}/gone does not exist; name a safetensors file or a folder of them",
        ),
        (dict(sources=[original, tmp_path / "cut.safetensors"]), f"cannot read {tmp_path}/cut.safetensors: "),
        (dict(sources=[original, a, a]), f"{a} and {a} both hold Stage A; name one of them"),
        (
            dict(sources=[b, a]),
            f"the encoder is not in {b}, {a}; name its file too (the official one is effnet_encoder.safetensors)",
        ),
        (
            dict(sources=[original], decoder="ft-hq"),
            "--from takes everything from files: leave out --revision and --decoder",
        ),
        (dict(decoder="fine"), "no decoder is called 'fine'; there are: ft-hq"),
    ]
    for options, text in cases:
        with pytest.raises(InputError) as error:
            fetch(**options)
        assert str(error.value).startswith(text)
    with pytest.raises(
        InputError, match="no model 'small' can be fetched; there are: stable-cascade-lite, stable-cascade-big"
    ):
        hub.fetch("small")
    assert not (home / "models" / LITE).exists()


def test_the_licence_has_to_be_accepted_once(original, home):
    with pytest.raises(InputError) as error:
        fetch(sources=[original], accept_license=False)
    assert str(error.value) == f"{hub.TERMS}; if you accept that, repeat the command with --accept-license, once"
    assert not home.exists()
    fetch(sources=[original])
    fetch(sources=[original], accept_license=False)
    assert list(json.loads((home / "accepted.json").read_text())) == [OFFICIAL[LITE].licence]
    assert hub.TERMS in (home / "models" / LITE / "NOTICE").read_text()


def test_an_interrupted_fetch_leaves_no_model_and_a_parallel_one_is_refused(
    original, official_weights, home, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hub, "save_config", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(sources=[original])
    with pytest.raises(
        InputError,
        match="is not here; its weights have to be fetched first: `semcast models fetch stable-cascade-lite`",
    ):
        load_model(LITE)
    with FileLock(home / "models" / f"{LITE}.lock"):
        with pytest.raises(InputError, match="stable-cascade-lite is being fetched by another semcast; wait for it"):
            fetch(sources=[original])
    assert same(fetch(sources=[original]), official_weights)


def test_the_command_line_fetches_lists_and_runs(original, home, cli, tmp_path, monkeypatch):
    monkeypatch.setitem(models.OFFICIAL, LITE, official_tiny())
    Image.fromarray(photo(64, 96)).save(tmp_path / "photo.png")
    run = ("run", tmp_path / "photo.png", "--snr", 10, "--model", LITE, "--out", tmp_path / "out", "--low-memory")
    code, out, err = cli(*run)
    assert (code, out) == (2, "")
    remedy = f"its weights have to be fetched first: `semcast models fetch {LITE}`"
    assert err == f"semcast: model '{LITE}' is not here; {remedy}\n"
    code, out, err = cli("models", "fetch", LITE, "--from", original)
    assert (code, out) == (2, "") and err.startswith(f"semcast: {hub.TERMS}") and err.count("\n") == 1
    code, out, err = cli("models", "fetch", LITE, "--from", original, "--accept-license")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"accepted: {hub.TERMS}"
    assert [line.split()[0] for line in lines] == ["accepted:", "encoder", "stage_b", "stage_a", "to", LITE]
    assert lines[-1] == f"{LITE} is in {home / 'models' / LITE}: semcast run photo.jpg --snr 10 --model {LITE}"
    rows = {row["name"]: row for row in map(json.loads, cli("models", "--json")[1].splitlines())}
    assert [rows[name]["fetched"] for name in ("small", LITE, "stable-cascade-big")] == [True, True, False]
    assert rows[LITE]["size_bytes"] == sum(p.stat().st_size for p in original.iterdir())
    assert rows[LITE]["parts"] == parameters(Cascade(official_tiny()))
    assert rows["stable-cascade-big"]["parts"] == OFFICIAL_PARAMETERS["stable-cascade-big"]
    assert all(row["parameters"] == sum(row["parts"].values()) for row in rows.values())
    code, out, _ = cli(*run)
    assert code == 0 and json.loads(out)["model"] == LITE


# memory


def test_stage_b_stays_in_bfloat16_unless_float32_is_asked_for(original, home, monkeypatch):
    folder = fetch(sources=[original])
    cascade = load_cascade(folder, torch.bfloat16)
    kinds = {part: {p.dtype for p in getattr(cascade, part).parameters()} for part in NETWORKS}
    assert kinds == {"encoder": {torch.float32}, "stage_b": {torch.bfloat16}, "stage_a": {torch.bfloat16}}
    assert {p.dtype for p in load_torch(folder, dtype="float32").parameters()} == {torch.float32}


def test_a_visiting_network_returns_to_main_memory_unchanged():
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    places = lambda: {t.device.type for t in network.state_dict().values()}  # noqa: E731
    with torch.inference_mode():
        with visiting(network, torch.device("meta")):  # the one device besides the CPU that every machine has
            assert places() == {"meta"} and network(torch.zeros(2, 3, device="meta")).is_meta
        with visiting(network, torch.device("cpu")):
            assert places() == {"cpu"}
    assert places() == {"cpu"} and all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    network.to("meta")
    with visiting(network, torch.device("cpu")):  # a network on a device stays there
        assert places() == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_low_memory_gives_the_same_picture_and_frees_the_gpu(original, home):
    folder = fetch(sources=[original])
    image = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    expected = Link(load_model(folder, "cuda", "float32"))(image, 10.0).image
    engine = load_model(folder, "cuda", "float32", low_memory=True)
    assert np.array_equal(Link(engine)(image, 10.0).image, expected)
    assert {p.device.type for p in engine.cascade.parameters()} == {"cpu"}


def test_the_home_folder(monkeypatch, tmp_path):
    for name in ("SEMCAST_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.home() == tmp_path / ".cache/semcast"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert models.home() == tmp_path / "x/semcast"
    monkeypatch.setenv("SEMCAST_HOME", str(tmp_path / "mine"))
    assert models.home() == tmp_path / "mine"
