"""A small training run with everything that carries state, and ways to die.

As a script (FOLDER POINT COUNT) it is the process that gets killed.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from lib.data.batches import Columns
from lib.lab import checkpoints, training

STEPS, BATCH = 14, 8


class Answer(NamedTuple):
    logits: torch.Tensor
    when: torch.Tensor
    spans: torch.Tensor
    note: str = "not a tensor"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(6, 2)

    def forward(self, video):
        x = self.conv(video.flatten(0, 1))
        x = self.norm(x).relu().mean((2, 3)).unflatten(0, video.shape[:2])
        starts = torch.arange(video.shape[1])
        return Answer(self.head(self.drop(x)).mean(1), x.sum(2).softmax(1),
                      torch.stack([starts, starts + 1], 1))


def net(seed=1):
    torch.manual_seed(seed)
    return Net()


def videos(n=27, **more):
    """Class 1 is red on the right: easy, and not solved by chance."""
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(120, (n, 3, 3, 6, 6), generator=generator)
    label = torch.arange(n) % 2
    video[label == 1, :, 0, :, 3:] += 120
    return Columns(
        {"video": video.byte(), "label": label,
         "name": [f"v{i}" for i in range(n)]} | more, classes=["no", "red"])


def step(model, batch):
    out = model(batch["video"])
    right = out.logits.argmax(1) == batch["label"]
    return {"loss": F.cross_entropy(out.logits, batch["label"]),
            "accuracy": right.float().mean()}


def score(model, data):
    """Highest after six steps, so that a later kill must not lose them."""
    training.predict(model, data, keys=("logits",))
    return -abs(int(model.norm.num_batches_tracked) - 6)


def run(checkpoint=None, *, model=None, step=step, **changes):
    model = model or net()
    settings = dict(steps=STEPS, batch=BATCH, lr=0.01, device="cpu",
                    every=2, save_every=3, val=videos(5), score=score)
    settings |= changes
    history = training.fit(model, videos(), step, checkpoint=checkpoint,
                           **settings)
    return model, history


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(
        a.state_dict().values(), b.state_dict().values(), strict=True))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_while(what, which):
    """Die at the `which`-th time that the run is at this point."""
    count = iter(range(1, STEPS + 1))
    replace, remove = os.replace, shutil.rmtree
    save_file = checkpoints.save_file

    def in_step(model, batch):
        result = step(model, batch)
        if next(count) == which:
            die()
        return result

    def half_written(tensors, path):
        save_file(tensors, path)
        if next(count) == which:
            os.truncate(path, Path(path).stat().st_size // 2)
            die()

    def not_yet_renamed(source, target):
        if next(count) == which:
            die()
        replace(source, target)

    def renamed(source, target):
        replace(source, target)
        if next(count) == which:
            die()

    def half_removed(path, ignore_errors):
        if path.exists() and next(count) == which:
            next(path.glob("model*")).unlink()
            die()
        remove(path, ignore_errors)

    if what == "half written":
        checkpoints.save_file = half_written
    elif what == "half removed":
        checkpoints.shutil.rmtree = half_removed
    elif what != "step":
        checkpoints.os.replace = {"not yet renamed": not_yet_renamed,
                                  "renamed": renamed}[what]
    return in_step if what == "step" else step


if __name__ == "__main__":
    folder, what, which = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "slow":
        run(folder, step=lambda model, batch: (
            time.sleep(0.05), step(model, batch))[1])
    else:
        run(folder, step=die_while(what, which))
