"""Models that you keep: saved by a notebook, asked about any video later.

    papermill notebooks/03_where_and_when.ipynb out.ipynb -p keep_model FOLDER
    python -m lib.lab.kept FOLDER clip.mp4 --out seen.mp4

    model = load("FOLDER")
    model("clip.mp4").probabilities  # {"jump": 0.8, ...}

The folder holds `model.safetensors`, the weights of the frozen networks and
of the paper's model, and `README.md`, its card: a head in YAML that says how
to build them, and the same in words. Neither can run code.
"""

import argparse
import hashlib
import inspect
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors
from torch import Tensor, nn

from lib import ROOT
from lib.data.datasets import Videos
from lib.data.sets.records import Record
from lib.data.snippets import Streams
from lib.data.store import replacing
from lib.lab import processes
from lib.lab.registry import commit
from lib.lab.training import evaluating
from lib.lab.whole import PAPERS, Whole
from lib.scores import metrics
from lib.show import figures

WEIGHTS, CARD = "model.safetensors", "README.md"
READ = ("frames", "size", "crop", "fields")  # how a video is read


def free(folder: str | Path) -> Path:
    """The folder from the project's root, if a model may be kept there.

    Raises FileExistsError if it holds anything else than a kept model.
    """
    folder = ROOT / Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or {
            file.name for file in folder.iterdir()} - {WEIGHTS, CARD}):
        raise FileExistsError(f"{folder} holds something else than a kept "
                              "model: choose a folder of its own")
    return folder


def save_run(folder: str | Path, study: Any, row: str,
             parts: Mapping[str, nn.Module | Tensor],
             **more: Any) -> "Kept | None":
    """Keep a row of a study that was just run, and load it again.

    Nothing where `folder` is empty. It counts from the project's root.
    study: a `lab.study.Study`.
    parts: the trained modules and tensors by their place in the model, as
        {"networks.video.net": cnn, "head": model}.
    more: what `PAPERS` needs to build the model, and is no parameter of the
        notebook and no option of the row.

    Raises FileExistsError as `free` does, ValueError for a row that was not
    run, RuntimeError if a part does not fit its place.
    """
    if not folder:
        return None
    folder = free(folder)
    runs = [line for line in study.lines if line["variant"] == row]
    if not runs:
        raise ValueError(f"keep_model keeps the row {row!r}: let `variants` "
                         "have it")
    line, classes = runs[0], list(study.data.classes)
    params, build = line["params"], PAPERS[study.notebook]
    known = params | params["row"] | more
    network = {name: known[name] for name in [
        *inspect.signature(build).parameters][1:] if name in known}
    whole = build(len(classes), **network).eval()
    for place, part in parts.items():
        own, _, name = place.rpartition(".")
        if isinstance(part, Tensor):
            getattr(whole.get_submodule(own), name).copy_(part)
        else:
            whole.get_submodule(place).load_state_dict(part.state_dict())
    weights = tensors({name: value.contiguous().cpu() for name, value in
                       whole.state_dict().items()})
    card = {
        "notebook": study.notebook, "row": row, "seed": line["seed"],
        "classes": classes,
        # the weights of the backbone lie in the file
        "network": network | {"weights": "none"} | (
            {"files": {}} if "files" in network else {}),
        **{name: params[name] for name in READ if name in params},
        "sha256": hashlib.sha256(weights).hexdigest(),
        "started_from": params.get("start"),  # digests of backbones
        "trained_on": line["dataset"], "test_videos": line["n_test"],
        "scores": line["metrics"], **commit(), "torch": str(torch.__version__),
        "licence": "MIT, as the code; the videos have their own"}
    files = {WEIGHTS: weights, CARD: _words(card).encode()}
    processes.wait()  # all have seen that the folder is free
    if processes.ranks()[0] == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with replacing(folder / name) as beside:
                beside.write_bytes(content)
    processes.wait()
    print(f"kept in {folder}")
    return load(folder)


