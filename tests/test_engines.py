"""The engines: ONNX Runtime computes what torch does, and nothing between the networks depends on either."""

import functools
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from test_channel import VARIANTS, gaussian, seeded
from tiny import photo, tiny_cascade
from torch.nn import functional as F

from semcast import Link, load_model, read_image
from semcast.bench.downscale import enlarging, resize, shrinking
from semcast.cascade import engine
from semcast.cascade.checkpoint import arrays, load_cascade, save_model
from semcast.cascade.config import ENGINES, load_config
from semcast.cascade.fingerprint import bfloat16_bits
from semcast.cascade.graph import ATTRIBUTES, DATA_TYPES, EXTERNAL, IR_VERSION, OPSET, Graph
from semcast.cascade.models import WEIGHTS
from semcast.cascade.onnx_engine import GRAPHS, PARTS, OnnxEngine, graphs_of, load_weights
from semcast.cascade.protobuf import FIELDS, message
from semcast.cascade.torch_engine import TorchEngine
from semcast.channels.catalogue import find_channel
from semcast.errors import InputError
from semcast.files import load_arrays
from semcast.images import PHOTO, to_image, to_pixels
from semcast.randomness import draw_noise, stream
from semcast.transmitter import resize_nearest

WEB = Path(__file__).parents[1] / "examples" / "web"
CHANGES = {  # each with layers that the default model lacks
    "default": {},
    "official layers": dict(prediction="epsilon", noise_aware=False, guidance=1.1),
    "v": dict(prediction="v"),
}


def variant(name: str):
    """A tiny model; the official layers repeat levels, pad with zeros and have neither noise map nor unfolded Z."""
    config = tiny_cascade().config
    changes = dict(CHANGES[name])
    if name == "official layers":
        changes["stage_a"] = replace(config.stage_a, replicate_edges=False, codebook_size=8)
        changes["stage_b"] = replace(
            config.stage_b,
            noise_map=False,
            code_unfold=0,
            up_repeats=(2, 1, 3, 2),
            blocks=("CT", "CT", "CTA", "CTA"),
            heads=(0, 0, 2, 2),
        )
    return tiny_cascade(**changes)


@pytest.fixture(params=CHANGES)
def both(request, tmp_path) -> tuple[OnnxEngine, TorchEngine]:
    cascade = variant(request.param)
    save_model(cascade, tmp_path)
    return OnnxEngine(tmp_path), TorchEngine(cascade)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return seeded(seed)[0].standard_normal(shape, np.float32)


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and np.abs(a - b).max() < 2e-5 * max(1, np.abs(b).max())


def exact_embedding(r: torch.Tensor, channels: int) -> torch.Tensor:
    """As `stage_b.time_embedding`, with frequencies rounded from float64. torch's are off by a unit in the last place,
    which angles of up to 10000 magnify to 1e-3."""
    half = channels // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / (half - 1))).float()
    angle = r[:, None] * 10000 * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def test_every_network_is_torchs(both, monkeypatch):
    """On batches, on sides that are no square, and without noise."""
    monkeypatch.setattr("semcast.cascade.stage_b.time_embedding", exact_embedding)
    onnx_engine, torch_engine = both
    assert onnx_engine.encoder_id == torch_engine.encoder_id
    image = seeded(0)[0].random((2, 3, 96, 160), np.float32)
    assert near(onnx_engine.encode(image), torch_engine.encode(image))
    latent, r, sca = normal(2, 4, 32, 48), np.array([0.9, 0.3], np.float32), np.array([0.1, 0.6], np.float32)
    assert near(onnx_engine.decode(latent), torch_engine.decode(latent))
    z, noise = normal(2, 16, 3, 5, seed=1), normal(2, 16, 3, 5, seed=2)
    for told in (noise, None):
        mapped = [e.map_z(z, told, (16, 24)) for e in both]
        assert near(np.concatenate(mapped[0]), mapped[1].numpy())
        outputs = [e.step(latent, r, m, sca if told is not None else None) for e, m in zip(both, mapped)]
        assert near(*outputs) and outputs[0].std() > 0.01


