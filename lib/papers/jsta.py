"""JSTA: joint spatial-temporal attention, inside a 3D CNN, then over clips.

Yu et al., Pattern Recognition Letters 112, 2018. A video is cut into clips
of 8 frames. A block inside a 3D CNN gates each clip's feature map (where); a
bidirectional LSTM weighs the clips by their feature vectors (when). First
`ClipClassifier` is trained (S-step), then `TemporalClassifier` on its features
(T-step).

Symbols: n frames, t clips, X a feature map, G and A its gates, x_i the vector
of clip i, beta_i its weight. Needs torch and einops only: copy the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

AXES = ("spatial", "channel", "spatiotemporal")  # of the block's softmaxes
MERGES = {  # Eq. (18)
    "concat": lambda ahead, back: torch.cat((ahead, back), -1),
    "mul": torch.mul, "sum": torch.add,
    "avg": lambda ahead, back: (ahead + back) / 2}


class JSTAOutput(NamedTuple):
    """The models' output; of a part that they lack, None.

    T' is t times the steps of a clip's map (4 for 8 frames), or t without.
    """

    logits: Tensor  # (B, K)
    spans: Tensor  # (T', 2) the frames [start, end) of each step
    valid: Tensor  # (B, t) False where a clip is padding
    features: Tensor  # (B, t, D) x_i, zero for padding
    where: Tensor | None = None  # (B, T', h, w) G A averaged over channels
    when: Tensor | None = None  # (B, T') beta_i, shared out to i's steps
    weights: Tensor | None = None  # (B, t) beta_i; rows sum to one


class SpatialAttention(nn.Module):
    """The block inside a 3D CNN, Eq. (12)-(17): ``(N, C, T, h, w)`` to same.

    As softmaxes are positive, the two ReLUs of Eq. (14), (16) are one:
    relu(relu(G X) A) = G A relu(X). It does nothing where X comes out of a
    ReLU; then the block can only enlarge X. After a call `seen` holds G A,
    averaged over channels. Weights start at N(0, 0.01), as released: gates
    are even.

    Args:
        channels: C.
        over: what each softmax runs over: "spatial", a frame's positions,
            as Eq. (3) defines it; "channel" (released); "spatiotemporal".
        literal: as printed: two softmaxes leave 1e-7 to 1e-4 of X at the
            paper's size, and the block does nothing. By default each is
            multiplied by its number of entries, so that a gate is one on
            average.
        shortcut: without it F = O, and a small gate removes a place.
    """

    def __init__(self, channels: int, over: str = "spatial", *,
                 literal: bool = False, shortcut: bool = True):
        super().__init__()
        if over not in AXES:
            raise ValueError(f"over={over!r}: use one of {AXES}")
        self.over, self.literal, self.shortcut = over, literal, shortcut

        def conv(*kernel):  # torch's order: time, height, width
            made = nn.Conv3d(channels, channels, kernel, padding="same")
            nn.init.normal_(made.weight, std=0.01)
            nn.init.zeros_(made.bias)
            return made

        self.in_space, self.in_time = conv(1, 3, 3), conv(3, 1, 1)  # W_s, W_t
        self.overall = nn.Sequential(conv(1, 1, 1), conv(3, 3, 3))  # W_1, W_3
        self.seen: Tensor | None = None

    def extra_repr(self) -> str:
        return (f"over={self.over!r}, literal={self.literal}, "
                f"shortcut={self.shortcut}")

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gates(x)
        self.seen = gates.detach().mean(1)
        added = gates * x.relu()  # Eq. (14), (16)
        return added + x if self.shortcut else added  # Eq. (17)

    def gates(self, x: Tensor) -> Tensor:
        """G A, in the shape of x."""
        g = self.softmax(self.in_space(x) + self.in_time(x))  # Eq. (12), (13)
        return g * self.softmax(self.overall(x))  # Eq. (15)

    def softmax(self, scores: Tensor) -> Tensor:
        """Over the chosen axes of ``(N, C, T, h, w)``; rescaled or not."""
        channel = self.over == "channel"
        flat = (scores.movedim(1, -1) if channel
                else scores.flatten(3 if self.over == "spatial" else 2))
        gate = flat.softmax(-1) * (1 if self.literal else flat.shape[-1])
        return gate.movedim(-1, 1) if channel else gate.view(scores.shape)


@contextmanager
def other_gates(model: nn.Module, change: Callable) -> Iterator[None]:
    """Inside, the gates of a trained model's block are `change(x, gates)`."""
    def changed(block, args, out):
        (x,) = args
        gates = block.gates(x)
        return out + (change(x, gates) - gates) * x.relu()

    (hook,) = (part.register_forward_hook(changed) for part in model.modules()
               if isinstance(part, SpatialAttention))
    try:
        yield
    finally:
        hook.remove()


