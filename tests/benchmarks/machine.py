"""What the benchmarks share: the device, how often to time, peak memory.

    pytest tests/benchmarks/test_jsta.py --benchmark-group-by=group

Read ratios within a group; absolute times belong to one machine.
"""

import json
import time
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def wait():
    """Until the GPU is done: its calls return before their work is."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    wait()
    return time.perf_counter() - start


def measure(benchmark, function, *arguments):
    """Time calls for half a second, three at least and fifty at most."""
    seconds(function, *arguments)  # kernels are loaded, buffers made
    rounds = int(0.5 / seconds(function, *arguments))
    benchmark.pedantic(seconds, (function, *arguments),
                       rounds=min(max(rounds, 3), 50))


def peak(step):
    """Bytes of all tensors of a step at the moment when they are most."""
    if DEVICE == "cuda":
        step()  # the libraries' workspaces stay
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        step()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        p.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"])
                     for event in events if event["name"] == "[memory]")
    return max(accumulate(size for _, size in changes))


def train_step(net, *given):
    """The least that a step of training does: forward, backward."""
    net.zero_grad()
    output = net(*given)
    getattr(output, "logits", output).square().sum().backward()