def test_pictures_are_equal(both):
    image = to_image(photo(130, 201))
    links = [Link(e) for e in both]
    first, second = (link(image, 5.0, seed=3, steps=3).image for link in links)
    assert np.abs(to_pixels(first).astype(int) - to_pixels(second)).max() <= 1
    sent = [link.send(image) for link in links]
    assert np.allclose(sent[0].content, sent[1].content, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_shipped_model_gives_equal_pictures_on_both_engines(steps):
    image = read_image(PHOTO)[..., :256, 100:420]
    pictures = [
        to_pixels(Link(load_model("small", engine=name, dtype="float32"))(image, 10.0, steps=steps).image).astype(int)
        for name in ("onnx", "torch")
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_large_latents_are_decoded_in_tiles_without_seams(both, monkeypatch):
    for e in both:
        latent = normal(1, 4, 40, 33)
        whole = e.decode(latent)
        with monkeypatch.context() as patch:
            patch.setattr("semcast.cascade.tiles.TILE", 16)
            assert np.abs(e.decode(latent) - whole).max() < 1e-5 < whole.std()


def graphs(folder: Path) -> dict[str, Graph]:
    config = load_config(folder)
    parts = {name: PARTS[name] for name in graphs_of(config)}
    return {n: GRAPHS[n](getattr(config, part), load_weights(folder, part), part) for n, part in parts.items()}


def exported(folder: Path) -> list[tuple[str, Path]]:
    return [(path.stem, path) for path in sorted(folder.glob("*.onnx"))]


def by_onnx(graph: Graph) -> onnx.ModelProto:
    """The model as the package onnx builds it."""
    kind = lambda name: onnx.TensorProto.INT64 if name in graph.whole else onnx.TensorProto.FLOAT
    values = [
        [onnx.helper.make_tensor_value_info(name, kind(name), list(dims)) for name, dims in side.items()]
        for side in (graph.inputs, graph.outputs)
    ]
    nodes = [onnx.helper.make_node(n.kind, n.inputs, n.outputs, **n.attributes) for n in graph.nodes]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    whole = onnx.helper.make_graph(nodes, graph.name, *values, weights)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION, producer_name="semcast")


def same_values(model: onnx.ModelProto, graph: Graph) -> bool:
    """Whether a model that was read from files has the graph's nodes and weights."""
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    arrays = [(found[k], graph.weights[k]) for k in graph.weights]
    assert found.keys() == graph.weights.keys() and list(model.graph.node) == list(by_onnx(graph).graph.node)
    return all(a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b) for a, b in arrays)


def test_fields_have_onnxs_numbers():
    for kind, numbers in FIELDS.items():
        theirs = functools.reduce(getattr, kind.split("."), onnx).DESCRIPTOR.fields_by_name
        assert numbers == {name: theirs[name].number for name in numbers}
    onnxs = onnx.AttributeProto
    assert set(ATTRIBUTES.values()) == {("f", onnxs.FLOAT), ("i", onnxs.INT), ("s", onnxs.STRING), ("ints", onnxs.INTS)}
    assert DATA_TYPES == {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64}
    assert EXTERNAL == onnx.TensorProto.EXTERNAL


def test_protobuf_reads_the_numbers_and_text_that_were_written():
    whole = [0, 1, -1, 127, 128, 300, 2**31, 2**63 - 1, -(2**63)]
    data = message("AttributeProto", name="größe", f=0.1, i=-1, s=b"\x00\xff", ints=whole, type=0)
    read = onnx.AttributeProto.FromString(data)
    assert (read.name, read.f, read.i, read.s) == ("größe", np.float32(0.1), -1, b"\x00\xff")
    assert list(read.ints) == whole and read.HasField("type") and not read.HasField("t")


def test_graphs_are_valid_onnx_with_any_sides():
    """They are what the package onnx builds, its checker accepts them, and shape inference leaves the sides open."""
    for graph in graphs(WEIGHTS / "small").values():
        data = graph.model()
        whole = onnx.load_model_from_string(data)
        assert whole == by_onnx(graph) and whole.ByteSize() == len(data)
        onnx.checker.check_model(whole, full_check=True)
        sides = [d.dim_param for d in whole.graph.input[0].type.tensor_type.shape.dim]
        assert len([side for side in sides if side]) == 2
        used = {name for node in whole.graph.node for name in node.input}
        assert set(graph.weights) <= used  # no weight travels for nothing