def even_gates(x: Tensor, gates: Tensor) -> Tensor:
    """One gate for all positions of a channel and step, for `other_gates`.

    It adds as much to X in sum as the gates do, but in no place more.
    """
    x = x.relu()
    total = x.sum((3, 4), keepdim=True).clamp(min=1e-6)
    return (gates * x).sum((3, 4), keepdim=True) / total


class TrueGates(nn.Module):
    """In the place of `SpatialAttention`: gates from the true answers.

    The input's last channel holds them, ``(N, C + 1, T, h, w)``. What the
    block could win if it knew where to look.
    """

    def __init__(self, shortcut: bool = True):
        super().__init__()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x, gates = x[:, :-1], x[:, -1:]
        return gates * x + x if self.shortcut else gates * x


class ClipClassifier(nn.Module):
    """S-step: a 3D CNN on each clip, with the block inside or without.

    backbone: maps clips ``(N, L, 3, H, W)`` to ``(N, T, channels, h, w)``.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int):
        super().__init__()
        self.backbone = backbone
        self.classify = nn.Linear(channels, classes)

    def forward(self, clips: Tensor,
                valid: Tensor | None = None) -> JSTAOutput:
        """The output of videos in clips; logits are means over clips.

        clips: ``(B, t, L, 3, H, W)``; those of a batch run as one batch.
        valid: ``(B, t)``; False is padding, which never enters the network.
        """
        padded = valid is not None
        valid = _real(clips, valid, "clips (B, t, L, 3, H, W)")
        maps = self.backbone(clips[valid] if padded else clips.flatten(0, 1))
        blocks = [block for block in self.backbone.modules()
                  if isinstance(block, SpatialAttention)]
        x = reduce(maps, "n t c h w -> n c", "mean")
        logits = _spread(self.classify(x), valid).sum(1)
        where = _spread(blocks[-1].seen, valid) if blocks else None
        return JSTAOutput(
            logits / valid.sum(1, keepdim=True),
            _spans(valid, where.shape[2] if blocks else 1, clips.shape[2]),
            valid, features=_spread(x, valid),
            where=where.flatten(1, 2) if blocks else None)


def _real(x: Tensor, valid: Tensor | None, layout: str) -> Tensor:
    """`valid`, all by default; ValueError if the inputs are not as told."""
    # what is not given is not read, so that torch.export has no branch
    if x.ndim != layout.count(",") + 1 or valid is not None and (
            valid.shape != x.shape[:2] or not valid[:, 0].all()
            or (valid[:, 1:] > valid[:, :-1]).any()):
        raise ValueError(f"give {layout} and valid (B, t), real clips first "
                         f"in each row; got {tuple(x.shape)} and {valid}")
    if valid is None:
        valid = x.new_ones(x.shape[:2], dtype=torch.bool)
    return valid


def _spread(values: Tensor, valid: Tensor) -> Tensor:
    """``(N, ...)`` of the valid clips to ``(B, t, ...)``, zero elsewhere."""
    if values.shape[0] == valid.numel():  # no clip is padding
        return values.unflatten(0, valid.shape)
    full = values.new_zeros(*valid.shape, *values.shape[1:])
    full[valid] = values
    return full


def _spans(valid: Tensor, steps: int, length: int) -> Tensor:
    edges = torch.arange(valid.shape[1] * steps + 1, device=valid.device)
    return torch.stack((edges[:-1], edges[1:]), -1) * length // steps


class TemporalAttention(nn.Module):
    """The weight of each clip, Eq. (18)-(20), (22).

    Args:
        channels: D of the features.
        hidden: of the LSTM, Eq. (2), in each direction.
        merge: of the two directions, Eq. (18); one of MERGES.
        init: first states, "mean_mlp", Eq. (22), or "zero".
        scale: read w_t of Eq. (20) as one learned number, so that t may
            vary; it starts at 4, one over the sigmoid's slope. Without it no
            weight is more than e times another.
    """

    def __init__(self, channels: int, hidden: int = 512, *,
                 merge: str = "concat", init: str = "mean_mlp",
                 scale: bool = True):
        super().__init__()
        if merge not in MERGES or init not in ("mean_mlp", "zero"):
            raise ValueError(f"merge={merge!r}, init={init!r}: use one of "
                             f"{[*MERGES]}, and 'mean_mlp' or 'zero'")
        self.merge = merge
        self.lstm = nn.LSTM(
            channels, hidden, batch_first=True, bidirectional=True)
        self.score = nn.Linear(
            2 * hidden if merge == "concat" else hidden, 1)  # w, b
        self.scale = nn.Parameter(torch.tensor(4.0)) if scale else None  # w_t
        self.first = None if init == "zero" else nn.ModuleList(  # h_0, c_0
            nn.Sequential(nn.Linear(channels, hidden), nn.Tanh(),
                          nn.Linear(hidden, 2 * hidden), nn.Tanh())
            for _ in range(2))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """beta ``(B, t)`` of x ``(B, t, D)``, both zero where not valid."""
        real = _real(x, valid, "features (B, t, D)")
        mean = x.sum(1) / real.sum(1, keepdim=True)
        states = None if self.first is None else tuple(
            rearrange(mlp(mean), "b (way d) -> way b d", way=2).contiguous()
            for mlp in self.first)  # Eq. (22)
        h, _ = _recur(self.lstm, x, valid, states)
        h = MERGES[self.merge](*h.chunk(2, -1))  # Eq. (18)
        beta = self.score(h).squeeze(-1).sigmoid()  # Eq. (19)
        beta = beta if self.scale is None else self.scale * beta
        return beta.masked_fill(~real, -torch.inf).softmax(-1)  # Eq. (20)


def _recur(lstm: nn.LSTM, x: Tensor, valid: Tensor | None,
           states: tuple | None = None) -> tuple[Tensor, Tensor]:
    """States ``(B, t, H)`` of real clips, then zeros; the last ``(B, H)``."""
    if valid is None:  # no clip is padding
        h, (last, _) = lstm(x, states)
        return h, last[-1]
    # packed, so that going back starts at each video's own last clip
    packed = pack_padded_sequence(
        x, valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    h, (last, _) = lstm(packed, states)
    h, _ = pad_packed_sequence(h, batch_first=True, total_length=x.shape[1])
    return h, last[-1]


class MixtureOfExperts(nn.Module):
    """Log probabilities ``(B, K)``: experts' softmaxes, mixed by a softmax."""

    def __init__(self, inputs: int, classes: int, experts: int = 2):
        super().__init__()
        self.trust = nn.Linear(inputs, experts)
        self.experts = nn.Linear(inputs, experts * classes)

    def forward(self, x: Tensor) -> Tensor:
        trust = self.trust(x).log_softmax(-1).unsqueeze(-1)
        each = self.experts(x).unflatten(-1, (trust.shape[1], -1))
        return torch.logsumexp(trust + each.log_softmax(-1), 1)


