"""Figures show what they were given; checked in the pixels, not by name."""

import io

import nbformat
import numpy as np
import pytest
import torch
from checks import refused
from PIL import Image

from lib import ROOT
from lib.scores import metrics
from lib.show import figures, layout, source
from lib.show.diagram import diagram

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


@pytest.fixture(autouse=True)
def styled():
    layout.style()


@pytest.fixture
def sample():
    video = torch.full((16, 3, 32, 32), 128, dtype=torch.uint8)
    mask = torch.zeros(16, 32, 32, dtype=torch.bool)
    for t in range(16):
        mask[t, 10:20, 2 * t % 22 + 1:2 * t % 22 + 9] = True
    relevant = torch.arange(16) >= 8
    return {"video": video, "mask": mask, "relevant": relevant, "label": 1}


def pixels(image):
    return np.array(Image.open(io.BytesIO(image.data)).convert("RGB"), int)


def near(image, colour, within=40):
    return (abs(pixels(image) - colour).max(-1) <= within)


def kind(image):
    return Image.open(io.BytesIO(image.data)).format


def test_overlay_marks_the_peak_and_leaves_uniform_maps_uniform(sample):
    where = torch.full((16, 4, 4), 0.1)
    flat = figures.overlay(sample["video"], where)
    assert (flat == flat[0, :, :1, :1]).all()
    where[3, 0, 0] = 1.0
    light = figures.overlay(sample["video"], where).float().mean(1)
    assert light[3].flatten().argmax() == 0
    assert light[3, 0, 0] > light[3, -1, -1] + 50
    # one maximum for the whole video: other frames are dark beside it
    assert light[3].max() > light[4].max() + 50


def test_overlay_ignores_the_scale_of_the_weights(sample):
    where = torch.rand(16, 4, 4, generator=torch.Generator().manual_seed(0))
    one = figures.overlay(sample["video"], where).int()
    other = figures.overlay(sample["video"], where / 1000).int()
    assert (one - other).abs().max() <= 1  # rounding of float32
    dead = figures.overlay(sample["video"], where * 0)
    assert (dead < 100).all()  # dark, and not NaN


@pytest.mark.parametrize("where, message", [
    (torch.zeros(4, 4, 4), r"metrics\.expand"),
    (torch.full((16, 4, 4), -1.0), ">= 0"),
    (torch.full((16, 4, 4), torch.nan), "finite"),
])
def test_overlay_names_bad_weights(sample, where, message):
    refused(message, figures.overlay, sample["video"], where)


def test_a_mask_of_ones_hides_nothing_and_is_called_even(sample, monkeypatch):
    """Not an opaque picture: the video shows through a weak tint."""
    video = sample["video"].clone()
    video[:, :, :16] = 40
    seen = figures.overlay(video, torch.ones(16, 4, 4)).float().mean(1)
    contrast = seen[:, 20:].mean() - seen[:, :12].mean()
    assert contrast > 0.65 * (128 - 40)
    # as strong as may be where it matters: the map's own range
    half = torch.ones(16, 4, 4)
    half[..., :2] = 0
    light = figures.overlay(sample["video"], half).float().mean(1)
    assert light[..., -8:].mean() > light[..., :8].mean() + 40
    seen = figures.overlay(video, half).float().mean(1)[..., -8:]
    assert seen[:, 20:].mean() - seen[:, :12].mean() > 0.55 * (128 - 40)
    notes = notes_of(monkeypatch)
    figures.strip(sample, torch.full((16, 4, 4), 0.99), torch.ones(16) / 16,
                title="t")
    assert "where is even: mean 0.99" in notes
    assert "when is even: mean 0.062" in notes
    notes.clear()
    figures.strip(sample, half, torch.arange(16.0), title="t")
    assert notes == ["true: class 1", "line: true outline"]


def notes_of(monkeypatch):
    found, sheet = [], layout.sheet

    def spy(*args, notes=(), **settings):
        found.extend(words for words, _ in notes)
        return sheet(*args, notes=notes, **settings)

    monkeypatch.setattr(layout, "sheet", spy)
    return found


