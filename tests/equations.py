"""The equation ledger: each paper's equations, their functions and tests.

A function or class that implements a numbered equation names it in its
docstring: `Eq. (4)`, `Eq. (2), (3)` or `Eq. (2)-(5)` in the paper's own file
of lib/papers, `where_and_when Eq. (4)` elsewhere in lib. A test that checks it
carries `@pytest.mark.equation("where_and_when", 4)`, any number of numbers.

    python tests/equations.py           prints the table
    python tests/equations.py --write   writes it to tests/EQUATIONS.md
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Every numbered equation of each paper.
TITLES = {
    "rstan": {
        1: "Cube and vector of each frame",
        2: "Energy of each position per step",
        3: "Softmax over positions, sharpened by gamma",
        4: "Attended feature of each frame",
        5: "Energy of each frame per step",
        6: "Softmax over frames, sharpened by gamma",
        7: "Attended feature of the video",
        8: "Input gate with the extra input",
        9: "Forget gate with the extra input",
        10: "Output gate with the extra input",
        11: "Candidate memory with the extra input", 12: "Memory of the LSTM",
        13: "Hidden state of the LSTM",
        14: "Fusion of the streams' position scores",
        15: "Fusion of the streams' frame scores",
        16: "Class from both streams' states",
        17: "Cross entropy over all steps",
        18: "Distance of maps to the silhouette",
        19: "Cross entropy plus the actor's share"},
    "jsta": {
        1: "Basic recurrent network", 2: "LSTM with three gates",
        3: "Soft attention over positions", 4: "Spatial attention of SCA-CNN",
        5: "Attention of the GCA-LSTM", 6: "The same by convolutions",
        7: "Weight of each frame", 8: "Attention to the skeleton's joints",
        9: "Attention to the skeleton's frames", 10: "The ReLU activation",
        11: "Convolution in three dimensions",
        12: "Spatial and temporal branch", 13: "Softmax of both: first gate",
        14: "Map behind the first gate",
        15: "Softmax of two convolutions: second gate",
        16: "Map behind the second gate", 17: "Shortcut around both gates",
        18: "Both directions' states joined", 19: "Importance of each clip",
        20: "Softmax of importance over clips",
        21: "Cross entropy plus weight decay",
        22: "First states from the mean clip"},
    "where_and_when": {
        1: "Mask multiplied into frame features",
        2: "Energy of each frame per step",
        3: "Softmax of energies over frames",
        4: "Weighted frames enter the ConvLSTM",
        5: "First states from the mean frame",
        6: "Mean hidden state for classification",
        7: "Cross entropy plus three regularisers",
        8: "Total variation of each mask",
        9: "Contrast between mask and background",
        10: "Unimodality penalty over all steps",
        11: "Log-concavity penalty of one sequence"},
    "sta_cnn": {
        1: "Confidence, one over the entropy",
        2: "Entropy of a snippet's prediction",
        3: "Flow predicted from a pair", 4: "Squared error beyond a tolerance",
        5: "Class scores summed over positions", 6: "Auxiliary cross entropy",
        7: "Importance by each position's weights",
        8: "Softmax over positions", 9: "Weighted pooling of the map",
        10: "Cross entropy plus auxiliary loss",
        11: "Snippets weighted by their confidence"},
    "sta_networks": {
        1: "Temporal attention as a composition",
        2: "Each step squeezed to one",
        3: "Channel attention as a composition",
        4: "The clip squeezed to channels",
        5: "Squeezing to steps and channels",
        6: "Both attentions in one composition",
        7: "Gates multiplied into the map"},
    # the detectors of STA networks' Table VI, both in one file
    "scnn": {
        1: "Cross entropy plus the overlap loss", 2: "Cross entropy",
        3: "Overlap loss: confident windows must fit"},
    "rc3d": {
        1: "Classes and offsets of segments",
        2: "Offsets from an anchor to an action"}}
FILES = {"scnn": "detection", "rc3d": "detection"}  # of the others: the name

# (paper, number): why there is nothing to implement, as for a definition.
NOTHING: dict[tuple[str, int], str] = {
    ("jsta", 1): "related work: leads to the LSTM of (2)",
    ("jsta", 2): "a definition: `torch.nn.LSTM`, used in (18)",
    ("jsta", 3): "related work (SAM); its softmax over positions is that of "
                 "(13), (15)",
    ("jsta", 4): "related work (SCA-CNN)",
    ("jsta", 5): "related work (GCA-LSTM)",
    ("jsta", 6): "related work (ALSTM)",
    ("jsta", 7): "related work (ATW)",
    ("jsta", 8): "related work (STAM)",
    ("jsta", 9): "related work (STAM)",
    ("jsta", 10): "a definition: `torch.relu`, used in (14), (16)",
    ("jsta", 11): "a definition: `torch.nn.Conv3d`, used in (12), (15)",
}

Places = dict[tuple[str, int], list[tuple[str, str]]]

_MENTION = re.compile(
    r"(?:(\w+)\s+)?\bEqs?\.\s*"
    r"(\(\d+\)(?:\s*(?:[-–,]|and|to|, and)\s*\(\d+\))*)")
_STEP = re.compile(r"(\S*?)\s*\((\d+)\)")


def numbers(mention: str) -> list[int]:
    """`(2), (4)-(6)` -> 2, 4, 5, 6."""
    found: list[int] = []
    for joint, digits in _STEP.findall(mention):
        number = int(digits)
        first = found[-1] + 1 if joint in ("-", "–", "to") else number
        found.extend(range(first, number + 1))
    return found


def functions(root: Path) -> Places:
    """(paper, number) -> the (file, name) in lib that claim to implement it.

    A number that the paper does not have is listed too.
    """
    places: Places = defaultdict(list)
    for file, name, node in _definitions(root, "lib"):
        text = ast.get_docstring(node) or ""
        for word, mention in _MENTION.findall(text):
            paper = word if word in TITLES else Path(file).stem
            if paper not in TITLES:
                raise ValueError(
                    f"{file}: {name}: `Eq. {mention}` of which paper? Name "
                    f"it in front: {', '.join(TITLES)}")
            for number in numbers(mention):
                _add(places, (paper, number), (file, name))
    return places


def tests(root: Path) -> Places:
    """(paper, number) -> the (file, name) of the tests that check it."""
    places: Places = defaultdict(list)
    for file, name, node in _definitions(root, "tests"):
        for mark in node.decorator_list:
            if not isinstance(mark, ast.Call) or not ast.unparse(
                mark.func
            ).endswith("mark.equation"):
                continue
            try:
                paper, *found = (ast.literal_eval(arg) for arg in mark.args)
            except ValueError as error:
                raise ValueError(
                    f"{file}: {name}: write the paper and the numbers of "
                    "mark.equation as literals"
                ) from error
            if not name.split(".")[-1].startswith("test_"):
                raise ValueError(f"{file}: {name} is marked but is no test_")
            for number in found:
                _add(places, (paper, number), (file, name))
    return places


def problems(root: Path) -> list[str]:
    """What is wrong: gaps, and numbers that no paper has."""
    found = []
    code, checks = functions(root), tests(root)
    for what, places in (("implements", code), ("checks", checks)):
        for (paper, number), where in sorted(places.items()):
            if number not in TITLES.get(paper, ()):
                found.append(
                    f"{_names(where)} {what} {paper} Eq. ({number}), "
                    "which does not exist")
    for paper, titles in TITLES.items():
        for number in titles:
            key, equation = (paper, number), f"{paper} Eq. ({number})"
            if key in NOTHING:
                continue
            if key not in code:
                found.append(f"{equation} is named in no docstring of lib")
            if key not in checks:
                found.append(f"{equation} is marked at no test")
    return found


def markdown(root: Path) -> str:
    code, checks = functions(root), tests(root)
    lines = [
        "# The equation ledger",
        "",
        "Which function implements each numbered equation of the papers, and "
        "which tests",
        "check it. Made by `python tests/equations.py --write` from the "
        "docstrings of lib",
        "and the marks of the tests; a test fails when it is out of date."]
    for paper, titles in TITLES.items():
        lines += [
            "", f"## {paper}", "", "| Eq. | What it says | Function | Tests |",
            "|---|---|---|---|"]
        for number, title in titles.items():
            key = paper, number
            function = NOTHING.get(key) or _names(code.get(key, []))
            test = _names(checks.get(key, []))
            lines.append(f"| ({number}) | {title} | {function} | {test} |")
    return "\n".join(lines) + "\n"


def _definitions(
    root: Path, folder: str
) -> Iterator[tuple[str, str, ast.FunctionDef | ast.ClassDef]]:
    """Every function and class as (file, dotted name, node), files sorted."""
    kinds = ast.FunctionDef | ast.ClassDef

    def walk(node: ast.AST, prefix: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, kinds):
                yield prefix + child.name, child
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    for path in sorted((root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for name, node in walk(tree, ""):
            yield path.relative_to(root).as_posix(), name, node


def _add(places: Places, key: tuple[str, int], place: tuple[str, str]) -> None:
    if place not in places[key]:
        places[key].append(place)


def _names(places: list[tuple[str, str]]) -> str:
    files: dict[str, list[str]] = defaultdict(list)
    for file, name in places:
        files[file].append(f"`{name}`")
    return (
        "; ".join(
            f"{file}: {', '.join(names)}" for file, names in files.items())
        or "–")


def main() -> None:
    text = markdown(ROOT)
    if sys.argv[1:] == ["--write"]:
        target = ROOT / "tests" / "EQUATIONS.md"
        beside = target.with_suffix(".tmp")
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    elif sys.argv[1:]:
        sys.exit(f"unknown argument {sys.argv[1]}; the only one is --write")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