class TemporalClassifier(nn.Module):
    """T-step: a video's class from its clips' features (section 4.3).

    Args:
        channels, classes: D of the features, and K.
        attention: None is "woTA" of Table 2, where every weight is one.
        head: "fc", "moe", or "lstm": two layers of `hidden` units, which
            read the sequence, so that `pool` and `clips` go unused.
        pool: of weighted clips: "max", "avg", or "concat" of up to `clips`.
        literal: beta_i x_i as printed; by default times t, so that even
            weights are no attention. length: frames of a clip.
    """

    def __init__(self, channels: int, classes: int, *,
                 attention: TemporalAttention | None = None, head: str = "fc",
                 pool: str = "avg", clips: int = 1, hidden: int = 512,
                 literal: bool = False, length: int = 8):
        super().__init__()
        heads, pools = ("fc", "moe", "lstm"), ("max", "avg", "concat")
        if head not in heads or pool not in pools:
            raise ValueError(f"head={head!r}, pool={pool!r}: use one of "
                             f"{heads} and one of {pools}")
        self.attention, self.pool, self.clips = attention, pool, clips
        self.literal, self.length = literal, length
        inputs, self.lstm = channels * (clips if pool == "concat" else 1), None
        if head == "lstm":
            inputs, self.lstm = hidden, nn.LSTM(
                channels, hidden, 2, batch_first=True)
        last = MixtureOfExperts if head == "moe" else nn.Linear
        self.classify = last(inputs, classes)

    def forward(self, x: Tensor, valid: Tensor | None = None,
                weights: Tensor | None = None) -> JSTAOutput:
        """The output of ``(B, t, D)``; valid ``(B, t)``, padding is False.

        weights: ``(B, t)`` with rows that sum to one, to use instead of the
        attention's: even ones, say, or the true ones.
        """
        real = _real(x, valid, "features (B, t, D)")
        x = x.masked_fill(~real[..., None], 0)
        y = x
        if weights is None and self.attention is not None:
            weights = self.attention(x, valid)
        if weights is not None:
            count = 1 if self.literal else real.sum(1, keepdim=True)
            y = x * (weights * count)[..., None]
        y = (self.merge(y, real) if self.lstm is None
             else _recur(self.lstm, y, valid)[1])
        return JSTAOutput(
            self.classify(y), _spans(real, 1, self.length), real, x,
            when=weights, weights=weights)

    def merge(self, x: Tensor, valid: Tensor) -> Tensor:
        """``(B, t, D) -> (B, D)``, or for "concat" ``(B, clips * D)``."""
        if self.pool == "avg":
            return x.sum(1) / valid.sum(1, keepdim=True)
        if self.pool == "max":
            return x.masked_fill(~valid[..., None], -torch.inf).amax(1)
        if x.shape[1] > self.clips:
            raise ValueError(f"{x.shape[1]} clips, but clips={self.clips}")
        return F.pad(x, (0, 0, 0, self.clips - x.shape[1])).flatten(1)


class JSTA(nn.Module):
    """Both steps' networks in one: clips in; class, where and when out."""

    def __init__(self, spatial: ClipClassifier, temporal: TemporalClassifier):
        super().__init__()
        self.spatial, self.temporal = spatial, temporal

    def forward(self, clips: Tensor,
                valid: Tensor | None = None) -> JSTAOutput:
        """As `ClipClassifier` does, with the temporal part's logits."""
        seen = self.spatial(clips, valid)
        out = self.temporal(seen.features, valid)
        steps = seen.spans.shape[0] // seen.valid.shape[1]
        if (when := out.weights) is not None:
            when = (when / steps).repeat_interleave(steps, 1)
        return out._replace(where=seen.where, when=when, spans=seen.spans)


def loss(output: JSTAOutput, label: Tensor) -> dict[str, Tensor]:
    """Cross entropy with `label` ``(B,)``, Eq. (21).

    Its second term is the optimiser's: SGD's `weight_decay` is 2 lambda.
    """
    return {"loss": F.cross_entropy(output.logits, label)}
