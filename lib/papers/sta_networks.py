"""STA networks: one small module that gates frames and channels of a 3D CNN.

Li et al., IEEE Transactions on Multimedia, 2020. In the order of this file:

- the module and its two halves, Eq. (1)-(7): feature maps to the same size;
- the paper's rivals, squeeze-and-excitation and STC; `MODULES` names all;
- `insert` puts modules into the blocks of a 3D CNN; `dead_share` counts those
  that have stopped;
- `STAClassifier` runs such a network on clips, averages their logits, and
  hands out the last module's gates; `loss`;
- MARS (Crasto et al., CVPR 2019), streams that Tables I and II put modules
  into: `mimic_loss` trains one on RGB to have a flow stream's features, so
  that flow is needed for training alone; `fuse` joins streams.

Symbols: X a feature map (B, c, l, h, w) of c channels and l steps, W its
gates, Y = W X. Needs torch and einops only: copy the file.
"""

import copy
import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

OPEN = 3.0  # a gate's first score: sigmoid(3) = 0.95, the network as it was
STARTS = ("open", "half", "torch")


class Gated(nn.Module):
    """What the modules share: the size they are made for, and Eq. (7), W X.

    A list set as `record` gets (module, W) of each pass, W ``(B, c or 1, l or
    1)``; no hook, as compiled code does not look for new ones. `channels` and
    `size` are c and (l, h, w), None where any will do.
    """

    per_channel = per_step = True

    def __init__(self, channels: int, size: tuple[int | None, ...]):
        super().__init__()
        self.map = (channels, *size)
        self.relu, self.record = nn.ReLU(), None

    def extra_repr(self) -> str:
        return f"map={self.map}"

    def forward(self, x: Tensor) -> Tensor:
        """``(B, c, l, h, w)`` to the same; ValueError for another size."""
        if x.ndim != 5 or any(side not in (None, given) for side, given
                              in zip(self.map, x.shape[1:], strict=True)):
            c, *size = ("any" if n is None else n for n in self.map)
            raise ValueError(
                f"made for maps (B, {c}, {', '.join(map(str, size))}), got "
                f"{tuple(x.shape)}: give clips of the size it was inserted "
                "for, or insert it anew with such a clip")
        w = self.weights(x)
        if self.record is not None:
            self.record.append((self, w.detach()))
        return w[..., None, None] * x

    def weights(self, x: Tensor) -> Tensor:
        """The gates W, each in (0, 1)."""
        raise NotImplementedError


def _start_open(squeeze: list[nn.Module], last: nn.Module) -> None:
    """Means, and one, before the ReLU; gates of sigmoid(OPEN) after it."""
    squeeze = [layer for layer in squeeze if hasattr(layer, "weight")]
    with torch.no_grad():
        for layer in squeeze:
            layer.weight.fill_(1 / layer.weight.numel())
            layer.bias.fill_(float(layer is squeeze[-1]))
        last.weight.zero_()
        last.bias.fill_(OPEN)


