"""Unpack archives that may be hostile: nothing leaves the new folder.

Refused are absolute paths and `..`, links, devices and other special
entries, names that come twice, encrypted archives, those that grow beyond
all measure in bytes or entries, and those that are damaged. Python reads zip
and tar; for rar, whose format is not free, one of the programs in TOOLS is
called.
"""

import contextlib
import errno
import gzip
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip", ".rar")
# A bomb is what unpacks to more than a hundred times its size, or to more
# than one entry per KiB of it; small lists may compress better than that.
GROWTH, FLOOR, ENTRIES = 100, 64 * 2**20, 20_000
DEEP = 32  # folders of a path
BLOCK = 2**16  # bytes read at once, so the longest header of a tar too
BY_HAND = "unpack it yourself and give the folder by --from"
# Errors of the disk that a damaged archive brings about.
CLASHES = (None, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
# program: how it lists the names, how it unpacks. bsdtar is last: it reads
# no solid archives of the third version.
TOOLS = {
    "unar": ("lsar -json {rar}",
             "unar -quiet -no-directory -output-directory {into} {rar}"),
    "unrar": ("unrar lb {rar}", "unrar x -o- -idq {rar} {into}/"),
    "bsdtar": ("bsdtar -tf {rar}",
               "bsdtar -xf {rar} -C {into} --no-same-owner"),
}


class UnsafeArchive(ValueError):
    """An archive that is damaged, or would do what unpacking must not."""


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive that `unpack` reads."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path) -> None:
    """Unpack into the folder `into`, which must not exist yet.

    The folder appears when all is in it, or not at all. Raises
    UnsafeArchive for what this module refuses and for damaged files,
    RuntimeError if no program for rar is there.
    """
    if not is_archive(archive.name):
        raise UnsafeArchive(f"{archive}: no archive of {SUFFIXES}")
    if into.exists():
        raise FileExistsError(f"{into} is there already: remove it first")
    read = {".zip": _zip, ".rar": _rar}.get(archive.suffix.lower(), _tar)
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into.parent))
    try:
        read(archive, work, _Bounds(archive))
        work.chmod(0o755)
        work.replace(into)
    except Exception as error:  # damaged files raise many kinds
        if type(error) in (UnsafeArchive, RuntimeError) or (
                isinstance(error, OSError) and error.errno not in CLASHES):
            raise
        raise UnsafeArchive(f"{archive} is damaged ({error}): get it again"
                            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Bounds:
    """What an archive of its size may hold; its entries, one by one."""

    def __init__(self, archive: Path):
        self.archive, self.seen = archive, set()
        self.count = self.total = 0
        self.packed = archive.stat().st_size
        self.bytes = max(FLOOR, GROWTH * self.packed)
        self.entries = ENTRIES + self.packed // 1024

    def entry(self, name: str, size: int = 0, plain: bool = True) -> None:
        """UnsafeArchive for what must not be unpacked.

        A folder's name ends with a slash. plain: neither link nor device.
        """
        path = name.rstrip("/")
        parts = path.split("/")
        self.count, self.total = self.count + 1, self.total + size
        for wrong, why in (
                (not plain, "is a link or a device"),
                (".." in parts or path[:1] in ("", "/") or path[1:2] == ":",
                 "would leave the folder"),
                # a listing of them could be read in two ways
                ("\\" in path or not path.isprintable(),
                 "has control characters or backslashes in its name"),
                (len(parts) > DEEP, f"lies in more than {DEEP} folders"),
                (path in self.seen and path == name, "is in it twice"),
                (self.count > self.entries,
                 f"is one of more than {self.entries}"),
                (size < 0, "has a size below 0")):
            if wrong:
                raise UnsafeArchive(f"{self.archive}: the entry "
                                    f"{name[:200]!r} {why}")
        self.seen.add(path)
        self.weight(self.total)

    def weight(self, size: int) -> None:
        """UnsafeArchive if it unpacks to more bytes than it may."""
        if size > self.bytes:
            raise UnsafeArchive(f"{self.archive} of {self.packed} bytes "
                                f"unpacks to more than {self.bytes}: a bomb")


def _zip(archive: Path, into: Path, bounds: _Bounds) -> None:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            bounds.entry(info.filename, info.file_size,
                         kind in (0, stat.S_IFREG, stat.S_IFDIR))
        try:
            file.extractall(into)
        except RuntimeError as error:  # a password, or a method unknown here
            raise UnsafeArchive(
                f"{archive}: {error}: by another program, {BY_HAND}"
            ) from error


class _Bounded:
    """The unpacked bytes of a tar, which tarfile reads within the bounds.

    last: what was read last.
    """

    def __init__(self, raw: BinaryIO, bounds: _Bounds):
        self.raw, self.bounds, self.last = raw, bounds, b""
        self.tell = raw.tell

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; UnsafeArchive beyond the bounds."""
        if not 0 <= size <= BLOCK:
            raise UnsafeArchive(f"{self.bounds.archive}: a header of {size} "
                                f"bytes at byte {self.tell()}")
        self.bounds.weight(self.tell() + size)
        self.last = self.raw.read(size)
        return self.last

    def seek(self, place: int) -> None:
        """Go over what fills a block."""
        self.bounds.weight(place)
        self.raw.seek(place)


def _tar(archive: Path, into: Path, bounds: _Bounds) -> None:
    with archive.open("rb") as raw:
        how = gzip.open if raw.read(2) == b"\x1f\x8b" else open
    with how(archive, "rb") as raw:
        tar = _Bounded(raw, bounds)
        file = tarfile.TarFile(fileobj=tar)
        file.extractall(into, _members(file, bounds), filter="data")
        # tarfile takes a bad header and the end of the file for the end
        if tar.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("neither an entry nor the end mark at "
                                    f"byte {tar.tell() - len(tar.last)}")
        while tar.read(BLOCK):  # to the checksum of gzip
            pass


def _members(file: tarfile.TarFile, bounds: _Bounds
             ) -> Iterator[tarfile.TarInfo]:
    """The entries of a tar, checked."""
    while (member := file.next()) is not None:
        if member.name != ".":  # the folder itself
            bounds.entry(
                member.name + "/" * member.isdir(), member.size,
                (member.isfile() or member.isdir()) and not member.issparse())
        yield member
        # each entry would keep a copy of what all before it said
        file.members.clear()
        file.pax_headers.clear()


def _rar(archive: Path, into: Path, bounds: _Bounds) -> None:
    tool = next((name for name in TOOLS if shutil.which(name)), None)
    if tool is None:
        raise RuntimeError(
            f"no program that unpacks {archive}: install one of "
            f"{', '.join(TOOLS)} (bsdtar is in libarchive-tools), or "
            f"{BY_HAND}")

    def call(how: str) -> str:
        words = [word.format(rar=archive, into=into) for word in how.split()]
        return _call(archive, words, lambda: bounds.weight(_weight(into)))

    listing, extract = TOOLS[tool]
    text = call(listing)
    # lines end with a line feed alone
    names = text.removesuffix("\n").split("\n") if tool != "unar" else [
        entry["XADFileName"] for entry in json.loads(text)["lsarContents"]]
    for name in dict.fromkeys(names):
        bounds.entry(name)
    call(extract)


def _call(archive: Path, command: list[str], watch: Callable[[], None]
          ) -> str:
    """What a program prints; `watch` is called while it works and after.

    It can ask nobody for a password. Whatever ends this function ends it.
    """
    with (tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log,
          subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                           stderr=log, start_new_session=True) as run):
        try:
            while run.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(timeout=0.5)
                watch()
        finally:
            run.kill()
        watch()
        out.seek(0)
        log.seek(0)
        if run.returncode:
            why = " ".join(log.read().decode(errors="replace").split())
            raise UnsafeArchive(
                f"{archive}: {command[0]} cannot read it ({why[-300:]}): get "
                f"it again, or, if it needs a password, {BY_HAND}")
        return out.read().decode(errors="replace")


def _weight(folder: Path) -> int:
    """Bytes in a folder that another program fills; no links, no devices."""
    total = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            # it may be renamed while we look
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(place, name))
                if stat.S_ISREG(status.st_mode):
                    total += status.st_size
                elif not stat.S_ISDIR(status.st_mode):
                    raise UnsafeArchive(
                        f"{place}/{name} is a link or a device")
    return total
