"""What a run's result depends on: the source of all that it can call.

From a few functions on, every definition of this project that their code
names is followed: functions, classes with their methods, and values such as
a table of networks. What a package from outside does is known by its name
alone. A definition counts by its name and its code, not by its file: moving
it changes nothing, changing what it does changes the key of every run that
can reach it. Comments, docstrings and layout do not count. Where two codes
were seen to give the same bits (`tests/same.py`), the older digest stays. The
key itself, of this digest and the settings, is made in `study.py`.
"""

import ast
import hashlib
import importlib.util
import json
import linecache
import symtable
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple

from lib import ROOT

SAME = ROOT / "notebooks/results/same.jsonl"
OURS = ("lib", "__main__")
# They run, record and show what a notebook trains, and decide none of it.
APART = ("lib.lab.study", "lib.show")
INLINED = ("listcomp", "setcomp", "dictcomp")  # symtable's names
CELL = "<cell"  # how a cell's file is called where no kernel runs it


class Place(NamedTuple):
    """A top-level name of a module; `name` is None for the module itself."""

    module: str
    name: str | None


def source_digest(functions: Iterable[Callable]) -> str:
    """Names the code that `functions` can reach, theirs included."""
    text = json.dumps(reached(functions), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    lines = SAME.read_text("utf-8").splitlines() if SAME.exists() else []
    for line in map(json.loads, reversed(lines)):
        if line["now"] == digest:
            digest = line["was"]
    return digest


def reached(functions: Iterable[Callable]) -> dict[str, list[str]]:
    """The digests of every definition that can be reached, by its name.

    Where two files define the same name, it has two digests. Raises
    ValueError for a function without a name of its own, as a lambda.
    """
    ahead, seen, found = [*map(_place, functions)], set(), {}
    while ahead:
        place = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        module = _module(place.module)
        if place.name not in module.read:
            module.read[place.name] = [
                _Names(place.module, node)
                for node in module.defined[place.name]]
        for names in module.read[place.name]:
            found.setdefault(place.name, set()).add(names.digest)
            ahead += names.places
    return {name: sorted(digests) for name, digests in sorted(found.items())}


def _place(function: Callable) -> Place:
    name = function.__qualname__.partition(".")[0]
    if name not in _module(function.__module__).defined:
        raise ValueError(
            f"{function.__qualname__} of {function.__module__} is not defined "
            "at the top of a file or cell: give it a name there")
    return Place(function.__module__, name)


class _Module(NamedTuple):
    """Top-level statements by the names that they define, and imports."""

    defined: dict[str, list[ast.stmt]]
    imported: dict[str, Place]
    read: dict[str, list["_Names"]]  # what was followed once
    parameters: frozenset[str] = frozenset()


def _module(name: str) -> _Module:
    if name == "__main__":
        return _notebook()
    spec = importlib.util.find_spec(name)
    return _file(spec.origin)


@lru_cache
def _file(path: str) -> _Module:
    with open(path, encoding="utf-8") as file:
        return _read([ast.parse(file.read())])


def _notebook() -> _Module:
    """The cells that ran, in their order; functions from where they are."""
    cells = {name: "".join(entry[2])
             for name, entry in linecache.cache.items()
             if "ipykernel" in name or name.startswith(CELL)}
    homes = {name: value.__code__.co_filename
             for name, value in vars(sys.modules["__main__"]).items()
             if isinstance(value, FunctionType)
             and value.__code__.co_filename in cells}
    return _cells(tuple(cells.items()), tuple(homes.items()))


@lru_cache(2)
def _cells(sources: tuple, homes: tuple) -> _Module:
    """Cells by (file, source); `homes` are the (name, file) of functions.

    A parameter counts by its value, among a run's settings: it is annotated,
    and papermill may assign it anew.
    """
    trees = {name: ast.parse(source) for name, source in sources}
    found = _read(trees.values())
    for name, file in homes:
        if name in found.defined:
            found.defined[name] = _read([trees[file]]).defined[name]
    parameters = frozenset(
        node.target.id for tree in trees.values() for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(
            node.target, ast.Name))
    return found._replace(parameters=parameters)


def _read(trees: Iterable[ast.Module]) -> _Module:
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, Place] = {}
    for node in (node for tree in trees for node in tree.body):
        imported |= dict(_imports(node))
        for name, whole in _bound(node):
            if whole:
                defined[name] = [node]
            else:  # `kept[key] = ...` adds to what made `kept`
                defined.setdefault(name, []).append(node)
    return _Module(defined, imported, {})


def _imports(node: ast.AST) -> Iterator[tuple[str, Place]]:
    """Names that an import binds to something of ours."""
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if _ours(node.module or ""):
                yield (alias.asname or alias.name,
                       _known(Place(node.module, alias.name)))
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if _ours(alias.name):
                name = alias.asname or alias.name.partition(".")[0]
                whole = alias.name if alias.asname else name
                yield name, Place(whole, None)


