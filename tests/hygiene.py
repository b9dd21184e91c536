"""Checks of notebooks and of lib that need no execution.

Each check takes the notebook and its path, and yields one sentence for each
thing that is wrong; `CHECKS` lists them. `tests/test_notebooks.py` runs them.
"""

import ast
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import yaml

from lib.lab import oracles
from lib.lab.parameters import KEPT

SECTIONS = (
    "the idea", "the world", "the model", "train", "what it looks at",
    "the paper's tables", "why", "paper and code", "exercises")
CELLS, LINES = (30, 45), 460  # code cells of a paper's notebook, all lines
FORBIDDEN = {
    r"^\s*[!%]+\s*(pip|conda)\b": "installs packages",
    r"^\s*%%?time": "prints a time",
    r"%matplotlib\s+(widget|notebook)": "needs a live figure",
    r"\binteract(ive)?\(": "`interact` hangs papermill: see Explorer",
    r"\bOutput\(": "`Output` widgets hang headless runs",
    r"\bclear_output\b|\bdisplay_id\b": "nbval cannot follow live displays",
    r";\s*$": "a trailing `;` silences nothing under nbval",
    r"\bif\s+(not\s+)?(SMOKE|TEST|DEBUG)\b": "has a second code path",
    r"#\s*NBVAL_|#\s*PYTEST_": "use nbval's tags, not its comments",
    r"^from\s+\S+\s+import\s+\*": "imports a star",
}
UNSTABLE = {
    r"(?<![\w.])(/(home|root|tmp|Users|work|usr|opt|var|mnt)/|[A-Z]:\\)":
        "a path of one machine",
    r"\b0x[0-9a-f]{6,}": "an address",
    r"\b\w*Warning\b": "a warning",
    r"Traceback \(most recent": "a traceback",
}
OPT_OUTS = {"nbval-ignore-output", "nbval-skip", "raises-exception"}
PLAIN = r"(str|int|float|bool|list|dict)(\[[\w, ]+\])?"


def code(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "code"]


