"""The scripts of the data sets: by hand, killed midway, in every order."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile

import fetch
import prepare
import puppets as writer
import pytest
from prepare import Count, Part, Recipe
from video_files import real

from lib import ROOT
from lib.data.sets.records import Source

SCRIPTS = ("ucf101", "hmdb51", "jhmdb", "penn_action", "ucf101_24",
           "thumos14", "moments_in_time", "ut_interaction", "flying_chairs")


def left(root):
    """What is there but for locks and empty folders."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*")
                  if p.is_file() and p.name != ".lock")


@pytest.fixture
def nobody(monkeypatch):
    def refuse(*_, **__):
        raise fetch.requests.ConnectionError("nobody there")

    monkeypatch.setattr(fetch.requests, "get", refuse)
    monkeypatch.setattr(fetch, "WAIT", 0.0)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_host_gives_the_steps_by_hand(name, nobody, tmp_path, capsys):
    script = importlib.import_module(name)
    text = script.__doc__
    assert "\nLicence: " in text and "\nCite: " in text
    assert f"data_scripts/{name}.py --root" in text
    for options in ([], ["--splits-only"]):
        if name == "ut_interaction" and options:
            continue  # its lists are the names of the clips
        code = script.main(script.__doc__, script.RECIPE,
                          ["--root", str(tmp_path), *options])
        said = capsys.readouterr()
        assert code == 1 and "By hand" in said.err
        assert "--from FOLDER" in said.err
        for part in script.RECIPE.parts:
            if part.lists or not options:
                assert part.source.name in said.err
                assert part.source.url in said.err
        assert left(tmp_path) == []


def command(*words, cwd):
    return subprocess.run(
        [sys.executable, ROOT / "data_scripts" / words[0], *words[1:]],
        cwd=cwd, capture_output=True, text=True, timeout=120)


def test_a_script_runs_from_any_folder(tmp_path):
    given = tmp_path / "given"
    writer.main(given, format="ut_interaction", n_train=6, n_test=6, size=32,
                frames=10)
    done = command("ut_interaction.py", "--root", "root", "--from", "given",
                   cwd=tmp_path)
    assert done.returncode == 1 and "DIFFERS" in done.stdout, done.stderr
    assert f"UT-Interaction in {tmp_path / 'root'}:" in done.stdout
    assert "listed videos that are there" in done.stdout


@pytest.mark.parametrize("name", [
    "puppets", "three_splits", "bninception", "pretrain_backbone",
    "pretrain_clip_backbone", "pretrain_attention"])
