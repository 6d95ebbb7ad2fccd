"""mIoU: overlaps and labels that are checked, rows and report of a bench with labels, training that learns."""

import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny import photo

import train_segmenter
from semcast.bench.harness import bench, read_rows
from semcast.bench.pictures import Pictures
from semcast.bench.report import report, segmented
from semcast.bench.systems import find_system
from semcast.bench.unit import Setting
from semcast.errors import InputError
from semcast.metrics.segmenter import (
    CLASSES,
    VOID,
    Labels,
    load_segmenter,
    mean_iou,
    overlaps,
    segment,
)


@pytest.fixture
def streets(tmp_path) -> tuple[Path, Path]:
    """Two pictures of 96 x 128, blue above and grey below, as sky and road; their labels in a tar file, a few void pixels in each."""
    folder, labels = tmp_path / "streets", tmp_path / "labels"
    folder.mkdir(), labels.mkdir()
    for i in range(2):
        sky = 40 + 16 * i
        pixels = photo(96, 128, seed=i) // 8
        pixels[:sky] += np.array([60, 120, 220], np.uint8)
        pixels[sky:] += np.array([90, 90, 90], np.uint8)
        label = np.zeros((96, 128), np.uint8)
        label[sky:], label[:3] = CLASSES.index("road"), VOID
        Image.fromarray(pixels).save(folder / f"camvid_{i}.png")
        Image.fromarray(label).save(labels / f"{i}.png")
    with tarfile.open(tmp_path / "labels.tar", "w") as tar:
        tar.add(labels, "test")
    return folder, tmp_path / "labels.tar"


def test_overlaps_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    found, truth = rng.integers(0, VOID, (50, 40), dtype=np.uint8), rng.integers(0, VOID + 1, (50, 40), dtype=np.uint8)
    seen = truth != VOID
    expected = [
        [int(((found == c) & (truth == c)).sum()), int((((found == c) | (truth == c)) & seen).sum())]
        for c in range(VOID)
    ]
    assert overlaps(found, truth) == expected
    assert overlaps(truth.clip(max=VOID - 1), truth) == [[int((truth == c).sum())] * 2 for c in range(VOID)]


def test_mean_iou_sums_first_and_leaves_out_what_is_nowhere():
    counts = np.zeros((2, VOID, 2), int)
    counts[0, 0], counts[1, 0] = (1, 2), (2, 10)  # 3 / 12, not the mean of 1/2 and 1/5
    counts[1, 4] = (3, 4)
    assert mean_iou(counts) == pytest.approx((0.25 + 0.75) / 2)


