"""The registry: one line per run, never trained twice, never mixed.

A file of JSON lines to which lines are only added. A line's `key` says what
the run depended on: its settings, its data and the code; a line whose key is
not today's is stale. `threads` says with how many torch computed: on a CPU
their number changes the order of sums, and with it what training comes to, by
points of accuracy.
"""

import ast
import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lib import ROOT

FIELDS = ("notebook", "dataset", "split", "variant", "seed", "n_test",
          "metrics", "params", "key", "commit", "dirty", "device", "torch",
          "threads", "minutes")  # lines of before have no `threads`
BEGIN = b'{"notebook": '  # of every line, since FIELDS are written in order


@dataclass(frozen=True)
class Experiment:
    """What the runs of one ablation share.

    params: the settings that all variants have in common.
    data: the settings of the data set, such as its size and dials.
    files: the code that the result depends on, from the root: whole files,
        or "lib/x.py: a b" for the functions or classes a and b with what
        they need of their file. Then a new neighbour makes no run stale.
    """

    notebook: str
    dataset: str
    split: str
    n_test: int
    params: Mapping[str, Any]
    data: Mapping[str, Any]
    files: tuple[str, ...]
    device: str = "auto"

    def line(self, variant: str, settings: Mapping, seed: int) -> dict:
        """The part of a registry line that is known before the run."""
        params = {**self.params, **settings}
        data = {"dataset": self.dataset, "split": self.split, **self.data}
        return {
            "notebook": self.notebook, "dataset": self.dataset,
            "split": self.split, "variant": variant, "seed": seed,
            "n_test": self.n_test, "params": params,
            "key": run_key(
                {"variant": variant, "seed": seed, "params": params}, data,
                self.files)}


