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
from checks import refused

from lib import ROOT
from lib.lab import registry
from lib.lab.registry import FIELDS, Registry
from lib.papers import rstan, sta_networks

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
    found = {name: [x["seed"] for x in kept.lines() if x["variant"] == name]
             for name in ("a", "b", None)}
    assert found["a"] == [*range(60)] and found[None] == [-1]
    assert found["b"] == [*range(len(found["b"]))] != []


def wait_for(done):
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def seeds(kept):
    return [x["seed"] for x in kept.lines()]


OURS = json.dumps(line(0)).encode()


@pytest.mark.parametrize("content, whole", [
    *((2 * (OURS + b"\n") + OURS[:-cut], 2) for cut in (1, 5, 40)),
    (b"{", 0), (b'{"noteb', 0), (b'{"notebook": nul', 0),
    (OURS + b"\n" + OURS, 2),  # only the newline is missing
    (2 * (OURS + b"\r\n"), 2)])  # an editor's
def test_what_was_cut_off_is_left_out_and_costs_no_line(
        tmp_path, content, whole):
    kept = Registry(tmp_path / "runs.jsonl")
    kept.path.write_bytes(content)
    assert seeds(kept) == whole * [0]
    kept.append(line(1))
    assert seeds(kept) == [*whole * [0], 1]
    if content.endswith(b"\n"):
        assert kept.path.read_bytes().startswith(content)


@pytest.mark.parametrize("content", [
    b"my notes", b"my notes\n", b"one\rtwo\r", b"one\r\ntwo\r\n", b"17",
    b'{"my": "json"}\n', b'{"my": "json"}', b"[1, 2]", b"\xff\xfe{\x00",
    OURS + b"\r" + OURS + b"\r", OURS + b"\nmy notes", b"\nmy notes"])
def test_a_file_that_is_no_registry_keeps_every_byte(tmp_path, content):
    kept = Registry(tmp_path / "notes.txt")
    kept.path.write_bytes(content)
    for use in (kept.lines, lambda: kept.append(line(1))):
        refused("notes.txt is no registry", use)
        assert kept.path.read_bytes() == content


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
    assert seeds(kept) == [0, 0, 1]


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


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    kept = Registry(tmp_path / "runs.jsonl")
    kept.append(line(0))
    with kept.path.open("a") as file:
        file.write("<<<<<<< HEAD\n")
    kept.append(line(1))
    refused("runs.jsonl, line 2 is not JSON", kept.lines)


def test_lines_have_the_fields_in_their_order(tmp_path):
    kept = Registry(tmp_path / "new" / "runs.jsonl")
    assert kept.lines() == [] and kept.find("k", "d") is None
    kept.append(dict(reversed(line(0, key="k", data="d").items())))
    text = kept.path.read_text(encoding="utf-8")
    assert list(json.loads(text)) == list(FIELDS)
    assert kept.find("k", "d")["seed"] == 0


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
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


def test_accuracies_are_of_all_test_videos():
    """A share of every seventh video, of two classes of 14, is no whole."""
    changed, seen = {"even", *rstan.CHANGES, *sta_networks.CHANGES}, set()
    for number in ("00", "01", "02", "03", "04", "05", "06"):
        for line in Registry(f"notebooks/results/{number}.jsonl").lines():
            for name in changed & line["metrics"].keys():
                right = line["metrics"][name] * line["n_test"]
                assert abs(right - round(right)) < 0.01, (number, name)
                seen.add(name)
    assert seen == changed
