"""Get a file by download: whole or not at all; a cut one goes on."""

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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
    if source.hash:
        kind, _, known = source.hash.partition(":")
        with path.open("rb") as file:
            if hashlib.file_digest(file, kind).hexdigest() != known:
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

    What has come is kept as `<name>.part`, and beside it what tells the
    host's file from another version: it is continued only if the host still
    has the same. Raises Unreachable if the host does not answer to the end,
    ValueError if what came is not what was published, OSError if the disk
    is full.
    """
    path, part = folder / source.name, folder / f"{source.name}.part"
    if not source.url:
        raise Unreachable(f"{source.name} has no public address")
    with contextlib.suppress(FileNotFoundError, ValueError):
        return checked(source, path)
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(TRIES):
        try:
            _continue(source, part)
            break
        except requests.RequestException as error:
            answer = error.response
            gone = answer is not None and answer.status_code < 500
            if gone or attempt == TRIES - 1:
                raise Unreachable(f"{source.url}: {error}") from error
            time.sleep(WAIT * 2**attempt)
    _tag_of(part).unlink(missing_ok=True)
    try:
        os.replace(checked(source, part), path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _continue(source: Source, part: Path) -> None:
    """Get what lacks of a file; an error of requests if it is cut off."""
    headers, have = {"Accept-Encoding": "identity"}, 0
    with contextlib.suppress(OSError):
        if tag := _tag_of(part).read_text():
            have = part.stat().st_size
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with requests.get(source.url, headers=headers, stream=True,
                      timeout=TIMEOUT) as answer:
        if have and answer.status_code == 416:
            return  # nothing lacks: killed before it was put in its place
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0  # the host begins anew
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        if total is not None:
            _require_plausible(source, total, part.parent, have)
        tag = answer.headers.get("ETag", "")
        if not tag.startswith('"'):  # one that begins with W/ tells too little
            tag = answer.headers.get("Last-Modified", "")
        if not have:
            part.unlink(missing_ok=True)  # before the other version's tag
        _tag_of(part).write_text(tag)
        with part.open("ab" if have else "wb") as out, tqdm(
                total=total, initial=have, unit="B", unit_scale=True,
                desc=source.name, file=sys.stderr) as bar:
            # small blocks: the one in which the answer ends is lost
            for block in answer.iter_content(BLOCK):
                out.write(block)
                bar.update(len(block))
    if total is not None and (size := part.stat().st_size) != total:
        raise requests.ConnectionError(
            f"cut off after {size} of {total} bytes")


def _require_plausible(source: Source, total: int, folder: Path,
                       have: int) -> None:
    if source.size not in (None, total):
        raise ValueError(
            f"{source.url} offers {total} bytes, the published file has "
            f"{source.size}: it is not that file")
    free = shutil.disk_usage(folder).free
    if total - have > free:
        raise OSError(f"{source.name} needs {total - have} more bytes in "
                      f"{folder}, {free} are free")


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")
