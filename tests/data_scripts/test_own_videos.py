"""Each group is left out in turn: what is run, counted and said."""

import json
import subprocess

import own_videos
import pytest
import video_files
import yaml
from own_videos import main, wilson
from refresh import ROOT

from lib.lab.registry import FIELDS, Registry


@pytest.mark.parametrize("right, n, low, high", [
    (0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (27, 27, 0.8754, 1)])
def test_wilson(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)


@pytest.fixture
def videos(tmp_path):
    root = tmp_path / "my videos"
    for name in ("clap", "jump"):
        for who in ("Anna", "Jörg"):
            (root / name / who).mkdir(parents=True)
            for i in range(2):
                video_files.write(root / name / who / f"{i}.avi",
                                  video_files.coded(4))
    (root / "jump/Anna/cut.avi").touch()
    return root


def line(split, row, share, n):
    return dict.fromkeys(FIELDS, "") | {
        "notebook": "03", "variant": row, "split": split, "n_test": n,
        "metrics": {"top-1": share}}


def test_each_group_is_left_out_once(videos, tmp_path, monkeypatch, capsys):
    ran = []

    def papermill(command, **options):
        given = yaml.safe_load(command[command.index("-y") + 1])
        ran.append((given["split"], command))
        assert options["cwd"] == ROOT and options["timeout"] == 120
        assert given["data_root"] == str(videos)
        assert given["dataset"] == "folder"
        for row, share in (("baseline", 0.25), ("full", 0.75)):
            Registry(given["results"]).append(
                line(given["split"], row, share, 4))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(own_videos.subprocess, "run", papermill)
    out = tmp_path / "out"
    out.mkdir()  # where other videos have left theirs
    Registry(out / "03.jsonl").append(line("Anna", "other", 0.5, 4))
    assert main([str(videos), "--out", str(out), "--minutes", "2"]) == 0
    assert sorted(split for split, _ in ran) == ["Anna", "Jörg"]
    for split, command in ran:
        assert str(ROOT / "notebooks/03_where_and_when.ipynb") in command
        assert str(ROOT / "notebooks/presets/03/own.yaml") in command
        assert str(out / f"03_{split}.ipynb") in command
    said = capsys.readouterr().out
    assert "8 videos of 2 classes: clap 4, jump 4" in said
    assert "left out: jump/Anna/cut.avi (the file is empty)" in said
    low, high = wilson(6, 8)
    assert (f"6 of    8: 75.0%, interval {low:.1%} to {high:.1%}" in said
            and "2 of    8: 25.0%" in said and "chance is 50.0%" in said)
    assert "other" not in said


def test_a_round_that_fails_or_hangs_is_named(videos, tmp_path, monkeypatch,
                                              capsys):
    def papermill(command, timeout, **_):
        if "Anna" in command[command.index("-y") + 1]:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 1, "", "no disk")

    monkeypatch.setattr(own_videos.subprocess, "run", papermill)
    assert main([str(videos), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "Anna: took more than 20 minutes" in said
    assert "Jörg: no disk" in said
    assert main([str(tmp_path / "gone")]) == 1
    assert "not found" in capsys.readouterr().err


def test_papermill_takes_the_settings(tmp_path):
    """Names that are not ASCII reach a notebook as they are."""
    notebook = {"cells": [{
        "cell_type": "code", "id": "a", "execution_count": None,
        "metadata": {"tags": ["parameters"]}, "outputs": [],
        "source": 'split: str = ""\nsteps: int = 0'}, {
        "cell_type": "code", "id": "b", "execution_count": None,
        "metadata": {}, "outputs": [], "source": "print(split, steps > 1)"}],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "x",
                                    "language": "python"}},
        "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "notebooks" / "03_x.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(notebook))
    (tmp_path / "notebooks/presets/03").mkdir(parents=True)
    (tmp_path / "notebooks/presets/03/own.yaml").write_text("steps: 5\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_videos, "ROOT", tmp_path)
        out = tmp_path / "out.ipynb"
        assert own_videos.run("03", out, {"split": "Jörg 'x"}, 1) == ""
    text = json.loads(out.read_text())["cells"][-1]["outputs"][0]["text"]
    assert "".join(text) == "Jörg 'x True\n"
