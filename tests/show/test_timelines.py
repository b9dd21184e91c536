"""Bars stand where they should, and say what they are by their colour."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lib.show import layout, timelines
from lib.show.timelines import Bar, bars

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


@pytest.fixture(autouse=True)
def styled():
    layout.style()


def share(image, colour):
    drawn = np.array(Image.open(io.BytesIO(image.data)).convert("RGB"), int)
    return (abs(drawn - colour).max(-1) <= 40).mean()


def test_segments_become_bars_in_order():
    found = bars(torch.tensor([[3.0, 4], [1, 2]]), ["run", "walk"],
                 ["hit", "miss"])
    assert found == [Bar(1, 2, "walk", "miss"), Bar(3, 4, "run", "hit")]
    assert bars(torch.tensor([[0.0, 1]])) == [Bar(0, 1, "", "other")]
    assert bars(torch.empty(0, 2)) == []


def test_colours_are_as_long_as_the_segments():
    def drawn(end, kind):
        return timelines.timelines({"one": [Bar(0, end, "", kind)]},
                                   seconds=10, title="x")

    for kind, colour in (("true", BLUE), ("hit", VERMILION)):
        short, long = (share(drawn(end, kind), colour) for end in (2, 8))
        assert long == pytest.approx(4 * short, rel=0.1)
    assert 0 < share(drawn(8, "miss"), VERMILION) < share(
        drawn(8, "hit"), VERMILION) / 3


def test_bars_that_overlap_stand_in_rows_of_their_own():
    apart = [Bar(0, 2), Bar(2, 4), Bar(5, 6)]
    over = [Bar(0, 4), Bar(2, 5), Bar(3, 6)]
    tall = [Image.open(io.BytesIO(timelines.timelines(
        {"one": some}, seconds=8, title="x").data)).height
        for some in (apart, over, [])]
    assert tall[1] == tall[0] + 2 * timelines.BAR
    assert tall[2] == tall[0]


def test_frames_come_above():
    video = torch.full((16, 3, 32, 32), 200, dtype=torch.uint8)
    with_film = timelines.timelines({"one": []}, seconds=8, title="x",
                                    video=video)
    assert share(with_film, (200, 200, 200)) > 0.3


def test_lines_mark_where_they_are_lowest():
    x = np.linspace(-1, 1, 101)
    plain, marked = (share(timelines.lines(
        {"a": (x, x ** 2)}, title="x", axis="x", label="y", least=least),
        BLUE) for least in (False, True))
    assert marked > plain
