"""Metrics against scikit-image and torchmetrics, the weights of LPIPS, and the downscale baseline."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import photo
from torchmetrics.functional.image.lpips import _LPIPS, ScalingLayer

from semcast import randomness
from semcast.bench import downscale
from semcast.bench.pictures import SmokePictures
from semcast.cascade.device import to_tensor
from semcast.channels.noise import awgn
from semcast.errors import InputError
from semcast.images import round_8bit, to_image, to_pixels
from semcast.metrics.colour import ciede2000, delta_e, lab
from semcast.metrics.dists import DISTS
from semcast.metrics.lpips import LPIPS, NETWORKS, load_lpips
from semcast.metrics.measure import measure
from semcast.metrics.pixels import MS_SSIM_SIDE_MIN, PSNR_CAP_DB, psnr_db, structure


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(height: int, width: int, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture and a damaged copy, uint8."""
    sent = photo(height, width)
    noise = np.random.default_rng(1).normal(0, deviation, sent.shape)
    return sent, (sent + noise).clip(0, 255).round().astype(np.uint8)


def random_state(network: str) -> dict[str, torch.Tensor]:
    """Weights of LPIPS that keep activations near 1; the linear layers are positive, as the real ones are."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in LPIPS(network).state_dict().items()}
    g, state = seeded(0), {}
    for key, shape in shapes.items():
        values = torch.randn(shape, generator=g)
        state[key] = values.abs() / shape[1] if key.startswith("lin") else values * (2 / math.prod(shape[1:])) ** 0.5
    return state


def our_lpips(network: str, state: dict[str, torch.Tensor]) -> LPIPS:
    with torch.device("meta"):
        ours = LPIPS(network)
    ours.load_state_dict(state, assign=True)
    return ours


def their_lpips(network: str, state: dict[str, torch.Tensor]) -> _LPIPS:
    """torchmetrics' module with our weights.

    Its net.slice1.0.weight is our features.0.weight, its lin0.model.1.weight our lin0.weight.
    """
    with torch.device("meta"):
        theirs = _LPIPS(pretrained=False, net=network, pnet_rand=True)
    theirs.scaling_layer = ScalingLayer()  # its buffers are not part of the state
    mapped = {}
    for key in theirs.state_dict():
        part, *rest = key.removeprefix("lins.").split(".")
        ours = "features." + ".".join(rest[1:]) if part == "net" else f"lin{part.removeprefix('lin')}.weight"
        mapped[key] = state[ours]
    theirs.load_state_dict(mapped, assign=True)
    return theirs


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """An empty cache of torch's hub."""
    monkeypatch.delenv("SEMCAST_LPIPS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("deviation", [1, 10, 80])
@pytest.mark.parametrize("height, width", [(64, 80), (201, 130)])
def test_psnr_and_ssim_equal_scikit_image(height, width, deviation):
    skimage = pytest.importorskip("skimage.metrics", reason="parity needs the [dev] extra")
    sent, received = pair(height, width, deviation)
    row = measure(to_image(sent), to_image(received), {})
    # The mean of float32 squares has a relative error of 1e-6 at most, 4e-6 dB.
    assert row["psnr_db"] == pytest.approx(skimage.peak_signal_noise_ratio(sent, received, data_range=255), abs=1e-4)
    # scikit-image leaves out 5 border pixels, which ours mirrors; so mirror them for scikit-image.
    mirrored = [np.pad(p, ((5, 5), (5, 5), (0, 0)), mode="reflect") / 255 for p in (sent, received)]
    expected = skimage.structural_similarity(
        *mirrored, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    # E[x^2] - E[x]^2 in float32 is off by about 1e-7, against a stabilising constant of 9e-4.
    assert row["ssim"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("height, width", [(176, 176), (201, 187), (512, 300)])
def test_ms_ssim_equals_torchmetrics(height, width):
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    a, b = (to_image(p) for p in pair(height, width, 30))
    theirs = [of(torch.from_numpy(b), torch.from_numpy(a), data_range=1.0).item() for of in (ssim, ms_ssim)]
    assert structure(a, b) == pytest.approx(theirs, abs=2e-5)


def test_metrics_round_pictures_to_8_bits():
    sent, received = (to_image(p) for p in pair(176, 176, 10))
    blur = np.float32(0.4 / 255) * (
        2 * np.random.default_rng(0).random(sent.shape, np.float32) - 1
    )  # less than half a level
    assert measure(sent + blur, received - blur, {}) == measure(sent, received, {})
    outside = np.where(received > 0.5, received + 0.5 * (received == 1), received)
    assert measure(sent, outside, {}) == measure(sent, round_8bit(outside), {})  # clamped too


def test_equal_pictures_get_the_best_values():
    image = to_image(photo(MS_SSIM_SIDE_MIN, 180))
    row = measure(image, image, {"alex": our_lpips("alex", random_state("alex"))})
    assert row["psnr_db"] == PSNR_CAP_DB and row["lpips"] == 0 and row["lpips_vgg"] is None
    assert row["ssim"] == pytest.approx(1, abs=1e-6) and row["ms_ssim"] == pytest.approx(1, abs=1e-6)
    small = image[..., :-1, :]
    assert measure(small, small, {})["ms_ssim"] is None
    assert psnr_db(np.zeros((1, 3, 2, 2)), np.ones((1, 3, 2, 2))) == 0
    assert psnr_db(np.zeros((1, 3, 2, 2)), np.full((1, 3, 2, 2), 0.1)) == pytest.approx(20, abs=1e-5)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_equals_torchmetrics(network):
    state = random_state(network)
    ours, theirs = our_lpips(network, state), their_lpips(network, state)
    a, b = torch.rand(2, 2, 3, 64, 72, generator=seeded(1))
    b = 0.7 * a + 0.3 * b
    with torch.no_grad():
        found, expected = ours(a, b), theirs(a, b, normalize=True).flatten()
        assert ours(a, a).tolist() == [0, 0]
    assert found.shape == (2,) and (found > 1e-3).all()
    assert torch.allclose(found, expected, rtol=1e-4)  # theirs adds 1e-8 under the root, ours 1e-10 beside it


def test_lpips_has_a_finite_gradient_where_no_feature_fires():
    state = {k: v if k.startswith("lin") else torch.zeros_like(v) for k, v in random_state("alex").items()}
    image = torch.rand(1, 3, 64, 64, generator=seeded(0)).requires_grad_()
    our_lpips("alex", state)(image, torch.rand(1, 3, 64, 64, generator=seeded(1))).sum().backward()
    assert image.grad.isfinite().all()


def test_weights_are_loaded_from_a_folder_given_or_named_by_the_environment(tmp_path, monkeypatch, no_weights):
    state = random_state("alex")
    save_file(state, tmp_path / "lpips_alex.safetensors")
    a, b = torch.rand(2, 1, 3, 64, 64, generator=seeded(1))
    expected = our_lpips("alex", state)(a, b)
    assert torch.equal(load_lpips("alex", tmp_path)(a, b), expected)
    monkeypatch.setenv("SEMCAST_LPIPS", str(tmp_path))
    assert torch.equal(load_lpips("alex")(a, b), expected)
    with pytest.raises(InputError, match="lpips_vgg.safetensors is missing"):
        load_lpips("vgg")
    save_file(random_state("alex"), tmp_path / "lpips_vgg.safetensors")
    with pytest.raises(InputError, match="LPIPS weights for 'vgg' do not fit"):
        load_lpips("vgg")


def test_weights_are_loaded_from_the_hub_cache_with_the_published_linear_layers(no_weights):
    state = random_state("alex")
    no_weights.mkdir(parents=True)
    torch.save({k: v for k, v in state.items() if k.startswith("features")}, no_weights / NETWORKS["alex"][3])
    published = their_lpips("alex", state)
    reference = {k: v for k, v in _LPIPS(net="alex", pnet_rand=True).state_dict().items() if k.startswith("lin")}
    published.load_state_dict(reference, strict=False)
    a, b = torch.rand(2, 1, 3, 64, 64, generator=seeded(1))
    assert torch.allclose(load_lpips("alex")(a, b), published(a, b, normalize=True).flatten(), rtol=1e-4)
    (no_weights / NETWORKS["alex"][3]).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=f"cannot read .*{NETWORKS['alex'][3]}"):
        load_lpips("alex")


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_missing_weights_are_not_downloaded_unasked_and_the_error_says_what_to_do(network, no_weights, monkeypatch):
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda *args, **options: pytest.fail("a download nobody asked for")
    )
    with pytest.raises(
        InputError,
        match=f"no LPIPS weights for '{network}': `semcast models fetch lpips` brings them; or set SEMCAST_LPIPS to a folder",
    ):
        load_lpips(network)
    assert not no_weights.exists()


def test_a_failed_download_is_an_input_error(no_weights, monkeypatch):
    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        InputError, match=r"cannot download https://download.pytorch.org/models/alexnet.*: no route to host"
    ):
        load_lpips("alex", fetch=True)


