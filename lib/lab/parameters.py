"""One check of a notebook's parameters, before anything is read or trained.

papermill hands over what it was given: `-p released false` is a text, and so
true; `lr: 1e-3` is a text to YAML. `check` compares every parameter with its
annotation and with the tables below, which all notebooks share.
"""

import ast
import difflib
import hashlib
import json
import math
import reprlib
import sys
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lib import ROOT
from lib.data import datasets, decode
from lib.data.datasets import PUPPETS
from lib.data.sets import SETS, folder
from lib.data.sets.records import data_folder
from lib.lab import training
from lib.lab.registry import Registry
from lib.networks.cnn2d import PUBLISHED, SMALL
from lib.networks.released3d import MAKERS, TORCHVISION
from lib.worlds import actions

RATES = ("lr", "lr_finetune", "lr_san", "rates")
RANGES = {  # the least and the most, of lists that of each item
    "n_train": (1, 10**6), "n_val": (1, 10**6),
    "n_test": (8, 10**6),  # the pictures show the first eight
    "frames": (1, 10_000), "frames_test": (0, 10_000), "window": (0, 10_000),
    "sampled": (4, 10_000),
    "size": (32, 1024), "crop": (32, 1024),  # networks halve it five times
    "fields": (1, 50), "clips": (1, 1000), "top": (1, 10_000),
    "hidden": (1, 2**14), "units": (1, 2**14), "mask_channels": (1, 2**14),
    "batch": (1, 10_000), "batch_t": (1, 10_000), "checks": (1, 10_000),
    **dict.fromkeys(("steps", "steps_t", "steps_flow", "epochs"), (1, 10**8)),
    **dict.fromkeys(("finetune", "san_steps"), (0, 10**8)),
    **dict.fromkeys(RATES, (1e-9, 10.0)),
    "decay": (0.0, 1.0), "dropout": (0.0, 0.99), "actor": (0.0, 1e3),
    "alpha": (0.0, 1e6), "lr_share": (0.0, 1.0),
    "gate_ratio": (1e-3, 1e3),
    "gamma": (1e-3, 1e3), "seeds": (0, 2**31 - 1),
    "lengths": (2, 10_000), "scales": (1, 1000), "rate": (0.1, 1e3),
    "proposals": (1, 10_000), "stride": (4, 8),
}
LISTS = {  # what the items are, how many (0: any), and an example
    "classes": (str, 0, "[walk, jump]"), "variants": (str, 0, "[NAME, NAME]"),
    "seeds": (int, 0, "[0, 1]"), "mask_channels": (int, 2, "[32, 16]"),
    "gamma": (float, 2, "[1.0, 1.0]"), "lengths": (int, 0, "[16, 32]"),
    "scales": (int, 0, "[2, 4, 8]"),
}
CHOICES = {
    "dataset": (*PUPPETS, *SETS), "other": (*PUPPETS, *SETS),
    "device": ("auto", "cpu", "cuda"), "crops": (1, 2, 10),
    "optimiser": ("adamw", "sgd"), "optimiser_t": ("adamw", "rmsprop"),
    "clip_backbone": ("resnet3d_small", "c3d_small"),
    "san": ("small", "full"), "san_weights": ("puppets", "none"),
    "san_target": ("exact", "dis", "raft", "flying_chairs"),
}
# Backbones, for `check`, each with the weights that it has.
FRAMES = {name: (*own, "none", "*.safetensors") for names, own in (
    (SMALL, ["puppets"]), (PUBLISHED, ["imagenet"]), (["bninception"], []))
    for name in names}
CLIPS = {"resnet3d_small": ("puppets", "none"),
         "resnet3d": ("kinetics", "none")}
WINDOWS = CLIPS | dict.fromkeys(TORCHVISION, ("kinetics", "none")) | {
    name: ("none",) for name in MAKERS if not name.endswith("_flow")}
# Texts without annotation: no part of what a run is known by.
KEPT = ("keep_model", "use_model")
KINDS = {int: "a whole number", float: "a number", bool: "True or False",
         str: "a text", list: "a list", dict: "a dict"}


class ParameterError(ValueError):
    """Parameters that cannot be; the message has a line for each."""


