"""Train the small 3D backbones on puppets and keep their weights.

    python data_scripts/pretrain_clip_backbone.py [resnet3d_small c3d_small]

As data_scripts/pretrain_backbone.py does for frames: the training actors,
other videos than any notebook meets, the step with the best validation
accuracy. From scratch the videos of the course are too hard a first lesson for
a 3D network of this size (after 300 steps it guesses), so it begins with easy
ones: nothing moves but a large actor, who hardly idles. About an hour a
network on one core, with 6 GB of memory; writes
lib/networks/weights/<name>_puppets.safetensors as float16.

    python data_scripts/pretrain_clip_backbone.py resnet3d_small_flow

trains a stream of flow for MARS, on DIS flow of such videos. It starts from
the RGB weights, which must be there, and so needs no easy videos. The one kept
here had `--steps 2000 --videos 8000`.
"""

from dataclasses import replace
from functools import partial

import torch
from pretrain_backbone import SEED, accuracy, mirrored, options, videos
from torch import nn
from torch.nn import functional as F

from lib.data import sampling
from lib.lab import training
from lib.networks import cnn3d, pretrained
from lib.papers import jsta
from lib.worlds.worlds import ALONE

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
        if name.endswith("_flow"):
            load_rgb(cnn, name.removesuffix("_flow"))
        elif STAGE in cnn.stages:
            cnn.stages[STAGE] = Sometimes(cnn.stages[STAGE])
        self.net = jsta.ClipClassifier(cnn, cnn.channels, classes)

    def forward(self, video):
        return self.net(*sampling.clips_of(video))


def load_rgb(net: cnn3d.ClipCNN, name: str) -> None:
    """Weights of an RGB network, its first kernels averaged over colours."""
    state, first = net.state_dict(), "stages.conv1.0.weight"
    known = cnn3d.clip_cnn(name, "puppets").state_dict()
    known[first] = known[first].mean(1, True).expand_as(state[first])
    net.load_state_dict(known)


def step(model, batch, key):
    """Cross entropy of the mean over a video's clips, mirrored or not."""
    logits = model(mirrored(batch[key], key)).logits
    return {"loss": F.cross_entropy(logits, batch["label"])}


def pretrain(name: str, count: int, steps: int) -> float:
    """Train one backbone and write its weights; validation accuracy."""
    flow, key = 0, "video"
    if name.endswith("_flow"):
        flow, key = 1, "motion"
    train, val = videos("train", count, flow), videos("val", 1000, flow)
    torch.manual_seed(SEED)
    model = OnVideos(name, len(train.classes))
    settings = {"batch": 16, "lr": RATES[name.removesuffix("_flow")],
                "weight_decay": 1e-2, "seed": SEED}
    if not flow:
        training.fit(model, videos("train", count, 0, EASY),
                     partial(step, key=key), steps=steps // 3, **settings)
    history = training.fit(
        model, train, partial(step, key=key), steps=steps, schedule="cosine",
        val=val, score=partial(accuracy, key=key), every=max(1, steps // 20),
        **settings)
    stages = model.net.backbone.stages
    if not flow and STAGE in stages:
        stages[STAGE] = stages[STAGE].part
    pretrained.save_weights(
        model.net.backbone, pretrained.puppet_weights(name))
    return max(row.get("score", 0) for row in history)


def main() -> None:
    """The command line."""
    chosen = options([*RATES], 4000, 12_000, __doc__).parse_args()
    print(f"{chosen.videos} training videos, 1000 validation, {ALONE}")
    for name in chosen.names:
        best = pretrain(name, chosen.videos, chosen.steps)
        print(f"{name}: validation accuracy {best:.3f}", flush=True)


if __name__ == "__main__":
    main()
