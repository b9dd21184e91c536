"""Get a file: from what the user has, else by download, whole or not at all.

pooch checks hashes and puts a file in its place; `Resuming` is the part of
the download that pooch leaves to others: it goes on where it was cut off.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.data.sets.records import Source  # noqa: E402

TRIES, WAIT, TIMEOUT = 4, 2.0, 30  # attempts; seconds
BLOCK = 2**14


class Unreachable(RuntimeError):
    """The host did not give the file."""


def checked(source: Source, path: Path) -> Path:
    """`path`, or a ValueError if it is not the published file."""
    size = path.stat().st_size
    if source.size not in (None, size):
        raise ValueError(f"{path} has {size} bytes, the published file "
                         f"{source.size}: get it again")
    if source.hash and not pooch.hashes.hash_matches(str(path), source.hash):
        raise ValueError(f"{path} does not have the published hash "
                         f"{source.hash}: get it again")
    return path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time works in `folder`; others wait."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the process that works in {folder} ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def download(source: Source, folder: Path) -> Path:
    """The file in `folder`, downloaded unless it is there and right.

    Raises Unreachable if the host does not answer to the end, ValueError if
    what came is not what was published, OSError if the disk is full.
    """
    if not source.url:
        raise Unreachable(f"{source.name} has no public address")
    keeper = pooch.create(path=folder, base_url=source.host,
                          registry={source.name: source.hash})
    try:
        return checked(source, Path(
            keeper.fetch(source.name, downloader=Resuming(source))))
    except requests.RequestException as error:
        raise Unreachable(f"{source.url}: {error}") from error


class Resuming:
    """A downloader for pooch that goes on with what an earlier one left.

    What has come is kept as `<name>.part` beside the file, and what the
    host said of it as `<name>.part.json`: it is continued only if the host
    still has the same file, or if a published hash will tell.
    """

    def __init__(self, source: Source):
        self.source = source

    def __call__(self, url: str, output: str, keeper: pooch.Pooch) -> None:
        part = Path(keeper.abspath) / f"{self.source.name}.part"
        for attempt in range(TRIES):
            try:
                self._continue(url, part)
                break
            except requests.RequestException as error:
                answer = getattr(error, "response", None)
                gone = answer is not None and answer.status_code < 500
                if gone or attempt == TRIES - 1:
                    raise
                time.sleep(WAIT * 2**attempt)
        os.replace(part, output)
        _note(part).unlink(missing_ok=True)

    def _continue(self, url: str, part: Path) -> None:
        known, have = self._known(url, part)
        if have and have == known["total"]:
            return  # killed before it was put in its place
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if known["tag"]:
                headers["If-Range"] = known["tag"]
        with requests.get(url, headers=headers, stream=True,
                          timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing after what we have
                part.unlink()
                raise requests.ConnectionError(f"{url} became shorter")
            answer.raise_for_status()
            begin = f"bytes {have}-"
            if answer.status_code != 206 or not answer.headers.get(
                    "Content-Range", "").startswith(begin):
                have = 0  # the host begins anew
            length = answer.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            self._plausible(url, total, part.parent, have)
            _note(part).write_text(json.dumps(
                {"url": url, "tag": _tag(answer.headers), "total": total}))
            with part.open("ab" if have else "wb") as out, tqdm(
                    total=total, initial=have, unit="B", unit_scale=True,
                    desc=self.source.name, file=sys.stderr) as bar:
                # small blocks: the one in which the answer ends is lost
                for block in answer.iter_content(BLOCK):
                    out.write(block)
                    bar.update(len(block))
        if total is not None and (size := part.stat().st_size) != total:
            raise requests.ConnectionError(
                f"cut off after {size} of {total} bytes")

    def _known(self, url: str, part: Path) -> tuple[dict, int]:
        """What was said of the part, and how much of it can be kept."""
        try:
            known = json.loads(_note(part).read_text())
            same = known["url"] == url and bool(
                known["tag"] or self.source.hash)
            return known, part.stat().st_size if same else 0
        except (OSError, ValueError, KeyError, TypeError):
            return {"tag": None}, 0

    def _plausible(self, url: str, total: int | None, folder: Path,
                   have: int) -> None:
        if total is None:
            return
        if self.source.size not in (None, total):
            raise ValueError(
                f"{url} offers {total} bytes, the published file has "
                f"{self.source.size}: it is not that file")
        free = shutil.disk_usage(folder).free
        if total - have > free:
            raise OSError(f"{self.source.name} needs {total - have} more "
                          f"bytes in {folder}, {free} are free")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _tag(headers: dict) -> str | None:
    """What tells the host's file from another version of it."""
    tag = headers.get("ETag", "")
    strong = tag if tag.startswith('"') else None
    return strong or headers.get("Last-Modified")
