"""Parameters that cannot be are named, all at once, before any work."""

import os
import shutil
import subprocess
import sys
from functools import cache

import nbformat
import pytest
import video_files
import yaml
from refresh import CALM, ROOT

from lib.lab import parameters
from lib.lab.parameters import ParameterError, check

NOTEBOOKS = {path.name.split("_")[0]: path
             for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}
PRESETS = sorted((ROOT / "notebooks" / "presets").glob("*/*.yaml"))
FREE = {"data_root", "split", "video", "results", "backbone", "weights",
        "keep_model", "use_model",
        "backbone_frame", "weights_frame", "keep", "scores", "files",
        "mirror", "sequences", "released", "frozen",  # texts, truths
        "dials"}  # the worlds have their own rules


@cache
def first_cells(number):
    notebook = nbformat.read(NOTEBOOKS[number], as_version=4)
    return [c.source for c in notebook.cells if c.cell_type == "code"][:2]


def defaults(number, **changes):
    """A notebook's globals behind its parameters, and papermill's, cell."""
    space = {"In": [""], "Out": {}, "_i": "", "exit": None.__class__}
    exec(first_cells(number)[0], space)
    return space | changes


def faults(asks):
    """The lines of the error, by parameter; none if nothing is wrong."""
    try:
        asks()
    except ParameterError as error:
        first, *found, last = str(error).split("\n")
        assert first.startswith(f"{len(found)} of the parameters")
        assert "-f FILE.yaml" in last
        return {line.split(" = ")[0].strip(): line for line in found}
    return {}


def lines(number, **changes):
    space = defaults(number, **changes)
    return faults(lambda: exec(first_cells(number)[1], space))


@pytest.fixture(autouse=True)
def path_of_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # a set-up adds to it


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_asks_its_defaults_pass_and_names_have_rules(number):
    assert lines(number) == {} != lines(number, steps=0)
    rules = {*parameters.RANGES, *parameters.CHOICES, *parameters.LISTS}
    assert {*defaults(number)["__annotations__"]} <= rules | FREE


def test_no_rule_is_for_nothing():
    used = {name for number in NOTEBOOKS
            for name in defaults(number)["__annotations__"]}
    assert {*parameters.RANGES, *parameters.CHOICES, *parameters.LISTS} <= used


