"""Does changed code give the same results? `python tests/same.py COMMIT [03]`

The registry marks every line as of earlier code as soon as the source of
anything that a run can reach has changed, also where the change cannot move
a bit. This trains all rows of a notebook, at the scale of its preset `tiny`,
with the code of COMMIT and with today's, on a CPU. Where every history, output
and score has the same bits, a line of notebooks/results/same.jsonl says that
runs of the one count as runs of the other, and which rows were compared. Else
it names the first row that differs, writes no line for this notebook and ends
with 1. A row of which no run by that code is recorded may differ: none can
count. Nor need a score be in both: a line never gets one that its run did not
measure. What another device would show is not asked: there, runs of one code
differ in their last bits too.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # behind another project's

NOTEBOOKS = ("00", "01", "02", "03", "04", "05", "05b", "06")
LIMIT = 1800  # seconds for a notebook


def trained(notebook):
    """Source, and what became of each row, of the project in this folder."""
    import torch
    import yaml

    from lib.lab.parameters import defaults
    from lib.lab.run import NOTEBOOKS as FOLDER
    from lib.lab.run import study_of

    torch.set_num_threads(1)
    presets = FOLDER / "presets" / notebook
    preset = presets / "tiny_of_all.yaml"
    rows = {name: defaults(notebook)[name] for name in ("variants", "seeds")}
    preset.write_text(yaml.safe_dump(rows | yaml.safe_load(
        (presets / "tiny.yaml").read_text("utf-8"))), "utf-8")
    try:
        study, _, _ = study_of(notebook, preset.stem)
    finally:
        preset.unlink()
    found = {}
    for row in study.rows:
        try:
            run = study.trained(row, 0)
            scores = {name: float(value) for name, value in
                      study._scores(run).items()}
            # as texts, since no NaN equals another
            found[row] = [repr([*map(dict, run.history)]),
                          {name: repr(value) for name, value in
                           scores.items()}, digest(run.outputs)]
        except (ValueError, KeyError, FileNotFoundError) as error:
            found[row] = f"{type(error).__name__}: {error}".replace(
                os.getcwd(), "")
    return {"source": study.source, "rows": found}


def digest(outputs):
    import torch

    text = hashlib.sha256()
    for name, value in sorted(outputs.items()):
        text.update(name.encode())
        if isinstance(value, torch.Tensor):
            text.update(repr(value.shape).encode())
            flat = value.detach().contiguous().flatten()
            text.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            text.update(repr(value).encode())
    return text.hexdigest()


def run_in(folder, notebook):
    """`trained`, by the code in a folder."""
    done = subprocess.run(
        [sys.executable, __file__, "--train", notebook], cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def counts(line, source):
    """Whether a registry's line is of this code; its key is as in `Study`."""
    text = json.dumps([line["variant"], line["seed"], line["params"], source],
                      sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16] == line["key"]


def alike(one, other):
    """Whether two codes did the same with a row, in all that both measure."""
    if not (type(one) is type(other) is list):
        return one == other
    shared = {*one[1]} & {*other[1]}
    return one[::2] == other[::2] and bool(shared) and all(
        one[1][name] == other[1][name] for name in shared)


def compare(was, now, notebook, lines):
    """The line that may be written; SystemExit if a recorded row differs."""
    recorded = {line["variant"] for line in lines
                if counts(line, was["source"])}
    same = [row for row, own in now["rows"].items()
            if alike(was["rows"].get(row), own)]
    for row in now["rows"]:
        if row not in same and row in recorded:
            raise SystemExit(f"{notebook}: {row} is not as it was")
    good = [row for row in same if type(now["rows"][row]) is list]
    if not good:
        raise SystemExit(f"{notebook}: no row could be trained")
    return {"notebook": notebook, "was": was["source"], "now": now["source"],
            "trained": good}


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit", nargs="?")
    parser.add_argument("notebooks", nargs="*")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.train:
        print(json.dumps(trained(chosen.train)))
        return
    from lib import ROOT
    from lib.lab.fingerprint import SAME
    from lib.lab.registry import Registry

    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        commit = subprocess.run(
            ["git", "rev-parse", "--short", chosen.commit], cwd=ROOT,
            check=True, timeout=60, stdout=subprocess.PIPE, text=True)
        subprocess.run(["git", "worktree", "add", "--detach", old,
                        chosen.commit], cwd=ROOT, check=True, timeout=60)
        try:
            for notebook in chosen.notebooks or NOTEBOOKS:
                lines = Registry(f"notebooks/results/{notebook}.jsonl").lines()
                line = compare(
                    run_in(old, notebook), run_in(ROOT, notebook), notebook,
                    lines)
                if line["was"] != line["now"]:
                    with SAME.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(
                            line | {"commit": commit.stdout.strip()}) + "\n")
                print(f"{notebook}: the same bits in {len(line['trained'])} "
                      "rows", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", old],
                           cwd=ROOT, check=True, timeout=60)


if __name__ == "__main__":
    main(sys.argv[1:])
