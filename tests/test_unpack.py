"""Hostile archives: refused, and nothing is written outside or left."""

import io
import os
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import unpack as unpacking
from unpack import UnsafeArchive, unpack

NAMES = ("/abs.txt", "../out.txt", "a/../../out.txt", "C:/out.txt",
         "..\\out.txt", "a\\b.txt", "..", "a/..", "bad\nname")


@pytest.fixture
def place(tmp_path):
    """A folder to unpack into, watched: all else must stay as it is."""
    (tmp_path / "in").mkdir()
    (tmp_path / "work").mkdir()
    yield tmp_path / "work" / "new"
    assert not Path("/abs.txt").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "work", "tool"}


def refused(archive, place, words=None):
    with pytest.raises(UnsafeArchive, match=words):
        unpack(archive, place)
    assert not place.exists() and not [*place.parent.iterdir()]


def zipped(folder, *entries, name="a.zip", compress=zipfile.ZIP_DEFLATED):
    path = folder / name
    with zipfile.ZipFile(path, "w", compress) as file:
        for entry, data in entries:
            file.writestr(entry, data)
    return path


def tarred(folder, *members, name="a.tar.gz"):
    path = folder / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as file:
        for member, data in members:
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_sound_archives(place):
    inside = place.parents[1] / "in"
    entries = [("a/b.txt", b"one"), ("c.txt", b"two"), ("a/#1 (x)!.avi", b"")]
    zipped(inside, *entries, ("empty/", b""))
    tarred(inside, *((member(n), d) for n, d in entries))
    tarred(inside, (member(".", tarfile.DIRTYPE), b""),
           *((member(f"./{n}"), d) for n, d in entries), name="b.tar")
    for i, archive in enumerate(sorted(inside.iterdir())):
        unpack(archive, place.with_name(str(i)))
        folder = place.with_name(str(i))
        assert (folder / "a/b.txt").read_bytes() == b"one"
        assert (folder / "c.txt").read_bytes() == b"two"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    with pytest.raises(FileExistsError, match="there already"):
        unpack(archive, folder)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_leave_the_folder(place, name):
    inside = place.parents[1] / "in"
    refused(zipped(inside, ("ok.txt", b"1"), (name, b"x")), place)
    refused(tarred(inside, (member("ok.txt"), b"1"), (member(name), b"x")),
            place)


