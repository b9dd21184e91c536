"""Hostile archives: refused, and nothing is written outside or left."""

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import unpack as unpacking
from unpack import UnsafeArchive, unpack

from lib import ROOT

# what some readers of a listing take for the end of a line
ENDS = ("\n", "\r", "\x0b", "\x85", "\u2028")


@pytest.fixture
def given(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def place(tmp_path, given):
    """A folder to unpack into, watched: all else must stay as it is."""
    (tmp_path / "work").mkdir()
    yield tmp_path / "work" / "new"
    assert not Path("/abs.txt").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "work", "tool"}


def refused(archive, place, words):
    with pytest.raises(UnsafeArchive, match=words):
        unpack(archive, place)
    assert not place.exists() and not [*place.parent.iterdir()]


def zipped(folder, *entries, name="a.zip"):
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for entry, data in entries:
            file.writestr(entry, data)
    return path


def tarred(folder, *members, name="a.tar.gz"):
    path = folder / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as file:
        for member, data in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def special(name, kind, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def with_mode(mode):
    info = zipfile.ZipInfo("x")
    info.external_attr = (mode | 0o777) << 16
    return info


def patched(path, places, data):
    """Change a zip's first entry, in the directory and in its own header."""
    whole = bytearray(path.read_bytes())
    for sign, place in zip((b"PK\x01\x02", b"PK\x03\x04"), places,
                           strict=True):
        at = whole.index(sign) + place
        whole[at:at + len(data)] = data
    path.write_bytes(whole)
    return path


BOTH = pytest.mark.parametrize("pack", [zipped, tarred])


def test_sound_archives(given, place):
    entries = [("a/b.txt", b"one"), ("c.txt", b"two"), ("a/#1 (x)!.avi", b"")]
    zipped(given, *entries, ("empty/", b""))
    tarred(given, *entries)
    tarred(given, (special(".", tarfile.DIRTYPE), b""),
           *((f"./{n}", d) for n, d in entries), name="b.tar")
    for i, archive in enumerate(sorted(given.iterdir())):
        folder = place.with_name(str(i))
        unpack(archive, folder)
        assert (folder / "a/b.txt").read_bytes() == b"one"
        assert (folder / "c.txt").read_bytes() == b"two"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    with pytest.raises(FileExistsError, match="there already"):
        unpack(archive, folder)
    with pytest.raises(UnsafeArchive, match="no archive"):
        unpack(archive.with_suffix(".exe"), place)


@BOTH
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's
@pytest.mark.parametrize("words, names", [
    *(("the entry", ["ok.txt", name]) for name in (
        "/abs.txt", "../out.txt", "a/../../out.txt", "C:/out.txt",
        "..\\out.txt", "a\\b.txt", "..", "a/..", "bad\x1cname",
        *(f"bad{end}../../out.txt" for end in ENDS))),
    ("twice", ["x", "x"]), (None, ["a", "a/b"]), (None, ["a/b", "a"])])
def test_names_that_leave_the_folder_or_are_taken(given, place, words, names,
                                                  pack):
    refused(pack(given, *((name, b"1") for name in names)), place, words)


@pytest.mark.parametrize("pack, entries", [
    # a link out, and then a file through it; and one that stays inside
    *((tarred, [(special("x", kind, link), b""), ("x/passwd", b"me")])
      for link in ("/etc", "../../in", "passwd") for kind in (
          tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
          tarfile.FIFOTYPE)),
    *((zipped, [(with_mode(mode), "/etc/passwd")]) for mode in (
        stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO,
        stat.S_IFSOCK))])
def test_links_and_devices(given, place, pack, entries):
    refused(pack(given, *entries), place, "link or a device")


@BOTH
def test_bombs(given, place, monkeypatch, pack):
    monkeypatch.setattr(unpacking, "FLOOR", 2**16)
    refused(pack(given, ("x", bytes(2**24))), place, "bomb")
    # many that are small by themselves
    refused(pack(given, *((f"{i}", bytes(2**18)) for i in range(64))),
            place, "bomb")


@pytest.mark.parametrize("pack, entry", [
    (zipped, str), (tarred, lambda i: special(str(i), tarfile.DIRTYPE))])
def test_more_entries_than_a_sound_archive_has(given, place, monkeypatch,
                                               pack, entry):
    monkeypatch.setattr(unpacking, "ENTRIES", 200)
    refused(pack(given, *((entry(i), b"") for i in range(300))), place,
            "one of more than 2")
    unpack(pack(given, *((entry(i), b"") for i in range(150))), place)


@pytest.mark.parametrize("places, data, words", [
    ((24, 22), (100).to_bytes(4, "little"), "damaged"),  # another size
    ((8, 6), b"\1", "encrypted.*--from"),
    ((10, 8), b"\x63\0", "compression method.*another program.*--from")])
def test_headers_of_a_zip_that_lie_or_ask_for_more(given, place, places,
                                                   data, words):
    refused(patched(zipped(given, ("x", bytes(2**22))), places, data), place,
            words)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_damaged_archives(given, place, name):
    content = os.urandom(50_000)
    path = (zipped if name == "a.zip" else tarred)(
        given, ("x", content), name=name)
    data = path.read_bytes()
    flipped = data[:3000] + bytes([data[3000] ^ 1]) + data[3001:]
    for part in (data[:len(data) // 2], data[:100], b"", b"hello" * 200,
                 *[flipped] * (name != "a.tar")):  # which has no checksum
        path.write_bytes(part)
        refused(path, place, f"{name} is damaged")


def blocks(*parts):
    parts = [p.tobuf(tarfile.GNU_FORMAT) if isinstance(p, tarfile.TarInfo)
             else p + bytes(-len(p) % 512) for p in parts]
    return b"".join(parts)


END = bytes(1024)
FILES = [blocks(special(f"{i}", tarfile.REGTYPE, size=700),
                bytes([65 + i]) * 700) for i in range(4)]


def pax(*lines, kind=tarfile.XHDTYPE):
    body = b"".join(b"%d %s" % (len(x) + 3, x) for x in lines)
    return blocks(special("pax", kind, size=len(body)), body)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("content, words", [
    (b"".join(FILES), "get it again"),  # no end mark
    (b"".join(FILES)[:-2000], "get it again"),
    # a damaged header, and headers that lie
    (FILES[0] + b"?" + FILES[1][1:] + FILES[2] + END, "get it again"),
    *((FILES[0] + header + FILES[1] + END, "") for header in (
        *(blocks(special("x", kind, size=size)) for kind, size in (
            (tarfile.REGTYPE, -512), (tarfile.REGTYPE, 2**60),
            (tarfile.XHDTYPE, -512), (tarfile.GNUTYPE_LONGNAME, 2**40))),
        *(lie + blocks(special("x", tarfile.REGTYPE, size=3)) for lie in (
            pax(b"size=-1024\n"), pax(b"size=9000000\n"),
            pax(b"GNU.sparse.map=a,b\n"), pax(b"path=x\n") * 2000))))])
def test_a_tar_that_is_not_whole(given, place, suffix, content, words):
    """tarfile reads the first three to an end, without a word."""
    path, pack = given / f"a.{suffix}", {"tar": bytes}.get(suffix,
                                                           gzip.compress)
    path.write_bytes(pack(content))
    refused(path, place, f"a.{suffix}.*{words}")
    path.write_bytes(pack(b"".join(FILES) + END))
    unpack(path, place)
    assert sorted(os.listdir(place)) == ["0", "1", "2", "3"]


def test_gzip_to_its_last_byte(given, place):
    path = given / "a.tar.gz"
    data = gzip.compress(b"".join(FILES) + END)
    for part in (data[:-1], data[:-8] + b"crc?" + data[-4:],
                 data[:-4] + b"size", data + b"more"):
        path.write_bytes(part)
        refused(path, place, "a.tar.gz")
    # one tar that was packed in pieces, as parallel programs do
    path.write_bytes(b"".join(gzip.compress(x) for x in (*FILES, END)))
    unpack(path, place)
    assert len(os.listdir(place)) == 4


@pytest.mark.parametrize("kind", [
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_large_header_is_not_read(given, place, kind):
    path, size = given / "a.tar.gz", 2**25
    path.write_bytes(gzip.compress(
        blocks(special("x", kind, size=size), bytes(size)) + FILES[0] + END))
    tracemalloc.start()
    refused(path, place, "a.tar.gz.*a header of")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 16


def test_global_headers_are_not_kept(given, place, monkeypatch):
    """The last entry of millions would copy what all before it said."""
    path, kept = given / "a.tar", []
    path.write_bytes(b"".join(
        pax(b"k%05d=1\n" % i, kind=tarfile.XGLTYPE) + one
        for i, one in enumerate(FILES)) + END)
    apply = tarfile.TarInfo._apply_pax_info
    monkeypatch.setattr(tarfile.TarInfo, "_apply_pax_info", lambda *given: (
        kept.append(len(given[1])), apply(*given))[1])
    unpack(path, place)
    assert kept and max(kept) == 1


@BOTH
@pytest.mark.parametrize("name", ["a/" * 1000 + "x", "a" * 300, "ä" * 150])
def test_paths_too_deep_or_too_long(given, place, name, pack):
    with pytest.raises((UnsafeArchive, OSError), match="folders|too long"):
        unpack(pack(given, (name, b"1")), place)
    assert not os.listdir(place.parent)
    unpack(pack(given, ("a/" * 30 + "ä" * 120, b"1")), place)


@BOTH
def test_a_full_disk_is_no_damage(given, place, monkeypatch, pack):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = pack(given, ("x", b"1"))
    monkeypatch.setattr(zipfile.shutil, "copyfileobj", full)
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        unpack(path, place)
    assert not os.listdir(place.parent)


# A stand-in for the programs that unpack rar, which a test cannot bring
# along: it lists and unpacks a zip of the name .rar, with no care at all.
TOOL = """#!{python}
import json, os, sys, zipfile
words = sys.argv[1:]
archive = zipfile.ZipFile(next(w for w in words if w.endswith(".rar")))
names = archive.namelist()
if words[0] in ("-tf", "lb"):
    print(*names, sep="\\n")
elif words[0] == "l":
    print(*("Path = " + n for n in names), sep="\\n")
elif words[0] == "-json":
    print(json.dumps({{"lsarContents": [{{"XADFileName": n}}
                                       for n in names]}}))
else:
    into = next(w.removeprefix("-o") for w in words[::-1]
                if os.path.isdir(w.removeprefix("-o")))
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
# What asks for a password, and what works for ever.
ASKS = "#!{python}\nprint(input('password? '))\n"
WORKS = """#!{python}
import os, sys, time
if "lb" in sys.argv:
    sys.exit(print("a.txt"))
with open({note!r} + ".part", "w") as note:
    note.write(str(os.getpid()))
os.rename({note!r} + ".part", {note!r})
time.sleep(99)
"""


def install(folder, monkeypatch, text, *names, **more):
    folder.mkdir()
    for name in names:
        (folder / name).write_text(text.format(python=sys.executable, **more))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture(params=unpacking.TOOLS)
def tool(request, tmp_path, monkeypatch):
    install(tmp_path / "tool", monkeypatch, TOOL, request.param,
            *["lsar"] * (request.param == "unar"))


def rar(folder, *entries):
    return zipped(folder, *entries, name="x.rar")


def test_rar(given, place, tool, monkeypatch):
    for name in ("../out.txt", "/abs.txt", "a/../../x"):
        refused(rar(given, (name, b"x")), place, "leave")
    for end in ENDS:  # a listing may be read in one way only
        refused(rar(given, (f"a{end}../../out.txt", b"x")), place, "entry")
    refused(rar(given, (with_mode(stat.S_IFLNK), "/etc/passwd")), place,
            "link")
    refused(rar(given, ("fail", b"x")), place, "broken volume")
    damaged = given / "y.rar"
    damaged.write_bytes(b"no archive")
    refused(damaged, place, "cannot read.*--from")
    bomb = rar(given, ("x", bytes(2**24)))
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "FLOOR", 2**16)
        refused(bomb, place, "bomb")
    unpack(rar(given, ("a/b.txt", b"1"), ("c", b"2")), place)
    assert (place / "a/b.txt").read_bytes() == b"1"


def test_no_program_for_rar(given, place, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="unar, 7z, .*unrar.*--from"):
        unpack(rar(given), place)
    assert not [*place.parent.iterdir()]


def test_nobody_is_asked_for_a_password(given, place, monkeypatch):
    reading, writing = os.pipe()  # where nobody types anything
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    install(given.parent / "tool", monkeypatch, ASKS, "unrar")
    start = time.monotonic()
    refused(rar(given), place, "EOF.*password.*--from")
    assert time.monotonic() - start < 30
    sys.stdin.close()
    os.close(writing)


# A data script whose one part comes in x.rar
SCRIPT = """
import sys
sys.path.insert(0, {!r})
import prepare
sys.exit(prepare.main("x", prepare.Recipe("Set", None, [prepare.Part(
    "set", prepare.Source("x.rar"))], lambda *_: [])))
"""


@pytest.mark.parametrize("number", [
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_script_that_is_stopped_stops_the_tool(tmp_path, given, monkeypatch,
                                                 number):
    note, root = tmp_path / "note", tmp_path / "root"
    rar(given)
    install(tmp_path / "tool", monkeypatch, WORKS, "unrar", note=str(note))
    script = subprocess.Popen([
        sys.executable, "-c", SCRIPT.format(str(ROOT / "data_scripts")),
        "--root", root, "--from", given])
    try:
        for _ in range(600):
            if note.exists():
                break
            time.sleep(0.1)
        script.send_signal(number)
        assert script.wait(timeout=60) not in (0, None)
    finally:
        script.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert os.listdir(root) == [".lock"]
