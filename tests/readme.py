"""Fill the README from what was recorded: `python tests/readme.py`.

No number is typed: between `<!--03-->` and `<!--/03-->` stands what this file
makes of the runs in notebooks/results/03.jsonl that have the settings of
notebooks/presets/03/lab.yaml. The picture is the first one of the cell tagged
`readme` in notebook 03. `tests/test_readme.py` fails when either is
out of date.
"""

import base64
import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.lab import parameters, tables  # noqa: E402
from lib.lab.registry import Registry  # noqa: E402

PICTURE = ROOT / "notebooks" / "results" / "where_and_when.jpg"
# without and with attention, by notebook
ROWS = {"01": ("baseline", "full"), "02": ("FC, woTA", "FC, wiTA"),
        "03": ("baseline", "full"),
        "04": ("two streams: baseline", "two streams: STA-TS(3x3, 3x1)"),
        "05": ("plain", "STA")}


def recorded(notebook: str) -> list[dict]:
    """The newest line of each run of the two rows in the lab preset."""
    file = ROOT / "notebooks" / "presets" / notebook / "lab.yaml"
    chosen = parameters.defaults(notebook) | yaml.safe_load(
        file.read_text(encoding="utf-8"))
    about = {"notebook": notebook, "dataset": chosen["dataset"],
             "split": chosen["split"], "key": "",
             "params": parameters.settings(chosen)}
    heads = [about | {"variant": row, "seed": seed}
             for row in ROWS[notebook] for seed in chosen["seeds"]]
    lines = Registry(f"notebooks/results/{notebook}.jsonl").lines()
    return tables.Records.of(lines, heads).lines


def result(notebook: str) -> str:
    """One cell of the table of papers: accuracy with and without attention."""
    without, with_it = ROWS[notebook]
    runs = tables.values(recorded(notebook), "top-1")
    if {*runs} != {without, with_it}:
        return "not yet"
    base, full = (100 * tables.mean([*runs[row].values()])[0]
                  for row in (without, with_it))
    gain, width = (100 * x for x in tables.mean(
        tables.gains(runs, with_it, without)))
    clear = abs(gain) > width
    return (f"{full:.1f} %, without attention {base:.1f} % (difference "
            f"{tables.as_text(gain, width, '+.1f')}"
            f"{'' if clear else ', too small to tell'})")


def render(text: str) -> str:
    return re.sub(
        r"(<!--(\d\d)-->).*?(<!--/\2-->)",
        lambda found: f"{found[1]}{result(found[2])}{found[3]}", text)


def picture() -> bytes:
    """The JPEG that notebook 03 shows in its cell tagged `readme`."""
    path = ROOT / "notebooks" / "03_where_and_when.ipynb"
    (cell,) = (
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if "readme" in cell["metadata"].get("tags", ()))
    images = [out["data"]["image/jpeg"] for out in cell["outputs"]
              if "image/jpeg" in out.get("data", {})]
    return base64.b64decode("".join(images[0]))


if __name__ == "__main__":
    PICTURE.write_bytes(picture())
    readme = ROOT / "README.md"
    text = render(readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
