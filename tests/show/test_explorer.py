"""The explorers react live, and stand still elsewhere."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lib.show import layout
from lib.show.explorer import Explorer, SideBySide


def make(n=3, **leave):
    """n videos of 12 frames seen in 6 steps; attention on the left half."""
    layout.style()
    generator = torch.Generator().manual_seed(0)
    samples = [{
        "video": torch.randint(
            0, 255, (12, 3, 24, 24), generator=generator, dtype=torch.uint8),
        "mask": torch.zeros(12, 24, 24, dtype=torch.bool), "label": i % 2,
        "name": f"v{i}", "relevant": torch.arange(12) > 5,
    } for i in range(n)]
    for sample in samples:
        sample["mask"][:, 4:20, 2:10] = True
    where = torch.zeros(n, 6, 3, 4)
    where[..., :2] = 1
    start = torch.arange(6) * 2
    outputs = {
        "logits": torch.eye(2)[torch.arange(n) % 2], "where": where,
        "when": torch.arange(6.0).expand(n, 6),
        "spans": torch.stack([start, start + 2], 1)}
    return Explorer(
        samples, {k: v for k, v in outputs.items() if k not in leave},
        ["run", "walk"])


def shown(explorer):
    image = Image.open(io.BytesIO(explorer.image.value))
    return np.array(image.convert("RGB"), int)


@pytest.mark.parametrize("control, value", [
    ("frame", 7), ("video", 1), ("where", False), ("when", False),
    ("outline", False),
])
def test_each_control_changes_the_picture(control, value):
    explorer = make()
    before = explorer.image.value
    getattr(explorer, control).value = value
    assert explorer.image.value != before


def test_heat_lies_where_the_model_looked():
    explorer = make()
    explorer.outline.value = False
    colours = shown(explorer)
    frame = colours[60:330, 100:400]
    warm = frame[..., 0] - frame[..., 2]
    assert warm[:, :120].mean() > warm[:, -120:].mean() + 30
    explorer.where.value = False
    plain = shown(explorer)[60:330, 100:400]
    warm = plain[..., 0] - plain[..., 2]
    assert abs(warm[:, :120].mean() - warm[:, -120:].mean()) < 15


def test_another_video_starts_at_its_first_frame():
    explorer = make()
    explorer.frame.value = 11
    explorer.video.value = 2
    assert explorer.frame.value == 0 and explorer.frame.max == 11


@pytest.mark.parametrize("fps, sure", [({"fps": 4.0}, 1), ({}, 9)])
def test_the_picture_tells_seconds_and_how_sure_the_model_is(fps, sure):
    explorer = make()
    outputs = explorer._outputs
    other = Explorer([sample | fps for sample in explorer._samples],
                     outputs | {"logits": sure * outputs["logits"]},
                     explorer._classes)
    assert other.image.value != explorer.image.value


def test_works_with_what_the_model_has():
    explorer = make(where=0, spans=0, when=0)
    assert explorer.where.disabled and explorer.when.disabled
    explorer.frame.value = 3
    explorer.still()


def test_bundle_has_a_still_and_text_without_results():
    first, second = (make()._repr_mimebundle_()[0] for _ in range(2))
    still = Image.open(io.BytesIO(base64.b64decode(first["image/jpeg"])))
    assert still.format == "JPEG" and still.width > 500
    assert first["text/plain"] == "Explorer of 3 videos"
    for bundle in (first, second):
        del bundle["application/vnd.jupyter.widget-view+json"]
    assert first == second


def test_samples_and_outputs_must_agree():
    explorer = make()
    with pytest.raises(ValueError, match="2 samples, but outputs for 3"):
        Explorer(explorer._samples[:2], explorer._outputs, ["run", "walk"])


def beside(**changed):
    """Four models on the same videos, each with other steps and maps."""
    one, halves = make(), torch.tensor([[0, 6], [6, 12]])
    logits, where = one._outputs["logits"], torch.zeros(3, 2, 5, 2)
    where[..., 1] = 1
    outputs = {
        "left": one._outputs,
        "right": {"logits": -logits, "where": where, "spans": halves},
        "late": {"logits": logits, "spans": halves,
                 "when": torch.tensor([0.0, 1.0]).expand(3, 2)},
        "blind": {"logits": logits}} | changed
    return SideBySide(one._samples, outputs, one._classes)


@pytest.mark.parametrize("control, value, changed", [
    ("frame", 7, {"left", "right", "late", "blind"}),
    ("video", 1, {"left", "right", "late", "blind"}),
    ("outline", False, {"left", "right", "late", "blind"}),
    ("heat", False, {"left", "right"}),
])
def test_each_control_changes_the_pictures_it_should(control, value, changed):
    view = beside()
    before = {name: image.value for name, image in view.images.items()}
    getattr(view, control).value = value
    assert changed == {name for name, image in view.images.items()
                       if image.value != before[name]}


def test_models_of_other_steps_and_maps_line_up_with_the_frames():
    view = beside()
    view.outline.value = False
    pictures = {name: np.array(Image.open(io.BytesIO(image.value)), int)
                for name, image in view.images.items()}
    for name, sign in (("left", 1), ("right", -1)):
        frame = pictures[name][30:140]
        warm = frame[..., 0] - frame[..., 2]
        assert sign * (warm[:, 10:60].mean() - warm[:, 100:].mean()) > 30
    bars = pictures["late"][-55:-35].mean((0, 2))  # frame 0 is marked
    assert bars[20:75].min() > 240 and bars[90:150].max() < 210


def test_wrong_lengths_name_the_model():
    logits = torch.zeros(3, 2)
    for wrong, words in (
            ({"logits": logits[:2]}, "late: 3 samples, but outputs for 2"),
            ({"logits": logits, "when": torch.ones(3, 6)}, "late: .* 6 steps"),
            ({"logits": logits, "where": torch.ones(3, 6, 2, 2),
              "spans": torch.zeros(5, 2)}, "late: spans must be")):
        with pytest.raises(ValueError, match=words):
            beside(late=wrong)


def test_several_models_have_a_still_too():
    bundle = beside()._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == "4 models side by side on 3 videos"
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/jpeg"])))
    assert still.format == "JPEG" and still.width > 500
