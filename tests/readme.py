"""Fill the README from what was recorded: `python tests/readme.py`.

No number is typed: between `<!--03-->` and `<!--/03-->` stands what this file
makes of the runs in notebooks/results/03.jsonl that have the settings of
notebooks/presets/03/lab.yaml. The picture is the first one of the cell tagged
`readme` in notebook 03. `tests/test_readme.py` fails when either is
out of date.
"""

import base64
import json
import math
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.lab.registry import Registry  # noqa: E402
from lib.lab.tables import (
    as_text,  # noqa: E402
    summarise,  # noqa: E402
)
from lib.networks import cnn3d  # noqa: E402
from lib.networks.pretrained import fingerprint  # noqa: E402

PICTURE = ROOT / "notebooks" / "results" / "where_and_when.jpg"
# without and with attention, by notebook
ROWS = {"01": ("baseline", "full"), "02": ("FC, woTA", "FC, wiTA"),
        "03": ("baseline", "full"),
        "04": ("two streams: baseline", "two streams: STA-TS(3x3, 3x1)"),
        "05": ("plain", "STA")}


def preset(notebook: str) -> dict:
    """The settings of the runs that the README reports, as lines have them."""
    file = ROOT / "notebooks" / "presets" / notebook / "lab.yaml"
    chosen = yaml.safe_load(file.read_text(encoding="utf-8"))
    name, weights = chosen["backbone"], chosen["weights"]
    if notebook == "04":  # whose rows start from several weights
        return chosen
    if name in cnn3d.MAKERS:
        start = fingerprint(name, weights)
        return chosen | {"start": start if notebook == "02" else [start]}
    digest = fingerprint(name, weights)
    if "fields" in chosen:  # a second network, on flow
        digest = [digest, fingerprint(name, weights, 2 * chosen["fields"])]
    return chosen | {"weights": digest}


def result(notebook: str) -> str:
    """One cell of the table of papers: accuracy with and without attention."""
    (without, with_it), chosen = ROWS[notebook], preset(notebook)
    lines = []
    for line in Registry(f"notebooks/results/{notebook}.jsonl").lines():
        had = line["params"] | {
            name: line[name] for name in ("dataset", "split", "n_test")
        }
        same = all(had[name] == chosen[name] for name in had.keys() & chosen)
        if same and line["variant"] in (without, with_it):
            lines.append(line)
    # a run that was repeated after a change stands for the older ones
    newest = {(line["variant"], line["seed"]): line for line in lines}
    if {variant for variant, _ in newest} != {without, with_it}:
        return "not yet"
    table = summarise(newest.values(), "top-1", without)
    base, full = 100 * table.loc[without], 100 * table.loc[with_it]
    gain, width = full["difference"], full["difference_interval"]
    clear = not math.isnan(width) and abs(gain) > width
    return (
        f"{full['mean']:.1f} %, without attention {base['mean']:.1f} %"
        f" (difference {as_text(gain, '+.1f', width)}"
        f"{'' if clear else ', too small to tell'})"
    )


def render(text: str) -> str:
    """The README with every marked result filled in."""
    return re.sub(
        r"(<!--(\d\d)-->).*?(<!--/\2-->)",
        lambda found: f"{found[1]}{result(found[2])}{found[3]}", text,
    )


def picture() -> bytes:
    """The JPEG that notebook 03 shows in its cell tagged `readme`."""
    path = ROOT / "notebooks" / "03_where_and_when.ipynb"
    (cell,) = (
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if "readme" in cell["metadata"].get("tags", ())
    )
    images = [out["data"]["image/jpeg"] for out in cell["outputs"]
              if "image/jpeg" in out.get("data", {})]
    return base64.b64decode("".join(images[0]))


if __name__ == "__main__":
    PICTURE.write_bytes(picture())
    readme = ROOT / "README.md"
    text = render(readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
