"""Several processes that train one model, as torchrun starts them.

    torchrun --nproc-per-node 4 -m lib.lab.many NOTEBOOK OUT -f PRESET

Each runs the same program on its part of every batch. Here is what they tell
each other, over gloo on CPUs and NCCL on GPUs; alone, nothing is sent. All
must come to the same calls in the same order.
"""

import atexit
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

# A process may wait so long for another that trains or renders by itself.
PATIENCE = timedelta(hours=12)


def ranks() -> tuple[int, int]:
    """The number of this process, from 0 on, and how many there are."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    if not distributed.is_initialized():
        gpus, place = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
        if 0 < gpus <= place:
            raise ValueError(
                f"more processes than GPUs: torchrun --nproc-per-node {gpus}, "
                "or CUDA_VISIBLE_DEVICES= for CPUs alone")
        if gpus:
            torch.cuda.set_device(place)
        distributed.init_process_group(timeout=PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return distributed.get_rank(), distributed.get_world_size()


def first(value: Any) -> Any:
    """What the first process has; to the others it is sent."""
    if ranks()[1] == 1:
        return value
    told = [value]
    distributed.broadcast_object_list(told)
    return told[0]


def everyone(value: Any) -> list:
    """What each process has, in their order."""
    if ranks()[1] == 1:
        return [value]
    told = [None] * ranks()[1]
    distributed.all_gather_object(told, value)
    return told


def agree(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of the first process."""
    if ranks()[1] > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), 0)


def average(tensors: Iterable[Tensor]) -> None:
    """Replace floats by their means over processes, in one message a type."""
    count = ranks()[1]
    if count == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            kinds.setdefault(tensor.dtype, []).append(tensor.detach())
    for own in kinds.values():
        flat = torch.cat([tensor.flatten() for tensor in own])
        distributed.all_reduce(flat)
        parts = (flat / count).split([tensor.numel() for tensor in own])
        for tensor, mean in zip(own, parts, strict=True):
            tensor.copy_(mean.view_as(tensor))


def wait() -> None:
    """Until all processes are here."""
    if ranks()[1] > 1:
        distributed.barrier()
