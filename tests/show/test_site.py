"""The site: pages of what is stored, links that lead somewhere, any width."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from checks import refused
from nbformat import v4
from test_jupyterlab import BROWSER

from lib import ROOT
from lib.show import site

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOT = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD"
       "hgGAWjR9awAAAABJRU5ErkJggg==")


class Page(HTMLParser):
    """Links, ids, scripts, title and the words of a page's bar."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.scripts, self.inside = [], set(), [], []
        self.title, self.bar, self.folded = "", {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links += [attrs[key] for key in ("href", "src") if key in attrs]
        self.scripts += [attrs.get("src")] if tag == "script" else []
        if tag in ("title", "nav", "details"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside[-1:] == [tag]:
            self.inside.pop()

    def handle_data(self, data):
        if self.inside[-1:] == ["title"]:
            self.title += data
        elif self.inside[-1:] == ["nav"] and data.strip():
            self.bar[data.strip()] = self.links[-1]
        elif self.inside[-1:] == ["details"]:
            self.folded += data


def read(file):
    return Page(file.read_text("utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "site"
    site.main([str(folder)])
    return folder


@pytest.fixture
def small(tmp_path):
    """A course of one notebook, which is made of given cells."""
    def make(*cells, **metadata):
        (tmp_path / "README.md").write_text("# Small\n[1](notebooks/1.ipynb)")
        (tmp_path / "notebooks").mkdir()
        nbformat.write(v4.new_notebook(cells=list(cells), metadata=metadata),
                       tmp_path / "notebooks" / "1.ipynb")
        return site.render(tmp_path)
    return make


def test_every_local_link_has_a_target(made):
    pages = {file.resolve(): read(file) for file in made.rglob("*.html")}
    assert len(pages) > len(NOTEBOOKS) + 1  # and files of lib
    for file, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme:
                continue
            target = file
            if url.path:
                target = (file.parent / unquote(url.path)).resolve()
            assert target.is_file(), (file, link)
            if url.fragment:
                assert unquote(url.fragment) in pages[target].ids, link


def test_the_bar_leads_through_all_notebooks_and_back(made):
    file, titles = made / "index.html", []
    while True:
        page = read(file)
        titles.append(page.title)
        onward = [link for words, link in page.bar.items() if "→" in words]
        if not onward:
            break
        file = file.parent / onward[0]
    assert titles == ["Where and when", *(
        nbformat.read(path, 4).cells[0].source.splitlines()[0].strip("# ")
        for path in NOTEBOOKS)]
    for _ in NOTEBOOKS[1:]:
        (back,) = [link for words, link in page.bar.items() if "←" in words]
        file = file.parent / back
        page = read(file)
    assert file.stem == NOTEBOOKS[0].stem
    assert (file.parent / page.bar["Contents"]).samefile(made / "index.html")


def test_a_widget_is_its_still_and_needs_no_script(small):
    widget = v4.new_output("execute_result", {
        "application/vnd.jupyter.widget-view+json": {"model_id": "a"},
        "image/png": DOT, "text/plain": "Explorer"})
    page = small(
        v4.new_code_cell("explore()", outputs=[widget]),
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {}}},
    )["notebooks/1.html"].decode()
    assert f"data:image/png;base64,{DOT}" in page and "widget" not in page
    address, settings = Page(page).scripts
    assert "mathjax" in address and settings is None


@pytest.mark.parametrize("metadata, folded", [
    ({"jupyter": {"source_hidden": True}}, True), ({"tags": ["hidden"]}, True),
    ({"tags": ["check"]}, False), ({}, False)])
def test_hidden_code_is_folded_and_its_output_is_not(small, metadata, folded):
    output = v4.new_output("stream", text="shown")
    page = Page(small(v4.new_code_cell("secret", outputs=[output], metadata=
                                       metadata))["notebooks/1.html"].decode())
    assert ("secret" in page.folded) == folded and "shown" not in page.folded


def test_texts_become_pages_and_pictures_are_copied(small, tmp_path):
    (tmp_path / "a b.py").write_text("if 1 < 2: 'here'  # <b>")
    (tmp_path / "dot.png").write_bytes(b"dot")
    (tmp_path / "more.md").write_text("# More\n[back](notebooks/1.ipynb)")
    files = small(v4.new_markdown_cell(
        "# One\n[x](../a%20b.py) ![y](../dot.png) [z](../more.md) "
        "[here](#One) [there](https://example.org/a.py#b) "
        "[up](../README.md#Small)"))
    assert {*files} == {"index.html", "notebooks/1.html", "a b.py.html",
                        "dot.png", "more.html"}
    assert files["dot.png"] == b"dot"
    assert "&lt;b&gt;" in files["a b.py.html"].decode()
    links = Page(files["notebooks/1.html"].decode()).links
    for link in ("../a%20b.py.html", "../dot.png", "../more.html", "#One",
                 "https://example.org/a.py#b", "../index.html#Small"):
        assert link in links


@pytest.mark.parametrize("link", [
    "2.ipynb", "../lib/gone.py", "../../outside.py", "#no-such-part",
    "1.ipynb#nor-this", "../lib/", "/etc/hosts"])
def test_a_link_that_leads_nowhere_is_named(small, link):
    refused(rf"notebooks/1\.ipynb: {link}$", small,
            v4.new_markdown_cell(f"# One\n[x]({link})"), error=site.SiteError)


def test_stale_pages_go_and_other_files_stay(tmp_path):
    folder = tmp_path / "site"
    site.write({"index.html": b"1", "notebooks/old.html": b"1"}, folder)
    (folder / "CNAME").write_text("mine")
    site.write({"index.html": b"2", "notebooks/new.html": b"2"}, folder)
    files = {path.relative_to(folder).as_posix()
             for path in folder.rglob("*") if path.is_file()}
    assert files == {site.LISTING, "CNAME", "index.html", "notebooks/new.html"}
    assert (folder / "index.html").read_bytes() == b"2"


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "theirs.txt").write_text("1")
    for folder in (tmp_path, tmp_path / "theirs.txt"):
        refused(f"{folder} is not empty", site.write, {"index.html": b""},
                folder, error=site.SiteError)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def test_a_phone_shows_every_page_without_a_network(made):
    pytest.importorskip("playwright", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--disable-background-networking"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.context.set_offline(True)
        for file in sorted(made.rglob("*.html")):
            page.goto(file.as_uri())
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, file.name
        page.goto((made / "index.html").as_uri())
        for notebook in NOTEBOOKS[:2]:
            page.get_by_text("→").first.click()
            page.wait_for_url(f"**/{notebook.stem}.html")
        assert page.locator("main img").first.evaluate(
            "image => image.complete && image.naturalWidth > 0")
        browser.close()
