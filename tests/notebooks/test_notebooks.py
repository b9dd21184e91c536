"""Hygiene of the committed notebooks; and each check is able to fail."""

import hygiene
import nbformat
import pytest
from refresh import ROOT, WIDGET, clean, differences

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MD, CODE = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell


@pytest.mark.parametrize("check", hygiene.CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, check):
    wrong = list(check(nbformat.read(path, as_version=4), path))
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def path(tmp_path):
    """A small notebook to which no check objects, with a preset."""
    notebook = nbformat.v4.new_notebook(cells=[
        MD("# A title\nhttps://example.org, 2 s on a CPU"),
        CODE("steps: int = 5  # training steps\nlr: float = 0.1  # rate",
             metadata={"tags": ["parameters"]}),
        *[MD(f"## {title}") for title in hygiene.SECTIONS],
        CODE("print(steps * lr)"), MD("What it learnt:"),
        CODE("history = fit(steps)")])
    for i, cell in enumerate(hygiene.code(notebook)):
        cell.execution_count = i + 1
    hygiene.code(notebook)[1].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="0.5\n"),
        nbformat.v4.new_output("display_data", {
            "image/png": "A" * 900, WIDGET: {"model_id": "cleaned"}})]
    clean(notebook)
    path = tmp_path / "06_small.ipynb"
    nbformat.write(notebook, path)
    (tmp_path / "presets/06").mkdir(parents=True)
    (tmp_path / "presets/06/tiny.yaml").write_text("steps: 1\nlr: 1\n")
    return path


def text(nb, words):
    hygiene.code(nb)[1].outputs[0].text = words


def setting(source):
    return lambda nb: hygiene.code(nb)[0].update(source=source)


def line(source):
    return lambda nb: hygiene.code(nb)[1].update(source=source)


def images(*sizes):
    def add(nb):
        hygiene.code(nb)[1].outputs += [nbformat.v4.new_output(
            "display_data", {"image/jpeg": "A" * (size * 4 // 3)}
        ) for size in sizes]
    return add


FAULTS = [
    ("executed", lambda nb: nb.cells[1].update(execution_count=None)),
    ("executed", lambda nb: nb.cells[1].update(execution_count=2)),
    ("executed", lambda nb: nb.cells.append(MD(" "))),
    ("executed", lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))),
    ("parameters", lambda nb: nb.cells[1].metadata.pop("tags")),
    ("parameters", lambda nb: nb.cells.__delitem__(slice(1, 2))),
    ("parameters", setting("steps: int = 5\nlr: float = 0.1  # rate")),
    ("parameters", setting("steps = 5  # steps\nlr: float = 0.1  # rate")),
    ("parameters", setting("steps: int = 2 * 3  # n\nlr: float = 1.  # r")),
    ("parameters", setting("steps: int | None = 5  # n\nlr: float = 1.  # r")),
    ("parameters", line("print(steps)")),
    ("parameters", line("steps = steps + lr")),
    # the oracles read lr, and no rate
    ("parameters", lambda nb: (
        setting("steps: int = 5  # n\nlr: float = 0.1  # r\n"
                "rate: float = 1.0  # r")(nb),
        line("study = oracles.study(globals(), steps, lr)")(nb))),
    ("presets", setting("stepz: int = 5  # n\nlr: float = 0.1  # rate")),
    ("presets", setting("steps: str = '5'  # n\nlr: float = 0.1  # rate")),
    ("shape", lambda nb: nb.cells.append(CODE("1"))),
    ("shape", line("print(steps * lr)\n" * 46)),
    ("shape", lambda nb: nb.cells.extend(
        cell for _ in range(3) for cell in (MD("x"), CODE("1\n" * 30)))),
    ("shape", line("print(steps * lr)  # " + "x" * 60)),
    ("source", line("!pip install torch")),
    ("source", line("%%time\nprint(1)")),
    ("source", line("%matplotlib widget")),
    ("source", line("widgets.interact(f)")),
    ("source", line("out = widgets.Output()")),
    ("source", line("clear_output(wait=True)")),
    ("source", line("plt.plot(x);\nprint(1)")),
    ("source", line("if SMOKE: steps = 1")),
    ("source", line("# NBVAL_SKIP\n1")),
    ("source", line("from lib.show.figures import *")),
    ("stable", lambda nb: text(nb, "saved to /home/ann/out.pt")),
    ("stable", lambda nb: text(nb, "<Line2D at 0x7f2a3c4d5e6f>")),
    ("stable", lambda nb: text(nb, "UserWarning: look out")),
    ("stable", lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"}))),
    ("size", images(90_000)),
    ("size", images(*[50_000] * 4)),
    ("size", images(*[39_000] * 13)),
    ("metadata", lambda nb: nb.metadata.update(widgets={})),
    ("metadata", lambda nb: nb.metadata.update(papermill={})),
    ("metadata", lambda nb: nb.cells[1].metadata.update(execution={})),
    ("metadata", lambda nb: nb.cells[1].outputs.append(
        nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "a"}}))),
    *[("opt_outs", lambda nb, tag=tag: nb.cells[-1].metadata.update(
        tags=[tag])) for tag in hygiene.OPT_OUTS],
    ("sections", lambda nb: nb.cells[0].update(source="A title")),
    ("sections", lambda nb: nb.cells[0].update(source="# A title")),
]


@pytest.mark.parametrize(
    "name, spoil", FAULTS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FAULTS)])
def test_each_check_finds_its_fault(path, name, spoil):
    notebook = nbformat.read(path, as_version=4)
    for check in hygiene.CHECKS:
        assert not list(check(notebook, path))
    spoil(notebook)
    nbformat.write(notebook, path)
    assert list(getattr(hygiene, name)(notebook, path))


@pytest.mark.parametrize("check, spoil", [
    ("shape", lambda nb: None),  # two code cells are too few
    ("shape", lambda nb: nb.cells.extend(
        cell for _ in range(40) for cell in (MD("x"), CODE("1\n" * 12)))),
    ("sections", lambda nb: nb.cells[3].update(source="## The data")),
    ("sections", lambda nb: nb.cells[10].update(source="### Exercises")),
])
def test_a_paper_s_notebook_has_its_sections_and_its_size(path, check, spoil):
    paper = path.with_name("03_small.ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert not list(hygiene.sections(notebook, paper))
    spoil(notebook)
    assert list(getattr(hygiene, check)(notebook, paper))


def test_text_that_a_processor_changes_is_found(path):
    stored = nbformat.read(path, as_version=4)
    found = nbformat.read(path, as_version=4)
    assert differences(stored, found) == []
    for notebook, kinds in ((stored, ["text/html", "text/plain"]),
                            (found, ["text/plain", "text/html"])):
        hygiene.code(notebook)[1].outputs.append(nbformat.v4.new_output(
            "display_data", {kind: "a" for kind in kinds}))
    images(9)(found)
    assert differences(stored, found) == [], "a picture"
    text(found, "0.51\n")
    assert differences(stored, found) == [1]