def _ours(module: str) -> bool:
    return module.partition(".")[0] in OURS


def _known(place: Place) -> Place:
    """`from lib import training` names a module, not a value of lib."""
    inner = f"{place.module}.{place.name}"
    try:
        is_module = importlib.util.find_spec(inner) is not None
    except ModuleNotFoundError:  # `lib.x` is a file, and has no inner ones
        is_module = False
    return Place(inner, None) if is_module else place


def _bound(node: ast.stmt) -> Iterator[tuple[str, bool]]:
    """Names that a statement defines (True) or puts something into."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name, True
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id, True
        elif isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(
                part.ctx, ast.Store):
            while isinstance(part, (ast.Subscript, ast.Attribute)):
                part = part.value
            if isinstance(part, ast.Name):
                yield part.id, False


class _Names(ast.NodeTransformer):
    """Follow the names of a definition; in it, each becomes its last part.

    So `training.fit` and `fit` are the same after a move.
    """

    def __init__(self, module: str, node: ast.stmt):
        self.places: list[Place] = []
        text = ast.unparse(node)
        self.scope = module
        self.local = dict(pair for part in ast.walk(node)
                          for pair in _imports(part))
        table = symtable.symtable(text, "", "exec")
        self.free = set(_free(table)) | set(self.local)
        if module == "__main__":  # its cells share the names of all others
            self.free &= set(_read_in(node))
        copy = plain(self.visit(ast.parse(text).body[0]))
        self.digest = hashlib.sha256(
            json.dumps(copy).encode()).hexdigest()[:16]

    def visit_Import(self, node):
        return None if all(_ours(a.name) for a in node.names) else node

    def visit_ImportFrom(self, node):
        return None if _ours(node.module or "") else node

    def visit_Name(self, node):
        return self._follow(node) or node

    def visit_Attribute(self, node):
        return self._follow(node) or self.generic_visit(node)

    def _follow(self, node: ast.expr) -> ast.expr | None:
        chain = []
        while isinstance(node, ast.Attribute):
            chain.append(node.attr)
            node = node.value
        if not (isinstance(node, ast.Name) and node.id in self.free):
            return None
        place = self.local.get(node.id) or self._find(self.scope, node.id)
        while place and place.name is None and chain:
            place = self._find(place.module, chain.pop())
        if place is None or place.name is None or place.module.startswith(
                APART):
            return None
        self.places.append(place)
        found: ast.expr = ast.Name(place.name, ast.Load())
        for attribute in reversed(chain):
            found = ast.Attribute(found, attribute, ast.Load())
        return found

    def _find(self, module: str, name: str) -> Place | None:
        """Where a name of a module is defined, through its imports."""
        known = _module(module)
        if name in known.parameters:
            return None
        if name in known.defined:
            return Place(module, name)
        if name in known.imported:
            place = known.imported[name]
            return place if place.name is None else self._find(*place)
        inner = _known(Place(module, name))
        return inner if inner.name is None else None


def _free(table: symtable.SymbolTable, apart: frozenset = frozenset(),
          top: bool = True) -> Iterator[str]:
    """Names that a definition takes from around it, but those of `apart`.

    At the top of a file, those that a comprehension binds count as well: from
    Python 3.12 on it has no table of its own there, and all versions must
    give one key.
    """
    known = frozenset(symbol.get_name() for symbol in table.get_symbols())
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()) and (
                symbol.get_name() not in apart):
            yield symbol.get_name()
    for inner in table.get_children():
        inlined = top and inner.get_name() in INLINED
        yield from _free(inner, apart | known if inlined else frozenset(),
                         inlined)


def _read_in(node: ast.AST, bound: frozenset = frozenset()) -> Iterator[str]:
    """Names that are read where no comprehension around has bound them."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id not in bound:
            yield node.id
    elif isinstance(node, ast.comprehension):
        yield from _read_in(node.iter, bound)
        for test in node.ifs:
            yield from _read_in(test, bound)
    else:
        bound |= {part.id for each in getattr(node, "generators", ())
                  for part in ast.walk(each.target)
                  if isinstance(part, ast.Name)}
        for child in ast.iter_child_nodes(node):
            yield from _read_in(child, bound)


def plain(node: Any) -> Any:
    """A syntax tree as lists and dicts, without comments and docstrings."""
    # not ast.dump, whose text differs between versions of Python
    if isinstance(node, list):
        return [plain(item) for item in node if not _is_text(item)]
    if isinstance(node, ast.JoinedStr):
        # 3.12.1 ends a nested format with an empty text
        node = ast.JoinedStr([part for part in node.values
                              if getattr(part, "value", None) != ""])
    if isinstance(node, ast.AST):
        return [type(node).__name__,
                {name: plain(value) for name, value in ast.iter_fields(node)
                 if name != "kind" and value not in (None, [])}]
    return repr(node)


def _is_text(node: Any) -> bool:
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str))
