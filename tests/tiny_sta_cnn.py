"""A STA-CNN that is small enough to be checked by loops."""

import torch
from torch import nn

from lib.papers import sta_cnn

B, N, C, D, K = 3, 9, 5, 6, 4  # videos, snippets, classes, channels, side


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Tiny(nn.Module):
    """A backbone of 16 x 16 frames with a batch norm."""

    def __init__(self, inputs=3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, D, 5, 4, 2)
        self.norm = nn.BatchNorm2d(D)

    def forward(self, frames):
        maps = self.norm(self.conv(frames.flatten(0, 1))).relu()
        return maps.unflatten(0, frames.shape[:2])


class TinySAN(nn.Module):
    """An attention network whose map is smaller than the backbone's."""

    channels = 7

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, self.channels, 8, 8)

    def forward(self, pairs):
        return self.conv(pairs.flatten(1, 2)).relu()


def network(san=True, side=K, inputs=3, **options):
    """The model, with weights that look somewhere."""
    torch.manual_seed(1)
    net = sta_cnn.STACNN(Tiny(inputs), D, C, side=side,
                         san=TinySAN() if san else None, **options)
    if side:
        nn.init.normal_(net.attention.weight)
    with torch.no_grad():
        net.classify.weight.mul_(4)  # the snippets must differ in sureness
    return net


def pairs(n=N, seed=0):
    return random(B, n, 2, 3, 16, 16, seed=seed)


LABEL = torch.tensor([0, 3, 1])
