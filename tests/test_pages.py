"""benchmarks/pages.py: which programs follow a measurement, and what one that fails says."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

import pages
from semcast.bench.systems import find_system
from semcast.errors import InputError


def arguments(tmp_path: Path, **given) -> Namespace:
    none = dict.fromkeys(("kodak", "streets", "photos", "lpips"))
    return Namespace(**none | {"workers": 2, "work": tmp_path / "work"} | given)


def test_programs_without_their_pictures_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "is_current", lambda record: False)
    names = lambda **given: [program.name for program in pages.programs(arguments(tmp_path, **given))]
    bundled = ["radio_strip", "ladder_strip", "mixed_strip", "demo"]  # show the bundled photo
    assert names() == bundled
    assert set(names(kodak=tmp_path)) == {*bundled, "packet_gain", "contact_sheet"}
    everything = dict.fromkeys(("kodak", "streets", "lpips"), tmp_path) | {"photos": [tmp_path]}
    assert {"asking", "confidence", "radio"} <= set(names(**everything))
    given = arguments(tmp_path, **everything, labels=tmp_path, segmenter=tmp_path)
    assert "peer_strip" in {program.name for program in pages.programs(given, peers_changed=True)}
    monkeypatch.setattr(pages, "is_current", lambda record: True)
    assert not {"confidence", "packet_gain"} & set(names(**everything))


def test_a_record_is_current_while_its_model_ships(tmp_path):
    record = tmp_path / "record.json"
    assert not pages.is_current(record)
    for version, current in ((find_system("semcast").version(), True), ("small 0123", False)):
        record.write_text(json.dumps({"systems": {"semcast": version}}))
        assert pages.is_current(record) is current
    record.write_text("{}")
    assert not pages.is_current(record)


def test_a_failing_program_ends_the_pages_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "bad.py").write_text("print('reading'); raise SystemExit('there is no picture')")
    (tmp_path / "good.py").write_text("import sys; open(sys.argv[1], 'w').write('done')")
    here = tmp_path / "good.txt"
    found = [pages.Program("good", [tmp_path / "good.py", here]), pages.Program("bad", [tmp_path / "bad.py"])]
    monkeypatch.setattr(pages, "programs", lambda *_: found)
    with pytest.raises(InputError, match=r"^bad failed with 1: there is no picture; see .*bad\.log$"):
        pages.make_pages(arguments(tmp_path))
    assert here.read_text() == "done"
