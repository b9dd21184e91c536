"""Unpack archives that may be hostile: nothing leaves the new folder.

Refused are absolute paths and `..`, links, devices and other special
entries, names that come twice, encrypted entries, and archives that grow
beyond all measure. zip and tar are read by Python; for rar, whose format is
not free, one of the programs in TOOLS is called.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = (*TARS, ".zip", ".rar")
# A bomb is what unpacks to more than a hundred times its size; small lists
# may compress better than that.
GROWTH, FLOOR, ENTRIES = 100, 64 * 2**20, 2_000_000
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
    except (zipfile.BadZipFile, tarfile.TarError, EOFError,
            NotImplementedError) as error:
        raise UnsafeArchive(f"{archive} is damaged ({error}): get it again"
                            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def checked(archive: Path, names: Iterable[str]) -> list[str]:
    """The names of an archive's entries; UnsafeArchive for a bad one."""
    seen: set[str] = set()
    kept = []
    for name in names:
        plain = name.rstrip("/")
        parts = plain.split("/")
        if (not plain or ".." in parts or plain.startswith("/")
                or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:", plain)):
            raise UnsafeArchive(f"{archive}: the entry {name!r} would leave "
                                "the folder: nothing was unpacked")
        # a folder may be named again, a file not
        if plain in seen and not name.endswith("/"):
            raise UnsafeArchive(f"{archive}: {name!r} is in it twice")
        seen.add(plain)
        kept.append(name)
        if len(kept) > ENTRIES:
            raise UnsafeArchive(f"{archive}: more than {ENTRIES} entries")
    return kept


def _zip(archive: Path, into: Path, limit: int) -> None:
    with zipfile.ZipFile(archive) as file:
        infos = file.infolist()
        checked(archive, (info.filename for info in infos))
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeArchive(f"{archive}: {info.filename!r} is a link "
                                    "or a device")
            if info.flag_bits & 1:
                raise UnsafeArchive(
                    f"{archive} is encrypted: unpack it yourself with its "
                    "password, and give the folder by --from")
        _bounded(archive, sum(info.file_size for info in infos), limit)
        for info in infos:
            if not info.is_dir():
                with file.open(info) as source:
                    limit -= _copy(archive, source, into / info.filename,
                                   limit)


def _tar(archive: Path, into: Path, limit: int) -> None:
    with tarfile.open(archive) as file:
        # one pass over the headers first: they may lie behind a bomb
        members, total = [], 0
        for member in file:
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise UnsafeArchive(f"{archive}: {member.name!r} is a link "
                                    "or a device")
            members.append(member)
            total += member.size
            _bounded(archive, total, limit)
        # "./" names the folder itself
        members = [m for m in members if m.name not in (".", "./")]
        checked(archive, (m.name + "/" * m.isdir() for m in members))
        for member in members:
            if member.isfile():
                _copy(archive, file.extractfile(member),
                      into / member.name, limit)


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
        while block := source.read(2**20):
            done += len(block)
            _bounded(archive, done, limit)
            out.write(block)
    return done


def _rar(archive: Path, into: Path, limit: int) -> None:
    tool = next((name for name in TOOLS if shutil.which(name)), None)
    if tool is None:
        raise RuntimeError(
            f"no program that unpacks {archive}: install one of "
            f"{', '.join(TOOLS)} (bsdtar is in libarchive-tools), or unpack "
            "it yourself and give the folder by --from")
    listing, extract = TOOLS[tool]
    done = subprocess.run(listing(str(archive)), capture_output=True,
                          text=True, errors="replace")
    if done.returncode:
        raise UnsafeArchive(f"{archive}: {tool} cannot read it "
                            f"({done.stderr.strip()[-300:]}): get it again")
    checked(archive, dict.fromkeys(_names(tool, done.stdout)))
    errors = into.with_suffix(".errors")
    with errors.open("w+") as log:
        run = subprocess.Popen(extract(str(archive), str(into)),
                               stdin=subprocess.DEVNULL, stderr=log)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(timeout=0.5)
                    break
                _bounded(archive, _weight(into), limit)
        finally:
            run.kill()
            run.wait()
            log.seek(0)
            said = log.read()
            errors.unlink()
    if run.returncode:
        raise UnsafeArchive(f"{archive}: {tool} failed ({said[-300:].strip()}"
                            "): get it again")
    _bounded(archive, _weight(into), limit)


def _names(tool: str, text: str) -> list[str]:
    if tool == "unar":
        return [entry["XADFileName"] for entry in
                json.loads(text)["lsarContents"]]
    if tool in ("7z", "7zz"):
        return [line.removeprefix("Path = ") for line in text.splitlines()
                if line.startswith("Path = ")]
    return text.splitlines()


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