def test_maps_of_one_figure_have_one_scale(sample):
    """A map that is a tenth of another is dark beside it, and alone not."""
    bare = {"video": sample["video"]}
    peak = torch.zeros(16, 4, 4)
    peak[:, 1:3, 1:3] = 1
    both = pixels(figures.rows(bare, {"a": peak, "b": peak / 10}, {},
                               title="t"))
    y = [32 + row * (figures.CELL + 6) + 50 for row in (1, 2)]
    strong, weak = (both[at, layout.LEFT + 50].mean() for at in y)
    assert strong > weak + 40
    bar = layout.LEFT + 800 + 9  # its colours, from most to nothing
    assert both[y[0] - 45, bar].mean() > both[y[0] + 45, bar].mean() + 100


def test_a_truth_beside_weights_is_blue_and_on_no_scale(sample):
    bare = {"video": sample["video"]}
    clean = torch.arange(16) >= 8
    image = figures.rows(
        bare, {}, {"when": torch.rand(16) / 16, "clean": clean}, title="t")
    row = 32 + figures.CELL + 6 + 26 + 10
    blue = near(image, BLUE)[row]
    assert blue[layout.LEFT + 405:layout.LEFT + 795].mean() > 0.9
    assert not blue[layout.LEFT + 5:layout.LEFT + 395].any()
    when = pixels(image)[row - 26, layout.LEFT:layout.LEFT + 800]
    assert when.mean(-1).min() < 60  # its own largest is black


def test_frames_tell_their_seconds_where_the_rate_is_known():
    for fps, first, name in ((None, "2", "frame"), (4.0, "2\n0.6",
                                                   "frame\nsecond")):
        _, (ax,) = layout.sheet([20], 400, title="t")
        layout.frame_ticks(ax, [2, 6], fps)
        assert ax.get_xticklabels()[0].get_text() == first
        assert ax.texts[0].get_text() == name


CLASSES = ["run", "walk", "wave", "kick"]
SHARES = torch.tensor([0.25, 0.625, 0.02, 0.105], requires_grad=True)
OTHERS = ("then run 25%, kick 10%", layout.QUIET)


@pytest.mark.parametrize("label, predicted, classes, notes", [
    (None, 1, CLASSES, [("predicted: walk", layout.INK)]),
    (0, None, CLASSES, [("true: run", layout.TRUE)]),
    (0, 1, CLASSES, [("true: run", layout.TRUE),
                     ("predicted: walk ✗", layout.PREDICTED)]),
    (None, SHARES, CLASSES, [("predicted: walk 62%", layout.INK), OTHERS]),
    (0, SHARES, CLASSES, [("true: run", layout.TRUE), (
        "predicted: walk 62% ✗", layout.PREDICTED), OTHERS]),
    (1, SHARES[:2] / 0.875, (), [
        ("true: class 1", layout.TRUE), ("predicted: class 1 71% ✓",
                                         layout.INK),
        ("then class 0 29%", layout.QUIET)])])
def test_a_verdict_claims_what_is_known_of_the_first_three(
        label, predicted, classes, notes):
    assert layout.verdict(label, predicted, classes) == notes


def test_logits_are_no_probabilities():
    refused(r"softmax\(0\)", layout.verdict, None, SHARES * 3, CLASSES)


def test_notes_wrap_inside_a_narrow_figure(sample):
    brief = {"video": sample["video"][:2], "label": 0}
    image = figures.strip(brief, title="t", columns=2, classes=[
        "a class with a name", "another that is long"], predicted=1)
    dark = pixels(image).min(-1) < 200
    assert not dark[:, -3:].any()
    red = near(image, VERMILION, 90).any(1)
    assert near(image, BLUE, 90).any(1).argmax() < red.argmax() - 10


def test_strip_spans_equal_expanded_maps(sample):
    when, where = torch.rand(4), torch.rand(4, 2, 2)
    spans = torch.stack([torch.arange(4) * 4, torch.arange(4) * 4 + 4], 1)
    by_spans = figures.strip(sample, where, when, spans=spans, title="t")
    by_hand = figures.strip(
        sample, metrics.expand(where[None], spans, 16)[0],
        metrics.expand(when[None], spans, 16)[0], title="t")
    assert by_spans.data == by_hand.data