class Registry:
    """Lines of runs in a file; several processes may append (POSIX).

    `note` says so if a writer was killed in the middle of the last line; the
    next `append` removes what it left.
    """

    def __init__(self, path: str | Path):
        self.path = ROOT / path
        self.note = ""

    def lines(self) -> list[dict]:
        """All whole lines, oldest first."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[:_whole(self.path, content)]
        self.note = "" if whole == content else (
            f"{self.path.name}: the last line was cut off while it was "
            "written, and is left out")
        lines = []
        for number, line in enumerate(whole.splitlines(), 1):
            if not line.strip():
                continue
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number} is not JSON ({error}): "
                    "restore it from version control") from error
        return lines

    def append(self, line: dict) -> None:
        """Add a line with exactly the `FIELDS`, and have it on the disk.

        Raises:
            ValueError: for other fields, or a file that is no registry; it
                is left as it is.
            OSError: if the line cannot be written, as on a full disk. It is
                in the message, and the lines before it stay whole.
        """
        import fcntl

        if set(line) != set(FIELDS):
            raise ValueError("a line has other fields than the registry: "
                             f"{sorted(set(line) ^ set(FIELDS))}")
        text = json.dumps({name: line[name] for name in FIELDS},
                          allow_nan=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            end = _whole(self.path, content)
            file.truncate(end)
            if content[:end] and not content[:end].endswith(b"\n"):
                text = "\n" + text
            try:
                # a disk that fills up takes a part and raises nothing
                if file.write(text.encode()) < len(text.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                raise OSError(
                    error.errno, f"{self.path}: a run's line could not be "
                    f"written ({error.strerror}). Make room, and add it by "
                    f"hand: {text.strip()}") from error

    def find(self, key: str) -> dict | None:
        """The first line with this key."""
        return next((x for x in self.lines() if x["key"] == key), None)

    def recorded(self, variants: Mapping[str, Mapping], seeds: Iterable[int],
                 experiment: Experiment) -> list[dict]:
        """What the file has of these runs, each with `stale` True or False.

        A line whose key is not that of today's code and settings is stale;
        it is given, the newest one, only where no fresh line is.
        """
        lines, found = self.lines(), []
        names = ("notebook", "dataset", "split", "variant", "seed")
        for seed in seeds:
            for variant, settings in variants.items():
                wanted = experiment.line(variant, settings, seed)
                same = [x for x in lines
                        if all(x[name] == wanted[name] for name in names)]
                fresh = [x for x in same if x["key"] == wanted["key"]]
                if same:
                    found.append((fresh[0] if fresh else same[-1])
                                 | {"stale": not fresh})
        return found


def _whole(path: Path, content: bytes) -> int:
    """Where the whole lines end; an editor may have cut the last newline.

    What comes after is a line of ours that was cut off. ValueError if it is
    not, or if the file begins with anything else than a line: it is no
    registry, and nothing in it may be cut off.
    """
    first, start = content.split(b"\n", 1)[0], content.rfind(b"\n") + 1
    last = content[start:]
    try:
        json.loads(last)
        start = len(content)
    except ValueError:
        pass
    for line in first, content[start:]:
        # a line of ours may be cut off within BEGIN; it has no "\r"
        ours = line.startswith(BEGIN) or BEGIN.startswith(line)
        if not ours or b"\r" in line.rstrip(b"\r"):
            raise ValueError(
                f"{path} is no registry, as {line[:40]!r} is no line of one: "
                "give `results` another file; this one is left as it is")
    return start


def run_key(params: Mapping, data: Mapping, files: Iterable[str]) -> str:
    """Name what a run depends on: its settings, its data and its code.

    Comments, docstrings and layout of the files do not count, nor does what
    stands beside the definitions that an entry "lib/x.py: a b" names.
    """
    code = {}
    for entry in map(str, files):
        name, _, chosen = entry.partition(":")
        source = (ROOT / name).read_text(encoding="utf-8")
        code[entry] = _code(source, tuple(chosen.split()))
    try:
        text = json.dumps([params, data, code], sort_keys=True)
    except TypeError as error:
        raise TypeError("params and data must be numbers, strings, lists and "
                        f"dicts: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache
def _code(source: str, chosen: tuple[str, ...]) -> str:
    tree = ast.parse(source)
    if chosen:
        tree.body = _needed(tree, chosen)
    text = json.dumps(_plain(tree))
    return hashlib.sha256(text.encode()).hexdigest()


def _needed(tree: ast.Module, chosen: Iterable[str]) -> list[ast.stmt]:
    """The definitions of `chosen`, and those of the file that they name."""
    defined = {name: node for node in tree.body for name in _binds(node)}
    if unknown := [name for name in chosen if name not in defined]:
        raise ValueError(f"no {unknown} in the file, which defines "
                         f"{sorted(defined)}")
    needed, ahead = set(), list(chosen)
    while ahead:
        name = ahead.pop()
        if name in defined and name not in needed:
            needed.add(name)
            ahead += [part.id for part in ast.walk(defined[name])
                      if isinstance(part, ast.Name)]
    return [node for node in tree.body if needed.intersection(_binds(node))]


def _binds(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines; not what it imports."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = (node.targets if isinstance(node, ast.Assign) else
               [node.target] if isinstance(node, ast.AnnAssign) else [])
    return [part.id for target in targets for part in ast.walk(target)
            if isinstance(part, ast.Name)]


def _plain(node: Any) -> Any:
    # not ast.dump, whose text differs between versions of Python
    if isinstance(node, list):
        return [_plain(item) for item in node if not _is_text(item)]
    if isinstance(node, ast.JoinedStr):
        # 3.12.1 ends a nested format with an empty text
        node = ast.JoinedStr([part for part in node.values
                              if getattr(part, "value", None) != ""])
    if isinstance(node, ast.AST):
        return [type(node).__name__,
                {name: _plain(value) for name, value in ast.iter_fields(node)
                 if name != "kind" and value not in (None, [])}]
    return repr(node)


def _is_text(node: Any) -> bool:
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str))


def commit() -> dict:
    """HEAD, and whether anything but results differs from it.

    Both None where there is no git, or no commit.
    """
    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True,
            timeout=20, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"),
                "dirty": bool(git("status", "--porcelain", "--", ".",
                                  ":(exclude)notebooks/results"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def device_name(device: str) -> str:
    """"cpu", or the GPU's name where one is used."""
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return torch.cuda.get_device_name()
