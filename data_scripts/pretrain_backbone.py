"""Train the small frame backbones on puppets and keep their weights.

    python data_scripts/pretrain_backbone.py [small ...]

The papers fine-tune their CNN on the target set and then freeze it; these
weights are that for puppets. Training videos come from the actors of the
training split, drawn with another seed than the notebooks use, so no notebook
meets a video again, and no test actor is ever seen. The step with the best
validation accuracy is kept. Four to fifteen minutes a network on one core;
writes lib/weights/<name>_puppets.safetensors as float16.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import backbones2d, training  # noqa: E402
from lib.datasets import in_memory  # noqa: E402
from lib.puppets import DIALS, Puppets  # noqa: E402

SEED = 20_000  # the notebooks count their seeds from 0


def step(model, batch):
    """Cross entropy of the mean over four random frames of each video."""
    video = batch["video"]
    frames = torch.randint(video.shape[1], (4,)).sort().values
    video = video[:, frames]
    if torch.rand(()) < 0.5:
        video = video.flip(-1)
    logits = model(video).logits
    return {"loss": F.cross_entropy(logits, batch["label"])}


def accuracy(model, data):
    answers = training.predict(model, data)
    hits = answers["logits"].argmax(1) == answers["label"]
    return hits.float().mean().item()


def pretrain(name: str, train, val, steps: int) -> float:
    """Train one backbone and write its weights; validation accuracy."""
    torch.manual_seed(SEED)
    net = backbones2d.frame_cnn(name)
    model = backbones2d.FrameAverage(net.channels, len(train.classes), net)
    history = training.fit(
        model, train, step, steps=steps, batch=32, lr=2e-3,
        weight_decay=1e-2, schedule="cosine", seed=SEED, val=val,
        score=accuracy, every=max(1, steps // 10),
    )  # fmt: skip
    backbones2d.save_weights(
        net, backbones2d.WEIGHTS / f"{name}_puppets.safetensors"
    )
    return max(row.get("score", 0) for row in history)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(backbones2d.SMALL))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--videos", type=int, default=3000)
    options = parser.parse_args()
    train = in_memory(Puppets("train", options.videos, seed=SEED))
    val = in_memory(Puppets("val", 500, seed=SEED))
    print(f"{len(train)} training videos, {len(val)} validation, {DIALS}")
    for name in options.names:
        best = pretrain(name, train, val, options.steps)
        print(f"{name}: validation accuracy {best:.3f}")


if __name__ == "__main__":
    main()
