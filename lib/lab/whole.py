"""From the frames of a video to an answer: frozen networks, then a model.

A notebook computes frozen features once, and trains a paper's model on them.
`Whole` has both in one, so that it can be kept, exported, and asked about new
videos. `PAPERS` builds it for the main row of each notebook.
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.networks import cnn2d, cnn3d, roles
from lib.networks.snippet_maps import Scaled
from lib.papers import jsta, rstan, sta_cnn, sta_networks, where_and_when


class Whole(nn.Module):
    """From frames to an answer: frozen networks, then a paper's model.

    networks: by what each reads, "video" or "motion"; their `features` give
        two tensors. reads: which of these the model is called with, as
        ("video", 0). Without networks it is called with the video.
    """

    def __init__(self, networks: Mapping[str, nn.Module],
                 reads: list[tuple[str, int]], head: nn.Module):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.reads, self.head = reads, head
        self.inputs = [*networks] or ["video"]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Probabilities ``(B, K)``; ``where (B, T', h, w)`` and ``when
        (B, T')``, if the model has them, in this order."""
        out = self.answer(*inputs)
        return (out.logits.softmax(1), *(
            x for x in (getattr(out, name, None) for name in (
                "where", "when")) if x is not None))

    def answer(self, *inputs: Tensor) -> NamedTuple:
        """All that the paper's model returns."""
        found = {key: net.features(x) for (key, net), x in zip(
            self.networks.items(), inputs, strict=bool(self.networks))}
        return self.head(*[found[key][part] for key, part in self.reads]
                         or inputs)


class Stored(nn.Module):
    """A network whose features are rounded to float16, as `extract` does."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cube and vector, in float32 again."""
        cube, vector = self.net.features(x)
        return cube.half().float(), vector.half().float()


class Pairs(nn.Module):
    """Scaled maps of the first of two frames, as of `SnippetMaps`; and both
    frames, which an attention network reads."""

    def __init__(self, net: cnn2d.FrameCNN):
        super().__init__()
        one = torch.ones(1, net.channels, 1, 1)
        self.net = Scaled(net, 0 * one, one)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``(B, n, 2, 3, H, W)``."""
        maps = self.net.net(x[:, :, 0]).half().float()
        return ((maps - self.net.mean) / self.net.std).half().float(), x


class Seen(NamedTuple):
    """What `Voted` returns, as the papers' models do."""

    logits: Tensor  # (B, K)
    spans: Tensor  # (N, 2)
    where: Tensor  # (B, N, h, w)
    when: Tensor  # (B, N)


class Voted(nn.Module):
    """STA-CNN with its test: the mean over snippets, and how sure each is.

    As `predictions` of its own logits, without what only training needs.
    """

    def __init__(self, net: sta_cnn.STACNN, top: int):
        super().__init__()
        self.net, self.top = net, top

    def forward(self, x: Tensor, pairs: Tensor | None = None) -> Seen:
        """Of maps and pairs of frames, or of pairs alone."""
        pairs = x if pairs is None else pairs
        frames = x if x.ndim == 5 else x[:, :, 0]
        f, where, _ = self.net.look(frames.flatten(0, 1), pairs.flatten(0, 1))
        shape = x.shape[:2]
        p = self.net.classify(f).unflatten(0, shape).softmax(-1)
        h = sta_cnn.entropy(p.log())
        surest = torch.zeros_like(h).scatter(
            1, (-h).topk(min(self.top, shape[1])).indices, 1.0)
        alpha = sta_cnn.confidence(h) * surest
        step = torch.arange(shape[1], device=h.device)
        return Seen(p.mean(1).log(), torch.stack((step, step + 1), -1),
                    where.unflatten(0, shape),
                    alpha / alpha.sum(1, keepdim=True))


