"""Fill the README from what was recorded: `python tests/readme.py`.

No number is typed: between `<!--03-->` and `<!--/03-->` stands what this file
makes of the runs in notebooks/results/03.jsonl that have the settings of
notebooks/presets/03/lab.yaml (04: lab_lights.yaml). The picture is the first
one of the cell tagged `readme` in notebook 03. `tests/test_readme.py` fails
when either is out of date.
"""

import base64
import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.lab import oracles, parameters, tables  # noqa: E402
from lib.lab.registry import Registry  # noqa: E402

PICTURE = ROOT / "notebooks" / "results" / "where_and_when.jpg"
# without and with attention, and the features of the rivals, by notebook
ROWS = {"01": ("joint LSTMs", "full", "frames"),
        "02": ("no block, woTA", "no block, wiTA", "clips"),
        "03": ("baseline", "full", "frames"),
        "04": ("baseline", "TAM-TS(9, 1)", "frames"),
        "05": ("frozen: plain", "frozen: STA", "clips")}
PRESETS = {"04": "lab_lights"}  # of the others: lab
ORACLE = {"crowd": "true where", "lights": "true when", "stage": "true both"}


def chosen(notebook: str) -> dict:
    """The parameters of the preset."""
    name = PRESETS.get(notebook, "lab")
    file = ROOT / "notebooks" / "presets" / notebook / f"{name}.yaml"
    return parameters.defaults(notebook) | yaml.safe_load(
        file.read_text(encoding="utf-8"))


def recorded(notebook: str) -> list[dict]:
    """The newest line of each run of the two rows in the preset."""
    given = chosen(notebook)
    about = {"notebook": notebook, "dataset": given["dataset"],
             "split": given["split"], "key": "",
             "params": parameters.settings(given)}
    heads = [about | {"variant": row, "seed": seed}
             for row in ROWS[notebook][:2] for seed in given["seeds"]]
    lines = Registry(f"notebooks/results/{notebook}.jsonl").lines()
    return tables.Records.of(lines, heads).lines


def result(notebook: str) -> str:
    """World, plain mean, without and with attention, gain, oracle: cells."""
    without, with_it, kind = ROWS[notebook]
    world = chosen(notebook)["dataset"]
    runs = tables.values(
        recorded(notebook) + oracles.rivals(world, kind), "top-1")
    rows = ("plain mean", without, with_it,
            ORACLE.get(world.removesuffix("_long"), "true both"))
    cells = [f"*{world}*", *(
        tables.percent([*runs[row].values()]) if row in runs else "not yet"
        for row in rows)]
    gain = tables.mean(tables.gains(runs, with_it, without))
    cells.insert(4, "not yet" if "not yet" in cells[2:4] else tables.as_text(
        *(100 * part for part in gain), "+.1f"))
    return " | ".join(cells)


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
