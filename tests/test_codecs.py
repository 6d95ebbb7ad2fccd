"""Codecs in the bench keep their budgets, and bring pictures of any size back."""

import numpy as np
import pytest
from PIL import Image

from semcast.bench import codecs
from semcast.bench.pictures import SmokePictures

FACE = SmokePictures().read(0)  # uint8 [256, 256, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", codecs.CODECS)
def test_codecs_never_exceed_their_budget_and_spend_it(name):
    picture, errors = FACE[:160, 48:208], []
    assert codecs.fit(name, picture, 10) is None
    for budget in (120, 500):
        payload, scale = codecs.fit(name, picture, budget)
        assert 0.6 * budget < len(payload) <= budget
        seen = codecs.show(name, payload, scale, 160, 160)
        errors.append(np.square(seen.astype(float) - picture).mean())
    assert errors[1] < 0.5 * errors[0] and errors[1] < 400  # 22 dB


@pytest.mark.parametrize("name", ["hevc", "vvc", "avif"])
def test_headers_that_are_not_sent_are_the_same_for_every_picture(name):
    picture = Image.fromarray(FACE[:64, :128])
    for step in (0, 10, 25):
        data = codecs._ffmpeg_encode(name, picture, step)
        head, payload = codecs.SPLIT[name](data)
        assert head == codecs.constant(name, 64, 128)
        assert len(head) + len(payload) <= len(data)


@pytest.mark.slow
def test_odd_sizes_come_back():
    for name in codecs.CODECS:
        payload, scale = codecs.fit(name, FACE[:101, :77], 120)
        assert codecs.show(name, payload, scale, 101, 77).shape == (101, 77, 3)