def _start_half(first: nn.Module, squeeze: list[nn.Module],
                last: nn.Module) -> None:
    """Conv1 at zero, all behind it hands its number on: gates of 1/2.

    The number plus one passes the ReLU, and one is taken off again.
    """
    with torch.no_grad():
        for layer in (first, *squeeze, last):
            layer.weight.zero_()
            layer.bias.zero_()
        for layer in (*squeeze, last):
            layer.weight[..., layer.weight.shape[-1] // 2] = 1
        (squeeze or [first])[-1].bias.fill_(1)
        last.bias.fill_(-1)


def _start(start: str, squeeze: list[nn.Module], last: nn.Module) -> None:
    if start not in STARTS:
        raise ValueError(f"start={start!r}: one of {STARTS}")
    if start == "open":
        _start_open(squeeze, last)
    if start == "half":
        first, *others = (x for x in squeeze if hasattr(x, "weight"))
        _start_half(first, others, last)


def contrast(x: Tensor) -> Tensor:
    """Each channel of ``(B, c, l, h, w)`` less its mean over the clip, over
    its deviation: what is the same at every step is gone."""
    return F.instance_norm(x)


class TemporalAttention(Gated):
    """A gate for each step, T_t of Eq. (1): TA of Table VII.

    Conv1 sums each step up, Eq. (2); Deconv expands time; Conv2 squeezes it
    back to l, which for any step needs the same stride.

    Args:
        channels, size: c and (l, h, w) of the maps; l may change later.
        step: stride of Deconv (Fig. 7); None is without it (Table IX).
        start: of the weights. "open": Conv1 and Deconv are means plus one, so
            that maps around zero pass the ReLU too, and Conv2 gives gates of
            0.95. "half": gates of 1/2, where they learn fastest; Conv1 is
            zero, the rest hands its number on. "torch": as torch draws them;
            the ReLU may start dead.
        norm: Conv1 reads the `contrast` of the map.
    """

    per_channel = False

    def __init__(self, channels: int, size: tuple[int, int, int], *,
                 step: int | None = 1, start: str = "open",
                 norm: bool = False):
        _, height, width = size
        super().__init__(channels, (None, height, width))
        if step is not None and step < 1:
            raise ValueError(f"step={step}: at least 1, or None")
        gates = channels if self.per_channel else 1
        self.norm = norm
        self.conv1 = nn.Conv3d(channels, 1, (1, height, width))
        if step is None:
            self.deconv = nn.Identity()
            self.conv2 = nn.Conv1d(1, gates, 3, padding=1)
        else:
            self.deconv = nn.ConvTranspose1d(1, 1, 3, step)
            self.conv2 = nn.Conv1d(1, gates, 3, step)
        _start(start, [self.conv1, self.deconv], self.conv2)

    def weights(self, x: Tensor) -> Tensor:
        """Eq. (1) behind Eq. (2), or Eq. (6) with one gate a channel."""
        x = contrast(x) if self.norm else x
        z = self.deconv(rearrange(self.conv1(x), "b 1 l 1 1 -> b 1 l"))
        return self.conv2(self.relu(z)).sigmoid()


class ChannelAttention(Gated):
    """A gate for each channel, T_s of Eq. (3): "spatial attention", SA.

    As printed, Conv1 of Eq. (4) has c l h w c weights, 411 million at 1024 x
    8 x 7 x 7. The paper's own way out is taken: S_s merges into Conv1, one
    number per clip, from which Conv2 resumes the channels. `size` and
    `start` as in `TemporalAttention`, but l is fixed too.
    """

    per_step = False

    def __init__(self, channels: int, size: tuple[int, int, int], *,
                 start: str = "open"):
        super().__init__(channels, size)
        self.conv1 = nn.Conv3d(channels, 1, self.map[1:])
        self.conv2 = nn.Conv1d(1, channels, 1)
        _start(start, [self.conv1], self.conv2)

    def weights(self, x: Tensor) -> Tensor:
        """Eq. (3) behind Eq. (4)."""
        # a kernel of the map's size is one product, far faster than conv1(x)
        z = F.linear(x.flatten(1), self.conv1.weight.flatten(1),
                     self.conv1.bias)[:, None]
        return self.conv2(self.relu(z)).sigmoid()


class STA(TemporalAttention):
    """A gate for each step and channel, Eq. (5), (6): the paper's module.

    As `TemporalAttention`, but Conv2 also resumes the c channels. Conv1 is P
    of Eq. (5) and, as the paper moves it there, S_s of Eq. (6).
    c (h w + 4) + 5 parameters (Table IV).
    """

    per_channel = True


class SqueezeExcitation(Gated):
    """Hu et al. (CVPR 2018) on a clip's mean: "SENet" of Table VII.

    Two layers, c to c / reduction to c. The paper gives no reduction; 16 is
    that of Hu et al. Starts open, as its rivals do; any `size` will do.
    """

    per_step = False

    def __init__(self, channels: int, size: tuple[int, int, int], *,
                 reduction: int = 16):
        super().__init__(channels, (None, None, None))
        units = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, units)
        self.excite = nn.Linear(units, channels)
        _start_open([], self.excite)

    def weights(self, x: Tensor) -> Tensor:
        """One gate a channel, from the means of all channels."""
        z = reduce(x, "b c l h w -> b c", "mean")
        z = self.excite(self.relu(self.squeeze(z)))
        return rearrange(z, "b c -> b c 1").sigmoid()


