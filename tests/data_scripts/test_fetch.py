"""Downloads: cut, altered, too long, without room, twice at once."""

import hashlib
import http.server
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import fetch
import pytest
from checks import refused
from fetch import Unreachable, download, locked

from lib import ROOT
from lib.data.sets.records import Source

DATA = random.Random(0).randbytes(700_000)
MD5 = f"md5:{hashlib.md5(DATA).hexdigest()}"


class Host(http.server.BaseHTTPRequestHandler):
    """A host that can cut its answers, and forget what ranges are."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        plan = self.server.plan
        data, first = plan["data"], 0
        plan["asked"].append(self.headers.get("Range"))
        if plan["status"]:
            self.send_error(plan["status"])
            return
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, plan["tag"])
        if asked and plan["ranges"] and same:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
        if first >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if plan["tag"]:
            self.send_header("ETag", plan["tag"])
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        end = plan["cuts"].pop(0) if plan["cuts"] else len(data)
        self.wfile.write(data[first:max(first, end)])


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(fetch, "WAIT", 0.0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.plan = {"data": DATA, "cuts": [], "status": None, "tag": '"v1"',
                   "ranges": True, "asked": []}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,),
                              daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def source(host, **more):
    return Source("a.zip", host.url, **{"hash": MD5} | more)


def begun(folder, data, tag='"v1"'):
    """What a run that was killed has left."""
    (folder / "a.zip.part").write_bytes(data)
    (folder / "a.zip.part.tag").write_text(tag)


def test_whole_at_once(host, tmp_path):
    path = download(source(host, size=len(DATA)), tmp_path)
    assert path.read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    download(source(host), tmp_path)
    assert len(host.plan["asked"]) == 1  # it is there
    path.write_bytes(DATA[:1000])
    assert download(source(host), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("seed", range(3))
def test_cut_at_random_bytes_goes_on(host, tmp_path, seed):
    draw = random.Random(seed)
    host.plan["cuts"] = sorted(draw.randrange(fetch.BLOCK, len(DATA))
                               for _ in range(3))
    path = download(source(host), tmp_path)
    assert path.read_bytes() == DATA
    asked = host.plan["asked"]
    assert len(asked) == 4 and asked[0] is None
    assert all(one and one.startswith("bytes=") for one in asked[1:])
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_cut_for_good_goes_on_in_the_next_run(host, tmp_path):
    host.plan["cuts"] = [50_000, 60_000, 70_000, 80_000]
    refused("127.0.0.1", download, source(host), tmp_path, error=Unreachable)
    assert not (tmp_path / "a.zip").exists()
    part = (tmp_path / "a.zip.part").read_bytes()
    assert len(part) > 80_000 - fetch.BLOCK and DATA.startswith(part)
    assert download(source(host), tmp_path).read_bytes() == DATA
    assert host.plan["asked"][-1] == f"bytes={len(part)}-"


@pytest.mark.parametrize("change", [
    {"tag": '"v2"'}, {"ranges": False}, {"tag": None}])
def test_another_version_is_begun_anew(host, tmp_path, change):
    """A part of one version and the rest of another are no file."""
    host.plan |= {"cuts": [300_000] * 4} | (
        change if change == {"tag": None} else {})
    anonymous = source(host, hash=None)
    with pytest.raises(Unreachable):
        download(anonymous, tmp_path)
    other = random.Random(1).randbytes(700_000)
    host.plan |= {"data": other, "cuts": []} | change
    assert download(anonymous, tmp_path).read_bytes() == other


def test_what_has_not_the_published_hash_is_not_trusted(host, tmp_path):
    host.plan["data"] = DATA[:-1] + b"?"
    refused("hash", download, source(host), tmp_path)
    host.plan["data"] = DATA
    begun(tmp_path, b"x" * 1000)
    refused("hash", download, source(host), tmp_path)
    assert not [*tmp_path.iterdir()]
    begun(tmp_path, b"x" * 1000, "")
    assert download(source(host), tmp_path).read_bytes() == DATA


def test_a_wrong_size_is_not_even_fetched(host, tmp_path):
    with pytest.raises(ValueError, match="offers 700000 .* 5"):
        download(source(host, size=5, hash=None), tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_host_that_refuses(host, tmp_path, status):
    host.plan["status"] = status
    refused(str(status), download, source(host), tmp_path, error=Unreachable)
    assert not [*tmp_path.iterdir()]
    assert len(host.plan["asked"]) == (4 if status == 503 else 1)


def test_no_address_and_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "WAIT", 0.0)
    for host, reason in (("", "b.zip has no public address"),
                         ("http://127.0.0.1:9/", "127.0.0.1:9/b.zip: ")):
        with pytest.raises(Unreachable, match=reason):
            download(Source("b.zip", host), tmp_path)


def script(body, *arguments):
    code = (f"import sys; sys.path.insert(0, {str(ROOT / 'data_scripts')!r})"
            f"\nimport fetch\nfetch.WAIT = 0\n{body}")
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_leaves_what_can_go_on(host, tmp_path):
    """A limit on the size of files stands in for a disk that is full."""
    process = script("""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
from pathlib import Path
try:
    fetch.download(fetch.Source("a.zip", sys.argv[1]), Path(sys.argv[2]))
except OSError as error:
    print("refused:", error)
""", host.url, tmp_path)
    said, errors = process.communicate(timeout=60)
    assert "refused" in said, errors
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").stat().st_size <= 400_000
    assert download(source(host), tmp_path).read_bytes() == DATA
    assert host.plan["asked"][-1] == "bytes=400000-"


def test_too_little_room_is_said_before(host, tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(OSError, match="needs 700000 more bytes"):
        download(source(host), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_killed_between_the_end_and_the_renaming(host, tmp_path):
    begun(tmp_path, DATA)
    assert download(source(host), tmp_path).read_bytes() == DATA
    assert host.plan["asked"] == [f"bytes={len(DATA)}-"]  # nothing came


def test_two_processes_at_once(host, tmp_path):
    body = """
from pathlib import Path
folder = Path(sys.argv[2])
with fetch.locked(folder):
    path = fetch.download(fetch.Source("a.zip", sys.argv[1]), folder)
print(path.stat().st_size)
"""
    with locked(tmp_path):  # both wait for us first
        both = [script(body, host.url, tmp_path) for _ in range(2)]
        for one in both:
            assert one.stdout.readline().startswith("waiting for the process")
        assert not host.plan["asked"]
    for process in both:
        said, errors = process.communicate(timeout=60)
        assert said.split() == [str(len(DATA))], errors
    assert Path(tmp_path / "a.zip").read_bytes() == DATA
    assert len(host.plan["asked"]) == 1
    assert sorted(os.listdir(tmp_path)) == [".lock", "a.zip"]