@pytest.mark.parametrize("leave, more", [
    (("mask", "relevant", "label"), {"predicted": 1}),
    (("mask", "relevant"), {"when": torch.ones(16, requires_grad=True)}),
    ((), {"where": torch.rand(16, 4, 4, requires_grad=True)})])
def test_strip_needs_only_a_video_and_cuts_gradients(sample, leave, more):
    for empty in (False, True):  # also of a truth that is nowhere
        part = {key: x & False if empty and key in ("mask", "relevant") else x
                for key, x in sample.items() if key not in leave}
        assert kind(figures.strip(part, title="t", **more)) == "JPEG"


def test_every_film_is_small_even_of_noise():
    noise = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    video = noise.float().unfold(2, 3, 1).mean(-1)[..., :62].byte()
    image = figures.strip({"video": video, "label": 0}, torch.rand(16, 7, 7),
                        title="t")
    assert kind(image) == "JPEG" and len(image.data) <= layout.JPEG_BYTES


def test_contact_sheet_shows_the_same_moments_of_flow():
    video = torch.arange(16, dtype=torch.uint8)[:, None, None, None] * 16
    video = video.expand(16, 3, 20, 20)
    image = figures.contact_sheet(
        [video, video[:-1]], ["rgb", "flow"], title="t", columns=5)
    grey = pixels(image).mean(-1)
    x = [layout.LEFT + 100 * i + 50 for i in range(5)]
    top, below = grey[100, x], grey[206, x]
    assert np.allclose(top, below, atol=3) and np.all(np.diff(top) > 30)


def test_boxes_draw_where_they_are_and_skip_missing_ones(sample):
    frames = sample["video"][:2]
    true = torch.tensor([[4.0, 4, 12, 28], [4, 4, 12, 28]])
    none = torch.full((2, 4), torch.nan)
    image = figures.boxes(frames, none, true, [0, 0], title="t", cell=128)
    left = layout.RIGHT
    rows, columns = np.nonzero(near(image, BLUE)[52:])  # below the notes
    inside = columns < left + 128
    scale = 128 * (1 - 2 * layout.GUTTER) / 32
    edge = left + 128 * layout.GUTTER
    assert abs(columns[inside].min() - (edge + 4 * scale)) < 3
    assert abs(columns[inside].max() - (edge + 12 * scale)) < 3
    assert np.ptp(rows) == pytest.approx(24 * 4, abs=5)
    both = figures.boxes(frames, true + 3, true, [0.6, 0.4], title="t")
    assert near(both, VERMILION)[60:].sum() > near(image, VERMILION)[60:].sum()


def test_boxes_call_no_overlap_where_nothing_is_annotated(sample):
    frames, box = sample["video"][:1], torch.tensor([[4.0, 4, 12, 28]])
    none = torch.full((1, 4), torch.nan)
    unknown = figures.boxes(frames, box, none, [float("nan")], title="t")
    missed = figures.boxes(frames, none, box, [0.0], title="t")
    line = slice(72, 90)  # the words over the frame, below two notes
    assert not near(unknown, VERMILION, 60)[line].any()
    assert near(missed, VERMILION, 60)[line].any()


def test_timeline_bars_span_their_seconds():
    when = torch.rand(80)
    image = figures.timeline(
        when, torch.tensor([[2.0, 4]]), torch.tensor([[5.0, 10]]), fps=8,
        threshold=0.5, title="t")
    for colour, start, end in ((BLUE, 2, 4), (VERMILION, 5, 10)):
        x = np.flatnonzero(near(image, colour).sum(0) > 8)
        assert abs(x.min() - (104 + 84 * start)) < 4
        assert abs(x.max() - (104 + 84 * end)) < 4
    nothing = figures.timeline(
        when, torch.zeros(0, 2), torch.zeros(0, 2), fps=8, title="t")
    assert not near(nothing, BLUE).any()


def accuracies(*values):
    return figures.accuracies(
        {"base": [0.5, 0.52], "full": [*values]}, {"full": [0.1, 0.12]},
        metric="top-1", base="base", title="t",
        interval=lambda x: (sum(x) / max(len(x), 1), 0.01))


