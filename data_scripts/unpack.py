"""Unpack archives that may be hostile: nothing leaves the new folder.

Refused are absolute paths and `..`, links, devices and other special
entries, names that come twice, encrypted entries, archives that grow beyond
all measure in bytes, entries or time, and archives that are not whole: a
smaller data set would be taken for the published one. zip and tar are read
by Python; for rar, whose format is not free, one of the programs in TOOLS is
called.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = (*TARS, ".zip", ".rar")
# How the packed kinds of tar begin, whatever their names say
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# A bomb is what unpacks to more than a hundred times its size, or to more
# than one entry per KiB of it; small lists may compress better than that.
GROWTH, FLOOR, ENTRIES = 100, 64 * 2**20, 20_000
DIRECTORY = 128  # bytes on each entry in the directory of a zip
HEADERS = 2**14  # bytes of all headers before one entry of a tar
DEEP, LONG = 32, 1000  # folders and bytes of a path
# Time for a tar (of the processor) and for a program (on the clock), and
# more per MiB of the archive: no sound one takes a tenth of it.
SECONDS, TOOL_SECONDS = (60, 1), (600, 10)
BLOCK = 2**13  # of bzip2, this may be 160 MB unpacked
# What Python reads, and names of what it does not
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
           zipfile.ZIP_LZMA)
OTHER_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 97: "WavPack",
                 98: "PPMd", 99: "AES"}
BY_HAND = "unpack it yourself and give the folder by --from"
# What Python's readers raise at damaged files. OSError without a number is
# gzip's and bzip2's; with one it is the disk's, and no fault of the archive.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error,
          lzma.LZMAError, struct.error, NotImplementedError, ValueError,
          OverflowError, RecursionError, FileExistsError,
          NotADirectoryError, IsADirectoryError)
# program: how it lists the names, how it unpacks
TOOLS: dict[str, tuple[Callable, Callable]] = {
    "bsdtar": (lambda rar: ["bsdtar", "-tf", rar],
               lambda rar, into: ["bsdtar", "-xf", rar, "-C", into,
                                  "--no-same-owner"]),
    "unar": (lambda rar: ["lsar", "-json", rar],
             lambda rar, into: ["unar", "-quiet", "-no-directory",
                                "-output-directory", into, rar]),
    "7z": (lambda rar: ["7z", "l", "-slt", "-ba", rar],
           lambda rar, into: ["7z", "x", "-y", "-bso0", f"-o{into}", rar]),
    # the same under Debian's name
    "7zz": (lambda rar: ["7zz", "l", "-slt", "-ba", rar],
            lambda rar, into: ["7zz", "x", "-y", "-bso0", f"-o{into}", rar]),
    "unrar": (lambda rar: ["unrar", "lb", rar],
              lambda rar, into: ["unrar", "x", "-o-", "-idq", rar,
                                 f"{into}/"]),
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
    name = archive.name.lower()
    read = (_zip if name.endswith(".zip") else _rar if name.endswith(".rar")
            else _tar if name.endswith(TARS) else None)
    if read is None:
        raise UnsafeArchive(f"{archive}: no archive of {SUFFIXES}")
    if into.exists():
        raise FileExistsError(f"{into} is there already: remove it first")
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into.parent))
    try:
        read(archive, work, max(FLOOR, GROWTH * archive.stat().st_size))
        work.chmod(0o755)
        work.replace(into)
    except UnsafeArchive:
        raise
    except (*DAMAGE, OSError) as error:
        if not isinstance(error, DAMAGE) and error.errno is not None:
            raise
        raise UnsafeArchive(f"{archive} is damaged ({error}): get it again"
                            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Names:
    """The names of an archive's entries, checked one by one."""

    def __init__(self, archive: Path):
        self.archive, self.seen, self.count = archive, set(), 0
        self.most = _most(archive)

    def check(self, name: str) -> None:
        """UnsafeArchive for a name that must not be unpacked."""
        plain = name.rstrip("/")
        parts = plain.split("/")
        if (not plain or ".." in parts or plain.startswith("/")
                or re.match("[A-Za-z]:", plain)):
            self._refuse(f"the entry {name[:LONG]!r} would leave the folder")
        # line ends of all kinds too: a listing could be read in two ways
        if re.search(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029]", plain):
            self._refuse(f"the entry {name[:LONG]!r} has control characters "
                         "or backslashes in its name")
        longest = max(len(x.encode(errors="replace")) for x in parts)
        if (len(parts) > DEEP or longest > 255
                or len(plain.encode(errors="replace")) > LONG):
            self._refuse(f"the path {plain[:60]!r}... is too long or has "
                         f"more than {DEEP} folders")
        # a folder may be named again, a file not
        if plain in self.seen and not name.endswith("/"):
            self._refuse(f"{name!r} is in it twice")
        self.seen.add(plain)
        self.count += 1
        if self.count > self.most:
            self._refuse(f"more than {self.most} entries in "
                         f"{self.archive.stat().st_size} bytes")

    def _refuse(self, why: str) -> None:
        raise UnsafeArchive(f"{self.archive}: {why}: nothing was unpacked")


