"""The explorer reacts live, stands still elsewhere, and passes nbval."""

import base64
import io
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from refresh import refresh

from lib.show import layout
from lib.show.explorer import Explorer

SETUP = """
import sys
sys.path[:0] = [{root!r}]
import torch
from lib.show.explorer import Explorer
video = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1) * 30
video = video.expand(8, 3, 24, 24)
sample = {{"video": video, "label": 0, "name": "v_Run_g01_c01"}}
outputs = {{"logits": torch.eye(2), "when": torch.rand(2, 8)}}
"""


def make(n=3, **leave):
    """n videos of 12 frames seen in 6 steps; attention on the left half."""
    layout.style()
    generator = torch.Generator().manual_seed(0)
    samples = [{
        "video": torch.randint(
            0, 255, (12, 3, 24, 24), generator=generator, dtype=torch.uint8
        ),
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
        "spans": torch.stack([start, start + 2], 1),
    }
    return Explorer(
        samples, {k: v for k, v in outputs.items() if k not in leave},
        ["run", "walk"],
    )


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


def test_on_a_narrow_page_controls_wrap_and_the_picture_shrinks():
    *rows, image = make().children
    assert len(rows) == 2
    for row in rows:
        assert row.layout.flex_flow == "row wrap"
        assert row.layout.max_width == "100%"
    assert image.layout.max_width == "100%" and image.layout.height == "auto"


def test_the_picture_says_how_sure_the_model_is():
    explorer = make()
    sure = Explorer(
        explorer._samples, explorer._outputs | {
            "logits": 9 * explorer._outputs["logits"]}, explorer._classes)
    assert sure.image.value != explorer.image.value


def test_the_picture_tells_the_second_where_the_rate_is_known():
    explorer = make()
    timed = Explorer([sample | {"fps": 4.0} for sample in explorer._samples],
                     explorer._outputs, explorer._classes)
    assert timed.image.value != explorer.image.value


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


def test_two_executions_are_equal_to_nbval(tmp_path, pytestconfig):
    """And the committed file keeps the still, not the dead handle."""
    root = str(pytestconfig.rootpath)
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell(SETUP.format(root=root)),
        nbformat.v4.new_code_cell(
            'Explorer([sample, sample], outputs, ["run", "walk"])'
        ),
    ])
    path = tmp_path / "explorer.ipynb"
    nbformat.write(notebook, path)
    refresh(path, timeout=60)
    data = nbformat.read(path, as_version=4).cells[1].outputs[0].data
    assert sorted(data) == ["image/jpeg", "text/plain"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env",
         "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path,
         "-c", "/dev/null", path],
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