def _words(card: Mapping[str, Any]) -> str:
    """The card: its head, and what a reader wants to know first."""
    head = yaml.safe_dump(dict(card), allow_unicode=True, sort_keys=False)
    right = 100 * card["scores"]["top-1"]
    fitted = (f"stretched, the middle {card['crop']} x {card['crop']} pixels"
              if card["notebook"] == "04" else
              f"fitted into {card['size']} x {card['size']} pixels with grey "
              "bars")
    return (
        f"---\n{head}---\n\n# Notebook {card['notebook']}: {card['row']}\n\n"
        f"Tells {len(card['classes'])} classes in videos. It was trained on "
        f"{card['trained_on']} and has {right:.1f} % of its "
        f"{card['test_videos']} test videos right; of other videos that "
        "says nothing.\n\nIt sees "
        f"{card['frames']} frames of a video, evenly over its whole length, "
        f"{fitted}, RGB in [0, 1].\n\n"
        "    python -m lib.lab.kept FOLDER clip.mp4 --out seen.mp4\n")


class Answer(NamedTuple):
    """What a kept model says of a video."""

    probabilities: dict[str, float]  # by class, the likeliest first
    video: Tensor  # (T, 3, H, W) uint8, the frames that it saw
    seconds: Tensor  # (T, 2) from when to when each of them stands
    where: Tensor | None  # (T, h, w), relative to no other video
    when: Tensor | None  # (T,)


class Kept:
    """A model with its card; call it with the path of a video."""

    def __init__(self, card: Mapping[str, Any], model: Whole):
        self.card, self.model = card, model

    def __repr__(self) -> str:
        return (f"notebook {self.card['notebook']}, {self.card['row']}: "
                f"{len(self.card['classes'])} classes, kept")

    def inputs(self, path: str | Path) -> tuple[dict, tuple[Tensor, ...]]:
        """A video's sample, and what the model is called with, B = 1.

        Raises decode.VideoError for a file that is none, or broken.
        """
        card, file = self.card, Path(path).expanduser().absolute()
        size, inputs = card["size"], self.model.inputs
        videos = Videos(
            [Record(file, 0, file.name, file.name)], classes=card["classes"],
            frames=card["frames"], size=size,
            fields=card["fields"] if "motion" in inputs else 0)
        sample = videos[0]
        if card["notebook"] == "04":  # pairs of frames, stretched, cut
            wide = round(size * 340 / 256) if card["crop"] < size else size
            pairs = Streams((size, wide), card["crop"], 1)(
                videos, "RGB", card["frames"], 4)[0]["video"]
            return sample | {"video": pairs[:, 0]}, (pairs[None] / 255,)
        return sample, tuple(
            sample[key][None].float() / (255 if key == "video" else 1)
            for key in inputs)

    def export(self) -> torch.export.ExportedProgram:
        """The model as a graph for any number of videos at once.

        ``torch.onnx.export(model.export()).save(file)`` makes an ONNX file.
        It is called with what `inputs` gives, and returns what `Whole` does.
        """
        frames, size = self.card["frames"], self.card["size"]
        shapes = {"video": (frames, 3, size, size),
                  "motion": (frames, 2 * self.card.get("fields", 0), size,
                             size)}
        if self.card["notebook"] == "04":
            shapes["video"] = (frames, 2, 3, *[self.card["crop"]] * 2)
        some = tuple(torch.rand(2, *shapes[key]) for key in self.model.inputs)
        videos = torch.export.Dim("videos", min=1, max=1024)
        with torch.no_grad():
            return torch.export.export(self.model, some, dynamic_shapes=(
                tuple({0: videos} for _ in some),), strict=False)

    def __call__(self, path: str | Path) -> Answer:
        """Its answer; raises as `inputs` does."""
        sample, inputs = self.inputs(path)
        with evaluating(self.model):
            out = self.model.answer(*inputs)
        total = len(sample["video"])
        shares = out.logits[0].softmax(0).tolist()
        order = sorted(range(len(shares)), key=shares.__getitem__)[::-1]
        spans = out.spans * (total // int(out.spans.max()))
        edges = torch.arange(total + 1) / sample["fps"]
        return Answer(
            {self.card["classes"][i]: shares[i] for i in order},
            sample["video"], torch.stack((edges[:-1], edges[1:]), 1), *(
                None if value is None else
                metrics.expand(value, spans, total)[0] for value in (
                    getattr(out, name, None) for name in ("where", "when"))))


def load(folder: str | Path) -> Kept:
    """The model of a folder that `save_run` made.

    Raises FileNotFoundError where there is none, ValueError for a card or
    weights that were changed or do not fit today's code.
    """
    folder = ROOT / Path(folder).expanduser()
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no kept model in {folder}: {name} is "
                                    "not there; `-p keep_model` makes one")
    text = (folder / CARD).read_text(encoding="utf-8")
    weights = (folder / WEIGHTS).read_bytes()
    try:
        card = yaml.safe_load(text.split("---\n")[1])
        if hashlib.sha256(weights).hexdigest() != card["sha256"]:
            raise ValueError(f"{WEIGHTS} is not the file of the card")
        whole = PAPERS[card["notebook"]](
            len(card["classes"]), **card["network"])
        whole.load_state_dict(read_tensors(weights))
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError,
            yaml.YAMLError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be loaded ({error}): keep the "
                         "model again, or use the code of its commit"
                         ) from error
    return Kept(card, whole.eval())


