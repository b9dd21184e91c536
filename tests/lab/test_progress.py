"""A bar while runs are trained, of which nothing is stored."""

import os
import pty
import subprocess
import sys
import termios

import ipywidgets
import pytest

from lib import ROOT
from lib.lab import progress as module
from lib.lab.progress import progress

RUNS = """
from lib.lab.progress import progress
with progress(3) as say:
    for i in range(3):
        say(f"run {i + 1} of 3: full, seed 0")
print("done")
"""


def test_a_terminal_shows_which_run_of_how_many():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # into none, no bar fits
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=ROOT, timeout=120,
                          stdout=subprocess.PIPE, stderr=theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert done.stdout == b"done\n"
    assert "run 1 of 3: full, seed 0" in shown and "2/3" in shown


def test_a_file_gets_nothing():
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=ROOT, timeout=120,
                          capture_output=True)
    assert (done.stdout, done.stderr) == (b"done\n", b"")


def test_a_lab_shows_a_widget_that_goes_again(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "some.ipynb")
    made, widget = [], module.tqdm_notebook
    monkeypatch.setattr(module, "tqdm_notebook", lambda **options: made.append(
        widget(**options)) or made[0])
    with progress(2) as say:
        say("run 1 of 2")
        (bar,) = made
        assert isinstance(bar.container, ipywidgets.HBox)
        assert bar.n == 0 and bar.desc.startswith("run 1 of 2")
        say("run 2 of 2")
        assert bar.n == 1
    assert bar.n == 2 and bar.container.comm is None  # closed


def test_a_run_that_fails_leaves_no_bar():
    with pytest.raises(KeyError), progress(2) as say:
        say("run 1 of 2")
        raise KeyError