def test_other_scripts_start_in_any_folder(name, tmp_path):
    done = command(f"{name}.py", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def recipe(source=None, counts=None, finish=None, inside=""):
    source = source or Source("set.zip")
    return Recipe("Set", None, [
        Part("set/lists", source, lists=True),
        Part("set/videos", source, inside=inside, finish=finish)],
        counts or (lambda _, root, lists_only: [Count("videos", len([
            *(root / "set/videos").glob("*")]), 2)]))


def packed(folder, name="set.zip", top="Set_v1/"):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as file:
        for entry in ("lists/a.txt", "videos/a.avi", "videos/b.avi"):
            file.writestr(f"{top}{entry}", entry)
    return folder


@pytest.mark.parametrize("top", ["", "Set_v1/", "a/b/"])
def test_an_archive_of_two_parts_is_unpacked_once(tmp_path, top, capsys):
    given, root = packed(tmp_path / "given", top=top), tmp_path / "root"
    prepare.prepare(recipe(), tmp_path / "lists", given, splits_only=True)
    assert left(tmp_path / "lists") == ["set/lists/a.txt"]
    capsys.readouterr()
    counts = prepare.prepare(recipe(), root, given)
    assert counts == [Count("videos", 2, 2)]
    assert capsys.readouterr().out.count("unpacking") == 1
    assert left(root) == ["set/lists/a.txt", "set/videos/a.avi",
                          "set/videos/b.avi"]
    assert prepare.main("x", recipe(), ["--root", str(root)]) == 0


def test_an_unpacked_folder_costs_no_space_and_is_not_touched(tmp_path):
    given, root = packed(tmp_path / "given"), tmp_path / "root"
    with zipfile.ZipFile(given / "set.zip") as file:
        file.extractall(given / "set")
    (given / "set.zip").unlink()

    def finish(folder, root):
        (folder / "a.avi").unlink()

    prepare.prepare(recipe(finish=finish), root, given)
    own = given / "set/Set_v1/videos"
    assert sorted(os.listdir(own)) == ["a.avi", "b.avi"]
    assert os.listdir(root / "set/videos") == ["b.avi"]
    assert (own / "b.avi").samefile(root / "set/videos/b.avi")


def test_killed_midway_leaves_nothing_that_looks_whole(tmp_path):
    given, root = packed(tmp_path / "given"), tmp_path / "root"

    def killed(folder, root):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(recipe(finish=killed), root, given)
    assert left(root) == ["set/lists/a.txt"]
    # a harder kill leaves its work beside; the next run clears it away
    (root / ".preparing-x" / "made-videos").mkdir(parents=True)
    assert prepare.prepare(recipe(), root, given)[0].found == 2
    assert sorted(os.listdir(root)) == [".lock", "set"]


def test_errors_say_the_mend(tmp_path, capsys):
    given, root = packed(tmp_path / "given"), tmp_path / "root"

    def run(own, place=given):
        code = prepare.main("x", own, ["--root", str(root), "--from",
                                       str(place)])
        return code, capsys.readouterr().err

    code, said = run(recipe(Source("set.zip", hash="md5:" + "0" * 32)))
    assert code == 1 and "published hash" in said
    code, said = run(recipe(Source("set.zip", size=7)))
    assert code == 1 and "the published file 7" in said
    code, said = run(recipe(inside="films"))
    assert code == 1 and "holds no 'films', but ['Set_v1']" in said
    code, said = run(recipe(), tmp_path / "nowhere")
    assert code == 1 and "no such folder" in said
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    with zipfile.ZipFile(hostile / "set.zip", "w") as file:
        file.writestr("../out.txt", "x")
    shutil.rmtree(root)
    code, said = run(recipe(), hostile)
    assert code == 1 and "would leave the folder" in said
    assert left(root) == [] and not (tmp_path / "out.txt").exists()


def test_counts_that_differ_are_said(tmp_path, capsys):
    given, root = packed(tmp_path / "given"), tmp_path / "root"
    own = recipe(counts=lambda *_: [Count("videos", 2, 3), Count("notes", 5)])
    assert prepare.main("x", own, ["--root", str(root), "--from",
                                   str(given)]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^videos .*3  DIFFERS$", said, re.M)
    assert re.search(r"^notes +5 *$", said, re.M)


OFFICIAL = {  # what the official files are called in their archives
    "ucf101": {"ucf101_splits": "ucfTrainTestlist"},
    "hmdb51": {"hmdb51_splits": "testTrainMulti_7030_splits"},
    "jhmdb": {"jhmdb/splits.zip": "splits.zip"},
    "ucf101_24": {"ucf101_splits": "ucfTrainTestlist",
                  "ucf101_24/finalAnnots.mat": "finalAnnots.mat"},
    "thumos14": {
        "thumos14/annotation_val":
            "TH14_Temporal_annotations_validation/annotation",
        "thumos14/annotation_test":
            "TH14_Temporal_annotations_test/annotation"},
}


@pytest.mark.parametrize("name", [*OFFICIAL])
def test_official_lists_have_the_official_counts(name, tmp_path, capsys):
    """Exit status 0: every count is the published one."""
    given = tmp_path / "given"
    for own, target in OFFICIAL[name].items():
        path = real(f"annotations/{own}") / "annotations" / own
        (given / target).parent.mkdir(parents=True, exist_ok=True)
        (given / target).symlink_to(path.resolve())
    script = importlib.import_module(name)
    code = script.main(script.__doc__, script.RECIPE, [
        "--root", str(tmp_path / "root"), "--from", str(given),
        "--splits-only"])
    said = capsys.readouterr()
    assert code == 0, said
    assert "DIFFERS" not in said.out and "expected" in said.out
