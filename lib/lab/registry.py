"""The registry: one line per run, never trained twice, never mixed.

A file of JSON lines to which lines are only added. A line's `key` says what
the run depended on, its settings and its code, `data` is the digest of its
data; a line whose key is not today's is stale. `threads` says with how many
torch computed: on a CPU their number changes the order of sums, and with it
what training comes to, by points of accuracy. The oldest lines have neither
`data` nor `threads`.
"""

import errno
import fcntl
import json
import os
import subprocess
from pathlib import Path

import torch

from lib import ROOT
from lib.lab import gpu, processes

FIELDS = ("notebook", "dataset", "split", "variant", "seed", "n_test",
          "metrics", "params", "key", "data", "commit", "dirty", "device",
          "torch", "threads", "minutes")
BEGIN = b'{"notebook": '  # of every line, since FIELDS are written in order


class Registry:
    """Lines of runs in a file; several processes may append (POSIX).

    What a writer that was killed left of the last line does not count; the
    next `append` removes it.
    """

    def __init__(self, path: str | Path):
        self.path = ROOT / path

    def lines(self) -> list[dict]:
        """All whole lines, oldest first."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[:_whole(self.path, content)]
        lines = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                lines += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number} is not JSON ({error}): "
                    "restore it from version control") from error
        return lines

    def append(self, line: dict) -> None:
        """Add the `FIELDS` of a line, and have them on the disk.

        Raises:
            ValueError: for a file that is no registry; it is left as it is.
            OSError: if the line cannot be written, as on a full disk. It is
                in the message, and the lines before it stay whole.
        """
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

    def find(self, key: str, data: str) -> dict | None:
        """The first line with this key on data of this digest."""
        return next((line for line in self.lines() if line["key"] == key
                     and line.get("data") == data), None)


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
    """"cpu" or the GPU that is used, and what else is not as by default."""
    used = device != "cpu" and torch.cuda.is_available()
    precision, compiler = gpu.environment()
    other = [precision] * (precision != "tf32") + [
        f"compiled by {compiler}"] * bool(compiler) + [
        f"{processes.ranks()[1]} processes"] * (processes.ranks()[1] > 1)
    return (torch.cuda.get_device_name() if used else "cpu") + (
        f" ({', '.join(other)})" if other else "")
