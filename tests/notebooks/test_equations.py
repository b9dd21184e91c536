"""The ledger has no gap and is up to date; and a gap would be noticed."""

import equations
import pytest


def test_every_equation_of_a_paper_with_a_notebook_has_code_and_a_test():
    found = equations.problems(equations.ROOT)
    assert not found, "\n".join(found)


def test_the_committed_table_is_up_to_date():
    path = equations.ROOT / "tests" / "EQUATIONS.md"
    assert path.read_text(encoding="utf-8") == equations.markdown(
        equations.ROOT
    ), "run: python tests/equations.py --write"


def test_titles_number_every_equation_of_their_paper():
    for paper, titles in equations.TITLES.items():
        assert list(titles) == list(range(1, equations.LAST[paper] + 1))
        for title in titles.values():
            assert 3 <= len(title.split()) <= 6, title


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(4)", [4]),
        ("(2), (3)", [2, 3]),
        ("(2)–(3)", [2, 3]),
        ("(2)-(5)", [2, 3, 4, 5]),
        ("(1), (3) to (5) and (9)", [1, 3, 4, 5, 9]),
        ("(1),\n    (10), and (11)", [1, 10, 11]),
    ],
)
def test_mentions_are_read(text, expected):
    assert equations.numbers(text) == expected
    ((word, mention),) = equations._MENTION.findall(
        f"As Eq. {text}, and so on."
    )
    assert equations.numbers(mention) == expected


# A project of two equations, complete until a test breaks it.

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
    monkeypatch.setattr(equations, "LAST", {"tiny": 2})
    monkeypatch.setattr(equations, "TITLES", {"tiny": {1: "One", 2: "Two"}})
    for folder in ("lib/papers", "lib/scores", "tests/papers", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib/papers/tiny.py").write_text(LIB)
    (tmp_path / "lib/scores/metrics.py").write_text(ELSEWHERE)
    (tmp_path / "tests/papers/test_tiny.py").write_text(TESTS)
    (tmp_path / "notebooks/01_tiny.ipynb").write_text("{}")
    return tmp_path


def test_a_complete_project_has_no_problem(project):
    assert equations.problems(project) == []
    assert equations.markdown(project).splitlines()[-2:] == [
        "| (1) | One | lib/papers/tiny.py: `Model.forward` | "
        "tests/papers/test_tiny.py: `test_both` |",
        "| (2) | Two | lib/scores/metrics.py: `score` | "
        "tests/papers/test_tiny.py: `test_both` |",
    ]


def test_the_table_follows_the_code(project):
    before = equations.markdown(project)
    (project / "lib/papers/tiny.py").write_text(LIB.replace("Model", "Net"))
    assert equations.markdown(project) != before


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("lib/papers/tiny.py", "Eq. (1)", "Eq 1", r"Eq. (1) is named in no"),
        ("lib/scores/metrics.py", "tiny Eq. (2)", "",
         r"Eq. (2) is named in no"),
        ("tests/papers/test_tiny.py", ", 2", "",
         r"Eq. (2) is marked at no test"),
        ("tests/papers/test_tiny.py", ", 2", ", 2, 3",
         r"Eq. (3), which does not"),
        ("tests/papers/test_tiny.py", "tiny", "tyni",
         r"tyni Eq. (1), which does"),
        ("lib/papers/tiny.py", "Eq. (1)", "Eq. (1), (5)",
         r"Eq. (5), which does"),
    ],
)
def test_a_gap_or_a_stray_number_is_a_problem(
    project, file, old, new, problem
):
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    found = equations.problems(project)
    assert any(problem in line for line in found), found


def test_a_paper_without_a_title_is_a_problem(project, monkeypatch):
    monkeypatch.setattr(equations, "TITLES", {})
    assert len(equations.problems(project)) == 2


def test_gaps_count_only_once_the_notebook_is_there(project):
    (project / "lib/papers/tiny.py").unlink()
    assert equations.problems(project)
    (project / "notebooks/01_tiny.ipynb").unlink()
    assert equations.problems(project) == []


def test_nothing_to_implement_needs_a_reason(project, monkeypatch):
    (project / "lib/papers/tiny.py").write_text("")
    monkeypatch.setattr(equations, "NOTHING", {("tiny", 1): "a definition"})
    assert equations.problems(project) == []
    assert "a definition" in equations.markdown(project)


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("lib/scores/metrics.py", "tiny Eq.", "Eq.", "of which paper"),
        ("tests/papers/test_tiny.py", "1, 2", "*range(3)", "literals"),
        ("tests/papers/test_tiny.py", "def test_both", "def helper",
         "no test_"),
    ],
)
def test_what_cannot_be_read_is_refused(project, file, old, new, words):
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=words):
        equations.problems(project)