@pytest.mark.parametrize("kind", [
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(place, kind):
    inside = place.parents[1] / "in"
    # a link out, and then a file through it
    refused(tarred(inside, (member("x", kind, "/etc"), b""),
                   (member("x/passwd"), b"me")), place, "link or a device")
    refused(tarred(inside, (member("x", kind, "../../in"), b"")), place)


@pytest.mark.parametrize("mode", [
    stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_zip(place, mode):
    info = zipfile.ZipInfo("x")
    info.external_attr = (mode | 0o777) << 16
    refused(zipped(place.parents[1] / "in", (info, "/etc/passwd")), place,
            "link or a device")


def test_bombs(place, monkeypatch):
    inside = place.parents[1] / "in"
    monkeypatch.setattr(unpacking, "FLOOR", 2**16)
    zeros = bytes(2**24)
    refused(zipped(inside, ("x", zeros)), place, "bomb")
    refused(tarred(inside, (member("x"), zeros)), place, "bomb")
    # many that are small by themselves
    refused(zipped(inside, *((f"{i}", bytes(2**18)) for i in range(64))),
            place, "bomb")
    monkeypatch.setattr(unpacking, "ENTRIES", 99)
    refused(zipped(inside, *((f"{i}", b"") for i in range(100))), place,
            "entries")
    unpack(zipped(inside, *((f"{i}", b"") for i in range(99))), place)


def test_a_zip_that_lies_about_its_size(place, monkeypatch):
    """The header says little, the data are many: counted as they come."""
    inside = place.parents[1] / "in"
    path = zipped(inside, ("x", bytes(2**22)))
    data = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.index(sign) + offset
        data[at:at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    monkeypatch.setattr(unpacking, "FLOOR", 2**16)
    refused(path, place)


def test_twice_the_same_name_and_encrypted(place):
    inside = place.parents[1] / "in"
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(inside, ("x", b"1"), ("x", b"2"))
    refused(path, place, "twice")
    refused(tarred(inside, (member("x"), b"1"), (member("x"), b"2")), place,
            "twice")
    path = zipped(inside, ("x", b"1"))
    data = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(sign) + offset] |= 1
    path.write_bytes(data)
    refused(path, place, "encrypted.*--from")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_damaged_archives(place, name):
    inside = place.parents[1] / "in"
    content = os.urandom(50_000)
    path = (zipped(inside, ("x", content)) if name == "a.zip" else
            tarred(inside, (member("x"), content), name=name))
    data = path.read_bytes()
    for part in (data[:len(data) // 2], data[:100], b"", b"hello" * 200):
        path.write_bytes(part)
        refused(path, place)
    if name == "a.zip":  # one byte of the content is another
        path.write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
        refused(path, place, "damaged")
    with pytest.raises(UnsafeArchive, match="no archive"):
        unpack(path.with_suffix(".exe"), place)


# A stand-in for the programs that unpack rar, which a test cannot bring
# along: it lists and unpacks a zip of the name .rar, with no care at all.
TOOL = """#!{python}
import os, sys, zipfile
words = sys.argv[1:]
archive = zipfile.ZipFile(next(w for w in words if w.endswith(".rar")))
if words[0] in ("-tf", "lb"):
    print(*archive.namelist(), sep="\\n")
elif words[0] in ("-json", "l"):
    import json
    if words[0] == "l":
        print(*("Path = " + n for n in archive.namelist()), sep="\\n")
    else:
        print(json.dumps({{"lsarContents": [
            {{"XADFileName": n}} for n in archive.namelist()]}}))
else:
    into = next(w for w in words[::-1] if os.path.isdir(w.removeprefix("-o")))
    into = into.removeprefix("-o")
    for info in archive.infolist():
        data, path = archive.read(info), os.path.join(into, info.filename)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if info.filename == "fail":
            sys.exit("broken volume")
        if info.external_attr >> 28 == 10:
            os.symlink(data, path)
        elif not info.is_dir():
            open(path, "wb").write(data)
"""


@pytest.fixture(params=["bsdtar", "unar", "7z", "7zz", "unrar"])
def tool(request, tmp_path, monkeypatch):
    """One of the programs for rar, alone on the path."""
    folder = tmp_path / "tool"
    folder.mkdir()
    for name in {request.param, "lsar" if request.param == "unar" else
                 request.param}:
        path = folder / name
        path.write_text(TOOL.format(python=sys.executable))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return request.param


def test_rar(place, tool):
    inside = place.parents[1] / "in"
    unpack(zipped(inside, ("a/b.txt", b"1"), ("c", b"2"), name="x.rar"),
           place)
    assert (place / "a/b.txt").read_bytes() == b"1"
    other = place.with_name("other")
    for name in ("../out.txt", "/abs.txt", "a/../../x"):
        with pytest.raises(UnsafeArchive, match="leave"):
            unpack(zipped(inside, (name, b"x"), name="x.rar"), other)
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(UnsafeArchive, match="link"):
        unpack(zipped(inside, (info, "/etc/passwd"), name="x.rar"), other)
    with pytest.raises(UnsafeArchive, match="broken volume"):
        unpack(zipped(inside, ("fail", b"x"), name="x.rar"), other)
    damaged = inside / "y.rar"
    damaged.write_bytes(b"no archive")
    with pytest.raises(UnsafeArchive, match="cannot read"):
        unpack(damaged, other)
    assert {p.name for p in place.parent.iterdir()} == {"new"}


def test_rar_bomb(place, tool, monkeypatch):
    monkeypatch.setattr(unpacking, "FLOOR", 2**16)
    refused(zipped(place.parents[1] / "in", ("x", bytes(2**24)),
                   name="x.rar"), place, "bomb")


def test_no_program_for_rar(place, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    path = zipped(place.parents[1] / "in", ("x", b""), name="x.rar")
    words = "bsdtar, unar, 7z, 7zz, unrar.*--from"
    with pytest.raises(RuntimeError, match=words):
        unpack(path, place)
    assert not [*place.parent.iterdir()]