class ChannelCorrelation(SqueezeExcitation):
    """The STC block of Diba et al. (ECCV 2018), rival of Table IV.

    Beside squeeze and excitation, a branch that reads c numbers at each of l
    steps, through c l / reduction units; each gate is the mean of both
    branches'. c^2 (l^2 + l + 2) / reduction weights, as Table IV counts
    them, and biases.
    """

    def __init__(self, channels: int, size: tuple[int, int, int], *,
                 reduction: int = 16):
        super().__init__(channels, size, reduction=reduction)
        self.map = (channels, size[0], None, None)
        units = max(1, channels * size[0] // reduction)
        self.squeeze_steps = nn.Linear(channels * size[0], units)
        self.excite_steps = nn.Linear(units, channels)
        _start_open([], self.excite_steps)

    def weights(self, x: Tensor) -> Tensor:
        """One gate a channel, the mean of both branches'."""
        z = reduce(x, "b c l h w -> b (c l)", "mean")
        z = self.excite_steps(self.squeeze_steps(z).relu())
        return (super().weights(x)
                + rearrange(z, "b c -> b c 1").sigmoid()) / 2


def true_gates(relevant: Tensor, steps: int) -> Tensor:
    """From the frames of the action ``(B, n)`` gates ``(B, steps)``.

    The share of a step's frames, between 0.05 and 0.95.
    """
    share = F.adaptive_avg_pool1d(relevant[:, None].float(), steps)
    return 0.05 + 0.9 * share[:, 0]


class TrueGates(Gated):
    """Gates that are told and learn nothing, to see what could be won.

    Set `relevant` ``(B, n)``, the frames of the action, before each pass.
    even: each step gets the video's mean, the partner that knows no time.
    """

    per_channel = False

    def __init__(self, channels: int, size: tuple[int, int, int], *,
                 even: bool = False):
        super().__init__(channels, (None, None, None))
        self.relevant, self.even = None, even

    def weights(self, x: Tensor) -> Tensor:
        """One gate a step, from `relevant` alone."""
        gates = true_gates(self.relevant, x.shape[2])[:, None]
        return (gates.mean(2, keepdim=True).expand_as(gates) if self.even
                else gates)


class StepSoftmax(Gated):
    """The simplest *when*: one linear score of each step, and a softmax.

    The weights of the l steps compete and have the mean 1, so that even ones
    change nothing, as the scores start. `size` as in `TemporalAttention`.
    """

    per_channel = False

    def __init__(self, channels: int, size: tuple[int, int, int]):
        super().__init__(channels, (None, *size[1:]))
        self.conv1 = nn.Conv3d(channels, 1, (1, *size[1:]))
        nn.init.zeros_(self.conv1.weight)
        nn.init.zeros_(self.conv1.bias)

    def weights(self, x: Tensor) -> Tensor:
        """One weight a step, from 0 to l."""
        z = rearrange(self.conv1(x), "b 1 l 1 1 -> b 1 l")
        return z.softmax(2) * z.shape[2]


class ToldSTA(STA):
    """STA that keeps its gates, so that they can be told what to be."""

    def weights(self, x: Tensor) -> Tensor:
        """As above; kept as `gates`, with their gradient."""
        self.gates = super().weights(x)
        return self.gates

    def entropy(self, relevant: Tensor) -> Tensor:
        """Cross entropy of their means over channels and the true gates."""
        when = self.gates.mean(1)
        return F.binary_cross_entropy(when, true_gates(relevant,
                                                       when.shape[1]))


MODULES = {"sta": STA, "ta": TemporalAttention, "sa": ChannelAttention,
           "se": SqueezeExcitation, "stc": ChannelCorrelation}
CONTROLS = {"softmax": StepSoftmax, "true": TrueGates, "told": ToldSTA}


PLACES = {  # Table VIII: the blocks of stages conv2 and conv5
    "early": r"(stages\.)?(layer1\.\d+|(conv|identity)2[ab])",
    "late": r"(stages\.)?(layer4\.\d+|(conv|identity)5[ab])",
}


def insert(net: nn.Module, clip: Tensor, make: Callable[..., nn.Module],
           at: str | Iterable[str] = "late", *,
           order: str = "pre_sum") -> dict[str, nn.Module]:
    """Put a module into each of some blocks of a 3D CNN, in place.

    Every name in the network's state_dict stays, so that checkpoints of the
    bare network load; new ones have "attention" in them. Torch's seed is as
    before too, so that what is made later is what it is without modules.

    Args:
        clip: what `net` takes, of the size that it will get.
        make: called as make(c, (l, h, w)), the size of each block's map:
            `STA`, or another of `MODULES`.
        at: "early" or "late" (Table VIII), by the names that ResNets have or
            the network's own `places`; or a list of its modules' names.
        order: "pre_sum" (Fig. 4) gates a block's residual branch, behind its
            last batch norm; "post_sum" the block's output. Without batch
            norm both are the latter.

    Returns:
        The inserted modules by the name of the module that each follows.

    Raises:
        ValueError: if a setting is unknown, nothing has the name, there is
            a module already, or what follows is no map (B, c, l, h, w).
    """
    if order not in ("pre_sum", "post_sum"):
        raise ValueError(f"order={order!r}: use 'pre_sum' or 'post_sum'")
    hosts = [_host(net, name, order) for name in _blocks(net, at)]
    shapes = {}
    # a copy without memory or arithmetic tells the maps' sizes
    ghost = copy.deepcopy(net).to("meta").eval()
    for name in hosts:
        ghost.get_submodule(name).register_forward_hook(
            lambda *call, name=name: shapes.update({name: call[-1].shape}))
    with torch.no_grad():
        ghost(clip.to("meta"))
    added, like = {}, next(net.parameters())
    with torch.random.fork_rng(devices=[]):
        for name in hosts:
            shape = shapes.get(name, ())
            host = net.get_submodule(name)
            if len(shape) != 5 or hasattr(host, "attention"):
                raise ValueError(
                    f"{name} gives {tuple(shape)}: a module needs a map (B, "
                    "c, l, h, w) and a place where there is none yet")
            added[name] = make(shape[1], tuple(shape[2:])).to(like)
    for name, module in added.items():
        host = net.get_submodule(name)
        host.add_module("attention", module)
        if not isinstance(host, nn.Sequential):  # which calls it by itself
            host.__class__ = _attended(type(host))
    return added


class Behind(nn.Module):
    """A module behind the maps (N, l, c, h, w) of a frozen network.

    Each channel less its mean over `known` maps, over its deviation there.
    """

    def __init__(self, module: nn.Module, known: Tensor):
        super().__init__()
        std, mean = torch.std_mean(known, (0, 1, 3, 4))
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None].clamp(min=1e-3))
        self.attention = module

    def forward(self, maps: Tensor) -> Tensor:
        """The maps, gated."""
        x = (maps - self.mean) / self.std
        return self.attention(x.transpose(1, 2)).transpose(1, 2)