def history(key="loss"):
    return [{"step": i + 1, key: 1 / (i + 1)} for i in range(50)]


@pytest.mark.parametrize("draw", [
    lambda: figures.curves({"a": history()}, "loss", title="t", chance=0.1),
    lambda: figures.curves({"a": history() + history("score")}, "score",
                         title="t"),
    lambda: accuracies(0.6, 0.64),
    lambda: figures.attention({"where": 0.2, "where chance": 0.1,
                               "where true": 0.9, "point": 0.3}, title="t"),
    lambda: figures.columns({"a": 0.6, "b": 0.0}, title="t", label="top-1"),
    lambda: figures.histograms({"a": torch.arange(9.0), "b": torch.eye(3)},
                               title="t", label="mask"),
    lambda: diagram({"in": (0, 0, "data"), "a": (1, 0, "where"),
                     "b": (1, 1, "when"), "c": (2, 0, "trained")},
                    [("in", "a", "X C×h"), ("in", "b", ""), ("b", "a", "w n"),
                     ("a", "c", ""), ("c", "b", "H D")], title="t"),
], ids=["curves", "sparse", "accuracies", "attention", "columns",
        "histograms", "diagram"])
def test_plots_are_small_png_and_the_same_each_time(draw):
    first, second = draw(), draw()
    assert kind(first) == "PNG" and len(first.data) < 40_000
    assert first.data == second.data


def test_an_arrow_needs_its_boxes():
    with pytest.raises(ValueError, match=r"\['b'\]: no such boxes"):
        diagram({"a": (0, 0, "data")}, [("a", "b", "")], title="t")


def scores(*names):
    return dict.fromkeys(names, 0.5)


@pytest.mark.parametrize("few, more", [
    (lambda: figures.attention(scores("a"), title="t"),
     lambda: figures.attention(scores("a", "a chance"), title="t")),
    (lambda: accuracies(0.6, 0.64), lambda: accuracies(0.6, 0.68)),
    (lambda: figures.curves(dict.fromkeys("abcdefg", history()), "loss",
                            title="t"),
     lambda: figures.curves(dict.fromkeys("abcdefgh", history()), "loss",
                            title="t")),
    (lambda: figures.heat({"a": torch.eye(3)}, title="t", axis="x",
                          rows_are="y"),
     lambda: figures.heat({"a": -torch.eye(3)}, title="t", axis="x",
                          rows_are="y")),
], ids=["rivals", "runs", "histories", "signs"])
def test_everything_is_drawn(few, more):
    assert few().data != more().data


def test_curves_do_not_need_a_logged_value_at_every_step():
    rows = history()
    rows[9]["score"], rows[49]["score"] = 0.2, 0.8
    image = figures.curves({"a": rows}, "score", title="t")
    assert near(image, BLUE).sum() > 100


def test_long_titles_wrap_inside_the_figure(sample):
    short = figures.strip(sample, title="short")
    long = figures.strip(sample, title="a long finding " * 12)
    assert pixels(long).shape[0] > pixels(short).shape[0] + 15
    assert (pixels(long)[:, -4:] > 245).all()  # nothing runs off the right


def test_show_links_the_file_and_follows_the_source():
    shown = source.show(figures.strip).data
    assert shown.startswith("[`lib/show/figures.py`](../lib/show/figures.py)")
    assert "```python\ndef strip(" in shown and shown.endswith("\n```")


def test_show_finds_a_lib_that_is_a_link(tmp_path, monkeypatch):
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    monkeypatch.setattr(source.inspect, "getsourcefile", lambda thing: str(
        tmp_path / "notebooks/../lib/show/figures.py"))
    (tmp_path / "notebooks").mkdir()
    assert "(../lib/show/figures.py)" in source.show(figures.strip).data


def test_images_and_source_print_no_address():
    from IPython.core.formatters import DisplayFormatter

    image = figures.columns({"a": 0.6}, title="t", label="")
    for thing in (image, source.show(layout.style)):
        data, _ = DisplayFormatter().format(thing)
        assert "0x" not in data["text/plain"]
        nbformat.validate(nbformat.v4.new_output("display_data", data),
                          "display_data", version=4)