def ask(folder: str, video: str) -> Any:
    """A notebook's picture of what a kept model says; nothing without one.

    Raises ValueError for a model without a video.
    """
    if not folder:
        return None
    if not video:
        raise ValueError("use_model needs a video: papermill: -p video FILE")
    model, file = load(folder), Path(video)
    found = model(file)
    order = model.card["classes"]
    return figures.strip(
        {"video": found.video, "fps": 1 / float(found.seconds[0, 1])},
        found.where, found.when, classes=order,
        predicted=torch.tensor([found.probabilities[c] for c in order]),
        title=f"{file.name}: {model.card['row']}, kept")


def write(found: Answer, path: str | Path, side: int = 320) -> None:
    """Write the frames with the map drawn in, and the weights below."""
    path = Path(path)
    frames = found.video if found.where is None else figures.overlay(
        found.video, found.where)
    word, share = next(iter(found.probabilities.items()))
    rate = Fraction(float(1 / found.seconds[0, 1])).limit_denominator(1000)
    with replacing(path) as beside, av.open(
            str(beside), "w", format=path.suffix[1:]) as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width, stream.height = side, side + 80
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for t, frame in enumerate(frames):
            page = np.full((side + 80, side, 3), 255, np.uint8)
            page[:side] = cv2.resize(frame.permute(1, 2, 0).numpy(),
                                     (side, side),
                                     interpolation=cv2.INTER_CUBIC)
            cv2.putText(page, f"{word} {share:.0%}", (6, side + 18),
                        cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
                        cv2.LINE_AA)
            if found.when is not None:
                tall = 50 * found.when / found.when.max().clamp(min=1e-9)
                for i, height in enumerate(tall.tolist()):
                    left, right = (side * (i + j) // len(tall) for j in (0, 1))
                    page[side + 78 - round(height):side + 78,
                         left:max(right - 1, left + 1)] = (
                        (0, 0, 0) if i == t else (190, 190, 190))
            for packet in stream.encode(
                    av.VideoFrame.from_ndarray(page, "rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def main(arguments: list[str]) -> int:
    """The command line; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m lib.lab.kept",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="of a kept model")
    parser.add_argument("video", help="a file")
    parser.add_argument("--out", help="write the video with what it looked at")
    chosen = parser.parse_args(arguments)
    try:
        found = load(chosen.folder)(chosen.video)
        if chosen.out:
            write(found, chosen.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, share in [*found.probabilities.items()][:5]:
        print(f"{name:24} {share:.3f}")
    if found.when is not None:
        print("looked most at seconds", ", ".join(
            f"{start:.1f} to {end:.1f}" for start, end in found.seconds[
                found.when.topk(min(3, len(found.when))).indices.sort()[0]]
            .tolist()))
    if chosen.out:
        print(chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