def _most(archive: Path) -> int:
    """How many entries an archive of this size may have."""
    return ENTRIES + archive.stat().st_size // 1024


class _ZipFile(io.FileIO):
    """A zip whose directory is not read if it has too many entries."""

    def read(self, size: int = -1) -> bytes:
        """As FileIO; no other read is large."""
        if size > DIRECTORY * _most(Path(self.name)):
            raise UnsafeArchive(f"{self.name}: more entries than a zip of "
                                "its size may have: nothing was unpacked")
        return super().read(size)


def _zip(archive: Path, into: Path, limit: int) -> None:
    with _ZipFile(archive) as raw, zipfile.ZipFile(raw) as file:
        infos, names = file.infolist(), _Names(archive)
        for info in infos:
            names.check(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeArchive(f"{archive}: {info.filename!r} is a link "
                                    "or a device")
            if info.flag_bits & 1:
                raise UnsafeArchive(f"{archive} is encrypted: with its "
                                    f"password, {BY_HAND}")
            if (method := info.compress_type) not in METHODS:
                raise UnsafeArchive(
                    f"{archive}: {info.filename!r} is packed by method "
                    f"{method} ({OTHER_METHODS.get(method, 'unknown')}), "
                    f"which Python cannot read: by 7z or another program, "
                    f"{BY_HAND}")
        # 4: some writers begin with the mark of a split archive
        if infos and min(info.header_offset for info in infos) > 4:
            raise UnsafeArchive(f"{archive} holds something else before its "
                                "first entry, as two archives in a row do: "
                                "get it again")
        _bounded(archive, sum(info.file_size for info in infos), limit)
        for info in infos:
            if not info.is_dir():
                with file.open(info) as source:
                    done = _copy(archive, source, into / info.filename,
                                 limit)
                if done != info.file_size:
                    raise EOFError(f"{info.filename!r} has {done} bytes, not "
                                   f"{info.file_size}")
                limit -= done


class _Tar:
    """The unpacked bytes of a tar: read once, forwards, up to `until`.

    `last` is what was read last. tarfile asks of its files what is here.
    """

    def __init__(self, archive: Path, raw: BinaryIO):
        self.archive, self.raw, self.last, self.at = archive, raw, b"", 0
        self.until = HEADERS
        self.end = time.process_time() + _seconds(archive, SECONDS)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; UnsafeArchive beyond the bounds."""
        if not 0 <= size <= self.until - self.at:
            raise UnsafeArchive(
                f"{self.archive}: at byte {self.at} comes more than it may "
                "hold, a long header or a bomb: nothing was unpacked")
        if time.process_time() > self.end:
            raise UnsafeArchive(f"{self.archive} takes too long for its "
                                f"size: {BY_HAND}")
        self.last = self.raw.read(size)
        self.at += len(self.last)
        return self.last

    def tell(self) -> int:
        """Where it is in the unpacked bytes."""
        return self.at

    def seek(self, place: int) -> None:
        """Go forwards, over what fills a block."""
        while self.at < place and self.read(min(BLOCK, place - self.at)):
            pass


def _tar(archive: Path, into: Path, limit: int) -> None:
    with archive.open("rb") as raw:
        start = raw.read(6)
    how = next((PACKED[x] for x in PACKED if start.startswith(x)), open)
    with how(archive, "rb") as raw:
        tar, names = _Tar(archive, raw), _Names(archive)
        file = tarfile.TarFile(fileobj=tar)
        while (member := file.next()) is not None:
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise UnsafeArchive(f"{archive}: {member.name!r} is a link "
                                    "or a device")
            if member.size < 0:
                raise tarfile.ReadError(f"{member.name!r} has a size below 0")
            if member.name not in (".", "./"):  # the folder itself
                names.check(member.name + "/" * member.isdir())
            _bounded(archive, tar.at + member.size, limit)
            if member.isfile():
                tar.until = limit
                _copy(archive, file.extractfile(member), into / member.name,
                      limit)
            tar.until = min(limit, tar.at + HEADERS)
            # It would keep those of millions. Global headers tell no more
            # than who made the archive.
            file.members.clear()
            file.pax_headers.clear()
        # tarfile takes a bad header and the end of the file for the end
        if tar.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"neither an entry nor the end mark at "
                                    f"byte {tar.at - len(tar.last)}")
        tar.until = limit
        while block := tar.read(min(BLOCK, limit - tar.at)):
            if block.strip(b"\0"):
                raise UnsafeArchive(
                    f"{archive} goes on after its end, as two archives in a "
                    f"row do: get it again, or {BY_HAND}")


def _bounded(archive: Path, total: int, limit: int) -> None:
    if total > limit:
        raise UnsafeArchive(
            f"{archive} of {archive.stat().st_size} bytes unpacks to more "
            f"than {limit}: a bomb")


def _copy(archive: Path, source: BinaryIO, target: Path, limit: int) -> int:
    """Write `source` to `target`, at most `limit` bytes; how many."""
    target.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with target.open("xb") as out:
        while block := source.read(BLOCK):
            done += len(block)
            _bounded(archive, done, limit)
            out.write(block)
    return done


def _seconds(archive: Path, bounds: tuple[int, int]) -> float:
    first, more = bounds
    return first + more * archive.stat().st_size / 2**20


def _rar(archive: Path, into: Path, limit: int) -> None:
    tool = next((name for name in TOOLS if shutil.which(name)), None)
    if tool is None:
        raise RuntimeError(
            f"no program that unpacks {archive}: install one of "
            f"{', '.join(TOOLS)} (bsdtar is in libarchive-tools), or "
            f"{BY_HAND}")
    listing, extract = TOOLS[tool]
    names = _Names(archive)
    for name in dict.fromkeys(_listed(tool, _call(
            archive, listing(str(archive)), lambda: None))):
        names.check(name)
    _call(archive, extract(str(archive), str(into)),
          lambda: _bounded(archive, _weight(into), limit))
    _bounded(archive, _weight(into), limit)


def _call(archive: Path, command: Sequence[str],
          watch: Callable[[], None]) -> str:
    """What a program prints; `watch` is called while it works.

    It can ask nobody for a password. Whatever ends this function ends it,
    with all that it has started.
    """
    end = time.monotonic() + _seconds(archive, TOOL_SECONDS)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                               stderr=log, start_new_session=True)
        try:
            while run.poll() is None:
                if time.monotonic() > end:
                    raise UnsafeArchive(f"{archive}: {command[0]} takes too "
                                        f"long for its size: {BY_HAND}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(timeout=0.5)
                watch()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        for file in (out, log):
            file.seek(0)
        if run.returncode:
            why = " ".join(log.read().decode(errors="replace").split())
            raise UnsafeArchive(
                f"{archive}: {command[0]} cannot read it ({why[-300:]}): get "
                f"it again, or, if it needs a password, {BY_HAND}")
        return out.read().decode(errors="replace")


def _listed(tool: str, text: str) -> list[str]:
    """The names in a listing, whose lines end with a line feed alone."""
    if tool == "unar":
        return [entry["XADFileName"] for entry in
                json.loads(text)["lsarContents"]]
    lines = text.removesuffix("\n").split("\n")
    if tool in ("7z", "7zz"):
        # a name with a line feed goes on in a line without "Path"
        return [line.removeprefix("Path = ") for line in lines
                if line.startswith("Path = ") or "/../" in f"/{line}/"]
    return lines


def _weight(folder: Path) -> int:
    """Bytes in a folder that another program fills; no links, no devices."""
    total = 0
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                status = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue  # renamed while we looked
            if not (stat.S_ISREG(status.st_mode)
                    or stat.S_ISDIR(status.st_mode)):
                raise UnsafeArchive(f"{place}/{name} is a link or a device")
            total += status.st_size * stat.S_ISREG(status.st_mode)
    return total
