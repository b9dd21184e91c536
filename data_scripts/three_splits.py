"""Average recorded runs over the three official splits of a data set.

    python data_scripts/three_splits.py notebooks/results/01.jsonl ucf101

prints mean and difference to the baseline of every variant that has a run
on each split (-p split 1, 2, 3 with the preset of the data set): what the
papers report for UCF101, HMDB51 and JHMDB. Runs of different settings are
not mixed; of several the last counts, whatever the code was then.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.lab import tables  # noqa: E402
from lib.lab.registry import Registry  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if no variant has all three splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("registry", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--metric", default="top-1")
    parser.add_argument("--baseline", default="baseline")
    options = parser.parse_args(arguments)
    lines = [line for line in Registry(options.registry.absolute()).lines()
             if line["dataset"] == options.dataset]
    means = tables.over_splits(lines, options.metric)
    if not means:
        print(f"no variant of {options.dataset} has runs on splits 1, 2 and "
              f"3 with {options.metric!r} in {options.registry}")
        return 1
    rows = dict.fromkeys(line["variant"] for line in means)
    print(tables.overview(means, rows, [options.metric], options.baseline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