def test_a_session_is_given_the_large_weights_beside_the_graph():
    for graph in graphs(WEIGHTS / "small").values():
        model = onnx.load_model_from_string(graph.model("memory"))
        outside = {tensor.name for tensor in model.graph.initializer if tensor.external_data}
        assert outside == set(graph.outside()) and model.ByteSize() < 200_000


def test_exported_files_run_in_other_programs(cli, tiny_model, tmp_path, monkeypatch):
    """What plain ONNX Runtime makes of them is the link's picture; weights too large for protobuf go beside them."""
    code, out, err = cli("models", "export", tiny_model, "--out", tmp_path)
    assert (code, err) == (0, "") and out.count("of TorchEngine") == 4
    sessions = {name: onnxruntime.InferenceSession(str(path)) for name, path in exported(tmp_path)}
    run = lambda name, **inputs: sessions[name].run(None, inputs)[0]
    image, link = to_image(photo(128, 128)), Link(load_model(tiny_model, engine="onnx"))
    sent = link.send(image)
    received = link.propagate(sent.content, 10)
    ((z, noise),) = link.modems["analog"].demodulate(received, sent.header)
    sca = noise.mean(axis=(1, 2, 3))
    mapped = run("stage_b_map", z=z, noise=noise - sca[:, None, None, None], size=np.array([16, 16]))
    x = draw_noise(np.empty((1, 4, 32, 32)), [stream(0, "receiver")])
    latent = run("stage_b_step", x=np.float32(0.01) * x, r=np.array([0.99358], np.float32), mapped=mapped, sca=sca)
    pictures = (np.clip(run("stage_a_decoder", latent=latent), 0, 1), link.receive(received, sent.header, steps=1))
    assert np.abs(to_pixels(pictures[0]).astype(int) - to_pixels(pictures[1])).max() <= 1
    monkeypatch.setattr("semcast.cascade.export.INLINE_MAX_BYTES", 0)
    assert cli("models", "export", tiny_model, "--out", tmp_path / "large")[0] == 0
    assert (tmp_path / "large" / "stage_b_step.weights").stat().st_size > 100_000
    for name, graph in graphs(tiny_model).items():
        for path in (tmp_path / f"{name}.onnx", tmp_path / "large" / f"{name}.onnx"):
            onnx.checker.check_model(path, full_check=True)
            assert same_values(onnx.load(path), graph)


@pytest.mark.parametrize("name, options", VARIANTS)
def test_channels_give_numpy_and_torch_the_same(name, options):
    x = gaussian(3, 400)
    theirs = find_channel(name)(x, torch.tensor([0.0, 5.0, 20.0]), seeded(1, 2, 3), **options)
    ours = find_channel(name)(x.numpy(), np.array([0.0, 5.0, 20.0]), seeded(1, 2, 3), **options)
    for a, b in zip(ours, theirs):
        assert isinstance(a, np.ndarray) and isinstance(b, torch.Tensor) and a.dtype == b.numpy().dtype
        assert np.allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sides", [(128, 192), (130, 201), (997, 64)])
def test_pictures_are_resized_as_torch_does(sides):
    image = seeded(0)[0].random((1, 3, *sides), np.float32)
    size = (96, 32)
    torchs = torch.from_numpy(image)
    assert np.array_equal(resize_nearest(image, size), F.interpolate(torchs, size=size, mode="nearest").numpy())
    small = F.interpolate(torchs, size=(27, 21), mode="bilinear", antialias=True)
    assert np.allclose(resize(image, (27, 21), shrinking), small.numpy(), atol=1e-5)
    large = F.interpolate(small, size=sides, mode="bicubic", align_corners=False)
    assert np.allclose(resize(small.numpy(), sides, enlarging), large.numpy(), atol=1e-5)


