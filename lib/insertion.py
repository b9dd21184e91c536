"""A module into the blocks of a 3D CNN, and training it there.

For any network: its own layers and their names stay as they are.
"""

import copy
import re
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
        make: called as make(c, (l, h, w)), the size of each block's map;
            `sta.STA`, or one of `sta.MODULES`.
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


@cache
def _attended(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of modules that hand their output to their `attention`.

    Not a forward hook: torch.compile does not look for new hooks, and would
    run a network with modules by the code of one without.
    """
    class Attended(kind):
        def forward(self, *inputs):
            return self.attention(kind.forward(self, *inputs))

    Attended.__name__ = f"Attended{kind.__name__}"
    return Attended


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


def fine_tune(net: nn.Module, *parts: str) -> nn.Module:
    """Train some parts and every inserted module only, in place; returns net.

    As MARS's code does with "layer4" and the classifier. No batch norm
    trains, in `parts` neither: a later `train()` leaves it in eval mode.
    ValueError if there is no part of a name.
    """
    modules = dict(net.named_modules())
    if missing := {*parts} - {*modules}:
        raise ValueError(f"no part {missing}: give names of named_modules()")
    net.requires_grad_(False)
    for name in parts:
        modules[name].requires_grad_(True)
    for module in modules.values():
        if isinstance(module, _BatchNorm):
            module.eval().train = _stay.__get__(module)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    for name, parameter in net.named_parameters():
        if ".attention." in name:
            parameter.requires_grad_(True)
    return net


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def dead_share(net: nn.Module, *inputs: Tensor) -> dict[str, float]:
    """Share of clips that a module's ReLU stops at every step, by its place.

    There its gates are sigmoid(bias), whatever the clip, and what lies
    before the ReLU learns nothing. Runs `net(*inputs)` in its current mode;
    the inserted modules must have a `relu`, as those of lib/sta.py do.
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
