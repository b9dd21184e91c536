"""A run that was killed and started again ends with the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import small_run
import torch
from checks import refused
from small_run import STEPS, run, same, step

from lib import ROOT
from lib.lab import checkpoints


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, small_run.__file__, *map(str, arguments)], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.parametrize("what, which", [
    ("step", 2), ("step", 9), ("half written", 2), ("not yet renamed", 1),
    ("not yet renamed", 3), ("renamed", 3), ("half removed", 2)])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, whole, what, which):
    child = start(tmp_path / "run", what, which)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, errors
    seen = []
    model, history = run(tmp_path / "run", step=lambda model, batch: (
        seen.append(1), step(model, batch))[1])
    assert same(model, whole[0]) and history == whole[1]
    early = (what, which) in [("step", 2), ("not yet renamed", 1)]
    assert len(seen) == STEPS if early else len(seen) < STEPS
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "lock", f"step-{STEPS:08d}"}


def wait_for(child, folder, step=""):
    deadline = time.monotonic() + 60
    while not list(folder.glob(f"step-{step}*")):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def never(model, batch):
    raise AssertionError("trained again, or beside it")


def test_killed_from_outside_twice(tmp_path, whole):
    for saved in (3, 6):
        child = start(tmp_path / "run", "slow", 0)
        wait_for(child, tmp_path / "run", f"{saved:08d}")
        child.kill()
        child.communicate(timeout=60)
    for own in (step, never):  # a finished run is loaded and not trained
        model, history = run(tmp_path / "run", step=own)
        assert same(model, whole[0]) and history == whole[1]


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path / "good")
    files = [p.name for p in (tmp_path / "good").glob("*/*")]
    assert {"state.json", "model.safetensors", "best.safetensors",
            "optimizer.bin", "random_states_0.pkl"} == set(files)
    for name in files:
        folder = tmp_path / name
        shutil.copytree(tmp_path / "good", folder)
        path = next(folder.glob(f"*/{name}"))
        broken = bytearray(path.read_bytes())
        broken[len(broken) // 2] ^= 1
        if name != "state.json":  # which holds the others' digests
            path.write_bytes(broken)
            refused(name, run, folder, error=checkpoints.CheckpointError)
        path.write_bytes(broken[:-9])
        refused(str(folder), run, folder, error=checkpoints.CheckpointError)
        path.unlink()
        refused(name, run, folder, error=checkpoints.CheckpointError)


def test_another_runs_checkpoint_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path)
    with pytest.raises(checkpoints.CheckpointError, match="lr 0.01 there"):
        run(tmp_path, lr=0.02)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_checkpoint_is_unpickled_without_weights_only(
        tmp_path, monkeypatch):
    load, asked = torch.load, []

    def watched(*args, **options):
        asked.append(options.get("weights_only"))
        return load(*args, **options)

    run(tmp_path)
    monkeypatch.setattr(torch, "load", watched)
    run(tmp_path)
    assert asked and all(asked)


def test_two_processes_do_not_train_one_run(tmp_path, whole):
    folder = tmp_path / "run"
    child = start(folder, "slow", 0)
    try:
        wait_for(child, folder)
        refused(f"{folder}: another process.*wait until",
                run, folder, step=never, error=checkpoints.CheckpointError)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    finally:
        child.kill()
        child.communicate()
    model, history = run(folder, step=never)  # which is finished now
    assert same(model, whole[0]) and history == whole[1]


def test_the_lock_is_held_from_before_the_reading_to_the_end(tmp_path):
    other = ("import sys; from lib.lab.checkpoints import Checkpoint; "
             "Checkpoint(sys.argv[1], None, {})")

    def lock():
        return subprocess.run(
            [sys.executable, "-c", other, str(tmp_path)], cwd=ROOT,
            stderr=subprocess.PIPE, text=True, timeout=60).stderr

    one = checkpoints.Checkpoint(tmp_path, None, {})
    again = checkpoints.Checkpoint(tmp_path, None, {})
    del one
    assert "another process" in lock()
    if (child := os.fork()) == 0:  # as a loader's worker, which outlives us
        time.sleep(60)
        os._exit(0)
    try:
        del again
        assert lock() == ""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_run_that_failed_in_this_process_goes_on(tmp_path, whole):
    """A notebook keeps the traceback, and with it all that the run held."""
    def failing(model, batch, left=[9]):  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return step(model, batch)

    with pytest.raises(KeyboardInterrupt) as kept:
        run(tmp_path, step=failing)
    model, history = run(tmp_path)
    assert same(model, whole[0]) and history == whole[1] and kept.tb