def test_matrix_is_darkest_where_the_share_is_largest():
    def brightness(table):
        image = figures.matrix(table, ["a", "b"], ["a", "b"], title="finding",
                             rows_are="true", columns_are="predicted")
        return np.asarray(Image.open(io.BytesIO(image.data)).convert("L"))

    filled = brightness(torch.tensor([[0.9, 0.1], [0.0, 1.0]]))
    blank = brightness(torch.zeros(2, 2))
    assert filled.shape == blank.shape
    assert filled.mean() < blank.mean() - 5


def test_rows_draw_every_map_and_weight_in_its_place(sample):
    """A map that is bright left and one that is bright right, two lanes."""
    left = torch.zeros(16, 1, 2)
    left[..., 0] = 1
    bare = {"video": sample["video"]}
    image = pixels(figures.rows(
        bare, {"left": left, "right": left.flip(-1)},
        {"first": (torch.arange(16) < 8).float(),
         "last": (torch.arange(16) >= 8) / 2}, title="t", columns=8))
    top = 14 + 18  # the title; then frames, two maps and two lanes
    for row, order in ((1, 1), (2, -1)):
        y = top + row * (figures.CELL + 6) + 50
        halves = [image[y, layout.LEFT + x].mean() for x in (15, 85)]
        assert order * (halves[0] - halves[1]) > 40
    below = top + 3 * (figures.CELL + 6)
    # one scale for both lanes: a half is grey
    for lane, ends in ((0, (38, 255)), (1, (255, 146))):
        y = below + lane * 26 + 10
        seen = [image[y, layout.LEFT + x].mean() for x in (25, 775)]
        assert abs(np.array(seen) - ends).max() < 20


def test_head_rooms_show_who_wins_and_who_loses():
    def world(model):
        numbers = {"plain mean": 20, "oracle": 80, "even": 40, "model": model}
        return {"one": {name: (x, float("nan")) for name, x in
                        numbers.items()}}
    wins, loses, nothing = (
        figures.head_rooms({"stage": world(model)}, title="t")
        for model in (60, 30, float("nan")))
    assert near(wins, BLUE).any() and not near(wins, VERMILION).any()
    assert near(loses, VERMILION).any() and not near(loses, BLUE).any()
    assert not near(nothing, BLUE).any()
    small = figures.head_rooms({"stage": {"one": {
        name: (x, 1.0) for name, x in (("plain mean", 20), ("oracle", 50),
                                       ("even", 40), ("model", 40))}}},
        title="t")
    gray = [(pixels(image) == 0xDC).all(-1).sum() for image in (wins, small)]
    assert gray[0] > 1.5 * gray[1]  # the bar is twice as long


def test_scatter_has_a_panel_for_each_part():
    points = {"one": [(1.0, 0.2), (3.0, 0.4)], "two": [(30.0, 0.9)]}
    one = figures.scatter({"stage": points}, title="t", axis="x", label="y")
    two = figures.scatter({"stage": points, "crowd": points}, title="t",
                          axis="x", label="y", log=True)
    assert pixels(two).shape[1] > 1.5 * pixels(one).shape[1]
    assert near(one, BLUE).any() and near(two, BLUE).any()


def test_sweep_draws_a_line_for_each_name():
    table = {1: (0.2, 0.1), 10: (0.8, float("nan"))}
    one = figures.sweep({"a": table}, title="t", label="y", axis="x")
    two = figures.sweep({"a": table, "b": {1: (0.8, 0), 10: (0.2, 0)}},
                        title="t", label="y", axis="x")
    assert kind(one) == "PNG"
    colours = [tuple(int(c[i:i + 2], 16) for i in (1, 3, 5))
               for c in layout.CYCLE[:2]]
    assert near(one, colours[0]).sum() > 100 > near(one, colours[1]).sum()
    assert near(two, colours[1]).sum() > 100
    three = figures.sweeps({axis: {"a": table} for axis in "xyz"}, title="t",
                           label="y")
    assert near(three, colours[0]).sum() > 2 * near(one, colours[0]).sum()
