"""Parameters that cannot be are named, all at once, before any work."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest
import video_files
import yaml
from refresh import CALM, ROOT

from lib.lab import parameters
from lib.lab.parameters import ParameterError, check

NOTEBOOKS = {path.name[:2]: path
             for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}
PRESETS = sorted((ROOT / "notebooks" / "presets").glob("*/*.yaml"))


def cells(number):
    notebook = nbformat.read(NOTEBOOKS[number], as_version=4)
    return [c for c in notebook.cells if c.cell_type == "code"]


def defaults(number, **changes):
    """A notebook's globals behind its parameters, and papermill's, cell."""
    (cell,) = (c for c in cells(number)
               if "parameters" in c.metadata.get("tags", ()))
    space = {"In": [""], "Out": {}, "_i": "", "exit": None.__class__}
    exec(cell.source, space)
    return space | changes


def choices(number):
    """What the notebook's own call allows, as far as it can be told here."""
    calls = [node for cell in cells(number)
             for node in ast.walk(ast.parse(cell.source))
             if isinstance(node, ast.Call)
             and ast.unparse(node.func) == "parameters.check"]
    from lib.networks import cnn2d
    known = {"parameters": parameters, "backbones2d": cnn2d}
    return {key.arg: eval(ast.unparse(key.value), known)
            for call in calls[:1] for key in call.keywords}


def lines(number, given=None, /, **changes):
    """The lines of the error, by parameter; none if nothing is wrong."""
    try:
        check(defaults(number, **changes), **(given or choices(number)))
    except ParameterError as error:
        first, *found, last = str(error).split("\n")
        assert first.startswith(f"{len(found)} of the parameters")
        assert "-f FILE.yaml" in last
        return {line.split(" = ")[0].strip(): line for line in found}
    return {}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_defaults_are_right_and_every_name_has_a_rule(number):
    assert lines(number) == {}
    rules = {*parameters.RANGES, *parameters.CHOICES, *parameters.LISTS}
    free = {"data_root", "split", "video", "results", "backbone", "weights",
            "backbone_frame", "weights_frame", "keep", "scores", "files",
            "mirror", "sequences", "released"}
    assert {*defaults(number)["__annotations__"]} <= rules | free


def test_no_rule_is_for_nothing():
    used = {name for number in NOTEBOOKS
            for name in defaults(number)["__annotations__"]}
    assert {*parameters.RANGES, *parameters.CHOICES,
            *parameters.LISTS} <= used