def test_downscale_shrinks_to_what_its_symbols_hold():
    assert downscale.grid(512, 512, 768) == (27, 28)
    for height, width, uses in (
        (512, 512, 1152),
        (360, 480, 864),
        (64, 64, 8),
        (1024, 2048, 9216),
        (64, 2048, 384),
        (1024, 64, 192),
    ):
        held = 2 * uses // 3
        h, w = downscale.grid(height, width, held)
        assert h <= height and w <= width and 0.5 * held <= h * w <= held
        assert abs(math.log(w / h * height / width)) < 0.1  # about the picture's shape


def test_downscale_sends_unit_power_and_improves_with_snr(monkeypatch):
    sent, image = [], to_image(photo(180, 240))

    def listening(x, snr_db, generators):
        sent.append(x)
        return awgn(x, snr_db, generators)

    monkeypatch.setattr(downscale, "awgn", listening)
    errors = []
    for snr_db in (-5, 1, 10, 20):
        result = downscale.downscale_and_send(image, 288, snr_db, randomness.seeded(0))
        assert result.shape == image.shape and 0 <= result.min() and result.max() <= 1
        errors.append(np.square(result - image).mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 2
    for x in sent:
        assert x.shape == (1, 288) and np.iscomplexobj(x)
        assert np.mean(np.abs(x) ** 2) == pytest.approx(1, abs=1e-5)
    again = downscale.downscale_and_send(image, 288, 1, randomness.seeded(0))
    assert np.array_equal(
        to_pixels(again), to_pixels(downscale.downscale_and_send(image, 288, 1, randomness.seeded(0)))
    )


@pytest.mark.slow
def test_dists_is_torchmetrics(monkeypatch):
    import torchmetrics.functional.image.dists as theirs
    from torchvision.models import vgg16

    torch.manual_seed(0)
    network = vgg16(weights=None).eval()
    monkeypatch.setattr(theirs, "vgg16", lambda weights: network)
    expected, face = theirs.DISTSNetwork(), SmokePictures().read(0)
    ours = DISTS(vgg16(weights=None).features[:30], expected.alpha.data, expected.beta.data)
    ours.features.load_state_dict({k: v for k, v in network.features.state_dict().items() if int(k.split(".")[0]) < 30})
    a, b = to_tensor(face[:96, :64]), to_tensor(face[100:196, 60:124])
    with torch.inference_mode():
        assert ours.distance(ours.moments(a), ours.moments(b)) == pytest.approx(expected(a, b).item(), abs=1e-5)
        assert abs(ours.distance(ours.moments(a), ours.moments(a))) < 1e-5


def test_colour_error_is_ciede2000():
    from skimage.color import deltaE_ciede2000, rgb2lab

    rng = np.random.default_rng(0)
    a, b = rng.random((2, 40, 40, 3))
    a[0], b[0, :20] = 0.5, 0.5  # greys have no hue
    assert np.allclose(lab(a), rgb2lab(a), atol=1e-3)
    assert np.allclose(ciede2000(lab(a), lab(b)), deltaE_ciede2000(rgb2lab(a), rgb2lab(b)), atol=1e-3)
    flat = torch.full((1, 3, 40, 40), 0.5)
    assert delta_e(flat, flat + 0.02 * torch.tensor([1.0, -1.0]).repeat(20)) < 1e-6  # detail that keeps the colour