def test_weights_are_read_without_torch_as_with_it(tmp_path):
    cascade = tiny_cascade()
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        save_model(cascade, tmp_path, dtype)
        for part in ("encoder", "stage_b", "stage_a"):
            ours = load_weights(tmp_path, part)
            torchs = arrays(getattr(load_cascade(tmp_path), part))
            assert ours.keys() == torchs.keys() and all(np.array_equal(ours[k], torchs[k]) for k in ours)
    values = np.array([1.0, -1.00390625, 3.1415927, 1e-40, 65504.0], np.float32)
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bfloat16_bits(values), expected)
    assert load_arrays(tmp_path / "encoder.safetensors")["mapper.0.weight"].dtype == np.int8


def test_the_engine_is_chosen_by_what_is_asked_and_what_is_there(monkeypatch, tiny_model):
    monkeypatch.setattr(engine, "has_bf16", lambda: False)
    assert isinstance(load_model(tiny_model), OnnxEngine)
    assert isinstance(load_model(tiny_model, dtype="bfloat16"), TorchEngine)
    monkeypatch.setattr(engine, "has_bf16", lambda: True)
    assert isinstance(load_model(tiny_model), TorchEngine)
    assert isinstance(load_model(tiny_model, engine="onnx"), OnnxEngine)
    with pytest.raises(InputError, match="the engine onnx runs on the CPU in float32"):
        load_model(tiny_model, engine="onnx", low_memory=True)
    with pytest.raises(InputError, match=f"engine 'tpu' is not one of {', '.join(ENGINES)}"):
        load_model(tiny_model, engine="tpu")
    monkeypatch.setattr(engine, "missing", lambda *packages: [p for p in packages if p.startswith("torch")])
    assert isinstance(load_model(tiny_model, device="auto"), OnnxEngine)


def test_a_picture_is_sent_and_received_without_importing_torch_or_onnx(tmp_path, tiny_model):
    """All commands but train and bench; `make light` does the same where torch is not installed."""
    program = (
        "import sys; from semcast.cli import main\n"
        "for line in sys.stdin:\n"
        "    assert main(line.split()) == 0, line\n"
        "    assert not {'torch', 'torchvision', 'torchmetrics', 'scipy', 'onnx'} & set(sys.modules), line\n"
    )
    commands = f"""send {PHOTO} -o a.sem --engine onnx
        send {PHOTO} -o packet.sem --mode digital --bytes 300 --engine onnx
        channel a.sem -o b.sem --snr 10 --channel rician
        channel a.sem -o c.sem --snr 10 --channel burst-erasure --seed 1
        receive b.sem c.sem -o c.png --engine onnx --steps 1
        receive packet.sem -o d.png --engine onnx --steps 1"""
    done = subprocess.run([sys.executable, "-c", program], input=commands, text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.png").exists() and (tmp_path / "d.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not ((WEB / "node_modules").exists() and shutil.which("node")),
    reason="needs Node and `npm install` in examples/web",
)
def test_a_browser_receives_the_same_picture(cli, tmp_path):
    Image.fromarray(photo(130, 190)).save(tmp_path / "a.png")
    files = {
        name: tmp_path / name for name in ("a.png", "a.sem", "b.sem", "python.png", "node.ppm", "noise.f32", "onnx")
    }
    assert cli("send", files["a.png"], "-o", files["a.sem"])[0] == 0
    assert cli("channel", files["a.sem"], "-o", files["b.sem"], "--snr", 10, "--channel", "erasure")[0] == 0
    assert cli("receive", files["b.sem"], "-o", files["python.png"], "--steps", 1, "--engine", "onnx")[0] == 0
    assert cli("models", "export", "small", "--out", files["onnx"])[0] == 0
    stream(0, "receiver").standard_normal((4, 48, 48), np.float32).tofile(files["noise.f32"])
    command = ["node", WEB / "receive.mjs", *(files[name] for name in ("onnx", "b.sem", "node.ppm", "noise.f32"))]
    subprocess.run(command, check=True)
    pictures = [np.asarray(Image.open(files[name])).astype(int) for name in ("python.png", "node.ppm")]
    assert pictures[0].shape == (130, 190, 3) and np.abs(pictures[0] - pictures[1]).max() <= 1
