"""Our networks against torchvision's encoder and diffusers' Stage A and Stage B; exact ways to compute them faster."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_cascade

from diffusers_peers import TINY_B, diffusers_stage_a, diffusers_stage_b, stage_b_keys_to_diffusers
from semcast.cascade.config import StageAConfig
from semcast.cascade.encoder import Encoder
from semcast.cascade.loading import load_torch
from semcast.cascade.models import WEIGHTS
from semcast.cascade.stage_a import StageA
from semcast.cascade.stage_b import StageB
from semcast.demo import PHOTO
from semcast.images import read_image

diffusers = pytest.importorskip("diffusers", reason="parity needs the [dev] extra")


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Fill all parameters and buffers with random values, so that no zero initialisation hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.randn(tensor.shape, generator=generator)
                    * (0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
                )
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(tensor.abs() + 0.5)


@pytest.mark.parametrize("latent, z_size", [((32, 32), (6, 6)), ((24, 40), (5, 9)), ((22, 26), (3, 7))])
def test_stage_b_equals_diffusers(latent, z_size):
    ours, theirs = StageB(TINY_B).eval(), diffusers_stage_b(TINY_B).eval()
    randomise(ours, 0)
    theirs.load_state_dict(stage_b_keys_to_diffusers(ours.state_dict()))  # strict: all keys, both ways
    g = torch.Generator().manual_seed(1)
    x, z = torch.randn(3, 4, *latent, generator=g), torch.randn(3, 16, *z_size, generator=g)
    r, text = torch.rand(3, generator=g), torch.randn(3, 1, TINY_B.text_channels, generator=g)
    with torch.no_grad():
        expected = theirs(sample=x, timestep_ratio=r, clip_text_pooled=text, effnet=z).sample
        assert (ours(x, r, z, text=text) - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("size", [(32, 48), (64, 64)])
@pytest.mark.parametrize("fine, codebook", [(10, 32), (6, 0)])
def test_stage_a_equals_diffusers(size, fine, codebook):
    ours = StageA(StageAConfig(hidden=(fine, 20), bottleneck_blocks=3, codebook_size=codebook)).eval()
    randomise(ours, 0)
    theirs = diffusers_stage_a(ours)
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latent = ours.encode(image)
        expected = theirs.encode(image).latents / 0.43  # diffusers leaves the scale to its caller
        assert (latent - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)
        decoded, expected = ours.decode(latent), theirs.decode(latent * 0.43).sample
        assert (decoded - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


def test_encoder_equals_torchvision():
    from torchvision.models import efficientnet_v2_s

    ours, theirs = Encoder().eval(), efficientnet_v2_s(weights=None).features.eval()
    randomise(ours, 0)
    theirs.load_state_dict(
        {k.removeprefix("backbone."): v for k, v in ours.state_dict().items() if k.startswith("backbone.")}
    )
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        features = theirs((image - mean[:, None, None]) / std[:, None, None])
        flat = torch.einsum("oc,bchw->bohw", ours.mapper[0].weight[:, :, 0, 0], features)
        bn = ours.mapper[1]
        expected = (flat - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + 1e-5).sqrt()
        z = ours(image)
    assert z.shape == (1, 16, 2, 3)
    assert (z - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)
    assert len(ours.state_dict()) == 784  # the number of tensors in the official file


def networks_and_inputs():
    one = (1, 1, 1, 1)
    stage_b = StageB(replace(TINY_B, down_blocks=one, up_blocks=one, up_repeats=(1, 1, 1, 2))).eval()
    stage_a = StageA(StageAConfig(hidden=(6, 20), bottleneck_blocks=1, codebook_size=0)).eval()
    randomise(stage_b, 0)
    randomise(stage_a, 1)
    g = torch.Generator().manual_seed(2)
    x, z = torch.randn(2, 4, 32, 32, generator=g), torch.randn(2, 16, 6, 6, generator=g)
    return [(stage_b, (x, torch.rand(2, generator=g), z, torch.rand(2, generator=g))), (stage_a.up_blocks, (x,))]


def test_stage_b_and_stage_a_compile_into_one_graph():
    with torch.no_grad():
        for network, inputs in networks_and_inputs():
            expected = network(*inputs)
            compiled = torch.compile(network, fullgraph=True, backend="eager")  # fullgraph: a graph break raises
            assert torch.allclose(compiled(*inputs), expected, atol=1e-5)


def test_stage_b_and_stage_a_run_in_bf16():
    with torch.no_grad():
        for network, inputs in networks_and_inputs():
            expected = network(*inputs)
            half = network.bfloat16()(*(t.bfloat16() if t.ndim > 1 else t for t in inputs))
            assert half.dtype == torch.bfloat16
            error = (half.float() - expected).square().mean()
            assert error < 1e-3 * expected.square().mean()  # 8 bits of mantissa, some tens of layers


@pytest.mark.parametrize("chunk", [1, 1 << 12], ids=["row by row", "a few rows"])
def test_stage_b_in_chunks_equals_stage_b_as_a_whole(monkeypatch, chunk):
    cascade = tiny_cascade()
    x, z = torch.randn(2, 4, 64, 48), torch.randn(2, 16, 3, 4)
    r, noise = torch.tensor([0.9, 0.2]), torch.rand(2, 16, 3, 4)
    with torch.no_grad():
        whole = cascade.stage_b(x, r, z, noise=noise)
        monkeypatch.setattr("semcast.cascade.stage_b.CHUNK", chunk)
        assert (cascade.stage_b(x, r, z, noise=noise) - whole).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("cache", [1, 1000])
def test_stage_a_in_parts_equals_stage_a_as_a_whole(monkeypatch, cache):
    stage_a, latent = tiny_cascade().stage_a, torch.randn(2, 4, 9, 10)
    whole = stage_a.decode(latent).detach()  # with gradients it is not cut into parts
    monkeypatch.setattr("semcast.cascade.stage_a.CACHE", cache)
    with torch.no_grad():
        assert (stage_a.decode(latent) - whole).abs().max() < 1e-5 < whole.std()


@pytest.mark.parametrize("replicate", [False, True])
def test_replicated_edges_keep_a_flat_latent_flat_at_the_edge(replicate):
    """After the transposed convolution, which makes 2x2 numbers of one.

    The official networks pad with zeros there, which halves the outermost numbers.
    """
    stage_a, seen = StageA(replace(tiny_cascade().stage_a.config, replicate_edges=replicate)).eval(), []
    stage_a.up_blocks[-1].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        assert stage_a.decode(torch.full((1, 4, 6, 7), 0.8)).shape == (1, 3, 24, 28)
    difference = (seen[0] - seen[0][..., 4:6, 4:6].repeat(1, 1, 6, 7)).abs()
    assert (difference.max() < 1e-5) == replicate
    assert difference[..., 1:-1, 1:-1].max() < 1e-5


@pytest.mark.parametrize("size, replicate", [((40, 33), False), ((16, 50), True)])
def test_stage_a_in_tiles_has_no_seams(monkeypatch, size, replicate):
    stage_a = StageA(replace(tiny_cascade().stage_a.config, replicate_edges=replicate)).eval()
    latent = torch.randn(1, 4, *size)
    with torch.no_grad():
        whole = stage_a.decode(latent)
        monkeypatch.setattr("semcast.cascade.tiles.TILE", 16)
        assert (stage_a.decode(latent) - whole).abs().max() < 1e-5 < whole.std()
        alone = stage_a.decode(latent[..., :16, :16])  # a tile without its surroundings
        assert (alone - whole[..., :64, :64]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shipped_stage_a_in_tiles_is_within_one_grey_level(monkeypatch, dtype):
    stage_a = load_torch(WEIGHTS / "small", dtype=dtype).stage_a
    image = torch.from_numpy(read_image(PHOTO)[..., 64:192, 160:288]).to(stage_a.dtype)
    with torch.no_grad():
        latent = stage_a.encode(image)
        whole = stage_a.decode(latent).float()
        monkeypatch.setattr("semcast.cascade.tiles.TILE", 12)
        tiles = stage_a.decode(latent).float()
    assert (tiles - whole).abs().max() <= 1 / 255
    assert (whole - image.float()).abs().mean() < 0.05  # not a flat field


def test_pixels_of_a_cell_differ_only_if_z_is_unfolded():
    z = torch.randn(1, 16, 1, 1).expand(1, 16, 4, 4)  # the same in every cell
    for unfold in (0, 6):
        stage_b = StageB(replace(TINY_B, code_unfold=unfold)).eval()
        with torch.no_grad():
            mapped = stage_b.map_z(z, None, (24, 24))
        cells = mapped.view(4, 6, 4, 6, -1)  # [cell row, y, cell column, x, channel]
        assert (cells[1:3, :, 1:3] - cells[1:2, :, 1:2]).abs().max() < 1e-5  # all inner cells are equal
        spread = cells[1, :, 1].std(dim=(0, 1)).mean()  # over the pixels of a cell
        assert spread > 1e-2 if unfold else spread < 1e-6
