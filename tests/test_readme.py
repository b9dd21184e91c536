"""What the README says is there, runs, and is rendered from the records."""

import re
import subprocess
import sys

import pytest
import readme
import yaml

ROOT = readme.ROOT
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.S)


def test_results_are_rendered_from_the_registry():
    assert readme.render(TEXT) == TEXT, "run python tests/readme.py"


def test_picture_is_the_notebooks():
    assert readme.PICTURE.read_bytes() == readme.picture()


def test_a_result_follows_its_registry(monkeypatch):
    lines = [
        {"variant": v, "seed": s, "dataset": "puppets",
         "metrics": {"top-1": 0.5 + 0.1 * (v == "full") + 0.01 * s * s}}
        for v in ("baseline", "full") for s in range(3)
    ]
    monkeypatch.setattr(readme.Registry, "lines", lambda self: lines)
    assert readme.result("99").startswith("61.7 %, without attention 51.7 %")
    assert "+10.0" in readme.result("99")
    monkeypatch.setattr(readme.Registry, "lines", lambda self: [])
    assert readme.result("99") == "not yet"


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_two_commands_come_early():
    before = TEXT[:TEXT.index("```sh")]
    assert len(before.splitlines()) <= 60
    run, tests = BLOCKS[0], BLOCKS[1]
    assert "papermill notebooks/03_where_and_when.ipynb" in run
    pytest_call = tests.strip().split("/bin/")[-1]
    assert pytest_call in (ROOT / ".ci" / "run").read_text()


def test_commands_name_files_that_exist():
    for block in BLOCKS:
        for name in re.findall(r"(?:notebooks|data_scripts)/[\w./]+", block):
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("command", [
    "papermill --help-notebook notebooks/03_where_and_when.ipynb",
    "data_scripts/puppets.py --help",
    "data_scripts/pretrain_backbone.py --help",
])
def test_help_is_there(command):
    words = command.split()
    module = ["-m"] if words[0] == "papermill" else []
    done = subprocess.run(
        [sys.executable, *module, *words], cwd=ROOT, timeout=120,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "seed" in done.stdout or "steps" in done.stdout


def test_environment_has_one_list_of_packages():
    """environment.yml parses and points at requirements.txt, which says why
    each package is there."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {
        "pip": ["-r requirements.txt"]
    }
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[\w-]+[<>=.,\d]+ +# .+", line), line
