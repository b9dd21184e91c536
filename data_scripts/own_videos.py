"""Train on your own videos and test on each group that was left out.

    python data_scripts/own_videos.py DIR --notebook 03

DIR holds a folder for each class, perhaps with a folder for each person in
it, or is a list (see lib/data/sets/entries.py). This says what it finds and
what it must leave out. Then it runs the notebook once for each group, without
that group in training; with more than five groups, or none, once for each
fifth of the videos. The settings are those of presets/NN/own.yaml. It prints
how many videos each row gets right, of each group and of all together, with a
95 % interval (Wilson's, as if videos were independent; those of one person
are not quite). The notebooks with their pictures stay in --out.
"""

import argparse
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml  # noqa: E402

from lib import ROOT  # noqa: E402
from lib.data.sets import folder  # noqa: E402
from lib.lab.registry import Registry  # noqa: E402

AT_ONCE = 2
# Two at a time on two cores, with this environment's kernel.
CALM = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_PLATFORM_DIRS": "1"}


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, of which `right` of `n` were seen."""
    z = 1.959964
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return middle - half, middle + half


def run(notebook: str, output: Path, given: dict, minutes: float) -> str:
    """Run a notebook by papermill; what went wrong, or nothing."""
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    preset = ROOT / "notebooks/presets" / notebook / "own.yaml"
    command = [sys.executable, "-m", "papermill", str(path), str(output),
               "--kernel", "python3", "--no-progress-bar", "-f", str(preset),
               "-y", yaml.safe_dump(given, allow_unicode=True)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | CALM,
                              capture_output=True, text=True,
                              timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return f"took more than {minutes:g} minutes: --minutes allows more"
    return done.stderr.strip()[-2000:] if done.returncode else ""


def table(lines: list[dict], rounds: list[str]) -> str:
    """Videos that are right: rows by rounds, and all together."""
    said = []
    for row in dict.fromkeys(line["variant"] for line in lines):
        own = {line["split"]: line for line in lines if line["variant"] == row}
        right = n = 0
        for split in rounds:
            if line := own.get(split):
                hits = round(line["metrics"]["top-1"] * line["n_test"])
                right, n = right + hits, n + line["n_test"]
                said.append(f"{row:28} {split:16} {hits:4} of "
                            f"{line['n_test']:4}")
        low, high = wilson(right, n)
        said.append(f"{row:28} {'together':16} {right:4} of {n:4}: "
                    f"{right / n:.1%}, interval {low:.1%} to {high:.1%}")
    return "\n".join(said)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if a round has failed or there are no videos."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", type=Path, metavar="DIR")
    parser.add_argument("--notebook", default="03",
                        choices=["01", "02", "03", "04", "05"])
    parser.add_argument("--out", type=Path, default=Path("out_own_videos"))
    parser.add_argument("--minutes", type=float, default=20,
                        help="that a round may take")
    chosen = parser.parse_args(arguments)
    root, out = chosen.videos.expanduser().absolute(), chosen.out.absolute()
    try:
        found = folder.find(root)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(found)
    out.mkdir(parents=True, exist_ok=True)
    results, rounds = out / f"{chosen.notebook}.jsonl", found.rounds()
    results.unlink(missing_ok=True)  # its lines may be of other videos

    def one(split: str) -> str:
        name = re.sub(r"[^\w-]+", "_", split)
        return run(chosen.notebook, out / f"{chosen.notebook}_{name}.ipynb", {
            "dataset": "folder", "data_root": str(root), "split": split,
            "results": str(results)},
            chosen.minutes)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = 0
        for split, fault in zip(rounds, pool.map(one, rounds), strict=True):
            print(f"{split}: {fault or 'done'}", flush=True)
            failed += bool(fault)
    lines = [line for line in Registry(results).lines()
             if line["split"] in rounds]
    if lines:
        print(f"\n{table(lines, rounds)}\nchance is "
              f"{1 / len(found.classes):.1%}; the notebooks are in {out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
