"""The course as a small static site: `python -m lib.show.site [FOLDER]`.

README.md becomes the contents, and each notebook a page with the outputs
that are stored in it; nothing is executed. What they link to comes along:
texts as pages too, because browsers save many kinds of text instead of
showing them. No server is needed: open `index.html`.
"""

import argparse
import os
import posixpath
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat import v4
from traitlets.config import Config

from lib import ROOT

# Texts that become pages, and as what they are highlighted. Other files,
# such as pictures, are copied.
TEXTS = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".jsonl": "text",
         ".txt": "text", "": "text"}
# The best form of an output comes first. A widget would need its kernel:
# the picture beside it is shown.
FORMS = ["text/html", "text/markdown", "image/svg+xml", "text/latex",
         "image/png", "image/jpeg", "text/plain"]
LISTING = ".made_by_lib_show_site"


class SiteError(Exception):
    """The site cannot be made, and why."""


def place(file: Path, root: Path) -> str:
    """Where a file of the repository stands in the site."""
    path = file.relative_to(root)
    if path == Path("README.md"):
        return "index.html"
    if path.suffix in (".ipynb", ".md"):
        return path.with_suffix(".html").as_posix()
    return path.as_posix() + ".html" * (path.suffix in TEXTS)


def notebook_of(file: Path, root: Path) -> nbformat.NotebookNode:
    """A notebook with its title; a text becomes one of a cell or two."""
    if file.suffix == ".ipynb":
        notebook = nbformat.read(file, as_version=4)
    elif file.suffix == ".md":
        notebook = v4.new_notebook(
            cells=[v4.new_markdown_cell(file.read_text("utf-8"))])
    else:
        notebook = v4.new_notebook(
            cells=[v4.new_markdown_cell(f"# `{file.relative_to(root)}`"),
                   v4.new_code_cell(file.read_text("utf-8"))],
            metadata={"language_info": {"name": TEXTS[file.suffix]}})
    heading = re.search("^# (.+)", notebook.cells[0].source, re.M)
    notebook.metadata.title = (
        heading[1].replace("`", "") if heading else file.stem)
    return notebook


def bar(file: Path, course: list[Path]) -> list[tuple[str, str]]:
    """Words and links of a page's bar: contents, the one before, the next."""
    contents, *notebooks = course
    before = {late: early for early, late in pairwise(notebooks)}
    targets = {"Contents": contents if file != contents else None,
               "← {}": before.get(file),
               "{} →": dict(pairwise(course)).get(file)}
    return [(words.format(target.stem.replace("_", " ")),
             os.path.relpath(target, file.parent))
            for words, target in targets.items() if target]


def follow(page: BeautifulSoup, file: Path, root: Path
           ) -> list[tuple[str, Path | None, str]]:
    """Turn the links of a page into links of the site.

    Gives each as it was, with the file to which it leads, or None, and the
    anchor in it. Links to other sites, and data in the page itself, stay.
    """
    links = []
    for tag in page.select("a[href], img[src]"):
        key = "href" if tag.name == "a" else "src"
        url = urlsplit(tag[key])
        if url.scheme or url.netloc:
            continue
        target = file
        if url.path:
            target = Path(os.path.normpath(file.parent / unquote(url.path)))
        found = target.is_file() and target.is_relative_to(root)
        links.append((tag[key], target if found else None,
                      unquote(url.fragment)))
        if found and url.path:
            path = posixpath.relpath(place(target, root),
                                     posixpath.dirname(place(file, root)))
            tag[key] = url._replace(path=quote(path)).geturl()
    return links


def render(root: Path = ROOT) -> dict[str, bytes]:
    """All files of the site: place -> content.

    Raises SiteError with every link that leads nowhere.
    """
    course = [root / "README.md",
              *sorted((root / "notebooks").glob("*.ipynb"))]
    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True,
        exclude_output_prompt=True,
        template_file=str(Path(__file__).with_suffix(".html.j2")),
        config=Config(NbConvertBase={"display_data_priority": FORMS}))
    site, anchors, links, waiting = {}, {}, [], course[::-1]
    while waiting:
        file = waiting.pop()
        if file in anchors:
            continue
        anchors[file] = set()
        content = file.read_bytes()
        if file.suffix in (".ipynb", ".md", *TEXTS):
            html, _ = exporter.from_notebook_node(
                notebook_of(file, root), {"links": bar(file, course)})
            page = BeautifulSoup(html, "html.parser")
            anchors[file] = {tag["id"] for tag in page.select("[id]")}
            for link, target, anchor in follow(page, file, root):
                links.append((file, link, target, anchor))
                waiting += [target] if target else []
            content = str(page).encode()
        site[place(file, root)] = content
    lost = [f"{file.relative_to(root)}: {link}"
            for file, link, target, anchor in links
            if target is None or anchor and anchor not in anchors[target]]
    if lost:
        raise SiteError("\n".join(["links that lead nowhere:", *lost]))
    return site


def write(site: dict[str, bytes], folder: Path) -> None:
    """Write the files of a site, and remove those of an earlier one."""
    listing, old = folder / LISTING, []
    if listing.is_file():
        old = listing.read_text("utf-8").splitlines()
    elif folder.is_file() or folder.is_dir() and any(folder.iterdir()):
        raise SiteError(f"{folder} is not empty, and this command did not "
                        "make it")
    for name in {*old} - {*site}:
        (folder / name).unlink(missing_ok=True)
    # the list first: if this is stopped, the next run knows all files
    for name, content in {LISTING: "\n".join(site).encode(), **site}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        beside.write_bytes(content)
        os.replace(beside, path)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lib.show.site",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site")
    folder = parser.parse_args(arguments).folder
    try:
        site = render()
        write(site, folder)
    except SiteError as error:
        parser.exit(1, f"{error}\n")
    size = sum(map(len, site.values())) / 1e6
    print(f"{folder / 'index.html'}: {len(site)} files, {size:.1f} MB")


if __name__ == "__main__":
    main()
