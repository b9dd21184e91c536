"""Where and When to Look? Spatio-temporal attention for action recognition.

Meng et al., ICLR 2019 submission / ICCV Workshops 2019. Frame features from a
2D CNN are masked in space (where), weighted in time (when) at each step of a
ConvLSTM, and classified from the ConvLSTM's mean hidden state. Only class
labels train it; three regularisers shape the mask and the weights.

Symbols: n frames, X_i features of frame i, M_i its mask, T = n steps,
w_ti weight of frame i at step t, H_t and C_t the ConvLSTM's states.

Needs torch and einops only; copy the file as it is.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor, nn


class WhereAndWhenOutput(NamedTuple):
    """The model's output; a part that is switched off is None."""

    logits: Tensor  # (B, K) what
    where: Tensor | None  # (B, n, h, w) the masks M_i, in (0, 1)
    when: Tensor | None  # (B, n) w_ti averaged over the steps t
    spans: Tensor  # (n, 2) step i covers input frames [i, i + 1)
    weights: Tensor | None  # (B, T, n) every w_ti


class SaliencyMask(nn.Module):
    """The mask M_i that Eq. (1) multiplies into each frame, Table 5.

    Three 3x3 convolutions without bias, as in the released code.
    ``(B, n, C, h, w)`` features give ``(B, n, 1, h, w)`` in (0, 1).
    normalised: a softmax over the places of a frame ends them, not Table 5's
    sigmoid: each mask sums to one, and tells nothing about its frame.
    """

    def __init__(self, channels: int, hidden: tuple[int, int] = (1024, 512),
                 *, normalised: bool = False):
        super().__init__()
        first, second = hidden
        self.layers = nn.Sequential(
            *conv_bn_relu(channels, first),
            *conv_bn_relu(first, second),
            nn.Conv2d(second, 1, 3, padding=1, bias=False),
            PlaceSoftmax() if normalised else nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class PlaceSoftmax(nn.Module):
    """Softmax over the places of each map ``(..., h, w)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(-2).softmax(-1).view_as(x)


def conv_bn_relu(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A 3x3 convolution without bias, batch normalisation and ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


class TemporalAttention(nn.Module):
    """How much each frame counts at one ConvLSTM step, Eq. (2), (3).

    Eq. (2) prints the energy as the sum of a term of the hidden state and a
    term of the frame. The softmax of Eq. (3) runs over the frames, so the
    first term cancels and every step gets the same weights. The paper cites
    Bahdanau et al., whose energy ``v . tanh(W_H H + W_X X)`` does depend on
    the hidden state: that is the default, ``literal=True`` is the sum.
    Both maps are averaged over positions first.
    """

    def __init__(self, channels: int, hidden: int, units: int, *,
                 literal: bool = False):
        super().__init__()
        self.literal = literal
        units = 1 if literal else units
        self.from_frame = nn.Linear(channels, units)
        self.from_hidden = nn.Linear(hidden, units, bias=False)
        if not literal:
            self.energy = nn.Linear(units, 1, bias=False)

    def project(self, frames: Tensor) -> Tensor:
        """The part that no step changes: ``(B, n, C, h, w) -> (B, n, U)``."""
        return self.from_frame(reduce(frames, "b n c h w -> b n c", "mean"))

    def forward(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Weights ``(B, n)``, rows sum to one; hidden is ``(B, D, h, w)``."""
        state = self.from_hidden(reduce(hidden, "b d h w -> b 1 d", "mean"))
        energy = projected + state  # Eq. (2)
        if not self.literal:
            energy = self.energy(torch.tanh(energy))
        return energy.squeeze(-1).softmax(-1)  # Eq. (3)


class ConvLSTMCell(nn.Module):
    """A ConvLSTM step whose input convolution is taken out of the loop.

    Convolution is linear, so convolving Y_t = sum_i w_ti X_i is the same as
    weighting the convolved X_i: ``project`` runs once for all frames in one
    batch, and each step only convolves its hidden state.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.from_input = nn.Conv2d(channels, 4 * hidden, 3, padding=1,
                                    bias=False)
        self.from_hidden = nn.Conv2d(hidden, 4 * hidden, 3, padding=1)

    def project(self, frames: Tensor) -> Tensor:
        """``(B, n, C, h, w) -> (B, n, 4D, h, w)``."""
        gates = self.from_input(frames.flatten(0, 1))
        return gates.unflatten(0, frames.shape[:2])

    def forward(self, projected: Tensor, hidden: Tensor, cell: Tensor,
                ) -> tuple[Tensor, Tensor]:
        """New hidden and cell state, each ``(B, D, h, w)``."""
        gates = projected + self.from_hidden(hidden)
        i, f, o, g = gates.chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


class WhereAndWhen(nn.Module):
    """The whole model, Eq. (1)-(6).

    Args:
        channels: C of the frame features.
        classes: number of classes K.
        hidden: D of the ConvLSTM (paper: 512).
        mask_channels: widths of the mask network (Table 5: 1024, 512).
        spatial: False sets every mask to one ("w/o spatial attention").
        temporal: False sets every weight to 1/n ("w/o temporal attention");
            the ConvLSTM stays.
        literal: Eq. (2) and the extra 1/n of Eq. (4) as printed.
        normalised: masks by a softmax over places (`SaliencyMask`), times
            their number: a mask that is even everywhere changes nothing.
        in_order: the main scripts of the released code: the ConvLSTM reads
            the masked frames in their order, from states of zero, and a
            softmax over a score of each state weighs the states.
        dropout: share of channels dropped for a whole video (released code).
        backbone: maps ``(B, n, 3, H, W)`` to features; None if the model is
            fed with features ``(B, n, C, h, w)``.
    """

    def __init__(
            self, channels: int, classes: int, *, hidden: int = 512,
            mask_channels: tuple[int, int] = (1024, 512),
            spatial: bool = True, temporal: bool = True,
            literal: bool = False, normalised: bool = False,
            in_order: bool = False, dropout: float = 0.2,
            backbone: nn.Module | None = None):
        super().__init__()
        self.literal, self.normalised = literal, normalised
        self.in_order = in_order
        self.backbone = backbone or nn.Identity()
        self.dropout = nn.Dropout3d(dropout)
        self.mask = (SaliencyMask(channels, mask_channels,
                                  normalised=normalised) if spatial else None)
        self.attention = None
        if temporal:
            self.attention = nn.Linear(hidden, 1) if in_order else (
                TemporalAttention(channels, hidden, hidden, literal=literal))
        if not in_order:
            self.init_hidden, self.init_cell = (  # g_h and g_c
                nn.Sequential(*conv_bn_relu(channels, 2 * hidden),
                              *conv_bn_relu(2 * hidden, hidden))
                for _ in range(2))
        self.lstm = ConvLSTMCell(channels, hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, weights: Tensor | None = None,
                where: Tensor | None = None) -> WhereAndWhenOutput:
        """Weights ``(B, T, n)`` and masks ``(B, n, h, w)``, if given, take
        the place of the model's own: the truth, or a changed output.
        With `in_order` the weights of the states are ``(B, 1, n)``."""
        x = self.backbone(x)
        if x.ndim != 5:
            raise ValueError(
                f"features must be (B, n, C, h, w), got {tuple(x.shape)}")
        x = rearrange(x, "b n c h w -> b c n h w")
        x = rearrange(self.dropout(x), "b c n h w -> b n c h w")
        if where is None and self.mask is not None:
            where = self.mask(x).squeeze(2)
        if where is not None:
            places = x.shape[-2] * x.shape[-1] if self.normalised else 1
            x = x * (places * where.unsqueeze(2))  # Eq. (1)
        recur = self.recur_in_order if self.in_order else self.recur
        state, weights = recur(x, weights)
        steps = torch.arange(x.shape[1], device=x.device)
        return WhereAndWhenOutput(
            logits=self.classify(state.mean((-2, -1))),
            where=where, when=None if weights is None else weights.mean(1),
            spans=torch.stack((steps, steps + 1), -1), weights=weights)

    def recur(self, x: Tensor, given: Tensor | None = None,
              ) -> tuple[Tensor, Tensor | None]:
        """The mean state ``(B, D, h, w)`` and all weights ``(B, T, n)``.

        Eq. (2)-(6): at each step the frames are weighted anew from the
        hidden state, and their weighted sum, Eq. (4), enters the ConvLSTM.
        """
        n, mean = x.shape[1], x.mean(1)
        hidden, cell = self.init_hidden(mean), self.init_cell(mean)  # Eq. (5)
        gates = self.lstm.project(x)
        y = gates.mean(1)  # w_ti = 1/n
        look = given is None and self.attention is not None
        keys = self.attention.project(x) if look else None
        states, weights = [], []
        for t in range(n):
            if look or given is not None:
                w = self.attention(keys, hidden) if look else given[:, t]
                weights.append(w)
                y = einsum(w, gates, "b n, b n d h w -> b d h w")  # Eq. (4)
                # The softmax averages already; Eq. (4) divides once more.
                y = y / n if self.literal else y
            hidden, cell = self.lstm(y, hidden, cell)
            states.append(hidden)
        weights = torch.stack(weights, 1) if weights else None
        return torch.stack(states, 1).mean(1), weights  # Eq. (6)

    def recur_in_order(self, x: Tensor, given: Tensor | None = None,
                       ) -> tuple[Tensor, Tensor | None]:
        """As `recur`, in the released main scripts: one state per frame.

        Frame t enters at step t, and the states are weighed once, at the
        end: the state ``(B, D, h, w)`` and weights ``(B, 1, n)``.
        """
        gates, width = self.lstm.project(x), self.classify.in_features
        hidden = cell = gates.new_zeros(x.shape[0], width, *x.shape[-2:])
        states = []
        for t in range(x.shape[1]):
            hidden, cell = self.lstm(gates[:, t], hidden, cell)
            states.append(hidden)
        states, weights = torch.stack(states, 1), given
        if weights is None:
            if self.attention is None:
                return states.mean(1), None
            scores = self.attention(states.mean((-2, -1)))
            weights = scores.transpose(1, 2).softmax(-1)
        state = einsum(weights[:, 0], states, "b n, b n d h w -> b d h w")
        return state, weights


def total_variation(mask: Tensor) -> Tensor:
    """Roughness of the masks ``(B, n, h, w)``, per video ``(B,)``, Eq. (8).

    Absolute differences of neighbours in space, summed over frames; zero for
    a constant mask.
    """
    down, right = mask.diff(dim=-2).abs(), mask.diff(dim=-1).abs()
    return down.flatten(1).sum(1) + right.flatten(1).sum(1)


def contrast(mask: Tensor) -> Tensor:
    """Pushes mask values away from 0.5, per video ``(B,)``, Eq. (9).

    Values above 0.5 are pushed up, the others down. Its minimum is a mask of
    ones everywhere (-1/2 per position), which has no contrast: read it next
    to the mean of the mask.
    """
    above = (mask > 0.5).to(mask)
    terms = -0.5 * mask * above + 0.5 * mask * (1 - above)
    return terms.flatten(1).sum(1)


def convexity(weights: Tensor) -> Tensor:
    """max(0, w_{i-1} w_{i+1} - w_i^2) of the inner frames ``(..., n-2)``."""
    left, right = weights[..., :-2], weights[..., 2:]
    return F.relu(left * right - weights[..., 1:-1].square())


def unimodality(weights: Tensor) -> Tensor:
    """How far weights ``(..., n)`` are from log-concave, Eq. (10), (11).

    The sum of `convexity` over the inner frames, ``(...)``. Zero for uniform
    weights too, and for two modes with zeros between them, so zero does not
    mean one mode.
    """
    return convexity(weights).sum(-1)


def loss(
    output: WhereAndWhenOutput,
    label: Tensor,
    *,
    tv: float = 1e-5,
    contrast_weight: float = 1e-4,
    unimodal: float = 1.0,
    released: bool = False,
) -> dict[str, Tensor]:
    """Cross entropy and the three regularisers, Eq. (7).

    Returns ``loss`` and each unweighted term. A regulariser whose weight is
    zero, or whose attention is off, is left out.

    Args:
        label: classes ``(B,)``.
        released: the released code's normalisation, which the paper's weights
            were tuned for: total variation summed over the batch, and
            unimodality of the steps' mean weights, as the mean of square
            roots over frames. Default: each video's sum, averaged over the
            batch.
    """
    terms = {"ce": F.cross_entropy(output.logits, label)}
    total = terms["ce"]
    if output.where is not None and tv:
        per_video = total_variation(output.where)
        terms["tv"] = per_video.sum() if released else per_video.mean()
        total = total + tv * terms["tv"]
    if output.where is not None and contrast_weight:
        terms["contrast"] = contrast(output.where).mean()
        total = total + contrast_weight * terms["contrast"]
    if output.weights is not None and unimodal:
        if released:
            terms["unimodal"] = safe_sqrt(convexity(output.when)).mean()
        else:
            terms["unimodal"] = unimodality(output.weights).sum(1).mean()
        total = total + unimodal * terms["unimodal"]
    return {"loss": total, **terms}


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient is zero, not infinite, at zero."""
    return torch.where(x > 0, x.clamp_min(1e-12).sqrt(), 0.0)


def changes(weights: Tensor, where: Tensor) -> dict[str, dict[str, Tensor]]:
    """Masks and weights with a part of what they tell taken out, by name.

    weights ``(B, T, n)``, where ``(B, n, h, w)``: of a trained model, to be
    handed to it in place of its own. Without places each mask is its mean;
    without moments all masks of a video have the same mean.
    """
    frame = where.mean((2, 3), keepdim=True)
    video = frame.mean(1, keepdim=True)
    scaled, flat = where * video / frame.clamp(min=1e-9), video
    steps, even = weights.mean(1, keepdim=True), weights.mean(2, keepdim=True)
    return {
        name: {"weights": w.expand_as(weights), "where": mask.expand_as(where)}
        for name, mask, w in (
            ("mask without places", frame, weights),
            ("mask without moments", scaled, weights),
            ("mask without both", flat, weights),
            ("weights of all steps alike", where, steps),
            ("weights even", where, even),
            ("all even", flat, even),
        )
    }
