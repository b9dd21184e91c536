"""A notebook in a real browser: run all cells, move the slider, look.

As a command it does so with any notebook and leaves screenshots:
`python tests/test_jupyterlab.py NOTEBOOK.ipynb FOLDER`;
it fails if a cell wrote an error or the slider changed no picture.
Needs `pip install playwright` and a Chromium on the PATH.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from refresh import CALM, ROOT, refresh

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
RUN_ALL = "() => jupyterapp.commands.execute('notebook:run-all-cells')"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification":
        {"fetchNews": "false", "checkForUpdates": False},
}
EXPLORER = """import sys
sys.path[:0] = [".", ".."]
import torch
from lib.show import layout
from lib.show.explorer import Explorer, SideBySide
layout.style()
video = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1) * 30
sample = {"video": video.expand(8, 3, 48, 48), "label": 0, "name": "one"}
outputs = {"logits": torch.eye(2)[:1], "when": torch.ones(1, 8)}
"""
VIEWS = ('Explorer([sample], outputs, ["run", "walk"])',
         'SideBySide([sample], dict(a=outputs, b=outputs), ["run", "walk"])')


class Seen(NamedTuple):
    """What the browser showed: error texts, and pictures as PNG bytes."""

    stills: int
    errors: list[str]
    before: bytes
    after: bytes


@contextmanager
def server(notebook: Path, folder: Path) -> Iterator[str]:
    """JupyterLab on a copy of `notebook`, with a token, for this machine."""
    (folder / "notebooks").mkdir()
    for name in ("lib", "data_scripts"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(notebook, folder / "notebooks" / notebook.name)
    for name, values in SETTINGS.items():
        file = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
         "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
         f"--port={port}", "--ServerApp.port_retries=0",
         f"--ServerApp.root_dir={folder}"],
        env=os.environ | CALM | {
            "JUPYTER_TOKEN": token, "JUPYTER_CONFIG_DIR": str(folder / "cfg"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"{url}/api/status?token={token}", seconds=60)
        yield f"{url}/lab/tree/notebooks/{notebook.name}?reset&token={token}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)


def wait_for(url: str, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def look(url: str, folder: Path, *, seconds: int) -> Seen:
    """Open, look at the stored outputs, run all, move the last slider."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--disable-background-networking"])
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        page.set_default_timeout(seconds * 1000)
        page.goto(url)
        page.get_by_text("| Idle").wait_for()  # the kernel is connected
        stills = page.locator(".jp-OutputArea-output img").count()
        page.screenshot(path=folder / "opened.png")
        page.evaluate(RUN_ALL)
        slider = page.locator(".widget-slider .noUi-handle").last
        picture = page.locator("img.widget-image").last
        picture.scroll_into_view_if_needed()
        source, before = picture.get_attribute("src"), picture.screenshot()
        slider.focus()
        for _ in range(3):
            slider.press("ArrowRight")
        page.wait_for_function(
            "old => [...document.querySelectorAll('img.widget-image')]"
            ".at(-1).src !== old", arg=source)
        page.wait_for_timeout(1000)
        after = picture.screenshot()
        page.screenshot(path=folder / "moved.png")
        errors = page.locator(
            '[data-mime-type="application/vnd.jupyter.error"],'
            '[data-mime-type="application/vnd.jupyter.stderr"]'
        ).all_inner_texts()
        browser.close()
    return Seen(stills, errors, before, after)


@pytest.mark.parametrize("view", VIEWS)
def test_slider_moves_the_picture(tmp_path, view):
    pytest.importorskip("playwright", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH")
    notebook = tmp_path / "explorer.ipynb"
    nbformat.write(nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(EXPLORER + view)]
    ), notebook)
    # its stored still must show before anything runs
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    refresh(notebook, timeout=60)
    folder = tmp_path / "served"
    folder.mkdir()
    with server(notebook, folder) as url:
        seen = look(url, folder, seconds=60)
    assert seen.stills == 1
    assert seen.errors == []
    assert seen.before != seen.after


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        with server(Path(sys.argv[1]), Path(scratch)) as address:
            found = look(address, Path(sys.argv[2]), seconds=300)
    moved = found.before != found.after
    print(f"stills {found.stills}, errors {found.errors}, moved {moved}")
    sys.exit(1 if found.errors or not moved else 0)
