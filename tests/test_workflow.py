"""The workflow does what the README says, and no more."""

import re

import yaml
from refresh import ROOT
from test_readme import BLOCKS, TEXT

FILE = ROOT / ".github" / "workflows" / "tests.yml"
WORKFLOW = yaml.safe_load(FILE.read_text(encoding="utf-8"))
JOB = WORKFLOW["jobs"]["tests"]
RUNS = JOB["strategy"]["matrix"]["include"]


def test_it_runs_the_readmes_command():
    commands = [step["run"] for step in JOB["steps"] if "run" in step]
    assert commands == [BLOCKS[1].strip()]


def test_it_runs_on_the_systems_and_the_pythons_of_the_readme():
    oldest, newest = re.search(
        r"Python (3\.\d+) to (3\.\d+), on Linux or macOS", TEXT).groups()
    assert {run["os"].split("-")[0] for run in RUNS} == {"ubuntu", "macos"}
    pythons = sorted(run["python"] for run in RUNS)
    assert [pythons[0], pythons[-1]] == [oldest, newest]


def test_it_may_read_and_must_end():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert JOB["timeout-minutes"] <= 60
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
