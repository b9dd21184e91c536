"""Hostile archives: refused, and nothing is written outside or left."""

import bz2
import gzip
import io
import json
import lzma
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

NAMES = ("/abs.txt", "../out.txt", "a/../../out.txt", "C:/out.txt",
         "..\\out.txt", "a\\b.txt", "..", "a/..")
# what some readers of a listing take for the end of a line
ENDS = ("\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029")


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
    mode = {"gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(
        name.rpartition(".")[2], "w")
    with tarfile.open(path, mode) as file:
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


@pytest.mark.parametrize("name", [
    *NAMES, *(f"bad{end}../../out.txt" for end in ENDS),
    *(f"bad{end}name" for end in ENDS)])
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


@pytest.mark.parametrize("many", [
    lambda folder, n: zipped(folder, *((f"{i}", b"") for i in range(n))),
    lambda folder, n: tarred(folder, *((member(f"{i}"), b"")
                                       for i in range(n))),
    lambda folder, n: tarred(folder, *(
        (member("x", tarfile.DIRTYPE), b"") for i in range(n)))])
def test_more_entries_than_a_sound_archive_has(place, monkeypatch, many):
    inside = place.parents[1] / "in"
    monkeypatch.setattr(unpacking, "ENTRIES", 200)
    refused(many(inside, 300), place, "one of more than 2")
    unpack(many(inside, 150), place)


def patched(path, places, data):
    """Change a zip's first entry, in the directory and in its own header."""
    whole = bytearray(path.read_bytes())
    for sign, place in zip((b"PK\x01\x02", b"PK\x03\x04"), places,
                           strict=True):
        at = whole.index(sign) + place
        whole[at:at + len(data)] = data
    path.write_bytes(whole)


def test_a_zip_that_lies_about_its_size(place, monkeypatch):
    """The header says little, the data are many: no more is written."""
    path = zipped(place.parents[1] / "in", ("x", bytes(2**22)))
    patched(path, (24, 22), (100).to_bytes(4, "little"))
    monkeypatch.setattr(unpacking, "FLOOR", 2**16)
    refused(path, place, "damaged")


def test_twice_the_same_name_and_encrypted(place):
    inside = place.parents[1] / "in"
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(inside, ("x", b"1"), ("x", b"2"))
    refused(path, place, "twice")
    refused(tarred(inside, (member("x"), b"1"), (member("x"), b"2")), place,
            "twice")
    path = zipped(inside, ("x", b"1"))
    patched(path, (8, 6), b"\1")
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


def blocks(*parts):
    """The bytes of a tar made of TarInfos and of what follows them."""
    parts = [p.tobuf() if isinstance(p, tarfile.TarInfo) else
             p + bytes(-len(p) % 512) for p in parts]
    return b"".join(parts)


def sized(name, size, kind=tarfile.REGTYPE):
    info = member(name, kind)
    info.size = size
    return info


END = bytes(1024)
FILES = [blocks(sized(f"{i}", 700), bytes([65 + i]) * 700) for i in range(4)]
PACK = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress,
        "tar.xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("content", [
    b"".join(FILES),  # no end mark
    b"".join(FILES[:2]) + END[:100],
    b"".join(FILES)[:-2000],
    FILES[0] + b"?" + FILES[1][1:] + FILES[2] + END,  # a damaged header
    FILES[0] + bytes(512) + FILES[1][512:] + FILES[2] + END,
    FILES[0] + END + FILES[1] + END,  # two archives in a row
])
def test_a_tar_that_is_not_whole(place, suffix, content):
    """tarfile reads each of them to an end, without a word."""
    path = place.parents[1] / "in" / f"a.{suffix}"
    path.write_bytes(PACK[suffix](b"".join(FILES) + END))
    unpack(path, place)
    assert sorted(os.listdir(place)) == ["0", "1", "2", "3"]
    other = place.with_name("other")
    path.write_bytes(PACK[suffix](content))
    with pytest.raises(UnsafeArchive, match=f"a.{suffix}.*get it again"):
        unpack(path, other)
    assert os.listdir(place.parent) == ["new"]


