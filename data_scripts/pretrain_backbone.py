"""Train the small frame backbones on puppets and keep their weights.

    python data_scripts/pretrain_backbone.py [small ...]
    python data_scripts/pretrain_backbone.py --flow 2 --videos 12000 small

The papers fine-tune their CNN on the target set and then freeze it; these
weights are that for puppets. Training videos come from the actors of the
training split, drawn with another seed than the notebooks use, so no notebook
meets a video again, and no test actor is ever seen. The step with the best
validation accuracy is kept. About twenty minutes a network on one core, with
6 GB of memory; writes lib/networks/weights/<name>_puppets.safetensors as
float16.

With --flow 2 the networks see stacks of two DIS flow fields of the same
videos instead. As in temporal segment networks (Wang et al., 2016) they start
from the RGB weights, which must be there; a mirrored video moves the other
way. Stacks of 12,000 videos take 6.3 GB of memory. Writes
lib/networks/weights/<name>_flow_puppets.safetensors.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.data.batches import in_memory  # noqa: E402
from lib.data.datasets import Thinned  # noqa: E402
from lib.lab import training  # noqa: E402
from lib.networks import cnn2d, pretrained  # noqa: E402
from lib.worlds.worlds import ALONE, Puppets  # noqa: E402

SEED = 20_000  # the notebooks count their seeds from 0


class Only(Dataset):
    """Label and one other key of samples: whole ones fill the memory."""

    def __init__(self, data: Dataset, key: str):
        self.data, self.classes, self.key = data, data.classes, key

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict:
        sample = self.data[i]
        return {key: sample[key] for key in (self.key, "label")}


def videos(split, count, fields, dials=ALONE):
    """New videos, or stacks of their flow, and labels, in memory."""
    data = Puppets(split, count, seed=SEED, dials=dials)
    return in_memory(Only(Thinned(data, dials.frames, fields), "motion")
                     if fields else Only(data, "video"))


def step(model, batch, key):
    """Cross entropy of the mean over four random frames of each video.

    key: "video" or "motion", what the model sees.
    """
    x = batch[key]
    frames = torch.randint(x.shape[1], (4,)).sort().values
    x = mirrored(x[:, frames], key)
    return {"loss": F.cross_entropy(model(x).logits, batch["label"])}


def mirrored(x, key):
    """Videos, or their flow, as they are or from right to left, by chance."""
    if torch.rand(()) < 0.5:
        x = x.flip(-1)
        if key == "motion":
            x[:, :, 0::2] *= -1  # left is right now; `flip` made a copy
    return x


def accuracy(model, data, key="video"):
    """The share of videos whose class the model predicts."""
    found = training.predict(model, data, inputs=key, keys=("logits",))
    hits = found["logits"].argmax(1) == found["label"]
    return hits.float().mean().item()


def options(names: list[str], steps: int, videos: int,
            text: str) -> argparse.ArgumentParser:
    """The command line of both scripts that train backbones."""
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("names", nargs="*", default=names)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--videos", type=int, default=videos)
    return parser


def pretrain(name: str, train, val, steps: int, fields: int) -> float:
    """Train one backbone and write its weights; validation accuracy."""
    torch.manual_seed(SEED)
    key, channels = "video", 3
    net = cnn2d.frame_cnn(name, "puppets" if fields else None)
    if fields:
        key, channels = "motion", 2 * fields
        net = cnn2d.for_flow(net, channels)
    model = cnn2d.FrameAverage(net.channels, len(train.classes), net)
    history = training.fit(
        model, train, partial(step, key=key), steps=steps, batch=32, lr=4e-3,
        weight_decay=1e-2, schedule="cosine", seed=SEED, val=val,
        score=partial(accuracy, key=key), every=max(1, steps // 20))
    pretrained.save_weights(net, pretrained.puppet_weights(name, channels))
    return max(row.get("score", 0) for row in history)


def main() -> None:
    """The command line."""
    parser = options([*cnn2d.SMALL], 5000, 24_000, __doc__)
    parser.add_argument(
        "--flow", type=int, default=0,
        choices=(0, pretrained.FLOW_CHANNELS // 2),
        help="flow fields in a stack; 0 trains on RGB (default)")
    chosen = parser.parse_args()
    train, val = (videos(split, count, chosen.flow) for split, count in (
        ("train", chosen.videos), ("val", 1000)))
    print(f"{len(train)} training videos, {len(val)} validation, {ALONE}")
    for name in chosen.names:
        best = pretrain(name, train, val, chosen.steps, chosen.flow)
        print(f"{name}: validation accuracy {best:.3f}")


if __name__ == "__main__":
    main()
