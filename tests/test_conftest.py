"""Who sees a GPU: the benchmarks, asked for alone, and no test."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from refresh import ROOT

import conftest

VISIBLE = "CUDA_VISIBLE_DEVICES"
PROBE = f"import os; print(repr(os.environ[{VISIBLE!r}]))"
WANTED = f"""
import os
def test_what_is_visible():
    assert os.environ[{VISIBLE!r}] == os.environ["WANTED"]
"""


@pytest.fixture
def project(tmp_path):
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tests/test_a.py", "tests/benchmarks/test_b.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(WANTED)
    (tmp_path / "notebooks").mkdir()
    stored = nbformat.v4.new_output("stream", text="''\n")
    nbformat.write(nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell(PROBE, execution_count=1, outputs=[stored]),
    ]), tmp_path / "notebooks" / "c.ipynb")
    return tmp_path


@pytest.mark.parametrize("inside, words, wanted, passed", [
    ("tests", "benchmarks", "0", 1),
    ("tests/benchmarks", "--nbval --nbval-current-env test_b.py "
     "../test_a.py ../../notebooks", "", 3),
])
def test_gpu_number_0_is_visible_to(project, inside, words, wanted, passed):
    """Calls from other folders; a notebook's kernel is one more process."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words.split()], text=True,
        cwd=project / inside, capture_output=True, timeout=120,
        env=os.environ | {VISIBLE: "0", "WANTED": wanted})
    assert f" {passed} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("seen, inside, asked", [
    (True, ".", ["tests/benchmarks"]),
    (True, "tests", ["benchmarks/test_sta.py::test_growth_with_t[2-sta]"]),
    (True, "lib", [str(conftest.BENCHMARKS), "../tests/benchmarks/"]),
    (False, ".", ["tests", "notebooks"]), (False, ".", ["."]),
    (False, "tests/benchmarks", ["../test_sta.py"]),
    (False, ".", ["tests/benchmarks", "tests/test_sta.py"]),
])
def test_who_is_asked_for(monkeypatch, seen, inside, asked):
    monkeypatch.setenv(VISIBLE, "0")
    conftest.pytest_configure(SimpleNamespace(
        args=asked, invocation_params=SimpleNamespace(dir=ROOT / inside)))
    assert os.environ[VISIBLE] == ("0" if seen else "")
