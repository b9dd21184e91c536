"""The registry: no line is lost, no run is taken for another."""

import json
import os
import resource
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


def test_two_processes_lose_no_line_and_a_kill_its_own_at_most(tmp_path):
    """Both start at the same moment; one is killed while it writes."""
    path = tmp_path / "runs.jsonl"
    steady, killed = (subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
        for name, count in (("a", 60), ("b", 100_000)))
    wait_for(lambda: all(path.with_name(path.name + name).exists()
                         for name in "ab"))
    path.with_name(path.name + "go").touch()
    _, errors = steady.communicate(timeout=60)
    wait_for(lambda: b'"variant": "b"' in path.read_bytes())
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert steady.returncode == 0, errors
    kept = Registry(path)
    kept.append(line(-1))
    seeds = {name: [x["seed"] for x in kept.lines() if x["variant"] == name]
             for name in ("a", "b", None)}
    assert seeds["a"] == [*range(60)] and seeds[None] == [-1]
    assert seeds["b"] == [*range(len(seeds["b"]))] != []


def wait_for(done):
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out_and_repaired(tmp_path, cut):
    kept = Registry(tmp_path / "runs.jsonl")
    for seed in range(3):
        kept.append(line(seed))
    content = kept.path.read_bytes()
    kept.path.write_bytes(content + content.splitlines()[0][:-cut])
    assert [x["seed"] for x in kept.lines()] == [0, 1, 2]
    kept.append(line(3))
    assert [x["seed"] for x in kept.lines()] == [0, 1, 2, 3]


@pytest.mark.parametrize("left", [b"{", b'{"noteb', b'{"notebook": nul'])
def test_a_first_line_that_was_cut_off_is_repaired(tmp_path, left):
    kept = Registry(tmp_path / "runs.jsonl")
    kept.path.write_bytes(left)
    assert kept.lines() == []
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


@pytest.mark.parametrize("left", [0, 30])
@pytest.mark.parametrize("end", [b"\n", b"", b'\n{"notebook": "0'])
def test_a_full_disk_is_said_and_costs_no_line(tmp_path, left, end):
    """No byte fits, or a part of the line does, which is no error to POSIX."""
    kept = Registry(tmp_path / "runs.jsonl")
    kept.path.write_bytes(OURS + b"\n" + OURS + end)
    room = len(OURS + b"\n" + OURS) + left
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="line could not be written") as full:
            kept.append(line(7))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert '"seed": 7' in str(full.value)  # the result is not lost
    assert kept.lines() == [json.loads(OURS)] * 2
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
    assert [x["seed"] for x in kept.lines()] == [0, 1]
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


def test_lines_have_the_fields_in_their_order(tmp_path):
    kept = Registry(tmp_path / "new" / "runs.jsonl")
    assert kept.lines() == [] and kept.find("k", "d") is None
    kept.append(dict(reversed(line(0, key="k", data="d").items())))
    text = kept.path.read_text(encoding="utf-8")
    assert list(json.loads(text)) == list(FIELDS)
    assert kept.find("k", "d")["seed"] == 0


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
