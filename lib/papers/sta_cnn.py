"""STA-CNN: train on the surest snippets, look where motion and class are.

Yang et al., IEEE Transactions on Image Processing 29, 2020. A video is a few
snippets, one from each of its segments. In the order of this file:

- when, Eq. (1), (2): the snippets whose prediction has the least entropy
  train the network, as a temporal strategy `TS` selects them;
- motion, Eq. (3), (4): a spatial attention network (SAN) learns to predict
  flow from a pair of frames, so that its map shows what moves;
- where, Eq. (5)-(9): a softmax over positions of the SAN's map, which class
  scores train too, weighs the classifier's last map;
- `STACNN`, one stream of the model, and its `loss`, Eq. (6), (10);
- at test time, Eq. (11): sure snippets count more.

Symbols: s_n a snippet of N, p(s_n) its prediction of C classes, H its entropy,
alpha_n its confidence; F_n the classifier's last map, D x K x K; X_n that of
the SAN, A_n the attention map. Needs torch and einops only: copy the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor, nn


def entropy(logits: Tensor) -> Tensor:
    """H(s_n) ``(...)`` of the softmax of logits ``(..., C)``, Eq. (2).

    In nats, and at least float32: in bfloat16 sure snippets would tie.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = logits.to(wide).log_softmax(-1)
    # not -inf: a class without any chance adds zero, not NaN
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(wide).min)).sum(-1)


def confidence(entropy: Tensor, floor: float = 1e-3) -> Tensor:
    """alpha_n = 1 / H(s_n), Eq. (1), at most 1 / `floor`.

    Unbounded, one snippet of p = 0.9999 would outweigh a hundred others.
    """
    return entropy.clamp_min(floor).reciprocal()


class TS(NamedTuple):
    """A temporal strategy: which of a video's snippets train the network.

    TS(N, top_n) is one group, `TS(1, N, top_n)`; TS(N x M, N x top_m) takes
    some of every part of a video, `TS(N, M, top_m)`.
    """

    groups: int
    size: int  # snippets of a group
    top: int  # of them, the surest train

    def select(self, entropy: Tensor) -> Tensor:
        """True ``(B, N)`` for the snippets of least entropy ``(B, N)``.

        The bound on alpha makes no ties; equal ones are taken in order.
        """
        wanted = self.groups * self.size
        if entropy.shape[1] != wanted or not 1 <= self.top <= self.size:
            raise ValueError(
                f"{entropy.shape[1]} snippets for {self}: sample {wanted} of "
                "each video, and let 1 to `size` of a group train")
        each = rearrange(entropy, "b (g m) -> b g m", g=self.groups)
        surest = each.argsort(dim=-1, stable=True)[..., :self.top]
        mask = torch.zeros_like(each, dtype=torch.bool)
        return mask.scatter(-1, surest, True).flatten(1)


KERNELS = (7, 5, 5, 3, 3, 3)  # of each stage's first convolution


class AttentionNetwork(nn.Module):
    """The SAN f_san, Fig. 4: ten convolutions and six max-poolings.

    Its layers are those of FlowNetSimple (Dosovitskiy et al., ICCV 2015).
    Pairs of frames ``(n, 2, 3, H, W)`` in [0, 1] to features ``(n, M, h,
    w)``: six stages, of two convolutions from the third on; a pooling after
    each stage's first.

    Args:
        widths: channels of the stages; the last is M = `channels`.
        poolings: how many stages halve the map, rounding up: six make 4 x 4
            of 224 pixels; three leave 8 x 8 of 64.
    """

    def __init__(
        self, widths: tuple[int, ...] = (64, 128, 256, 512, 512, 1024),
        poolings: int = 6,
    ):
        super().__init__()
        if len(widths) != 6 or not 2 <= poolings <= 6:
            raise ValueError(f"widths={widths}, poolings={poolings}: the six "
                             "stages' channels, and from 2 to 6")
        self.widths, self.poolings = widths, poolings
        self.channels = widths[-1]
        self.stages, inputs = nn.Sequential(), 6
        for i, (outputs, kernel) in enumerate(
                zip(widths, KERNELS, strict=True)):
            stage = _conv(inputs, outputs, kernel)
            if i < poolings:
                stage.append(nn.MaxPool2d(2, ceil_mode=True))
            if i >= 2:
                stage += _conv(outputs, outputs, 3)
            self.stages.add_module(f"conv{i + 1}", nn.Sequential(*stage))
            inputs = outputs

    def forward(self, pairs: Tensor) -> Tensor:
        if pairs.shape[1:3] != (2, 3) or not pairs.is_floating_point():
            raise ValueError(f"{pairs.dtype} {tuple(pairs.shape)}: give pairs "
                             "of frames (n, 2, 3, H, W) as floats in [0, 1]")
        x = rearrange(pairs, "n t c h w -> n (t c) h w")
        return self.stages(4 * x - 2)


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps the size, and FlowNet's activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    # without batch norms, smaller weights lose the signal in ten layers
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    nn.init.zeros_(conv.bias)
    return [conv, nn.LeakyReLU(0.1)]


