"""The pictures that a model is trained on: where they are found, damaged ones, other ones than before."""

import json
import os
import shutil
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import photo
from training_runs import (
    STEPS,
    config,
    fail_at,
    files,
    interrupt,
    interrupted,
    log,
    tiny,
)

from semcast import randomness
from semcast.errors import InputError
from semcast.images import MAX_FILE_BYTES, SUFFIXES, find_pictures
from semcast.training import train as training
from semcast.training.data import Photos
from semcast.training.train import train


def test_photos_are_found_in_folders_and_shards_in_a_fixed_order(photo_folder, tmp_path):
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("deep/c.webp", "b.png", "notes.txt", "a.jpg"):
            tar.add(photo_folder / name, arcname=name)
    sources = [photo_folder, shard, photo_folder / "b.png"]
    found = [item[0] for item in Photos(sources).items]
    assert found == ["a.jpg", "b.png", "c.webp", "D.PNG", "deep/c.webp", "b.png", "a.jpg", "b.png"]
    assert [item[0] for item in Photos(sources).items] == found
    pictures = Photos(sources)
    for in_folder, in_shard in ((0, 6), (1, 5), (2, 4)):
        assert np.array_equal(pictures.read(in_folder), pictures.read(in_shard))
    assert np.array_equal(pictures.read(7), np.asarray(Image.open(photo_folder / "b.png")))
    shards = tmp_path / "shards"
    (shards / "more").mkdir(parents=True)
    shard.rename(shards / "more" / "x.tar")
    shutil.copy(photo_folder / "b.png", shards / "z.png")
    assert [item[0] for item in Photos([shards]).items] == ["deep/c.webp", "b.png", "a.jpg", "z.png"]


def test_missing_photos_and_damaged_shards_are_refused(tmp_path):
    with pytest.raises(InputError, match="no pictures at .*nowhere: it is neither a folder nor a tar file nor a pic"):
        Photos([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no pictures in"):
        Photos([tmp_path])
    (tmp_path / "broken.tar").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match="cannot read .*broken.tar"):
        Photos([tmp_path / "broken.tar"])


def test_pictures_are_found_behind_links_and_under_every_suffix_and_what_macos_leaves_is_not(photo_folder, tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "__MACOSX").mkdir(parents=True)
    elsewhere.mkdir()
    names = [f"{i}{suffix}" for i, suffix in enumerate(sorted(SUFFIXES))] + ["same.PNG", "same.png"]
    for name in (*names, "._same.png", "__MACOSX/same.png", ".DS_Store", "notes.txt"):
        (root / name).write_bytes(b"?")
    (elsewhere / "z.jpeg").write_bytes(b"?")
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)  # a circle
    (root / "again").symlink_to(root)
    found = find_pictures(root)
    assert sorted(path.name for path in found) == sorted([*names, "z.jpeg"]) and found == sorted(found)
    shard = tmp_path / "mac.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("./a.jpg", "./._a.jpg", "__MACOSX/./a.jpg", "in/__MACOSX/a.jpg"):
            tar.add(photo_folder / "a.jpg", arcname=name)
    assert [item[0] for item in Photos([shard]).items] == ["./a.jpg"]
    (root / "._mac.tar").write_bytes(b"?")
    assert len(Photos([root])) == len(found)


