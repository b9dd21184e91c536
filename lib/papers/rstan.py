"""RSTAN: a recurrent spatial-temporal attention network, two streams.

Du, Wang and Qiao, IEEE Transactions on Image Processing 27(3), 2018. At each
step an LSTM looks anew at the feature maps of *all* frames: where in each,
then at which. An appearance and a motion stream share what they look at, and
the actor's silhouette can teach the maps.

Symbols: n a frame, t a step, T of each, k one of K^2 positions, CV a frame's
convolutional cube, FC its vector, alpha and beta the scores of positions and
frames, Phi what enters the LSTM. Needs torch and einops only: copy the file.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn


class RSTANOutput(NamedTuple):
    """The model's output; without attention the maps are None."""

    logits: Tensor  # (B, K) of each video's last step
    spans: Tensor  # (T, 2) frame i covers input frames [i, i + 1)
    steps: Tensor  # (B, T, K) logits of every step
    valid: Tensor  # (B, T) False where a video is padded
    where: Tensor | None = None  # (B, T, h, w) by the last step to look there
    when: Tensor | None = None  # (B, T) beta at the last step
    alpha: Tensor | None = None  # (B, T, T, h, w) at step t, in frame n, fused
    beta: Tensor | None = None  # (B, T, T) at step t, of frame n, fused
    stream_alpha: Tensor | None = None  # (B, S, T, T, h, w) of each stream
    stream_beta: Tensor | None = None  # (B, S, T, T)


class Attention(nn.Module):
    """Scores of positions, Eq. (2), (3), or frames, Eq. (5), (6).

    (exp x)^gamma is exp(gamma x): gamma is an inverse temperature. The
    softmax stays in float32 under autocast: gamma = 10 would spoil bfloat16.
    """

    def __init__(self, inputs: int, hidden: int, units: int, gamma: float):
        super().__init__()
        self.gamma = gamma
        self.from_input = nn.Linear(inputs, units)  # A_cv, b or B_L, b
        self.from_hidden = nn.Linear(hidden, units, bias=False)  # A_h, B_h
        self.score = nn.Linear(units, 1, bias=False)  # v

    def forward(self, keys: Tensor, hidden: Tensor, valid: Tensor) -> Tensor:
        """Scores ``(B, ..., n)`` that sum to one over n; 0 where not valid.

        keys: `from_input` ``(B, ..., n, U)`` of what is looked at. hidden:
        h_{t-1} ``(B, D)``. valid: broadcasts to the scores.
        """
        state = self.from_hidden(hidden)
        state = state.view(state.shape[0], *(1,) * (keys.ndim - 2), -1)
        score = self.score(torch.tanh(keys + state)).squeeze(-1)
        # not -inf: a window behind the video's end, where nothing is valid,
        # must not become NaN
        wide = torch.promote_types(score.dtype, torch.float32)
        score = (self.gamma * score.to(wide)).masked_fill(
            ~valid, torch.finfo(wide).min)
        return score.softmax(-1) * valid