def check(notebook: Mapping[str, Any], **choices: Collection | range) -> None:
    """Raise one ParameterError that names every parameter that cannot be.

    notebook: its `globals()`. What stands there before this module was
        imported are its parameters, annotated in the cell tagged
        `parameters`; what else was set there is unknown.
    choices: what one notebook alone allows, by parameter: names (of a
        backbone a mapping, each with the weights that it has), or a range
        of numbers. The items of a list and the keys of a dict are of them.
    """
    kinds = notebook["__annotations__"] | {
        name: str for name in KEPT if name in notebook}
    given = {name: notebook[name] for name in kinds}
    if type(given.get("split")) is int:  # what -p split 2 hands over
        given["split"] = str(given["split"])
    faults = _unknown(notebook, kinds)
    for name, value in given.items():
        allowed = choices.get(name, CHOICES.get(name))
        if words := _fault(name, kinds[name], value, allowed):
            how = _how(name, kinds[name], allowed)
            faults[name] = f"{words}; papermill: {how}"
    sound = {k: v for k, v in given.items() if k not in faults}
    faults |= dict(_together(sound, choices)) | dict(_opened(sound))
    if faults:
        raise ParameterError("\n".join([
            f"{len(faults)} of the parameters cannot be so:",
            *(f"  {name} = {reprlib.repr(notebook[name])}: {words}"
              for name, words in faults.items()),
            "papermill also takes them from a file: -f FILE.yaml"]))


def _unknown(notebook: Mapping, kinds: Collection[str]) -> dict[str, str]:
    """What was set beside the parameters: papermill only warns of it."""
    faults = {}
    for name, value in notebook.items():
        if value is sys.modules[__name__]:
            break  # what follows is the notebook's own, if it runs again
        literal = value is None or type(value) in KINDS
        if literal and name not in (*kinds, "In", "Out") and name[0] != "_":
            near = difflib.get_close_matches(name, kinds, 1)
            faults[name] = "there is no such parameter; " + (
                f"do you mean {near[0]}?" if near
                else f"there are {', '.join(kinds)}")
    return faults


def _fault(name: str, kind: type, value: Any,
           allowed: Collection | None) -> str:
    """What a parameter must be, in words; nothing if it is so."""
    item, count, _ = LISTS.get(name, (
        float if name == "rates" else kind, 0, ""))
    low, high = RANGES.get(name, (-math.inf, math.inf))
    step = 1
    if isinstance(allowed, range):
        low, high, step, allowed = allowed[0], allowed[-1], allowed.step, None
    each = KINDS[item]
    if allowed is not None:
        each = f"one of {', '.join(map(str, allowed))}"
    elif high < math.inf:
        each += f" from {low:,} to {high:,}" + (
            f" in steps of {step}" if step > 1 else "")
    if item is float and type(value) is str:
        each += " (to YAML 1e-3 is a text, 1.0e-3 a number)"

    def right(x: Any) -> bool:
        known = type(x) is item or item is float and type(x) is int
        return known and (item not in (int, float) or low <= x <= high) and (
            step == 1 or (x - low) % step == 0) and (
            allowed is None or x in allowed)

    if name == "rates":
        rows, allowed = allowed, None  # of the keys, not of the numbers
        fine = type(value) is dict and {*value} <= {*(rows or value)} and all(
            map(right, value.values()))
        return "" if fine else (
            f"must be a dict of rows, each with a rate from {low} to {high}")
    if kind is dict and allowed:
        fine = type(value) is dict and {*value} <= {*allowed} and all(
            type(x) is str for x in value.values())
        return "" if fine else f"must be a dict of texts, by {each}"
    if name not in LISTS:
        return "" if right(value) else f"must be {each}"
    must = f"must be a list of {count or 'any number'}, each {each}"
    if type(value) is not list or (
            len(value) != count if count else not value and name != "classes"):
        return must
    for x in value:
        if not right(x):
            near = difflib.get_close_matches(str(x), map(str, allowed or ()))
            return f"{must}; not {x!r}" + (
                f": do you mean {near[0]!r}?" if near else "")
        if not count and value.count(x) > 1:
            return f"{must}; {x!r} is there twice"
    return ""


def _how(name: str, kind: type, allowed: Collection | None) -> str:
    """How papermill is told a parameter of this type."""
    if kind in (int, float):
        return f"-p {name} NUMBER"
    if kind is bool:
        return f"-p {name} True or -p {name} False"
    some = [str(x) for x in allowed or ()]
    if kind is list:
        example = json.dumps(some[:2]) if some else LISTS[name][2]
        return f"-y '{{{name}: {example}}}'"
    if name == "rates":
        return "-y '{rates: {ROW: NUMBER}}'"
    if kind is dict:
        return f"-y '{{{name}: {{{(*some, 'NAME')[0]}: FILE}}}}'"
    # -r does not read a number or None from a text, as -p does
    return f"-r {name} {(*some, 'TEXT')[0]}"