def gate_rates(net: nn.Module, kind: Callable, ratio: float) -> Callable:
    """An optimiser in which the inserted modules have `ratio` times the rate.

    kind: torch.optim's AdamW, or SGD in all its settings; called as
    `kind(groups, lr=, ...)`, each group with its factor "times". Adam moves
    each weight by about its rate, whatever the weight's size, so that a
    layer's many weights together would move far: its rate is divided by the
    root of the number of its inputs.
    """
    gates = {id(p) for name, p in net.named_parameters()
             if ".attention." in name}

    def make(parameters: Iterable[nn.Parameter], **options: float):
        groups = {}
        for p in parameters:
            adam = kind is torch.optim.AdamW and p.ndim > 1
            times = 1.0 if id(p) not in gates else (
                ratio / (p[0].numel() ** 0.5 if adam else 1))
            groups.setdefault(times, []).append(p)
        return kind([{"params": own, "times": times}
                     for times, own in groups.items()], **options)

    return make


class _Attended:
    """Mixed into a module's class: its output goes to its `attention`.

    Not a forward hook: torch.compile does not look for new hooks, and would
    run a network with modules by the code of one without.
    """

    def forward(self, *inputs):
        return self.attention(super().forward(*inputs))

    def __reduce__(self):
        # pickle finds no class that was made at run time: torch.save needs it
        return _empty, (type(self).__bases__[1],), self.__dict__


