"""Each exercise: its stub runs, is not right yet, and its solution is."""

import re

import nbformat
import pytest
from refresh import ROOT

SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\n\n```python\n(.*?)```", re.S)


def tagged(cell, tag):
    return tag in cell.metadata.get("tags", ())


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05",
                                    "05b", "06"])
def test_exercises(number, capsys, monkeypatch):
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, 4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    monkeypatch.chdir(path.parent)
    names = {}
    for source in code[:2]:  # parameters, set-up
        exec(source, names)
    stubs = [i for i, cell in enumerate(cells) if tagged(cell, "exercise")]
    assert 2 <= len(stubs) <= 5
    for i in stubs:
        stub = cells[i]
        check = next(c for c in cells[i:] if tagged(c, "check"))
        solution = next(found[1] for c in cells[i:]
                        if (found := SOLUTION.search(c.source)))
        (name,) = re.findall(r"^def (\w+)", stub.source, re.M)
        assert f"def {name}(" in solution
        for source, wanted in ((stub.source, "not yet"), (solution, "right")):
            exec(source, names)
            capsys.readouterr()
            exec(check.source, names)
            assert capsys.readouterr().out.startswith(wanted), name
