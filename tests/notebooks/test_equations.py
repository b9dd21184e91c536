"""The ledger has no gap and is up to date; and a gap would be noticed."""

import equations
import pytest


def test_every_equation_has_code_and_a_test():
    found = equations.problems(equations.ROOT)
    assert not found, "\n".join(found)


def test_the_committed_table_is_up_to_date():
    path = equations.ROOT / "tests" / "EQUATIONS.md"
    assert path.read_text(encoding="utf-8") == equations.markdown(
        equations.ROOT
    ), "run: python tests/equations.py --write"


LIB = '''
class Model:
    """Not Eq 7, nor Equation (8)."""

    def forward(self):
        """Attention, Eq. (1)."""
'''
ELSEWHERE = '''
def score():
    """How well it looks, tiny Eq. (2)."""
'''
TESTS = """
import pytest

@pytest.mark.equation("tiny", 1, 2)
def test_both():
    pass

@pytest.mark.slow
def test_other():
    pass
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(equations, "TITLES", {"tiny": {1: "One", 2: "Two"}})
    for folder in ("lib/papers", "lib/scores", "tests/papers"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib/papers/tiny.py").write_text(LIB)
    (tmp_path / "lib/scores/metrics.py").write_text(ELSEWHERE)
    (tmp_path / "tests/papers/test_tiny.py").write_text(TESTS)
    return tmp_path


def test_a_complete_project_has_no_problem(project, monkeypatch):
    assert equations.problems(project) == []
    assert equations.markdown(project).splitlines()[-2:] == [
        "| (1) | One | lib/papers/tiny.py: `Model.forward` | "
        "tests/papers/test_tiny.py: `test_both` |",
        "| (2) | Two | lib/scores/metrics.py: `score` | "
        "tests/papers/test_tiny.py: `test_both` |"]
    (project / "lib/papers/tiny.py").write_text("")
    assert len(equations.problems(project)) == 1
    monkeypatch.setattr(equations, "NOTHING", {("tiny", 1): "a definition"})
    assert equations.problems(project) == []


@pytest.mark.parametrize(("file", "old", "new", "problem"), [
    ("lib/papers/tiny.py", "Eq. (1)", "Eq 1", "Eq. (1) is named in no"),
    ("tests/papers/test_tiny.py", ", 2", "", "Eq. (2) is marked at no test"),
    ("tests/papers/test_tiny.py", "tiny", "tyni", "tyni Eq. (1), which does"),
    *(("lib/papers/tiny.py", "(1)", said, "Eq. (5), which does not")
      for said in ("(1), (5)", "(1)–(5)", "(1),\n   (3) to (5), and (9)")),
    ("lib/scores/metrics.py", "tiny Eq.", "Eq.", "of which paper"),
    ("tests/papers/test_tiny.py", "1, 2", "*range(3)", "literals"),
    ("tests/papers/test_tiny.py", "def test_both", "def helper", "no test_"),
])
def test_a_gap_a_stray_number_and_what_cannot_be_read_are_problems(
    project, file, old, new, problem):
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    try:
        found = equations.problems(project)
    except ValueError as error:
        found = [str(error)]
    assert any(problem in line for line in found), found
