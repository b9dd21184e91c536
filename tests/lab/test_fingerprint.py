"""The key sees what trains, wherever it stands, and nothing else."""

import linecache
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
    """Digest of `train` in cells on a small package; both can be changed."""
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


@pytest.mark.parametrize("package", [
    changed("house/nets.py", "(8, 16)", "(8, 32)"),
    changed("house/losses.py", "SCALE = 1.0", "SCALE = 10.0"),
    changed("house/losses.py", "math.exp(x)", "math.exp(-x)"),
    changed("house/losses.py", "* helper(x)", "* helper(x + 1)"),
])
def test_a_change_of_what_trains_changes_it(project, package):
    assert project(package) != project()


@pytest.mark.parametrize("cells", [
    with_cell(3, CELLS[3].replace("Loss()(x)", "10 * Loss()(x)")),
    with_cell(2, "kept = {}\nkept['a'] = 2"),
])
def test_ten_times_the_loss_in_a_cell_changes_it(project, cells):
    assert project(cells=cells) != project()


@pytest.mark.parametrize("package", [
    changed("house/losses.py", "# a comment", "# another"),
    changed("house/losses.py", "Says what it does.", "Says it otherwise."),
    changed("house/losses.py", "return x\n", "return 2 * x\n"),
    # the helper moves to another file
    changed("house/losses.py", "        def helper(x):  # a comment\n",
            "        def other(x):  # a comment\n") | {
        "house/losses.py": PACKAGE["house/losses.py"].replace(
            "from house import nets", "from house import nets\n"
            "        from house.more import helper").replace(
            "        def helper(x):  # a comment\n", "        def _h(x):\n"),
        "house/more.py": """
        import math

        def helper(x):
            return math.exp(x)
    """},
])
def test_comments_neighbours_and_moves_do_not(project, package):
    assert project(package) == project()


def test_a_cell_may_call_it_through_its_module(project):
    through = with_cell(3, CELLS[3].replace("Loss()", "losses.Loss()"))
    assert project(cells=through) == project()


def test_a_parameter_counts_by_its_value_alone(project):
    more = with_cell(0, "steps: int = 50  # training steps")
    assert project(cells=more) == project()


def test_a_function_needs_a_name(project):
    cells = [*CELLS, "nameless = lambda run: run"]
    with pytest.raises(ValueError, match="give it a name"):
        project(cells=cells, of="nameless")