class Clips(nn.Module):
    """A network of clips on whole videos, as `OnVideos`, without padding."""

    def __init__(self, net: nn.Module, length: int):
        super().__init__()
        self.net, self.length = net, length

    def forward(self, x: Tensor) -> NamedTuple:
        """Of ``(B, n, C, H, W)``, n steps of which `length` are a clip."""
        whole = x.shape[1] // self.length * self.length
        out = self.net(x[:, :whole].unflatten(1, (-1, self.length)))
        return out._replace(spans=out.spans * 8 // self.length)


class Standardised(nn.Module):
    """JSTA's temporal part on vectors less their mean, over their spread."""

    def __init__(self, net: nn.Module, channels: int):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> NamedTuple:
        """As the net's."""
        return self.net((x - self.mean) / (self.std + 1e-3), valid)


def _rstan(classes: int, backbone: str, weights: str, fields: int,
           hidden: int, units: int, gamma: list, window: int) -> Whole:
    nets = {"video": cnn2d.stream_cnn(backbone, weights),
            "motion": cnn2d.stream_cnn(backbone, weights, 2 * fields)}
    return Whole(
        {stream: Stored(net) for stream, net in nets.items()},
        [(stream, part) for stream in nets for part in (0, 1)],
        rstan.Control([net.cube_channels for net in nets.values()],
                      [net.vector_channels for net in nets.values()],
                      [classes], hidden=hidden, units=units, gamma=gamma,
                      window=window or None))


def _jsta(classes: int, backbone: str, weights: str, frozen: bool,
          hidden: int, frames: int) -> Whole:
    if frames % 8:
        raise ValueError(f"frames={frames}: clips have 8 frames, and no clip "
                         "of a kept model is cut off: give a multiple of 8")
    cnn, below = (cnn3d.clip_cnn(backbone, None if weights == "none"
                                 else weights) for _ in range(2))
    cnn.stages["identity3b"] = jsta.SpatialAttention(cnn.widths["identity3b"])
    space = jsta.ClipClassifier(cnn.above("conv3a") if frozen else cnn,
                                cnn.channels, classes)
    time = jsta.TemporalClassifier(
        cnn.channels, classes, clips=frames // 8, hidden=hidden,
        attention=jsta.TemporalAttention(cnn.channels, hidden))
    return Whole(
        {"video": Stored(roles.Stem(below, "conv3a", 8))} if frozen else {},
        [("video", 0)] * frozen, Clips(
            jsta.JSTA(space, Standardised(time, cnn.channels)),
            4 if frozen else 8))


def _where_and_when(classes: int, backbone: str, weights: str, hidden: int,
                    mask_channels: list) -> Whole:
    cnn = cnn2d.stream_cnn(backbone, weights)
    return Whole({"video": Stored(cnn)}, [("video", 0)],
                 where_and_when.WhereAndWhen(
                     cnn.channels, classes, hidden=hidden,
                     mask_channels=tuple(mask_channels)))


def _sta_cnn(classes: int, backbone: str, weights: str, top: int, side: int,
             looks: list, kept: bool) -> Whole:
    cnn = cnn2d.stream_cnn(backbone, weights)
    net = sta_cnn.STACNN(
        nn.Identity() if kept else cnn, cnn.channels, classes, side=side,
        san=sta_cnn.AttentionNetwork(tuple(looks[0]), looks[1]))
    return Whole({"video": Pairs(cnn)} if kept else {},
                 [("video", 0), ("video", 1)] * kept,
                 Voted(net, top))


def _sta_networks(classes: int, backbone: str, weights: str, files: dict,
                  window: int, size: int, module: str,
                  options: dict | None = None, frozen: bool = False) -> Whole:
    cnn, length, _ = roles.stream("base", backbone, weights, files,
                                  size=size, window=window)
    kind = partial(sta_networks.MODULES[module], **options or {})
    if not backbone.endswith("_small"):
        sta_networks.insert(cnn, torch.zeros(1, length, 3, size, size), kind)
        return Whole({}, [], sta_networks.STAClassifier(
            cnn, cnn.channels, classes, length=length))
    stage, every = roles.FROZEN["base"]
    known = roles.Known(copy.deepcopy(cnn), stage, 8).eval()
    if frozen:  # one module behind the last maps
        with torch.no_grad():
            maps = known.features(torch.zeros(1, window, 3, size, size))[1]
        head = sta_networks.STAClassifier(sta_networks.Behind(kind(
            maps.shape[2], (maps.shape[1], *maps.shape[3:])),
            torch.zeros_like(maps)), maps.shape[2], classes)
    else:  # in each block of the last stage
        sta_networks.insert(cnn, torch.zeros(1, length, 3, size, size), kind)
        head = sta_networks.STAClassifier(
            roles.Tail(cnn, stage), cnn.channels, classes,
            length=length // every)
    return Whole({"video": Stored(known)}, [("video", int(frozen))], head)


PAPERS = {"01": _rstan, "02": _jsta, "03": _where_and_when, "04": _sta_cnn,
          "05": _sta_networks}