def _together(given: Mapping, choices: Mapping) -> Iterator[tuple[str, str]]:
    """Parameters that do not go with each other."""
    built_in = given.get("dataset") in PUPPETS
    if built_in and str(given.get("split", "1")) != "1":
        yield "split", "puppets have the split 1 only; papermill: -p split 1"
    unknown = {*given.get("classes", ())} - {*actions.CLASSES}
    if built_in and unknown:
        yield "classes", (
            f"puppets do not show {', '.join(sorted(unknown))}, but "
            f"{', '.join(actions.CLASSES)}; papermill: "
            f"{_how('classes', list, None)}")
    if given.get("san_target") == "exact" and "dataset" in given and (
            not built_in):
        yield "san_target", ("only puppets know their exact flow; papermill: "
                             "-p san_target dis")
    if (given.get("san"), given.get("san_weights")) == ("full", "puppets"):
        yield "san_weights", ("only the small attention network has them; "
                              "papermill: -p san_weights none")
    for small, large in (("window", "frames"), ("crop", "size")):
        if given.get(small, 0) > given.get(large, math.inf):
            yield small, (f"more than {large} = {given[large]}; papermill: "
                          f"-p {small} {given[large]}, or a larger {large}")
    if "sampled" in given and given.get("frames", 0) % given["sampled"]:
        yield "sampled", (f"frames = {given['frames']} is no multiple of it; "
                          "papermill: -p sampled NUMBER, or other frames")
    if given.get("dials"):
        try:
            datasets.turned(given["dataset"], given["dials"])
        except (KeyError, TypeError, ValueError) as error:
            yield "dials", (f"{error}; of built-in worlds only, papermill: "
                            "-y '{dials: {rivals: [2, 2]}}'")
    pixels = given.get("frames", 0) * given.get("size", 0) ** 2
    if pixels > 2**30:
        yield "frames", (
            f"one video with size = {given['size']} takes "
            f"{3 * pixels / 1e9:.0f} GB; papermill: -p frames NUMBER")
    for name, known in choices.items():
        weights = name.replace("backbone", "weights")
        if weights != name and {name, weights} <= {*given}:
            fit = known[given[name]]
            if not any(fnmatch(given[weights], each) for each in fit):
                yield weights, (
                    f"with {name} = {given[name]!r} it must be one of "
                    f"{', '.join(fit)}; papermill: -p {weights} {fit[0]}")
    if "device" in given:
        try:
            training.find_device(given["device"])
        except ValueError as error:
            yield "device", f"{error}; papermill: -p device auto"


def _opened(given: Mapping) -> Iterator[tuple[str, str]]:
    """The user's own files, which would else be read after all training."""
    from lib.lab import kept  # which imports this module

    if given.get("use_model") and not given.get("video"):
        yield "video", "use_model is asked about it; papermill: -p video FILE"
    for name, read in (
            ("keep_model", kept.free), ("use_model", kept.load),
            ("video", lambda x: decode.probe(
                Path(x).absolute()).require_whole()),
            ("results", lambda x: Registry(x).lines())):
        try:
            if given.get(name):
                read(given[name])
        except (OSError, ValueError) as error:
            what = "FOLDER" if name.endswith("model") else "FILE"
            yield name, f"{error}; papermill: -p {name} {what}"
    if given.get("dataset") == "folder":
        yield from _own(given)
    if given.get("keep") and (ROOT / given["keep"]).is_file():
        yield "keep", "this is a file; papermill: -p keep FOLDER"


def _own(given: Mapping) -> Iterator[tuple[str, str]]:
    """A folder or a list of the user's own videos, and what can be split."""
    root = given.get("data_root")
    if not root:
        yield "data_root", ("names the folder of your videos, or your list; "
                            "papermill: -p data_root DIR")
        return
    try:
        lists = folder.read(data_folder(root), given.get("split", "1"))
        if unknown := {*given.get("classes", ())} - {*lists.classes}:
            yield "classes", (f"your videos show no "
                              f"{', '.join(sorted(unknown))}; papermill: "
                              "-y '{classes: []}'")
    except (OSError, ValueError) as error:
        if str(error).startswith("split "):
            yield "split", f"{error}; papermill: -r split NAME"
        else:
            yield "data_root", f"{error}; papermill: -p data_root DIR"


# These say where to read and write, and how much to train, not what a run
# comes to.
APART = ("data_root", "device", "keep", "results", "seeds", "variants",
         "video")


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a notebook's parameters that shape the result of a run.

    values: a notebook's `globals()`, or parameters by name.
    """
    found = {name: values[name]
             for name in values.get("__annotations__", values)
             if name not in APART}
    return found | {"split": str(found["split"])}


def digest(values: Mapping[str, Any]) -> str:
    """16 hex digits that tell these settings from others."""
    text = json.dumps(settings(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def defaults(notebook: str) -> dict[str, Any]:
    """The parameters of a notebook by its number, as its file has them."""
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (source,) = ("".join(cell["source"]) for cell in cells
                 if "parameters" in cell["metadata"].get("tags", ()))
    return {node.target.id: ast.literal_eval(node.value)
            for node in ast.parse(source).body
            if isinstance(node, ast.AnnAssign)}