@cache
def _attended(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Attended{kind.__name__}", (_Attended, kind), {})


def _empty(kind: type[nn.Module]) -> nn.Module:
    """What pickle and copy fill with a module's state."""
    return nn.Module.__new__(_attended(kind))


def _blocks(net: nn.Module, at: str | Iterable[str]) -> list[str]:
    every = [name for name, _ in net.named_modules() if name]
    if isinstance(at, str):
        places = PLACES | getattr(net, "places", {})
        if at not in places:
            raise ValueError(f"at={at!r}: {[*places]}, or a list of names")
        found = [name for name in every if re.fullmatch(places[at], name)]
    else:
        found = list(at)
    if not found or (wrong := {*found} - {*every}):
        raise ValueError(f"no module {wrong if found else at!r}: give names "
                         f"of net.named_modules(), such as {every[-3:]}")
    return found


def _host(net: nn.Module, name: str, order: str) -> str:
    norms = [f"{name}.{part}" if part else name
             for part, module in net.get_submodule(name).named_modules()
             if isinstance(module, _BatchNorm) and "downsample" not in part]
    return norms[-1] if norms and order == "pre_sum" else name


def dead_share(net: nn.Module, *inputs: Tensor) -> dict[str, float]:
    """Share of clips that a module's ReLU stops at every step, by its place.

    There its gates are sigmoid(bias), whatever the clip, and what lies
    before the ReLU learns nothing. Runs `net(*inputs)` in its current mode;
    the inserted modules must have a `relu`, as those of `MODULES` do.
    """
    found, hooks = {}, []
    for name, module in net.named_modules():
        if name.endswith(".attention"):
            hooks.append(module.relu.register_forward_hook(
                lambda *call, name=name: found.update({
                    name.removesuffix(".attention"): call[-1].flatten(1)
                    .eq(0).all(1).float().mean().item()})))
    try:
        with torch.no_grad():
            net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class STAOutput(NamedTuple):
    """The classifier's output; what its modules do not tell is None.

    T' is t clips times the l steps of the last module's map, or t without.
    """

    logits: Tensor  # (B, K) the video's: means over its clips
    spans: Tensor  # (T', 2) the frames [start, end) of each step
    valid: Tensor  # (B, t) False where a clip is padding
    clips: Tensor  # (B, t, K) each clip's logits, zero for padding
    features: Tensor  # (B, t, D) the map's mean, zero for padding
    when: Tensor | None = None  # (B, T') the gates, averaged over channels
    what: Tensor | None = None  # (B, c) the gates, averaged over steps
    gates: Tensor | None = None  # (B, c or 1, T' or t) W, zero for padding


class STAClassifier(nn.Module):
    """A 3D CNN on each clip, with modules inside or without.

    Args:
        backbone: maps clips ``(N, L, 3, H, W)`` to ``(N, T, channels, h, w)``.
        length: L, to cut whole videos into clips; None: a video is one clip.
        dropout: before the last layer, as P3D has it.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int, *,
                 length: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.backbone, self.length = backbone, length
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(channels, classes)

    def forward(self, clips: Tensor,
                valid: Tensor | None = None) -> STAOutput:
        """The output of videos; logits are means over their clips.

        clips: ``(B, t, L, 3, H, W)``; or videos ``(B, n, 3, H, W)``, here cut
            into floor(n / L) clips that do not overlap.
        valid: ``(B, t)``; False is padding, which never enters the network.
        """
        if clips.ndim == 5:
            length = self.length or clips.shape[1]
            whole = clips.shape[1] // length * length
            clips = clips[:, :whole].unflatten(1, (-1, length))
        padded, valid = valid is not None, _real(clips, valid)
        gated = [module for module in self.backbone.modules()
                 if isinstance(module, Gated)]
        seen = []
        for module in gated:
            module.record = seen
        try:
            maps = self.backbone(
                clips[valid] if padded else clips.flatten(0, 1))
        finally:
            for module in gated:
                module.record = None
        x = reduce(maps, "n t c h w -> n c", "mean")
        each = _spread(self.classify(self.dropout(x)), valid)
        count, steps, told = valid.sum(1, keepdim=True), 1, {}
        if seen:
            module, gates = seen[-1]
            if gates.shape[0] != maps.shape[0]:  # of k pieces of each clip
                gates = rearrange(gates, "(n k) c l -> n c (k l)",
                                  n=maps.shape[0])
            gates = _spread(gates, valid)  # (B, t, c or 1, l or 1)
            steps = gates.shape[-1]
            told["gates"] = rearrange(gates, "b t c l -> b c (t l)")
            if module.per_step:
                told["when"] = reduce(gates, "b t c l -> b (t l)", "mean")
            if module.per_channel:
                told["what"] = gates.sum((1, 3)) / (count * steps)
        return STAOutput(
            each.sum(1) / count, _spans(valid, steps, clips.shape[2]), valid,
            each, _spread(x, valid), **told)


class KnowingClassifier(STAClassifier):
    """A classifier that hands its `TrueGates` the frames of the action."""

    def forward(self, clips: Tensor,
                relevant: Tensor | None = None) -> STAOutput:
        """As above, without padding; relevant ``(B, n)``."""
        for module in self.modules():
            if isinstance(module, TrueGates):
                module.relevant = relevant
        return super().forward(clips)


def _real(clips: Tensor, valid: Tensor | None) -> Tensor:
    """`valid`, all by default; ValueError if the inputs are not as told."""
    # what is not given is not read, so that torch.export has no branch
    if (clips.ndim != 6 or not clips.shape[1] or valid is not None and (
            valid.shape != clips.shape[:2] or not valid.any(1).all())):
        raise ValueError("give clips (B, t, L, 3, H, W) or videos (B, n, 3, "
                         "H, W) of L frames or more, and valid (B, t) with a "
                         "real clip in each row; got "
                         f"{tuple(clips.shape)} and {valid}")
    if valid is None:
        valid = clips.new_ones(clips.shape[:2], dtype=torch.bool)
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


def loss(output: STAOutput, label: Tensor) -> dict[str, Tensor]:
    """Cross entropy of the video's logits with `label` ``(B,)``."""
    return {"loss": F.cross_entropy(output.logits, label)}


def with_gates(net: nn.Module,
               change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a network whose gates W go through `change`.

    To ask a trained model what its gates are worth: `torch.ones_like` takes
    them away, `lambda w: w.flip(2)` runs them backwards in time.
    """
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, Gated):
            module.weights = partial(_through, module.weights, change)
    return net


def _through(weights: Callable, change: Callable, x: Tensor) -> Tensor:
    return change(weights(x))


# What `with_gates` can take from a trained model's gates (B, c, l).
CHANGES = {
    "gates at their mean": lambda w: w.mean((0, 2), True).expand_as(w),
    "gates even in time": lambda w: w.mean(2, True).expand_as(w),
    "gates backwards": lambda w: w.flip(2),
    "gates of another video": lambda w: w.roll(1, 0),
    "no gates": torch.ones_like,
}


def mimic_loss(output: STAOutput, flow: STAOutput, label: Tensor,
               alpha: float = 50.0) -> dict[str, Tensor]:
    """Cross entropy plus `alpha` times the distance to a flow stream.

    `output` and `flow` are of two `STAClassifier`s on the same clips, the
    second of a trained flow stream, which gets no gradient. The distance is
    the mean square between their features, the means over the last map;
    alpha as in the released code.

    Raises:
        ValueError: if the two streams saw different clips or differ in width.
    """
    if (output.features.shape != flow.features.shape
            or not torch.equal(output.valid, flow.valid)):
        raise ValueError(
            "both streams must see the same clips and give as many features: "
            f"{tuple(output.features.shape)} and "
            f"{tuple(flow.features.shape)}, valid {output.valid} and "
            f"{flow.valid}")
    entropy = F.cross_entropy(output.logits, label)
    mimic = F.mse_loss(output.features[output.valid],
                       flow.features[output.valid].detach())
    return {"loss": entropy + alpha * mimic, "entropy": entropy,
            "mimic": mimic}


def fuse(*logits: Tensor) -> Tensor:
    """Streams' logits ``(B, K)`` to their mean, as the released code does.

    MARS+Flow fuses two streams, MARS+RGB+Flow three.
    """
    return torch.stack(logits).mean(0)