@pytest.fixture
def damaged(photo_folder, tmp_path):
    """Five pictures, of which 1.jpg is cut off, and so is member 1.jpg of a tar file of four."""
    root = tmp_path / "damaged"
    root.mkdir()
    for i in range(5):
        Image.fromarray(photo(90, 100, seed=i)).save(root / f"{i}.jpg")
    cut = (root / "1.jpg").read_bytes()
    (root / "1.jpg").write_bytes(cut[: len(cut) // 2])
    with tarfile.open(tmp_path / "damaged.tar", "w") as tar:
        for i in range(4):
            tar.add(root / f"{i}.jpg", arcname=f"{i}.jpg")
    return root


def test_a_damaged_picture_is_named_once_and_the_next_one_takes_its_place(damaged, tmp_path, caplog):
    both = [damaged, tmp_path / "damaged.tar"]
    first, second, found = Photos(both), Photos(both), []
    second.decode_all(threading.Event())  # before any step, as the check in the background may
    for step in range(3):
        crops = [each.crops(64, 6, randomness.seeded(step)) for each in (first, second)]
        assert torch.equal(*crops)
        found += first.picks(6, randomness.seeded(step))
    assert {1, 6} & set(found) and first.unreadable <= second.unreadable == {1, 6}
    draws = randomness.seeded(9).random(4)
    assert np.array_equal(first.crop(64, 1, *draws), first.crop(64, 2, *draws))
    assert np.array_equal(first.crop(64, 6, *draws), first.crop(64, 7, *draws))
    lines = [record.message for record in caplog.records if record.name == "semcast"]
    assert len(lines) == 4 and lines[0].startswith(f"{damaged / '1.jpg'}: damaged (") and lines[0].endswith("; skipped")
    assert lines[1].startswith(f"{tmp_path / 'damaged.tar'}:1.jpg: damaged (")
    with pytest.raises(InputError, match="1.jpg: damaged"):
        Photos(both, strict=True).decode_all(threading.Event())
    last = Photos([damaged / "0.jpg", damaged / "1.jpg"])  # after the last picture comes the first
    assert np.array_equal(last.crop(64, 1, *draws), last.crop(64, 0, *draws))


def test_a_place_is_taken_within_its_source(damaged, tmp_path):
    """So that the weights of sources hold."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("0.jpg", "1.jpg"):
        shutil.copy(damaged / name, few)
    photos = Photos([f"{few}:0.5", f"{damaged}:0.5"])
    assert not photos.readable(1) and photos.shown(1) == 0
    assert not photos.readable(3) and photos.shown(3) == 4


def test_what_does_not_look_like_a_picture_is_found_before_the_first_step(photo_folder, tmp_path, caplog):
    root = shutil.copytree(photo_folder, tmp_path / "copy")
    (root / "page.jpg").write_text("<!doctype html>")
    (root / "empty.png").write_bytes(b"")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.png")  # would be waited for without end
    (root / "large.png").write_bytes((root / "b.png").read_bytes())
    os.truncate(root / "large.png", MAX_FILE_BYTES + 1)
    photos = Photos([root])
    photos.check_heads()
    bad = {photos.items[i][0] for i in photos.unreadable}
    assert bad == {"page.jpg", "empty.png", "gone.png", "large.png"} | {"pipe.png"} & set(os.listdir(root))
    lines = [record.message for record in caplog.records if record.name == "semcast"]
    assert len(lines) == len(bad) + 1 and lines[-1] == f"only 4 of {len(photos)} pictures can be read"
    assert all("\n" not in line for line in lines)
    photos.crops(64, 6, randomness.seeded(1))
    photos.check_heads()
    assert len(caplog.records) == len(bad) + 1  # each is named once, and so is how many are left
    with pytest.raises(InputError, match="empty.png"):
        Photos([root], strict=True).check_heads()
    none = Photos([root / "page.jpg", root / "empty.png"])
    with pytest.raises(InputError, match="^none of the 2 pictures can be read$"):
        none.check_heads()
    with pytest.raises(InputError, match="^none of the 2 pictures can be read$"):
        Photos([root / "page.jpg", root / "empty.png"]).crops(64, 1, randomness.seeded(0))


def test_a_run_over_damaged_pictures_has_the_same_losses_whenever_they_are_found(damaged, tmp_path, monkeypatch, vgg):
    run = lambda name, **how: train(tiny(), Photos([damaged]), config(), tmp_path / name, vgg, progress=False, **how)
    decode_all = Photos.decode_all
    with monkeypatch.context() as patch:  # found at the steps
        patch.setattr(Photos, "decode_all", lambda self, stop: None)
        run("late")
    with monkeypatch.context() as patch:  # found before them
        check = Photos.check_heads
        patch.setattr(Photos, "check_heads", lambda self: (check(self), decode_all(self, threading.Event())))
        run("early")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(patch, "joint", 3, interrupt)
        run("parts")
    run("parts", resume=True)
    assert log(tmp_path / "late") == log(tmp_path / "early") == log(tmp_path / "parts")


def test_a_strict_run_stops_at_a_damaged_picture(damaged, tmp_path, vgg, monkeypatch):
    strict, decode_all = Photos([damaged], strict=True), Photos.decode_all
    strict.picks = lambda count, generator: [0] * count  # no step needs it: the background check finds it
    slow = lambda self, stop: (stop.wait(3), decode_all(self, threading.Event()))  # after the steps
    monkeypatch.setattr(Photos, "decode_all", slow)
    with pytest.raises(InputError, match="1.jpg: damaged"):
        train(tiny(), strict, config(steps=1), tmp_path / "run", vgg, progress=False)
    assert not (tmp_path / "run" / "model").exists()


def test_the_command_line_stops_before_the_first_step_if_it_is_strict(damaged, tiny_model, tmp_path, cli):
    (damaged / "page.jpg").write_text("<!doctype html>")
    command = ["train", "--preset", "scsic-512", "--init", tiny_model, "--data", damaged, "--out", tmp_path / "run"]
    code, _, error = cli(*command, "--strict")
    assert code == 2 and error.count("\n") == 1 and error.startswith(f"semcast: {damaged / 'page.jpg'}")
    assert not (tmp_path / "run").exists()


def test_resuming_with_other_data_is_refused_unless_told(photo_folder, tmp_path, monkeypatch, vgg):
    data = shutil.copytree(photo_folder, tmp_path / "data")
    run = interrupted(tmp_path, monkeypatch, Photos([data]), vgg)
    resume = lambda sources, **how: train(
        tiny(), Photos(sources), config(), run, vgg, resume=True, progress=False, **how
    )
    before = files(run / "last"), log(run)
    refused = lambda change: pytest.raises(InputError, match=rf"other data \({change}\); .* or give --other-data$")
    moved = data.rename(tmp_path / "moved")
    with refused("now 4 pictures more"):
        resume([moved, photo_folder])
    with refused("now 3 pictures fewer"):
        resume([moved / "b.png"])
    with refused("now other weights of the sources"):
        resume([f"{moved / 'a.jpg'}:0.5", f"{moved / 'b.png'}:0.25", f"{moved / 'deep'}:0.25"])
    (moved / "a.jpg").rename(moved / "aa.jpg")
    with refused("now as many pictures of other names"):
        resume([moved])
    (moved / "aa.jpg").rename(moved / "a.jpg")
    with open(moved / "a.jpg", "ab") as file:
        file.write(b"\0")
    with refused("now the same names, but files of other sizes"):
        resume([moved])
    assert (files(run / "last"), log(run)) == before
    state = json.loads((run / "last" / "state.json").read_text())
    resume([moved], other_data=True)
    assert len(log(run)) == STEPS
    now = json.loads((run / "last" / "state.json").read_text())
    assert now["data"]["sizes"] != state["data"]["sizes"] and now["data"]["names"] == state["data"]["names"]


def test_data_that_moved_are_the_same_data(photo_folder, tmp_path, monkeypatch, vgg):
    data = shutil.copytree(photo_folder, tmp_path / "data")
    run = interrupted(tmp_path, monkeypatch, Photos([data]), vgg)
    data.rename(tmp_path / "moved")
    train(tiny(), Photos([tmp_path / "moved"]), config(), run, vgg, resume=True, progress=False)
    assert len(log(run)) == STEPS


def test_crops_depend_on_the_generator_only(photo_folder, photos, tmp_path):
    first = photos.crops(64, 6, randomness.seeded(1))
    assert first.shape == (6, 3, 64, 64) and 0 <= first.min() and first.max() <= 1
    photos.crops(128, 3, randomness.seeded(5))  # neither what was read before nor where the pictures are may matter
    shutil.copytree(photo_folder, tmp_path / "copy")
    torch.manual_seed(4)
    before = torch.get_rng_state()
    assert torch.equal(photos.crops(64, 6, randomness.seeded(1)), first)
    assert torch.equal(Photos([tmp_path / "copy"]).crops(64, 6, randomness.seeded(1)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(photos.crops(64, 6, randomness.seeded(2)), first)
    assert training.step_generator(0, 1, 0).random() != training.step_generator(1, 0, 0).random()