@pytest.mark.parametrize(
    "path", PRESETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_preset_passes(path):
    preset = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert lines(path.parent.name, **preset) == {}


WRONG = [  # notebook, parameter, value, what its line says
    # a text for something else, as `papermill -p` hands it over
    ("03", "released", "false", "must be True or False; papermill: "
     "-p released True or -p released False"),
    ("01", "mirror", 1, "must be True or False"),
    ("03", "lr", "1e-3", "must be a number from 1e-09 to 10.0; papermill: "
     "-p lr 0.001, in YAML lr: 0.001"),
    ("03", "frames", 50.0, "must be a whole number from 3 to 10,000; "
     "papermill: -p frames 50"),
    ("03", "frames", 2.5, "whole number"),
    ("03", "steps", "5", "-p steps 5, in YAML steps: 5"),
    ("03", "steps", "many", "-p steps NUMBER"),
    ("03", "steps", True, "whole number"),
    ("03", "steps", None, "whole number"),
    ("03", "seeds", "0, 1", "must be a list of any number, each a whole "
     "number from 0 to 2,147,483,647; papermill: -y '{seeds: [0, 1]}'"),
    ("03", "seeds", 0, "-y '{seeds: [0, 1]}'"),
    ("03", "variants", "[baseline, full]", "-y '{variants: [NAME, NAME]}'"),
    ("03", "classes", "wave", "-y '{classes: [walk, jump]}'"),
    ("05", "files", "a.pth", "-y '{files: {base: FILE}}'"),
    ("03", "weights", None, "must be a text; papermill: -r weights TEXT"),
    ("03", "split", False, "must be a text"),
    ("03", "split", [1], "must be a text"),
    ("03", "video", 7, "must be a text; papermill: -r video TEXT"),
    # items of lists
    ("03", "seeds", [1.5], "not 1.5"), ("03", "seeds", [-1], "not -1"),
    ("03", "seeds", [True], "not True"), ("03", "seeds", ["0"], "not '0'"),
    ("03", "seeds", [], "a list"), ("03", "seeds", [0, 1, 0], "0 is there tw"),
    ("03", "classes", ["walk", "walk"], "'walk' is there twice"),
    ("03", "classes", [1], "not 1"), ("03", "variants", [], "a list"),
    ("03", "variants", ["full", "full"], "'full' is there twice"),
    ("03", "mask_channels", [8], "a list of 2, each a whole number from 1"),
    ("03", "mask_channels", [8, 0], "not 0"), ("01", "gamma", [1.0], "of 2"),
    ("01", "gamma", [1.0, 0], "not 0"), ("04", "fusion", [1, 1], "of 3"),
    ("04", "fusion", [1, 1, float("nan")], "not nan"),
    # ranges
    ("03", "hidden", 0, "from 1 to 16,384"), ("03", "finetune", -1, "from 0"),
    ("03", "checks", -1, "from 1"), ("03", "checks", 0, "from 1"),
    ("03", "steps", -5, "from 1"), ("03", "steps", 0, "from 1"),
    ("03", "frames", 10**9, "from 3 to 10,000"), ("03", "frames", 0, "from 3"),
    ("03", "size", 10**6, "from 32 to 1,024"), ("03", "size", -8, "from 32"),
    ("03", "lr", 0, "from 1e-09"), ("03", "lr", float("nan"), "1e-09"),
    ("03", "lr", float("inf"), "to 10.0"), ("03", "lr", 10**400, "to 10.0"),
    ("04", "dropout", 1.0, "from 0.0 to 0.99; papermill: -p dropout NUMBER"),
    ("03", "n_test", 3, "from 8"),
    ("04", "fields", 0, "from 1"), ("02", "clips", 0, "from 1"),
    ("01", "frames_test", -1, "from 0"), ("03", "batch", 0, "from 1"),
    ("05", "alpha", -0.5, "from 0.0"), ("05", "n_lengths", 0, "from 1"),
    # choices
    ("03", "device", "gpu", "must be one of auto, cpu, cuda; papermill: "
     "-p device auto"),
    ("03", "device", "cuda", "no GPU"), ("04", "crops", 3, "1, 2, 10"),
    ("03", "dataset", "kinetics", "one of puppets, puppets_untrimmed, ucf101"),
    ("01", "other", "", "one of puppets"), ("04", "san", "big", "small, full"),
    ("02", "optimiser_t", "sgd", "adamw, rmsprop"),
    # what does not go together
    ("03", "split", "9", "have the split 1 only; papermill: -p split 1"),
    ("03", "split", 2, "have the split 1 only"),
    ("03", "classes", ["wave", "fly"], "puppets do not show fly, but sit"),
    ("04", "crop", 73, "more than size = 72"),
    ("05", "window", 65, "more than frames = 64"),
    ("04", "san", "full", "only the small attention network"),
    # the user's own files
    ("03", "video", "none.mp4",
     "none.mp4: no such file or directory; papermill: -p video"),
    ("01", "scores", "none.csv", "No such file"),
    ("03", "results", "README.md", "is no registry"),
    ("03", "results", "lib", "Is a directory"),
    ("01", "keep", "README.md", "a file; papermill: -p keep FOLDER"),
]


@pytest.mark.parametrize("number, name, value, words", WRONG)
def test_a_wrong_value_is_named_in_one_line(number, name, value, words):
    found = lines(number, **{name: value})
    line = found.pop("san_weights" if value == "full" else name)
    assert not found and words in line and "papermill: -" in line


def test_a_video_that_breaks_off_is_found_before_anything_is_trained(tmp_path):
    path = video_files.write(tmp_path / "cut.mp4", video_files.noisy(12))
    assert lines("03", video=str(path)) == {}
    video_files.cut(path, 0.5)
    assert str(path) in lines("03", video=str(path))["video"]


def test_whole_numbers_are_numbers_and_a_split_may_be_one():
    assert lines("03", lr=1, split=1) == {}
    assert lines("01", gamma=[5, 10]) == {}
    assert lines("03", dataset="ucf101", split=3, classes=["Archery"]) == {}


def test_real_videos_have_no_exact_flow():
    line = lines("04", dataset="ucf101")["san_target"]
    assert "only puppets know" in line and "-p san_target dis" in line


def test_one_video_must_not_fill_the_memory():
    assert "takes 31 GB" in lines("03", frames=10_000, size=1024)["frames"]


def test_all_faults_come_at_once():
    found = lines("03", steps=0, lr="1e-3", seeds=0, classes=["a", "a"])
    assert [*found] == ["classes", "steps", "lr", "seeds"]


def test_a_long_value_is_cut_in_its_line():
    assert len(lines("03", seeds=["x"] * 10_000)["seeds"]) < 300


@pytest.mark.parametrize("name, words", [
    ("stepps", "do you mean steps?"), ("variant", "do you mean variants?"),
    ("on_error", "there are dataset, data_root, split")])
@pytest.mark.parametrize("value", [5, "skip", None, [1], {}, 0.1, False])
def test_a_name_that_no_parameter_has_stops(name, words, value):
    (line,) = lines("03", **{name: value}).values()
    assert "there is no such parameter" in line and words in line


def test_what_the_notebook_sets_later_is_no_parameter():
    """A cell may be run again, when all others have left their names."""
    space = defaults("03", sys=sys, parameters=parameters)
    check(space | {"total": 3, "hits": [1]})
    with pytest.raises(ParameterError, match="stepps"):
        check(defaults("03", stepps=3) | {"parameters": parameters})


def test_choices_of_one_notebook():
    rows = {"baseline": {}, "full + A-A": {}, "full": {}}
    allowed = {"variants": rows, "window": range(8, 100)}  # rows: as a dict
    assert lines("01", allowed, variants=["full"], window=8) == {}
    line = lines("01", allowed, variants=["full + AA"], window=0)
    assert "each one of baseline, full + A-A, full" in line["variants"]
    assert "do you mean 'full + A-A'?" in line["variants"]
    assert "-y '{variants: [\"baseline\", \"full + A-A\"]}'" in (
        line["variants"])
    assert "from 8 to 99" in line["window"]
    line = lines("05", {"files": ("base", "flow")}, files={"bas": "x"})
    assert "a dict of texts, by one of base, flow" in line["files"]
    assert lines("05", {"files": ("base",)}, files={"base": 3})


@pytest.mark.parametrize("backbone, weights, words", [
    ("resnet18", "puppets", "must be one of imagenet, none, *.safetensors; "
     "papermill: -p backbone resnet18 -p weights imagenet"),
    ("bninception", "imagenet", "-p weights none"),
    ("small", "imagenet", "-p weights puppets"),
    ("small", "data/mine.pth", "-p weights puppets"),
    ("resnet18", "imagenet", ""), ("bninception", "my/own.safetensors", "")])
def test_another_backbone_needs_other_weights(backbone, weights, words):
    found = lines("03", {"backbone": parameters.FRAMES}, backbone=backbone,
                  weights=weights)
    assert bool(found) == bool(words)
    assert words in found.get("weights", "")
    frame = lines("02", {"backbone_frame": parameters.FRAMES},
                  backbone_frame=backbone, weights_frame=weights)
    assert bool(frame) == bool(words) and "weights" not in frame


def test_the_backbones_of_the_tables_are_there():
    from lib.networks import cnn3d, pretrained, released

    for name, weights in parameters.FRAMES.items():
        if weights[0] == "puppets":
            assert pretrained.puppet_weights(name).is_file()
    for name in parameters.CLIPS:
        cnn3d.clip_cnn(name)
    for name in {*parameters.WINDOWS} - {*parameters.CLIPS}:
        assert name in (*released.MAKERS, *released.TORCHVISION)


NOTEBOOK = ("steps: int = 5  # of training\nreleased: bool = True  # which",
            "import sys\nsys.path[:0] = [{root!r}]\nfrom lib import parameters"
            "\nparameters.check(globals())\ntotal = 3",
            "parameters.check(globals())")


@pytest.mark.parametrize("given, words", [
    (("-p", "released", "False", "-p", "steps", "7"), ""),
    (("-p", "released", "false"), "released = 'false': must be True or"),
    (("-p", "setps", "7"), "setps = 7: there is no such parameter; do you "
     "mean steps?")])
def test_what_papermill_hands_over_is_checked(tmp_path, given, words):
    """With its own cell of assignments, and IPython's names around it."""
    sources = [source.format(root=str(ROOT)) for source in NOTEBOOK]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook, path)
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(path),
         str(tmp_path / "out.ipynb"), "--no-progress-bar", "--kernel",
         "python3", "--language", "python", *given], env=os.environ | CALM,
        capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (not words)
    assert words in done.stderr


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_the_notebook_asks_in_its_first_cell(number):
    assert "parameters.check(globals()" in cells(number)[1].source
