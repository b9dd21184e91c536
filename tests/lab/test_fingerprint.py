"""The key sees what trains, wherever it stands, and nothing else."""

import ast
import json
import linecache
import symtable
import sys
import types

import pytest

from lib.lab import fingerprint

PACKAGE = {
    "house/__init__.py": "",
    "house/nets.py": """
        WIDTHS = {"small": (8, 16), "large": (64, 128)}

        def build(name):
            return list(WIDTHS[name])
    """,
    "house/losses.py": """
        import math
        from house import nets

        SCALE = 1.0

        class Loss:
            \"\"\"The loss.\"\"\"
            def __call__(self, x):
                return SCALE * helper(x) + len(nets.build("small"))

        def helper(x):  # a comment
            \"\"\"Says what it does.\"\"\"
            return math.exp(x)

        def stranger(x):
            return x
    """,
}
CELLS = [
    "steps: int = 5  # training steps",
    "from house.losses import Loss\nfrom house import losses",
    "kept = {}\nkept['a'] = 1",
    "def step(x):\n    return Loss()(x) * steps + kept['a']",
    "def train(run):\n    return step(run)",
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "OURS", ("house", "__main__"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in linecache.cache if n.startswith("<cell")]:
        linecache.cache.pop(name)

    def digest(package=PACKAGE, cells=CELLS, of="train", whole=False):
        for name, text in package.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = text.split("\n")
            path.write_text("\n".join(line[8:] for line in lines))
        for name in [n for n in sys.modules if n.split(".")[0] == "house"]:
            monkeypatch.delitem(sys.modules, name)
        fingerprint._file.cache_clear()
        fingerprint._cells.cache_clear()
        module = types.ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", module)
        for i, source in enumerate(cells):
            file = f"<cell {i}>"
            monkeypatch.setitem(linecache.cache, file, (
                len(source), None, source.splitlines(True), file))
            exec(compile(source, file, "exec"), vars(module))
        functions = [vars(module)[of]]
        return (fingerprint.reached(functions) if whole
                else fingerprint.source_digest(functions))
    return digest


def changed(name, old, new):
    assert old in PACKAGE[name]
    return PACKAGE | {name: PACKAGE[name].replace(old, new)}


def with_cell(number, source):
    return [*CELLS[:number], source, *CELLS[number + 1:]]


def test_it_reaches_all_that_trains_and_no_more(project):
    assert set(project(whole=True)) == {
        "train", "step", "kept", "Loss", "helper", "SCALE", "build", "WIDTHS"}


@pytest.mark.parametrize("change", [
    {"package": changed("house/nets.py", "(8, 16)", "(8, 32)")},
    *({"package": changed("house/losses.py", old, new)} for old, new in (
        ("SCALE = 1.0", "SCALE = 10.0"), ("math.exp(x)", "math.exp(-x)"),
        ("* helper(x)", "* helper(x + 1)"))),
    {"cells": with_cell(3, CELLS[3].replace("Loss()(x)", "10 * Loss()(x)"))},
    {"cells": with_cell(2, "kept = {}\nkept['a'] = 2")}])
def test_a_change_of_what_trains_changes_it(project, change):
    assert project(**change) != project()


@pytest.mark.parametrize("change", [
    *({"package": changed("house/losses.py", old, new)} for old, new in (
        ("# a comment", "# another"),
        ("Says what it does.", "Says it otherwise."),
        ("return x\n", "return 2 * x\n"))),
    # the helper moves to another file
    {"package": PACKAGE | {
        "house/losses.py": PACKAGE["house/losses.py"].replace(
            "from house import nets", "from house import nets\n"
            "        from house.more import helper").replace(
            "        def helper(x):  # a comment\n", "        def _h(x):\n"),
        "house/more.py": """
        import math

        def helper(x):
            return math.exp(x)
    """}},
    # it is called through its module
    {"cells": with_cell(3, CELLS[3].replace("Loss()", "losses.Loss()"))},
    # a parameter, which counts by its value
    {"cells": with_cell(0, "steps: int = 50  # training steps")}])
def test_comments_neighbours_moves_and_parameters_do_not(project, change):
    assert project(**change) == project()


def test_the_cells_are_read_once(project):
    """Not for each name: that took most of a minute in every notebook."""
    project()
    assert fingerprint._cells.cache_info().misses == 1
    assert fingerprint._cells.cache_info().hits > 1


def test_a_function_needs_a_name(project):
    cells = [*CELLS, "nameless = lambda run: run"]
    with pytest.raises(ValueError, match="give it a name"):
        project(cells=cells, of="nameless")


def test_all_versions_of_python_find_the_same_names():
    """Python 3.12 has no table of its own for a comprehension at the top."""
    for text, names in (
            ("TABLE = {w: 2 * w for w in known}", {"w", "known"}),
            ("ROWS |= {f'{a} @ {b}': ROWS[a] for a in AS for b in BS}",
             {"a", "b", "AS", "BS"}),
            ("TABLE = dict((w, 1) for w in known)", {"dict", "known"}),
            ("def f(x):\n    return [w + y for w in x]", {"y"})):
        table = symtable.symtable(text, "", "exec")
        assert {*fingerprint._free(table)} == names, text
        # in a notebook, what a comprehension binds is no cell's name
        read = {*fingerprint._read_in(ast.parse(text))} & names
        assert read == names - {"w", "a", "b"}, text


def test_codes_that_gave_the_same_bits_share_the_older_digest(
        project, tmp_path, monkeypatch):
    """A chain of two changes; what was not compared has its own digest."""
    monkeypatch.setattr(fingerprint, "SAME", tmp_path / "same.jsonl")
    fingerprint.SAME.write_text("")
    packages = [PACKAGE | {"house/losses.py": PACKAGE[
        "house/losses.py"].replace("1.0", scale)} for scale in (
            "1.0", "0.1 * 10", "10 / 10", "2.0")]
    first, second, third, other = map(project, packages)
    assert len({first, second, third, other}) == 4
    fingerprint.SAME.write_text("".join(
        json.dumps({"was": was, "now": now}) + "\n"
        for was, now in ((first, second), (second, third))))
    assert [*map(project, packages)] == [first, first, first, other]
