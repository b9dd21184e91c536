"""What the README says is there, runs, and is rendered from the records."""

import re
import shutil
import subprocess
import sys

import readme
import yaml

ROOT = readme.ROOT
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.S)


def test_results_are_rendered_from_the_registry():
    assert readme.render(TEXT) == TEXT, "run python tests/readme.py"


def test_picture_is_the_notebooks():
    assert readme.PICTURE.read_bytes() == readme.picture()


def test_a_result_follows_its_registry(monkeypatch):
    """Runs of the preset count, repeated ones once, others not at all."""
    lab = {"notebook": "03", "dataset": readme.chosen("03")["dataset"]}
    where = lab | {"split": "1"}
    steps = readme.chosen("03")["steps"]

    def run(variant, seed, accuracy, **other):
        return {"variant": variant, "seed": seed, "key": "k",
                "params": {"steps": steps}, "metrics": {"top-1": accuracy}
                } | where | other

    base, full = (
        [run(v, s, accuracy + 0.01 * s * s) for s in range(5)]
        for v, accuracy in (("baseline", 0.5), ("full", 0.6)))
    strange = [
        run("full", 0, 0.0, **other) for other in (
            {"dataset": "ut_interaction"}, {"split": "2"},
            {"params": {"steps": 5}})]
    old = [run("full", 0, 0.0)]
    lines = [*old, *base, *full, *strange]
    rivals = [run(name, seed, accuracy) for seed in range(5) for
              name, accuracy in (("plain mean", 0.4), ("true both", 0.9))]
    monkeypatch.setattr(readme.Registry, "lines", lambda self: lines)
    monkeypatch.setattr(readme.oracles, "rivals", lambda *about: rivals)
    world, *cells = readme.result("03").split(" | ")
    assert world == f"*{lab['dataset']}*"
    assert [cell.split(" ± ")[0] for cell in cells] == [
        "40.0", "56.0", "66.0", "+10.0", "90.0"]
    for some, wanted in (([], [0, 1, 1, 1, 0]), (base, [0, 0, 1, 1, 0]),
                         (base + strange, [0, 0, 1, 1, 0])):
        lines[:] = some
        cells = readme.result("03").split(" | ")[1:]
        assert [cell == "not yet" for cell in cells] == [*map(bool, wanted)]


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
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert pytest_call in ci.replace('"', "")


def test_commands_name_files_that_exist():
    large = (ROOT / "LARGE_RUNS.md").read_text(encoding="utf-8")
    for block in BLOCKS + re.findall(r"```sh\n(.*?)```", large, re.S):
        for name in re.findall(r"(?:notebooks|data_scripts)/[\w./]+", block):
            assert (ROOT / name).exists(), name


def test_papermill_lists_the_parameters():
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--help-notebook",
         "notebooks/03_where_and_when.ipynb"], cwd=ROOT, timeout=120,
        capture_output=True, text=True)
    assert done.returncode == 0 and "seed" in done.stdout, done.stderr


def test_a_copied_piece_works_as_it_says(tmp_path):
    """In a folder of its own, with a network from torchvision."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    shutil.copy(ROOT / "lib/papers/where_and_when.py", tmp_path)
    (tmp_path / "use.py").write_text(f"""
import torch
video, label = torch.rand(2, 3, 3, 64, 64), torch.tensor([1, 2])
{code}
assert out.logits.shape == (2, 51) and out.where.shape == (2, 3, 2, 2)
large = WhereAndWhen(channels=2048, classes=51)
print(f"{{sum(p.numel() for p in large.parameters()) / 1e6:.1f}} million")
""")
    done = subprocess.run([sys.executable, "use.py"], cwd=tmp_path,
                          timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in TEXT.replace("\n", " ")


def test_environment_has_one_list_of_packages():
    """environment.yml parses and points at requirements.txt, which says why
    each package is there."""
    environment = yaml.safe_load(
        (ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    packages = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for line in packages.splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[\w-]+[<>=.,\d]+ +# .+", line), line