def executed(notebook, path: Path) -> Iterator[str]:
    """Every code cell ran, once, in order, without an error."""
    counts = [cell.execution_count for cell in code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"cells ran in the order {counts}: python tests/refresh.py"
    for i, cell in enumerate(notebook.cells):
        if not cell.source.strip():
            yield f"cell {i} is empty"
        if any(o.output_type == "error" for o in cell.get("outputs", [])):
            yield f"cell {i} ended in an error"


def parameters(notebook, path: Path) -> Iterator[str]:
    """One cell of annotated, commented literals, each of them read later."""
    cells = code(notebook)
    found = [c for c in cells if "parameters" in c.metadata.get("tags", ())]
    if len(found) != 1 or found[0] not in cells[:3]:
        yield "needs one `parameters` cell among the first three code cells"
        return
    later = cells[cells.index(found[0]) + 1:]
    read = {
        node.id for cell in later for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    if any("parameters=globals()" in cell.source for cell in later):
        read |= {"results", "rates"}  # a study takes them from there
    if any("run.rate" in cell.source for cell in later):
        read.add("lr")
    if any("oracles.study(globals()" in cell.source for cell in later):
        text = (Path(__file__).parents[1] / "lib/lab/oracles.py").read_text()
        read |= {"results", "device", "lr", "rates",  # by run.rate
                 *oracles.BACKBONE.values(),
                 *re.findall(r'settings\["(\w+)"\]', text)}
    stored = {
        node.id for cell in later for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    lines = found[0].source.split("\n")
    for node in ast.parse(found[0].source).body:
        line = lines[node.end_lineno - 1]
        # without annotation, since they are no part of what a run is known by
        apart = isinstance(node, ast.Assign) and ast.unparse(
            node.targets[0]) in KEPT
        if not (apart or isinstance(node, ast.AnnAssign)):
            yield f"parameters: {line!r} is no annotated literal"
            continue
        name = (node.targets[0] if apart else node.target).id
        try:
            ast.literal_eval(node.value)
        except ValueError:
            yield f"parameters: {name} is computed, not a literal"
        if not apart and not re.fullmatch(
                PLAIN, ast.unparse(node.annotation)):
            yield f"parameters: papermill cannot read the type of {name}"
        if "#" not in line[node.end_col_offset:]:
            yield f"parameters: {name} has no comment, papermill's help text"
        if name not in read:
            yield f"parameters: nothing reads {name}"
        if name in stored:
            yield f"parameters: a later cell overwrites {name}"


def presets(notebook, path: Path) -> Iterator[str]:
    """Presets hold parameters that the notebook has, of the same type."""
    from papermill import inspect_notebook

    folder = path.parent / "presets" / path.name.split("_")[0]
    known = inspect_notebook(str(path))
    for file in sorted(folder.glob("*.yaml")):
        for name, value in (yaml.safe_load(file.read_text()) or {}).items():
            if name not in known:
                yield f"{file.name}: there is no parameter {name}"
                continue
            default = ast.literal_eval(known[name]["default"])
            types = type(default), type(value)
            if types[0] != types[1] and types != (float, int):
                yield f"{file.name}: {name} is {types[1]}, not {types[0]}"


def shape(notebook, path: Path) -> Iterator[str]:
    """Words before every code cell; cells and lines stay short."""
    kinds = [cell.cell_type for cell in notebook.cells]
    for i, pair in enumerate(pairwise(["code", *kinds])):
        if pair == ("code", "code"):
            yield f"no words before code cell {i}"
    lengths = sorted(len(c.source.split("\n")) for c in code(notebook))
    if lengths[-1] > 45 or lengths[(len(lengths) - 1) * 9 // 10] > 25:
        yield f"long code cells, up to {lengths[-1]} lines: 45, and p90 25"
    if "01" <= path.name[:2] <= "05":
        if not CELLS[0] <= len(lengths) <= CELLS[1]:
            yield f"{len(lengths)} code cells, not {CELLS[0]} to {CELLS[1]}"
        if sum(lengths) > LINES:
            yield f"{sum(lengths)} lines of code, more than {LINES}"
    for line in "\n".join(c.source for c in code(notebook)).split("\n"):
        if len(line) > 79:
            yield f"more than 79 columns: {line[:50]!r}"


def source(notebook, path: Path) -> Iterator[str]:
    """Nothing that hangs, hides, or differs from run to run."""
    for cell in code(notebook):
        for pattern, why in FORBIDDEN.items():
            if found := re.search(pattern, cell.source, re.MULTILINE):
                yield f"{found[0]!r}: {why}"


def stable(notebook, path: Path) -> Iterator[str]:
    """Printed text would be the same on another machine."""
    for cell in code(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            text = output.get("text", "") + "".join(
                part for kind, part in data.items() if kind[:5] == "text/")
            for pattern, why in UNSTABLE.items():
                if found := re.search(pattern, text):
                    yield f"an output shows {why}: {found[0]!r}"
            if "image/svg+xml" in data:
                yield "nbval compares SVG byte by byte: use PNG"


def size(notebook, path: Path) -> Iterator[str]:
    """At most 500 kB; images at most 40 kB, three of them up to 80 kB."""
    if path.stat().st_size > 500_000:
        yield f"{path.stat().st_size / 1000:.0f} kB, more than 500"
    images = sorted((
        len(data) * 3 // 4 for cell in code(notebook) for out in cell.outputs
        for kind, data in out.get("data", {}).items() if kind[:6] == "image/"
    ), reverse=True)
    if images[:1] > [80_000] or images[3:4] > [40_000]:
        yield f"images of {[i // 1000 for i in images[:5]]} kB"


def metadata(notebook, path: Path) -> Iterator[str]:
    """As tests/refresh.py leaves it: no widget state, times or paths."""
    from refresh import KEPT, WIDGET

    extra = set(notebook.metadata) - {"kernelspec", "language_info"}
    extra = extra.union(*(set(c.metadata) - set(KEPT) for c in notebook.cells))
    if extra:
        yield f"metadata {sorted(extra)}: python tests/refresh.py"
    if WIDGET in json.dumps(notebook):
        yield "keeps the handle of a widget that no longer lives"


def opt_outs(notebook, path: Path) -> Iterator[str]:
    """No cell escapes nbval: what training decides goes into a picture."""
    for cell in code(notebook):
        if OPT_OUTS.intersection(cell.metadata.get("tags", ())):
            yield f"{cell.source[:40]!r} escapes nbval: draw what it prints"


def sections(notebook, path: Path) -> Iterator[str]:
    """A title with a link; paper notebooks share one order of sections."""
    first = notebook.cells[0].source
    if not first.startswith("# "):
        yield "the first cell is no title"
    if "https://" not in first or "CPU" not in first:
        yield "the first cell lacks a link, or the seconds on a CPU"
    titles = [
        title.lower() for c in notebook.cells if c.cell_type == "markdown"
        for title in re.findall(r"^## +(?:\d+\W+)?(.*)", c.source, re.M)
    ]
    expected = SECTIONS if "01" <= path.name[:2] <= "05" else ()
    for title, wanted in zip([*titles, *[""] * 9], expected, strict=False):
        if not title.startswith(wanted):
            yield f"section {title!r} stands where {wanted!r} is expected"
            return
    if not re.fullmatch(r"\d\db?_[a-z][a-z0-9_]*\.ipynb", path.name):
        yield "the name is not NN_short_title.ipynb, or NNb_"


CHECKS = (executed, parameters, presets, shape, source, stable, size, metadata,
          opt_outs, sections)
