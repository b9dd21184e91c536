"""The house rules of lib: docstrings, and who may import whom."""

import ast
import re
import shutil
import subprocess
from graphlib import TopologicalSorter

import pytest
from refresh import ROOT

PAPERS = {"rstan", "jsta", "where_and_when", "sta_cnn", "sta_cnn_motion",
          "sta"}
LAYERS = (
    {"annotations", "annotations_lists", "annotations_boxes", "video",
     "clips", "flow", "flying_chairs", "samples", "kinetics",
     "puppets", "puppet_actions", "puppet_people", "puppet_scene",
     "untrusted"},
    {"datasets", "views", "metrics", "localisation", "readout",
     "backbones2d", "backbones3d", "bninception", "augment", "nets3d",
     "pretrained3d", "insertion", "mars", "snippets"},
    {"training", "features", "checkpoints", "results", "registry", "canvas",
     "plots", "explorer", "parameters"},
)
STANDARD = {"math", "typing", "collections", "contextlib", "functools",
            "itertools"}
FILES = sorted((ROOT / "lib").glob("*.py"))
TREES = {
    path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in FILES
}


def imports(tree: ast.Module) -> set[str]:
    """Everything a file imports, anywhere in it, as dotted names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def ours(tree: ast.Module) -> set[str]:
    """The files of lib that a file imports."""
    parts = (name.split(".") for name in imports(tree))
    return {p[1] for p in parts if p[0] == "lib" and p[1] in TREES}


every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


@every_file
def test_file_is_documented(path):
    tree = TREES[path.stem]
    assert ast.get_docstring(tree)
    bare = [
        node.name for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not bare, f"without a docstring: {bare}"


@every_file
def test_no_star_and_no_notebook_is_imported(path):
    for name in imports(TREES[path.stem]):
        assert not name.endswith("*") and "notebooks" not in name
        assert not name.startswith("."), "copies of one file cannot do that"


@every_file
def test_dropout_knows_evaluation(path):
    """As a module, or as `p if self.training else 0.`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.search(r"\b(F|functional)\.\w*dropout|dropout_p=", line):
            assert "self.training" in line, line


def test_arrows_run_one_way():
    for name, tree in TREES.items():
        used = ours(tree)
        if name in PAPERS:
            roots = {n.lstrip(".").split(".")[0] for n in imports(tree)}
            assert roots <= STANDARD | {"torch", "einops"}, (name, roots)
        elif name != "__init__":
            layer = [i for i, files in enumerate(LAYERS) if name in files]
            assert layer, f"name the layer of lib/{name}.py in {__file__}"
            below = set().union(*LAYERS[:layer[0] + 1])
            assert used <= below, f"{name} imports {used - below}"
    assert list(TopologicalSorter(
        {name: ours(tree) for name, tree in TREES.items()}
    ).static_order())  # raises CycleError on a circle


def test_git_keeps_lib():
    """GitHub's template for Python would ignore this very folder."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = subprocess.run(
        ["git", "check-ignore", "lib", "lib/show/figures.py"], cwd=ROOT,
        capture_output=True, text=True, timeout=30,
    )
    if done.returncode == 128:
        pytest.skip(f"git: {done.stderr.strip()}")
    assert done.returncode == 1, done.stdout
