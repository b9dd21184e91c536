"""The registry: no line is lost, no run is taken for another."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lib import ROOT
from lib.lab import registry
from lib.lab.registry import FIELDS, Registry

WRITER = """
import sys, time
from pathlib import Path
from lib.lab.registry import FIELDS, Registry
path, name, count = sys.argv[1:]
registry = Registry(path)
Path(path + name).touch()
while not Path(path + "go").exists():
    time.sleep(0.001)
for seed in range(int(count)):
    line = dict.fromkeys(FIELDS) | {"seed": seed, "variant": name}
    registry.append(line | {"params": {"long": name * 3000}})
"""


def line(seed=0, **changes):
    return dict.fromkeys(FIELDS) | {"seed": seed} | changes


def writers(path, names, count):
    """Processes that append, started at the same moment."""
    started = [subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
        for name in names]
    deadline = time.monotonic() + 60
    while not all(path.with_name(path.name + n).exists() for n in names):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    path.with_name(path.name + "go").touch()
    return started


def test_two_processes_lose_no_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    for process in writers(path, "ab", 200):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    lines = Registry(path).lines()
    for name in "ab":
        assert [x["seed"] for x in lines if x["variant"] == name] == list(
            range(200))


def test_a_killed_writer_costs_its_own_line_at_most(tmp_path):
    path = tmp_path / "runs.jsonl"
    (process,) = writers(path, "a", 100_000)
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < 200_000:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = Registry(path)
    before = [x["seed"] for x in kept.lines()]
    assert before == list(range(len(before))) and before
    kept.append(line(-1))
    assert [x["seed"] for x in kept.lines()] == [*before, -1]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_noted_and_repaired(tmp_path, cut):
    kept = Registry(tmp_path / "runs.jsonl")
    for seed in range(3):
        kept.append(line(seed))
    content = kept.path.read_bytes()
    kept.path.write_bytes(content + content.splitlines()[0][:-cut])
    assert [x["seed"] for x in kept.lines()] == [0, 1, 2]
    assert "runs.jsonl: the last line was cut off" in kept.note
    kept.append(line(3))
    assert [x["seed"] for x in kept.lines()] == [0, 1, 2, 3]
    assert kept.note == ""


@pytest.mark.parametrize("left", [b"{", b'{"noteb', b'{"notebook": nul'])
def test_a_first_line_that_was_cut_off_is_repaired(tmp_path, left):
    kept = Registry(tmp_path / "runs.jsonl")
    kept.path.write_bytes(left)
    assert kept.lines() == [] and "was cut off" in kept.note
    kept.append(line(0))
    assert [x["seed"] for x in kept.lines()] == [0]


OURS = json.dumps(line(0)).encode()


@pytest.mark.parametrize("content", [
    b"my notes", b"my notes\n", b"one\rtwo\r", b"one\r\ntwo\r\n", b"17",
    b'{"my": "json"}\n', b'{"my": "json"}', b"[1, 2]", b"\xff\xfe{\x00",
    OURS + b"\r" + OURS + b"\r", OURS + b"\nmy notes", b"\nmy notes"])
def test_a_file_that_is_no_registry_keeps_every_byte(tmp_path, content):
    kept = Registry(tmp_path / "notes.txt")
    kept.path.write_bytes(content)
    for use in (kept.lines, lambda: kept.append(line(1))):
        with pytest.raises(ValueError, match="notes.txt is no registry"):
            use()
        assert kept.path.read_bytes() == content


def test_lines_that_an_editor_ends_by_crlf_are_read_and_kept(tmp_path):
    kept = Registry(tmp_path / "runs.jsonl")
    content = OURS + b"\r\n" + OURS + b"\r\n"
    kept.path.write_bytes(content)
    kept.append(line(1))
    assert kept.path.read_bytes().startswith(content)
    assert [x["seed"] for x in kept.lines()] == [0, 0, 1]


FULL = """
import resource, sys
from lib.lab.registry import FIELDS, Registry
path, room = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
Registry(path).append(dict.fromkeys(FIELDS) | {"seed": 7})
"""


@pytest.mark.parametrize("left", [0, 30])
@pytest.mark.parametrize("end", [b"\n", b"", b'\n{"notebook": "0'])
def test_a_full_disk_is_said_and_costs_no_line(tmp_path, left, end):
    """No byte fits, or a part of the line does, which is no error to POSIX."""
    path = tmp_path / "runs.jsonl"
    path.write_bytes(OURS + b"\n" + OURS + end)
    room = len(OURS + b"\n" + OURS) + left
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)], timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True)
    assert "runs.jsonl: a run's line could not be written" in done.stderr
    assert '"seed": 7' in done.stderr  # the result is not lost
    kept = Registry(path)
    assert kept.lines() == [json.loads(OURS)] * 2 and kept.note == ""
    kept.append(line(1))
    assert [x["seed"] for x in kept.lines()] == [0, 0, 1]


def test_lines_without_the_newer_fields_stay_as_they_are(tmp_path):
    kept = Registry(tmp_path / "runs.jsonl")
    old = line(0, key="k")
    del old["threads"], old["data"]
    content = json.dumps(old).encode() + b"\n"
    kept.path.write_bytes(content)
    assert kept.find("k", "digest") is None
    kept.append(line(1, key="k", data="digest"))
    assert kept.path.read_bytes().startswith(content)
    assert kept.find("k", "digest")["seed"] == 1


def test_a_missing_last_newline_costs_no_line(tmp_path):
    kept = Registry(tmp_path / "runs.jsonl")
    kept.append(line(0))
    kept.append(line(1))
    kept.path.write_bytes(kept.path.read_bytes().rstrip(b"\n"))
    assert [x["seed"] for x in kept.lines()] == [0, 1] and kept.note == ""
    kept.append(line(2))
    assert [x["seed"] for x in kept.lines()] == [0, 1, 2]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    kept = Registry(tmp_path / "runs.jsonl")
    kept.append(line(0))
    with kept.path.open("a") as file:
        file.write("<<<<<<< HEAD\n")
    kept.append(line(1))
    with pytest.raises(ValueError, match="runs.jsonl, line 2 is not JSON"):
        kept.lines()


def test_lines_have_the_fields_in_their_order_and_no_others(tmp_path):
    kept = Registry(tmp_path / "new" / "runs.jsonl")
    assert kept.lines() == [] and kept.find("k", "d") is None
    kept.append(dict(reversed(line(0, key="k", data="d").items())))
    text = kept.path.read_text(encoding="utf-8")
    assert list(json.loads(text)) == list(FIELDS)
    assert kept.find("k", "d")["seed"] == 0
    with pytest.raises(ValueError, match="stale"):
        kept.append(line(0, stale=True))
    incomplete = line(0)
    del incomplete["minutes"]
    with pytest.raises(ValueError, match="minutes"):
        kept.append(incomplete)
    assert len(kept.lines()) == 1


@pytest.mark.skipif(
    shutil.which("git") is None, reason="git is not installed")
def test_the_commit_and_whether_the_code_differs_from_it(
        tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert registry.commit() == {"commit": None, "dirty": None}

    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments],
            cwd=tmp_path, check=True, capture_output=True, timeout=30)

    git("init")
    assert registry.commit()["commit"] is None
    (tmp_path / "code.py").write_text("1", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "first")
    got = registry.commit()
    assert len(got["commit"]) == 40 and got["dirty"] is False
    # the run that records itself does not make itself dirty
    results = tmp_path / "notebooks" / "results"
    results.mkdir(parents=True)
    (results / "03.jsonl").write_text("{}", encoding="utf-8")
    assert registry.commit()["dirty"] is False
    (tmp_path / "code.py").write_text("2", encoding="utf-8")
    assert registry.commit()["dirty"] is True
    monkeypatch.setenv("PATH", "")
    assert registry.commit() == {"commit": None, "dirty": None}