def test_gzip_to_its_last_byte(place):
    path = place.parents[1] / "in" / "a.tar.gz"
    first, second = (gzip.compress(b"".join(part) + END) for part in
                     (FILES[:2], FILES[2:]))
    for data in (first[:-8], first[:-1],
                 first[:-8] + b"crc?" + first[-4:],
                 first[:-4] + b"size", first + second, first + b"more"):
        path.write_bytes(data)
        refused(path, place, "a.tar.gz")
    # one tar that was packed in pieces, as parallel programs do
    path.write_bytes(b"".join(gzip.compress(x) for x in (*FILES, END)))
    unpack(path, place)
    assert len(os.listdir(place)) == 4


@pytest.mark.parametrize("suffix", ["tar.xz", "tar.bz2"])
def test_damage_inside_of_what_is_packed(place, suffix):
    path = place.parents[1] / "in" / f"a.{suffix}"
    data = PACK[suffix](b"".join(FILES) + os.urandom(5000) + END)
    for i in range(8, len(data), len(data) // 40):
        path.write_bytes(data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1:])
        refused(path, place, f"a.{suffix}")
        path.write_bytes(data[:i])
        refused(path, place, f"a.{suffix}")


def pax(*lines, kind=tarfile.XHDTYPE):
    body = b"".join(b"%d %s" % (len(x) + 3, x) for x in lines)
    return blocks(sized("pax", len(body), kind), body)


@pytest.mark.parametrize("content", [
    sized("x", -1).tobuf(tarfile.GNU_FORMAT),
    sized("x", -512).tobuf(tarfile.GNU_FORMAT),
    sized("x", -2**60).tobuf(tarfile.GNU_FORMAT),
    sized("x", 2**60).tobuf(tarfile.GNU_FORMAT),
    sized("x", -512, tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT),
    sized("x", 2**40, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT),
    pax(b"size=-1024\n") + sized("x", 3).tobuf(),
    pax(b"size=9000000\n") + sized("x", 3).tobuf(),
    pax(b"GNU.sparse.map=a,b\n") + sized("x", 3).tobuf(),
    pax(b"path=x\n") * 2000 + sized("x", 3).tobuf()])
def test_headers_of_a_tar_that_lie(place, content):
    path = place.parents[1] / "in" / "a.tar.gz"
    path.write_bytes(gzip.compress(FILES[0] + content + FILES[1] + END))
    refused(path, place, "a.tar.gz")


@pytest.mark.parametrize("kind", [
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK])
def test_a_large_header_is_not_read(place, kind):
    path, size = place.parents[1] / "in" / "a.tar.gz", 2**25
    path.write_bytes(gzip.compress(
        blocks(sized("x", size, kind), bytes(size)) + FILES[0] + END))
    tracemalloc.start()
    refused(path, place, "a.tar.gz.*a header of")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 16


def test_global_headers_are_not_kept(place, monkeypatch):
    """The last entry of millions would copy what all before it said."""
    path, kept = place.parents[1] / "in" / "a.tar", []
    with path.open("wb") as file:
        for i, one in enumerate(FILES):
            file.write(pax(b"k%05d=1\n" % i, kind=tarfile.XGLTYPE) + one)
        file.write(END)
    apply = tarfile.TarInfo._apply_pax_info
    monkeypatch.setattr(tarfile.TarInfo, "_apply_pax_info", lambda *given: (
        kept.append(len(given[1])), apply(*given))[1])
    unpack(path, place)
    assert kept and max(kept) == 1


@pytest.mark.parametrize("method", [
    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA, 9, 99])
def test_methods_of_zip(place, method):
    """Those that Python reads; Deflate64 and AES are for other programs."""
    known = method < 9 or method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    path = zipped(place.parents[1] / "in", ("x", bytes(2**20)),
                  compress=method if known else zipfile.ZIP_STORED)
    if known:
        unpack(path, place)
        assert (place / "x").read_bytes() == bytes(2**20)
    else:
        patched(path, (10, 8), method.to_bytes(2, "little"))
        refused(path, place, "compression method.*another program.*--from")


@pytest.mark.parametrize("name", ["a/" * 1000 + "x", "a" * 300, "ä" * 150])
def test_paths_too_deep_or_too_long(place, name):
    inside = place.parents[1] / "in"
    for path in (zipped(inside, (name, b"1")),
                 tarred(inside, (member(name), b"1"))):
        with pytest.raises((UnsafeArchive, OSError), match="folders|long"):
            unpack(path, place)
        assert not os.listdir(place.parent)
    unpack(zipped(inside, ("a/" * 30 + "ä" * 120, b"1")), place)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_and_a_folder_of_one_name(place, names):
    inside = place.parents[1] / "in"
    refused(zipped(inside, *((name, b"1") for name in names)), place)
    refused(tarred(inside, *((member(name), b"1") for name in names)), place)