def test_labels_are_found_and_checked(streets, tmp_path):
    labels = Labels(streets[1])
    assert labels.find("1.png") == labels.find("camvid_1.webp") == "1" and labels.find("camvid_7.png") is None
    assert set(np.unique(labels.read("0.png", (96, 128)))) == {0, 3, VOID}
    for name, sides, error in [
        ("7.png", (96, 128), "7.png has no label; labels are needed for all pictures or none"),
        ("1.png", (128, 96), "label 1 has 128x96 pixels, its picture 96x128"),
    ]:
        with pytest.raises(InputError, match=error):
            labels.read(name, sides)
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(InputError, match="no labels in .*bad: it holds no PNG"):
        Labels(bad)
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(bad / "large.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(bad / "colour.png")
    (bad / "broken.png").write_bytes(b"no picture")
    for name, error in [
        ("large", "no grey PNG of numbers 0 to 11"),
        ("colour", "no grey PNG"),
        ("broken", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=error):
            Labels(bad).read(f"{name}.png", (8, 8))
    with pytest.raises(InputError, match="cannot read labels from .*broken.png"):
        Labels(bad / "broken.png")


def test_weights_come_back_and_foreign_ones_are_refused(segmenter, tmp_path):
    pixels = photo(90, 130)
    found = segment(load_segmenter(segmenter), pixels)
    assert found.shape == (90, 130) and found.dtype == np.uint8 and found.max() < VOID
    with pytest.raises(
        InputError,
        match="none.safetensors does not exist; this trains the segmenter in minutes: python benchmarks/train",
    ):
        load_segmenter(tmp_path / "none.safetensors")
    (tmp_path / "foreign.safetensors").write_bytes(segmenter.read_bytes()[:1000])
    with pytest.raises(InputError, match="foreign.safetensors"):
        load_segmenter(tmp_path / "foreign.safetensors")


def test_a_bench_with_labels(streets, segmenter, tmp_path):
    out, system = tmp_path / "out", find_system("downscale")
    ends = SimpleNamespace(  # the two ends without processes of their own, which take seconds to start
        send=lambda name, *asked: (*system.send(*asked), 1.0),
        receive=lambda name, *arrived: (system.receive(*arrived), 1.0),
        warm=(),
    )
    setting = Setting(headline=(10.0,), lpips=tmp_path, segmenter=segmenter)
    pictures = Pictures([streets[0]], labels=streets[1])
    assert bench(["downscale"], pictures, [1.0, 10.0], 2, out, setting, ends=ends) == (8, 8)
    rows = read_rows(out / "rows.jsonl")
    for row in rows:
        assert row["headline"] == (row["snr_db"] == 10 and row["draw"] == 0)
        if not row["headline"]:
            assert row["segments"] is None and "headline" in row["missing"]["segments"]
            continue
        sky, road = row["segments"][0], row["segments"][3]
        assert 0 <= sky[0] <= sky[1] and sky[1] + road[1] >= 93 * 128  # what is not void is the one or the other
        index = pictures.names.index(row["image"])
        assert row["segments_original"] == overlaps(
            segment(load_segmenter(segmenter), pictures.read(index)), pictures.truth(index)
        )
        assert row["versions"]["segmenter"] and abs(row["shift_red"]) < 20
    headline = [row for row in rows if row["headline"]]
    by_picture = [next(row["segments"] for row in headline if row["image"] == f"camvid_{i}.png") for i in range(2)]
    ((key, (mean, low, high, count)),) = segmented(rows).items()
    assert key[1:] == ("downscale", 10.0, "miou") and count == 2
    assert mean == mean_iou(np.stack(by_picture)) and low <= mean <= high
    report(out)
    page = (out / "report.html").read_text()
    assert "mIoU of the originals: 0." in page and "mean red of the received less" in page


def test_labels_need_a_segmenter_and_all_pictures(cli, streets, segmenter, tmp_path):
    run = ("bench", "--systems", "downscale", "--data", streets[0], "--out", tmp_path / "out", "--lpips", tmp_path)
    code, _, err = cli(*run, "--labels", streets[1])
    assert code == 2 and err.splitlines()[-1] == "semcast: --labels and --segmenter go together: mIoU needs both"
    Image.fromarray(photo(96, 128)).save(streets[0] / "new.png")
    code, _, err = cli(*run, "--labels", streets[1], "--segmenter", segmenter)
    assert code == 2 and "new.png has no label" in err.splitlines()[-1]


def test_training_learns_and_repeats(streets, segmenter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_segmenter, "BATCH", 2)
    monkeypatch.setattr(train_segmenter, "CROP", (96, 128))
    run = lambda name, *more: train_segmenter.main(
        [str(streets[0]), "--labels", str(streets[1]), "--out", str(tmp_path / name), "--steps", "10", *more]
    )
    assert run("a.safetensors") == 0 and run("b.safetensors") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"] == 2
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    pictures = Pictures([streets[0]], labels=streets[1])
    score = lambda network: mean_iou(
        np.array([overlaps(segment(network, pictures.read(i)), pictures.truth(i)) for i in range(2)])
    )
    assert score(load_segmenter(tmp_path / "a.safetensors")) > score(load_segmenter(segmenter)) + 0.1
    assert run("c.safetensors", "--test", str(streets[0])) == 2  # nothing is left to train on
    assert "has a label" in capsys.readouterr().err and not (tmp_path / "c.safetensors").exists()