class FlowPredictor(nn.Module):
    """The SAN with its Expanded Part f_exp, Eq. (3).

    To predict flow it must know where things move. Pairs ``(n, 2, 3, H, W)``
    to the flow ``(n, 2, H/4, W/4)`` from the first frame to the second, in
    pixels of the input frames, x first. Four convolutions; before each the
    map is doubled (unpooling) until it is a quarter of the frame: four times
    behind six poolings.

        predictor = FlowPredictor(AttentionNetwork())
        flow_loss(predictor(pairs), flow).backward()
        STACNN(backbone, 1024, 101, side=7, san=predictor.san)
    """

    def __init__(self, san: AttentionNetwork):
        super().__init__()
        self.san = san
        widths = [san.channels, *san.widths[3:0:-1]]
        self.expand = nn.ModuleList(
            nn.Sequential(*_conv(inputs, outputs, 3))
            for inputs, outputs in zip(widths[:-1], widths[1:], strict=True))
        self.expand.append(nn.Conv2d(widths[-1], 2, 3, padding=1))

    def forward(self, pairs: Tensor) -> Tensor:
        x = self.san(pairs)
        for i, conv in enumerate(self.expand, 1):
            # by sizes, not factors: poolings round up
            share = 2 ** max(self.san.poolings - i, 2)
            size = [-(-side // share) for side in pairs.shape[-2:]]
            x = conv(F.interpolate(x, size=size))
        return x


def flow_loss(predicted: Tensor, flow: Tensor, *,
              literal: bool = False) -> Tensor:
    """Squared error beyond a tolerance theta, Eq. (4).

    predicted: ``(n, 2, h, w)``. flow: ``(n, 2, H, W)``, the real one, which
        is averaged to h x w. Both in pixels of the frames: theta = exp(-2
        |f|) is one pixel where nothing moves and 0.14 where f is one. In
        other units it is another loss; to predict zero costs nothing up to
        0.43 pixels.
    literal: as printed, the sum, and exp(-2 f), which forgives everything
        that moves left or up. By default the mean, and |f|.
    """
    real = F.interpolate(flow, size=predicted.shape[-2:], mode="area")
    theta = torch.exp(-2 * (real if literal else real.abs()))
    beyond = F.relu((predicted - real).abs() - theta).square()
    return beyond.sum() if literal else beyond.mean()


def flow_step(predictor: nn.Module, batch: dict) -> dict[str, Tensor]:
    """Eq. (4) of one pair of frames of each video: `video` ``(B, 1, 2, 3, H,
    W)``, and its real `flow` or `motion` ``(B, 1, 2, H, W)``."""
    real = batch["flow"] if "flow" in batch else batch["motion"]
    return {"loss": flow_loss(predictor(batch["video"][:, 0]), real[:, 0])}


class ClassScores(nn.Module):
    """The SAN's own class scores ``(n, C)`` of X_n ``(n, M, K, K)``, Eq. (5).

    Global average pooling and a linear layer without bias. Eq. (5) prints the
    sum over positions, K^2 times the average of the text.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.weight = nn.Linear(channels, classes, bias=False)  # w_c

    def forward(self, x: Tensor) -> Tensor:
        return self.weight(reduce(x, "n m h w -> n m", "mean"))


class SpatialAttentionLayer(nn.Module):
    """A_n ``(n, K, K)`` from X_n ``(n, M, K, K)``, Eq. (7), (8).

    Each position has weights of its own, so K is fixed. They start at zero:
    the even map is average pooling, which a pre-trained network is used to.
    """

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, side, side))  # w_i

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.weight.shape:
            raise ValueError(
                f"a map {tuple(x.shape[1:])} for weights "
                f"{tuple(self.weight.shape)}: give frames whose feature map "
                "has the `side` that the model was made for")
        a = einsum(x, self.weight, "n m h w, m h w -> n h w")  # Eq. (7)
        return a.flatten(1).softmax(-1).view_as(a)  # Eq. (8)


def weighted_pooling(maps: Tensor, where: Tensor, *,
                     literal: bool = False) -> Tensor:
    """f ``(n, D)``: F_n ``(n, D, K, K)`` weighted by A_n, Eq. (9).

    The softmax makes a mean of the sum already; Eq. (9) divides by K^2 once
    more (`literal`). By default even weights are plain average pooling.
    """
    pooled = einsum(maps, where, "n d h w, n h w -> n d")
    return pooled / where[0].numel() if literal else pooled


class STACNNOutput(NamedTuple):
    """The model's output; without spatial attention the last are None."""

    logits: Tensor  # (B, C) mean over the selected snippets
    spans: Tensor  # (N, 2) snippet i covers the input's step [i, i + 1)
    snippets: Tensor  # (B, N, C) logits of every snippet
    selected: Tensor  # (B, N) True where a snippet may train the network
    confidence: Tensor  # (B, N) alpha_n
    when: Tensor  # (B, N) alpha_n over their sum
    where: Tensor | None = None  # (B, N, K, K) A_n, each sums to one
    auxiliary: Tensor | None = None  # (B, N, C) the SAN's own class scores


class STACNN(nn.Module):
    """One stream of the model; also, without its parts, its baselines.

    Args:
        backbone: maps frames ``(1, n, ...)`` to ``(1, n, channels, K, K)``.
        channels, classes: D and C.
        side: K of the attention map; None is average pooling (TAM, and the
            baseline).
        san: maps pairs of frames ``(n, 2, 3, H, W)`` to ``(n, M, ., .)``, M
            being its `channels`; the map is resized to K x K. Without it X_n
            is F_n: the flow stream's SAN shares the classifier's convolutions.
        dropout: before the last layer. Snippets are selected without it.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int, *,
                 side: int | None = None, san: nn.Module | None = None,
                 dropout: float = 0.0):
        super().__init__()
        if san is not None and side is None:
            raise ValueError("a `san` needs the `side` of the attention map")
        self.backbone, self.san = backbone, san
        self.attention = self.scores = None
        if side is not None:
            width = channels if san is None else san.channels
            self.attention = SpatialAttentionLayer(width, side)
            self.scores = ClassScores(width, classes)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor, pairs: Tensor | None = None,
                where: Tensor | None = None, *, ts: TS | None = None,
                select: str = "surest", label: Tensor | None = None,
                relevant: Tensor | None = None,
                two_pass: bool = True) -> STACNNOutput:
        """The output of snippets, and which of them may train.

        x: ``(B, N, C, H, W)`` frames or stacks of flow, or ``(B, N, 2, 3, H,
            W)`` pairs of frames; of a pair the classifier sees the first.
        pairs: what the `san` reads, where x is something else.
        where: maps ``(B, N, K, K)`` in place of A_n, as the true ones.
        ts: selects the snippets of `logits`; None, as at test time, is all.
        select: which snippets of a group `ts` takes: the "surest"; some at
            "random"; "by label" ``(B,)`` those of the least cross entropy;
            the "true" ones, random of those that are `relevant` ``(B, N)``.
        two_pass: first look at all snippets in eval mode without gradients,
            then at the selected ones with them: the memory is theirs alone.
            In one pass the others sway the statistics of batch norms.
        """
        pairs = x if pairs is None else pairs
        if x.ndim not in (5, 6) or self.san is not None and pairs.ndim != 6:
            raise ValueError(
                f"snippets {tuple(x.shape)}: give (B, N, C, H, W), or pairs "
                "(B, N, 2, 3, H, W), which a `san` needs")
        frames = x if x.ndim == 5 else x[:, :, 0]
        given = [value for value in (frames, pairs, where)
                 if value is not None]
        ts = ts or TS(1, x.shape[1], x.shape[1])
        again = two_pass and ts.top < ts.size
        with _looking(self) if again else nullcontext():
            seen = self.look(*(value.flatten(0, 1) for value in given))
        # detach, not no_grad: see `_looking` on autocast
        first = self.classify(seen[0]).detach().unflatten(0, x.shape[:2])
        h = entropy(first)
        order = h
        if select == "by label":
            each = label[:, None].expand(h.shape)
            order = F.cross_entropy(first.mT, each, reduction="none")
        elif select != "surest":
            # drawn on the CPU: everywhere the same
            order = torch.rand(h.shape).to(h.device)
            if select == "true":
                order = order - relevant.float()
        selected = ts.select(order)
        if again:
            at = selected.flatten().nonzero().squeeze(1)
            new = self.look(*(value[selected] for value in given))
            seen = [old if old is None else old.index_copy(0, at, new[i])
                    for i, old in enumerate(seen)]
        f, maps, auxiliary = (
            y if y is None else y.unflatten(0, x.shape[:2]) for y in seen)
        snippets, alpha = self.classify(self.dropout(f)), confidence(h)
        step = torch.arange(x.shape[1], device=x.device)
        chosen = snippets if ts.top == ts.size else _chosen(snippets, selected)
        return STACNNOutput(
            chosen.mean(1),
            torch.stack((step, step + 1), -1), snippets, selected, alpha,
            alpha / alpha.sum(1, keepdim=True), maps, auxiliary)

    def look(self, frames: Tensor, pairs: Tensor, where: Tensor | None = None,
             ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """f ``(n, D)``, A_n ``(n, K, K)`` and class scores of n snippets."""
        maps, scores = self.backbone(frames[None])[0], None
        if where is None and self.attention is None:
            return reduce(maps, "n d h w -> n d", "mean"), None, None
        if where is None:
            features = maps
            if self.san is not None:  # six poolings leave a smaller map
                features = F.interpolate(
                    self.san(pairs), size=maps.shape[-2:], mode="bilinear")
            where, scores = self.attention(features), self.scores(features)
        return weighted_pooling(maps, where), where, scores


@contextmanager
def _looking(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; each module's mode is restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        # for copies in older code: until PyTorch's PR 165068 autocast reused
        # weights that it rounded without gradients, and nothing learned
        torch.clear_autocast_cache()


def _chosen(values: Tensor, selected: Tensor) -> Tensor:
    """The selected snippets' entries: ``(B, N, C)`` to ``(B, k, C)``."""
    return values[selected].unflatten(0, (len(values), -1))


def loss(output: STACNNOutput, label: Tensor, *,
         weight: float = 0.5) -> dict[str, Tensor]:
    """Cross entropy of class and auxiliary scores, Eq. (6), (10).

    Only selected snippets count; the loss is that of their mean scores, as
    in temporal segment networks. Returns ``loss``, its terms ``ce`` and
    ``aux``, and ``wrong``, the share of the selected snippets whose class is
    wrong: the selection knows no labels and takes sure mistakes too.

    Args:
        label: classes ``(B,)``.
        weight: lambda of Eq. (10), which the paper does not tell; 0 leaves
            the auxiliary loss out.
    """
    chosen = _chosen(output.snippets, output.selected)
    terms = {"ce": F.cross_entropy(chosen.mean(1), label),
             "wrong": (chosen.argmax(-1) != label[:, None]).float().mean()}
    total = terms["ce"]
    if output.auxiliary is not None and weight:
        own = _chosen(output.auxiliary, output.selected)
        terms["aux"] = F.cross_entropy(own.mean(1), label)
        total = total + weight * terms["aux"]
    return {"loss": total, **terms}


def predictions(snippets: Tensor, top: int = 15,
                when: Tensor | None = None) -> dict[str, Tensor]:
    """A video's class in two ways: shares ``(B, C)``.

    Logits ``(B, n, V, C)`` of n snippets (paper: 25) in V crops each (10).
    p(s_n) is the mean of the softmax over the crops. "plain" is its mean over
    the snippets; "dcw" is weighted by "when" ``(B, n)``, the confidence of
    the `top` surest, Eq. (11), or what is given.
    """
    p = reduce(snippets.softmax(-1), "b n v c -> b n c", "mean")
    when = trust(p, top) if when is None else when
    return {"snippets": snippets, "when": when, "plain": p.mean(1),
            "dcw": einsum(when, p, "b n, b n c -> b c")}


def trust(p: Tensor, top: int = 15, *, floor: float = 1e-3) -> Tensor:
    """beta_n alpha_n ``(B, n)`` of predictions ``(B, n, C)``, over their sum.

    So they change no class, and streams can be fused as equals.
    """
    h, n = entropy(p.log()), p.shape[1]
    alpha = confidence(h, floor) * TS(1, n, min(top, n)).select(h)
    return alpha / alpha.sum(1, keepdim=True)