def test_a_full_disk_is_no_damage(place, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    paths = (zipped(place.parents[1] / "in", ("x", b"1")),
             tarred(place.parents[1] / "in", (member("x"), b"1")))
    monkeypatch.setattr(zipfile.shutil, "copyfileobj", full)
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    for path in paths:
        with pytest.raises(OSError, match="No space"):
            unpack(path, place)
        assert not os.listdir(place.parent)


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
    with pytest.raises(UnsafeArchive, match="cannot read.*--from"):
        unpack(damaged, other)
    assert {p.name for p in place.parent.iterdir()} == {"new"}


@pytest.mark.parametrize("end", ENDS)
def test_listings_are_read_in_one_way(place, tool, end):
    """The tool unpacks what it is told: outside, if the names say so."""
    for name in (f"a{end}../../out.txt", f"a{end}Size = ../../../out.txt",
                 f"a{end}b/../../../out.txt"):
        refused(zipped(place.parents[1] / "in", (name, b"x"), name="x.rar"),
                place, "entry")


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


# What asks for a password, and what works for ever with a helper of its own.
ASKS = "#!{python}\nprint(input('password? '))\n"
WORKS = """#!{python}
import json, os, subprocess, sys
if "x" not in sys.argv:
    sys.exit()
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
with open({note!r} + ".part", "w") as note:
    json.dump([os.getpid(), own.pid], note)
os.rename({note!r} + ".part", {note!r})
own.wait()
"""
# A data script whose one part comes in x.rar
SCRIPT = """
import sys
sys.path.insert(0, {!r})
import prepare
sys.exit(prepare.main("x", prepare.Recipe("Set", [prepare.Part(
    "set", prepare.Source("x.rar"))], lambda *_: [])))
"""


def program(folder, monkeypatch, text, **names):
    path = folder / "tool" / "7z"
    path.parent.mkdir()
    path.write_text(text.format(python=sys.executable, **names))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))


def test_nobody_is_asked_for_a_password(place, monkeypatch):
    reading, writing = os.pipe()  # where nobody types anything
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    program(place.parents[1], monkeypatch, ASKS)
    path = zipped(place.parents[1] / "in", ("x", b""), name="x.rar")
    start = time.monotonic()
    refused(path, place, "EOF.*password.*--from")
    assert time.monotonic() - start < 30
    sys.stdin.close()
    os.close(writing)


def alive(process):
    """Whether it runs; what has ended and waits to be asked does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def all_end(processes):
    """Whether none of them runs; a killed one may need a moment."""
    for _ in range(50):
        if not any(alive(one) for one in processes):
            return True
        time.sleep(0.1)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(),
                                reason="asks Linux which processes run")


@needs_proc
def test_a_tool_has_its_time(place, monkeypatch):
    note = place.parents[1] / "tool" / "note"
    program(place.parents[1], monkeypatch, WORKS, note=str(note))
    monkeypatch.setattr(unpacking, "SECONDS", 3)
    refused(zipped(place.parents[1] / "in", ("x", b""), name="x.rar"), place,
            "too long")
    assert all_end(json.loads(note.read_text()))


@needs_proc
@pytest.mark.parametrize("number", [
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_script_that_is_stopped_stops_the_tool(tmp_path, monkeypatch,
                                                 number):
    note, given = tmp_path / "note", tmp_path / "given"
    given.mkdir()
    zipped(given, ("x", b""), name="x.rar")
    program(tmp_path, monkeypatch, WORKS, note=str(note))
    script = subprocess.Popen([
        sys.executable, "-c", SCRIPT.format(str(ROOT / "data_scripts")),
        "--root", tmp_path / "root", "--from", given])
    try:
        for _ in range(600):
            if note.exists():
                break
            time.sleep(0.1)
        ours = json.loads(note.read_text())
        assert all(alive(one) for one in ours)
        script.send_signal(number)
        assert script.wait(timeout=60) not in (0, None)
    finally:
        script.kill()
    assert all_end(ours)
    assert os.listdir(tmp_path / "root") == [".lock"]
