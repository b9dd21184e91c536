"""The papermill helper and the first-cell recipe, on a small notebook."""

import nbformat
import pytest
from papermill_run import papermill
from refresh import ROOT, clean, main, refresh

FIRST = """import sys
sys.path[:0] = [".", ".."]
import lib"""


@pytest.fixture
def project(tmp_path):
    for folder in ("lib", "project/lib", "project/notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib/__init__.py").write_text("OURS = False\n")
    (tmp_path / "project/lib/__init__.py").write_text("OURS = True\n")
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell(
            "steps: int = 5  # training steps",
            metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"{FIRST}\nprint(lib.OURS, steps)")])
    clean(notebook)
    nbformat.write(notebook, tmp_path / "project/notebooks/09_x.ipynb")
    return tmp_path / "project"


def printed(notebook):
    return notebook.cells[-1].outputs[0].text


@pytest.mark.parametrize("cwd, file, options", [
    (".", "notebooks/09_x.ipynb", []), ("notebooks", "09_x.ipynb", []),
    (".", "notebooks/09_x.ipynb", ["--cwd", "notebooks"]),
    ("..", "project/notebooks/09_x.ipynb", ["--cwd", "project"]),
])
def test_first_cell_finds_lib_from(project, tmp_path, cwd, file, options):
    run = papermill(
        file, tmp_path / "out.ipynb", "-p", "steps", "7", *options,
        cwd=project / cwd, seconds=60)
    assert printed(run) == "True 7\n"


def test_from_another_folder_a_notebook_says_where_to_start(tmp_path):
    with pytest.raises(AssertionError, match="start in the project's folder"):
        papermill(ROOT / "notebooks" / "00_videos_and_attention.ipynb",
                  tmp_path / "out.ipynb", cwd=tmp_path, seconds=60)


def add_cell(path, source):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, path)


def test_refresh_twice_gives_the_same_bytes(project):
    path = project / "notebooks/09_x.ipynb"
    refresh(path, timeout=60)
    first = path.read_bytes()
    refresh(path, timeout=60)
    assert path.read_bytes() == first
    notebook = nbformat.read(path, as_version=4)
    assert printed(notebook) == "True 5\n"
    assert [c.execution_count for c in notebook.cells] == [1, 2]
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_refresh_leaves_a_failing_notebook_and_names_the_cell(project, capsys):
    path = project / "notebooks/09_x.ipynb"
    sound = project / "notebooks/10_y.ipynb"
    sound.write_bytes(path.read_bytes())
    add_cell(path, "nothing_of_this_name")
    before = path.read_bytes()
    assert main([str(path), str(sound)]) == 1
    said = capsys.readouterr()
    assert "cell 2 ('nothing_of_this_name')" in said.err
    assert path.read_bytes() == before
    assert said.out.startswith("10_y.ipynb: ")
    assert printed(nbformat.read(sound, as_version=4)) == "True 5\n"