@pytest.mark.parametrize(
    "path", PRESETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_preset_passes(path):
    preset = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert lines(path.parent.name, **preset) == {}


WRONG = [  # notebook, parameter, value, what its line says
    # a text for something else, as `papermill -p` hands it over
    ("03", "released", "false", "must be True or False; papermill: "
     "-p released True or -p released False"),
    ("03", "released", 1, "must be True or False"),
    ("03", "lr", "1e-3", "must be a number from 1e-09 to 10.0 (to YAML 1e-3 "
     "is a text, 1.0e-3 a number); papermill: -p lr NUMBER"),
    ("03", "frames", 50.0, "must be a whole number from 3 to 10,000; "
     "papermill: -p frames NUMBER"),
    ("03", "steps", "5", "whole number"), ("03", "steps", True, "whole num"),
    ("03", "steps", None, "whole number"),
    ("03", "seeds", "0, 1", "must be a list of any number, each a whole "
     "number from 0 to 2,147,483,647; papermill: -y '{seeds: [0, 1]}'"),
    ("03", "variants", "[baseline, full]", "-y '{variants: [NAME, NAME]}'"),
    ("05", "rates", {"plain": 11.0}, "each with a rate from 1e-09 to 10.0"),
    ("05", "rates", {"plain": "x"}, "-y '{rates: {ROW: NUMBER}}'"),
    ("05", "rates", 0.1, "must be a dict of rows"),
    ("05", "files", "a.pth", "-y '{files: {base: FILE}}'"),
    ("05", "files", {"bas": "x"}, "a dict of texts, by one of base"),
    ("05", "files", {"base": 3}, "a dict of texts"),
    ("03", "weights", None, "must be a text; papermill: -r weights TEXT"),
    ("03", "split", [1], "must be a text"),
    ("03", "seeds", [1.5], "not 1.5"), ("03", "seeds", [-1], "not -1"),
    ("03", "seeds", [True], "not True"), ("03", "seeds", [], "a list"),
    ("03", "seeds", [0, 1, 0], "0 is there twice"),
    ("03", "seeds", ["x"] * 10_000, "not 'x'"),  # the line is short, though
    ("03", "mask_channels", [8], "a list of 2, each a whole number from 1"),
    ("03", "mask_channels", [8, 0], "not 0"),
    ("01", "gamma", [1, float("nan")], "not nan"),
    ("03", "finetune", -1, "from 0"), ("03", "frames", 10**9, "to 10,000"),
    ("03", "lr", float("nan"), "1e-09"), ("03", "lr", 10**400, "to 10.0"),
    ("04", "dropout", 1.0, "from 0.0 to 0.99; papermill: -p dropout NUMBER"),
    ("03", "device", "gpu", "must be one of auto, cpu, cuda; papermill: "
     "-r device auto"),
    ("03", "device", "cuda", "no GPU"), ("04", "crops", 3, "1, 2, 10"),
    ("03", "dataset", "kinetics", "one of alone, crowd, lights, stage"),
    ("03", "split", 2, "have the split 1 only; papermill: -p split 1"),
    ("03", "classes", ["wave", "fly"], "puppets do not show fly, but sit"),
    ("06", "dials", {"rival": [1, 1]}, "unexpected keyword argument 'rival'"),
    ("06", "dials", {"rivals": [4, 4]}, "within 0 to 3; of built-in worlds"),
    ("06", "sampled", 2, "from 4 to"),
    ("06", "sampled", 6, "in steps of 4"),
    ("06", "sampled", 12, "frames = 16 is no multiple of it"),
    ("06", "frames", 20, "from 16 to 10,000 in steps of 8"),
    ("04", "crop", 65, "more than size = 64"),
    ("05", "window", 65, "more than frames = 64"),
    ("04", "san", "full", "only the small attention network"),
    ("04", "dataset", "ucf101", "only puppets know their exact flow; "
     "papermill: -p san_target dis"),
    ("03", "video", "none.mp4",
     "none.mp4: no such file or directory; papermill: -p video"),
    ("03", "results", "README.md", "is no registry"),
    ("03", "results", "lib", "Is a directory"),
    ("03", "keep_model", "lib", "holds something else"),
    ("01", "keep", "README.md", "a file; papermill: -p keep FOLDER"),
]
OTHER = {"full": "san_weights", "ucf101": "san_target"}  # named instead


@pytest.mark.parametrize("number, name, value, words", WRONG)
def test_a_wrong_value_is_named_in_one_line(number, name, value, words):
    found = lines(number, **{name: value})
    line = found.pop(OTHER.get(str(value), name))
    assert not found and words in line and "papermill: -" in line
    assert len(line) < 400


@pytest.mark.parametrize("number, right", [
    ("03", {"lr": 1, "split": 1}), ("01", {"gamma": [5, 10]}),
    ("03", {"dataset": "ucf101", "split": 3, "classes": ["Archery"]})])
def test_whole_numbers_are_numbers_and_a_split_may_be_one(number, right):
    assert lines(number, **right) == {}


def test_a_video_that_breaks_off_is_found_before_anything_is_trained(tmp_path):
    path = video_files.write(tmp_path / "cut.mp4", video_files.noisy(12))
    assert lines("03", video=str(path)) == {}
    video_files.cut(path, 0.5)
    assert str(path) in lines("03", video=str(path))["video"]


def test_a_kept_model_is_opened_before_anything_is_trained(tmp_path):
    found = lines("03", use_model=str(tmp_path))
    assert "no kept model in" in found["use_model"]
    assert "use_model is asked about it" in found["video"]


def test_your_own_videos_are_there_before_anything_is_trained(tmp_path):
    def told(root, split="1"):
        return lines("03", dataset="folder", data_root=root, split=split)

    assert "names the folder of your videos" in told("")["data_root"]
    assert "not found" in told(str(tmp_path / "gone"))["data_root"]
    assert "of 0 classes, and two are" in told(str(tmp_path))["data_root"]
    one = video_files.write(tmp_path / "one.avi", video_files.coded(4))
    for name in ("clap", "jump"):
        for who in ("Anna", "7"):
            (tmp_path / "all" / name / who).mkdir(parents=True)
            for i in "12":
                shutil.copy(one, tmp_path / "all" / name / who / f"{i}.avi")
    root = str(tmp_path / "all")
    for split in ("Anna", "7", 7, "1", 2):
        assert told(root, split) == {}
    found = told(root, 3)
    assert "has the splits 1, 2, 7, Anna; papermill: -r split" in (
        found.pop("split"))
    assert not found
    assert "your videos show no kick, punch, walk, wave; papermill" in lines(
        "04", dataset="folder", data_root=root)["classes"]
    (tmp_path / "all" / "hop").mkdir()
    assert "hop: a class without videos" in told(root)["data_root"]


def test_one_video_must_not_fill_the_memory():
    assert "takes 31 GB" in lines("03", frames=10_000, size=1024)["frames"]


def test_all_faults_come_at_once():
    found = lines("03", steps=0, lr="1e-3", seeds=0, classes=["a", "a"])
    assert [*found] == ["classes", "steps", "lr", "seeds"]


@pytest.mark.parametrize("name, value, words", [
    ("stepps", 5, "do you mean steps?"),
    ("variant", [1], "do you mean variants?"),
    ("on_error", None, "there are dataset, data_root, split")])
def test_a_name_that_no_parameter_has_stops(name, value, words):
    (line,) = lines("03", **{name: value}).values()
    assert "there is no such parameter" in line and words in line


def test_what_the_notebook_sets_later_is_no_parameter():
    """A cell may be run again, when all others have left their names."""
    space = defaults("03", sys=sys, parameters=parameters)
    check(space | {"total": 3, "hits": [1]})
    assert faults(lambda: check(
        defaults("03", stepps=3) | {"parameters": parameters}))


def test_choices_of_one_notebook():
    rows = {"baseline": {}, "full + A-A": {}, "full": {}}  # as a dict
    space = defaults("03", variants=["full + AA"], frames=0)
    found = faults(lambda: check(space, variants=rows, frames=range(8, 100)))
    assert "each one of baseline, full + A-A, full" in found["variants"]
    assert "do you mean 'full + A-A'?" in found["variants"]
    assert "-y '{variants: [\"baseline\", \"full + A-A\"]}'" in (
        found["variants"])
    assert "from 8 to 99" in found["frames"]
    check(space | {"variants": ["full"], "frames": 8}, variants=rows,
          frames=range(8, 100))


@pytest.mark.parametrize("backbone, weights, words", [
    ("resnet18", "puppets", "must be one of imagenet, none, *.safetensors; "
     "papermill: -p weights imagenet"),
    ("bninception", "imagenet", "-p weights none"),
    ("small", "data/mine.pth", "-p weights puppets"),
    ("resnet18", "imagenet", ""), ("bninception", "my/own.safetensors", "")])
def test_another_backbone_needs_other_weights(backbone, weights, words):
    found = lines("03", backbone=backbone, weights=weights)
    assert bool(found) == bool(words)
    assert words in found.get("weights", "")


def test_the_backbones_of_the_tables_are_there():
    from lib.networks import cnn3d, pretrained, released3d

    for name, weights in parameters.FRAMES.items():
        if weights[0] == "puppets":
            assert pretrained.puppet_weights(name).is_file()
    for name in parameters.CLIPS:
        cnn3d.clip_cnn(name)
    for name in {*parameters.WINDOWS} - {*parameters.CLIPS}:
        assert name in (*released3d.MAKERS, *released3d.TORCHVISION)


SOURCES = ("steps: int = 5  # of training\nreleased: bool = True  # which",
           f"import sys\nsys.path[:0] = [{str(ROOT)!r}]\n"
           "from lib.lab import parameters\nparameters.check(globals())")


def test_what_papermill_hands_over_is_checked(tmp_path):
    """With its own cell of assignments, and IPython's names around it."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in SOURCES])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook, path)
    done = subprocess.run(
        [sys.executable, "-m", "papermill", path, tmp_path / "out.ipynb",
         "--no-progress-bar", "--kernel", "python3", "--language", "python",
         *"-p released false -p setps 7 -p steps 8".split()],
        env=os.environ | CALM, capture_output=True, text=True, timeout=120)
    assert "2 of the parameters cannot be so" in done.stderr
    assert "released = 'false': must be True or" in done.stderr
    assert ("setps = 7: there is no such parameter; do you mean steps?"
            in done.stderr)


def test_a_digest_tells_settings_that_matter():
    one = {"split": 1, "steps": 5, "seeds": [0], "video": ""}
    assert parameters.digest(one) == parameters.digest(
        one | {"split": "1", "seeds": [1], "video": "my.mp4"})
    assert parameters.digest(one) != parameters.digest(one | {"steps": 6})