class Cell(nn.Module):
    """An LSTM step with Phi as an extra input, Eq. (8)-(13).

    cube is the size of Phi (0: the plain LSTM of the baseline), vector that
    of x_t, the frame's FC.
    """

    def __init__(self, cube: int, vector: int, hidden: int):
        super().__init__()
        self.from_input = nn.Linear(vector, 4 * hidden)  # U^x, b
        self.from_hidden = nn.Linear(hidden, 4 * hidden, bias=False)  # U^h
        # apart from U^h, which then starts the same with and without it
        self.from_phi = (nn.Linear(cube, 4 * hidden, bias=False)  # U^phi
                         if cube else None)

    def forward(
        self, projected: Tensor, phi: Tensor | None, hidden: Tensor,
        memory: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """h_t and c_t ``(B, D)``; `projected` is `from_input` of x_t."""
        gates = projected + self.from_hidden(hidden)
        if phi is not None:
            gates = gates + self.from_phi(phi)
        i, f, o, g = gates.chunk(4, -1)  # Eq. (8)-(11) before their sigmoids
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()  # Eq. (12)
        return o.sigmoid() * memory.tanh(), memory  # Eq. (13)


class Stream(nn.Module):
    """The attention and the LSTM of one stream, appearance or motion."""

    def __init__(
        self, cube: int, vector: int, hidden: int, units: int,
        gamma: tuple[float, float], attention: bool,
    ):
        super().__init__()
        self.cell = Cell(cube if attention else 0, vector, hidden)
        if attention:
            self.spatial = Attention(cube, hidden, units, gamma[0])
            self.temporal = Attention(cube, hidden, units, gamma[1])


class RSTAN(nn.Module):
    """The whole model, Eq. (1)-(16).

    Args:
        cubes: channels d_cv of each stream's cube; one or two streams.
        vectors: size d_fc of each stream's vector.
        classes: number of classes; several make as many heads (multi-task).
        hidden: D of the LSTMs (paper: 1024).
        units: of the attention's hidden layer (the paper does not say).
        gamma: sharpness gamma_alpha, gamma_beta (paper: 5, 10; JHMDB 1, 1).
        window: frames that a step attends to, the current one first; None is
            all (paper; JHMDB: 2; 1 is its "current-frame attention").
        fusion: "max", as Eq. (14), (15) print it, or "mean"; of two streams.
            "none": each stream looks by its own scores, and what is returned
            as fused is their mean.
        renormalise: divide fused scores by their sum, which the paper does
            not: max-fused ones sum to something between 1 and 2.
        attention: False leaves the LSTMs on the vectors ("Baseline Net").
        query: False leaves h out of Eq. (2) and (5): all steps look alike.
        causal: a step attends to no frame behind its own.
    """

    def __init__(
        self, cubes: Sequence[int], vectors: Sequence[int],
        classes: int | Sequence[int], *, hidden: int = 1024, units: int = 512,
        gamma: tuple[float, float] = (1.0, 1.0), window: int | None = None,
        fusion: str = "max", renormalise: bool = False,
        attention: bool = True, query: bool = True, causal: bool = False,
    ):
        super().__init__()
        if fusion not in ("max", "mean", "none"):
            raise ValueError(
                f"fusion={fusion!r}: use 'max', 'mean' or 'none'")
        if window is not None and window < 1:
            raise ValueError(f"window={window}: at least 1 frame, or None")
        self.window, self.fusion, self.hidden = window, fusion, hidden
        self.renormalise, self.attention = renormalise, attention
        self.query, self.causal = query, causal
        self.streams = nn.ModuleList(
            Stream(cube, vector, hidden, units, gamma, attention)
            for cube, vector in zip(cubes, vectors, strict=True))
        counts = [classes] if isinstance(classes, int) else classes
        # W_a h^a + W_m h^m + b is one layer on both states, Eq. (16)
        self.classify = nn.ModuleList(
            nn.Linear(hidden * len(cubes), count) for count in counts)

    def forward(
        self, *features: Tensor, lengths: Tensor | None = None, head: int = 0,
        where: Tensor | None = None, when: Tensor | None = None,
    ) -> RSTANOutput:
        """The output of cubes and vectors of each stream in turn.

        features: CV ``(B, T, C, h, w)`` and FC ``(B, T, D)`` of the first
            stream, then those of the second, Eq. (1).
        lengths: frames ``(B,)`` of each video, where the rest is padding:
            nothing attends to it and nothing is predicted from it.
        head: the data set whose classes are asked for.
        where, when: maps ``(B, T, T, h, w)`` and weights ``(B, T, T)``, as
            `alpha` and `beta`, in place of all scores: even ones, true ones,
            or another video's. A first T of 1 serves every step.
        """
        cubes, vectors = features[::2], features[1::2]
        if (len(features) != 2 * len(self.streams)
                or any(x.shape[:2] != cubes[0].shape[:2] for x in features)
                or {x.ndim for x in cubes} != {5}
                or any(x.shape[3:] != cubes[0].shape[3:] for x in cubes)):
            raise ValueError(
                f"{len(self.streams)} stream(s) of cubes (B, T, C, h, w) and "
                f"vectors (B, T, D), not {[tuple(x.shape) for x in features]}")
        batch, steps, _, height, _ = cubes[0].shape
        frame = torch.arange(steps, device=vectors[0].device)
        last = frame[-1:].expand(batch) if lengths is None else lengths - 1
        valid = frame <= last[:, None]
        if where is not None:
            where = where.flatten(3).expand(-1, steps, -1, -1)
        if when is not None:
            when = when.expand(-1, steps, -1)
        states, alphas, betas = self.recur(cubes, vectors, valid, where, when)
        logits = self.classify[head](states)  # Eq. (16)
        rows = torch.arange(batch, device=frame.device)
        output = RSTANOutput(
            logits=logits[rows, last], steps=logits, valid=valid,
            spans=torch.stack((frame, frame + 1), -1))
        if not self.attention:
            return output
        alphas, alpha = (x.unflatten(-1, (height, -1))
                         for x in (alphas, self.fuse(alphas)))
        beta = self.fuse(betas)
        # a window slides past a frame: then its own step looks there last
        looks = last[:, None] if self.window is None else frame
        return output._replace(
            where=alpha[rows[:, None], looks, frame], when=beta[rows, last],
            alpha=alpha, beta=beta, stream_alpha=alphas, stream_beta=betas)

    def recur(self, cubes: list, vectors: list, valid: Tensor,
              where: Tensor | None, when: Tensor | None) -> tuple:
        """States ``(B, T, S*D)``, alpha and beta of all streams and steps.

        What no step changes, A_cv CV and U^x x, is computed before the loop.
        """
        batch, steps = valid.shape
        cubes = [rearrange(x, "b t c h w -> b t (h w) c") for x in cubes]
        inputs = [s.cell.from_input(x)
                  for s, x in zip(self.streams, vectors, strict=True)]
        keys = [s.spatial.from_input(x) if self.attention else None
                for s, x in zip(self.streams, cubes, strict=True)]
        past = valid.new_ones(steps, steps)
        past = past.tril() if self.causal else past
        zero = inputs[0].new_zeros(batch, self.hidden)
        hidden, memory = [zero] * len(keys), [zero] * len(keys)
        phi, outputs, alphas, betas = [None] * len(keys), [], [], []
        for t in range(steps):
            if self.attention:
                start, size = (t, self.window) if self.window else (0, steps)
                near = slice(start, start + size)
                phi, alpha, beta = self.attend(
                    [x[:, near] for x in keys], [x[:, near] for x in cubes],
                    hidden, (valid & past[t])[:, near],
                    *(x if x is None else x[:, t, near]
                      for x in (where, when)))
                margin = start, steps - start - beta.shape[-1]
                alphas.append(F.pad(alpha, (0, 0, *margin)))
                betas.append(F.pad(beta, margin))
            for s, stream in enumerate(self.streams):
                hidden[s], memory[s] = stream.cell(
                    inputs[s][:, t], phi[s], hidden[s], memory[s])
            outputs.append(torch.cat(hidden, -1))
        maps = (torch.stack(x, 2) if x else None for x in (alphas, betas))
        return torch.stack(outputs, 1), *maps

    def attend(
        self, keys: list, cubes: list, hidden: list, valid: Tensor,
        where: Tensor | None = None, when: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """One step: Phi per stream, its alpha and beta, stacked (B, S, ...).

        With two streams Eq. (4) and (7) weight by the fused scores. Where
        `where` (B, n, k) or `when` (B, n) is given, no stream is asked.
        """
        if not self.query:
            hidden = [torch.zeros_like(h) for h in hidden]
        count = len(self.streams)
        alphas = torch.stack([
            s.spatial(key, h, valid[..., None])
            for s, key, h in zip(self.streams, keys, hidden, strict=True)
        ] if where is None else [where] * count, 1)
        frames = [einsum(alpha, cube, "b n k, b n k c -> b n c")  # Eq. (4)
                  for alpha, cube in zip(self.shared(alphas), cubes,
                                         strict=True)]
        betas = torch.stack([
            s.temporal(s.temporal.from_input(frame), h, valid)
            for s, frame, h in zip(self.streams, frames, hidden, strict=True)
        ] if when is None else [when] * count, 1)
        phi = [einsum(beta, frame, "b n, b n c -> b c")  # Eq. (7)
               for beta, frame in zip(self.shared(betas), frames,
                                      strict=True)]
        return phi, alphas, betas

    def shared(self, scores: Tensor) -> Sequence[Tensor]:
        """What each stream looks by, of scores ``(B, S, ..., n)``."""
        if self.fusion == "none":
            return scores.unbind(1)
        return [self.fuse(scores)] * scores.shape[1]  # Eq. (14), (15)

    def fuse(self, scores: Tensor) -> Tensor:
        """Scores ``(B, S, ..., n)`` of the streams to one, Eq. (14), (15)."""
        if scores.shape[1] == 1:
            return scores[:, 0]
        fused = scores.amax(1) if self.fusion == "max" else scores.mean(1)
        if self.renormalise:  # padded frames have no mass to divide by
            fused = fused / fused.sum(-1, keepdim=True).clamp_min(1e-12)
        return fused


def silhouette(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The targets M ``(B, T, h, w)`` of masks ``(B, T, H, W)``, section III-D.

    The cells that the actor fills by half share a mass of one; if there are
    none, all that the actor touches. Frames without an actor are zero.
    """
    cover = F.interpolate(mask.float(), size=size, mode="area")
    inside = cover >= 0.5
    none = ~inside.flatten(2).any(2)
    inside = inside | (none[..., None, None] & (cover > 0))
    return inside / inside.sum((-2, -1), keepdim=True).clamp_min(1)


def actor_attention(own: Tensor, target: Tensor, form: str = "l2") -> Tensor:
    """How far maps are from the silhouettes, per video ``(B,)``, Eq. (18).

    own: alpha_t(t) ``(B, T, h, w)``, each step's map of its own frame.
    target: `silhouette`; frames without one do not count. form: "l2", or the
    cross entropy "ce", for which max-fused maps are divided by their sum.
    """
    if form not in ("l2", "ce"):
        raise ValueError(f"form={form!r}: use 'l2' or 'ce'")
    share = own / own.sum((-2, -1), keepdim=True).clamp_min(1e-12)
    apart = ((own - target).square() if form == "l2"
             else -target * share.clamp_min(1e-12).log())
    shown = target.flatten(2).any(2)
    return (apart.flatten(2).sum(2) * shown).sum(1)


def loss(
    output: RSTANOutput, label: Tensor, *, target: Tensor | None = None,
    weight: float = 0.5, form: str = "l2",
) -> dict[str, Tensor]:
    """Cross entropy of all steps, and the actor's share, Eq. (17), (19).

    Returns ``loss`` and its terms, means over the batch: ``main`` sums over
    the steps; ``ce`` is the last step's, to compare with other models;
    ``actor`` comes with a `target` (`silhouette`), times lambda_AA =
    `weight`. Weight decay is the optimiser's.
    """
    labels = label[:, None].expand(output.valid.shape)
    each = F.cross_entropy(output.steps.mT, labels, reduction="none")
    terms = {"main": (each * output.valid).sum(1).mean(),
             "ce": F.cross_entropy(output.logits, label)}
    total = terms["main"]
    if target is not None:
        own = output.alpha.diagonal(dim1=1, dim2=2).movedim(-1, 1)
        own = own * output.valid[..., None, None]
        terms["actor"] = actor_attention(own, target, form).mean()
        total = total + weight * terms["actor"]
    return {"loss": total, **terms}


class Control(RSTAN):
    """RSTAN that is told its maps, or whose cubes know the time.

    told: of "where" and "when", those whose weights are even, or true if the
        model is also called with `mask` and `relevant`.
    time: "channel" gives each cube one channel more, the frame's time from
        -1 to 1; "product" also all channels once more, times the time. Not
        in the paper: what each part of it is good for.
    """

    def __init__(self, cubes: Sequence[int], *sizes, time: str = "",
                 told: Sequence[str] = (), **options):
        self.widths = {"": (1, 0), "channel": (1, 1), "product": (2, 1)}[time]
        times, more = self.widths
        super().__init__([times * size + more for size in cubes], *sizes,
                         **options)
        self.told = told

    def forward(self, *features: Tensor, **options) -> RSTANOutput:
        """As RSTAN's; masks ``(B, T, H, W)`` and relevant frames ``(B, T)``
        may come behind the features."""
        count = 2 * len(self.streams)
        features, truth = [*features[:count]], features[count:]
        even = torch.ones_like(features[0][:, :, 0])
        place, moment = (silhouette(truth[0], even.shape[2:]), truth[1]
                         ) if truth else (even, even[:, :, 0, 0])
        maps = {"where": place / place.sum((2, 3), keepdim=True).clamp_min(1),
                "when": moment / moment.sum(1, keepdim=True).clamp_min(1)}
        for i in range(0, count, 2):
            cube = features[i]
            now = torch.linspace(-1, 1, cube.shape[1], device=cube.device)
            now = now.view(-1, 1, 1, 1)
            times, more = self.widths
            features[i] = torch.cat((
                cube, *[cube * now] * (times - 1),
                *[now.expand_as(cube[:, :, :1])] * more), 2)
        return super().forward(*features, **options | {
            name: maps[name][:, None] for name in self.told})


CHANGES = ("x reversed", "x of another", "Φ of another", "places even",
           "moments even")


@torch.inference_mode()
def altered(
    model: RSTAN, features: Sequence[Tensor], change: str = ""
) -> RSTANOutput:
    """The output when one thing that enters a trained model is another.

    features: a batch of several videos, as `forward` reads them, on any
    device, also in float16. change: of CHANGES, or nothing. The vectors x_t
    come in reverse order, or are those of the video before in the batch; or
    the cubes are, which make Phi. Or the fused scores are even over positions,
    or over frames: over those that a step attends to, with the sums that they
    had.
    """
    if change and change not in CHANGES:
        raise ValueError(f"change={change!r}: one of {CHANGES}")
    device = next(model.parameters()).device
    features, maps = [x.to(device).float() for x in features], {}
    for i in range(2 * len(model.streams)):
        if change == "x reversed" and i % 2:
            features[i] = features[i].flip(1)
        elif change == ("x of another" if i % 2 else "Φ of another"):
            features[i] = features[i].roll(1, 0)
    if change.endswith("even"):
        own = model(*features)
        seen = (own.beta > 0).to(own.beta)
        maps = {"where": own.alpha.mean((3, 4), keepdim=True).expand_as(
            own.alpha)} if change == "places even" else {
                "when": seen / seen.sum(2, keepdim=True)
                * own.beta.sum(2, keepdim=True)}
    return model(*features, **maps)
