"""Train the small 3D backbones on puppets and keep their weights.

    python data_scripts/pretrain_clip_backbone.py [resnet3d_small c3d_small]

As data_scripts/pretrain_backbone.py does for frames: the training actors,
other videos than any notebook meets, the step with the best validation
accuracy. From scratch the videos of the course are too hard a first lesson for
a 3D network of this size (after 300 steps it guesses), so it begins with easy
ones: nothing moves but a large actor, who hardly idles. About an hour a
network on one core, with 6 GB of memory; writes
lib/networks/weights/<name>_puppets.safetensors as float16.
"""

from dataclasses import replace

import torch
from pretrain_backbone import SEED, Only, accuracy, options
from torch import nn
from torch.nn import functional as F

from lib.data import sampling
from lib.data.batches import in_memory
from lib.lab import training
from lib.networks import cnn3d, pretrained
from lib.papers import jsta
from lib.worlds.worlds import ALONE, Puppets

EASY = replace(ALONE, clutter=(0, 0), camera=(0.0, 0.0), bystander=0.0,
               idle=(0.0, 0.2), actor=(0.60, 0.75))
STAGE = "identity3b"  # where JSTA puts its attention
RATES = {"resnet3d_small": 2e-3, "c3d_small": 1e-3}


class Sometimes(nn.Module):
    """A part that every other training step, by chance, goes without.

    JSTA's attention takes the place of one stage. A network that has never
    done without it would be lost there, and no new block could be compared.
    """

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x):
        return x if self.training and torch.rand(()) < 0.5 else self.part(x)


class OnVideos(nn.Module):
    """The mean output of all clips of a video."""

    def __init__(self, name: str, classes: int):
        super().__init__()
        cnn = cnn3d.clip_cnn(name)
        if STAGE in cnn.stages:
            cnn.stages[STAGE] = Sometimes(cnn.stages[STAGE])
        for module in cnn.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # C3D of this size learns nothing with it
        self.net = jsta.ClipClassifier(cnn, cnn.channels, classes)

    def forward(self, video):
        return self.net(*sampling.clips_of(video))


def step(model, batch):
    """Cross entropy of the mean over a video's clips, mirrored or not."""
    video = batch["video"]
    if torch.rand(()) < 0.5:
        video = video.flip(-1)
    return {"loss": F.cross_entropy(model(video).logits, batch["label"])}


def pretrain(name: str, easy, train, val, steps: int) -> float:
    """Train one backbone and write its weights; validation accuracy."""
    torch.manual_seed(SEED)
    model = OnVideos(name, len(train.classes))
    settings = {"batch": 16, "lr": RATES[name], "weight_decay": 1e-2,
                "seed": SEED}
    training.fit(model, easy, step, steps=steps // 3, **settings)
    history = training.fit(
        model, train, step, steps=steps, schedule="cosine", val=val,
        score=accuracy, every=max(1, steps // 20), **settings)
    stages = model.net.backbone.stages
    if STAGE in stages:
        stages[STAGE] = stages[STAGE].part
    pretrained.save_weights(
        model.net.backbone, pretrained.puppet_weights(name))
    return max(row.get("score", 0) for row in history)


def main() -> None:
    """The command line."""
    chosen = options([*RATES], 4000, 12_000, __doc__).parse_args()
    easy, train, val = (
        in_memory(Only(Puppets(split, n, seed=SEED, dials=dials), "video"))
        for split, n, dials in (("train", chosen.videos, EASY),
                                ("train", chosen.videos, ALONE),
                                ("val", 1000, ALONE)))
    print(f"{len(train)} training videos, {len(val)} validation, {ALONE}")
    for name in chosen.names:
        best = pretrain(name, easy, train, val, chosen.steps)
        print(f"{name}: validation accuracy {best:.3f}", flush=True)


if __name__ == "__main__":
    main()
