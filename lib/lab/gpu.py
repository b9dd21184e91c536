"""How a GPU is used: precision, compiler, the order of weights.

By the variables of Accelerate, so that no notebook needs a parameter for it::

    ACCELERATE_MIXED_PRECISION=bf16 ACCELERATE_DYNAMO_BACKEND=inductor
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PRECISIONS = ("float32", "tf32", "bf16")


def environment() -> tuple[str, str]:
    """The precision and the compiler that the environment asks for.

    By default "tf32", in which a GPU computes convolutions without being
    asked, and which means nothing to CPUs; and "", no compiler.
    """
    asked = [os.environ.get(f"ACCELERATE_{name}", "no").lower()
             for name in ("MIXED_PRECISION", "DYNAMO_BACKEND")]
    return ("tf32" if asked[0] == "no" else asked[0],
            "" if asked[1] == "no" else asked[1])


def compiled(model: nn.Module, compiler: str) -> nn.Module:
    """The model by a backend of torch.compile, or as it is for ""."""
    if not compiler:
        return model
    torch.compiler.reset()  # it gives up after eight kinds of model
    return torch.compile(model, backend=compiler)


@contextmanager
def prepared(model: nn.Module, device: torch.device,
             precision: str) -> Iterator[None]:
    """On a GPU: convolutions channels-last, products exact or as TF32.

    All is as before afterwards. Not by torch's `fp32_precision`: the compiler
    of torch 2.11 reads the older flags, and may not find both in use.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    exact = precision == "float32"
    try:
        lay_out(model, channels_last=True)
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact
        yield
    finally:
        lay_out(model, channels_last=False)
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def lay_out(model: nn.Module, channels_last: bool) -> None:
    """The weights of 2D and 3D convolutions in another order, in place."""
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    for p in model.parameters():
        if p.ndim in orders:
            p.data = p.data.contiguous(
                memory_format=orders[p.ndim] if channels_last
                else torch.contiguous_format)
