"""`fit` beside the shortest loop that does the same, in one go.

A training step of a 3D ResNet with STA, in four forms that the loop and `fit`
share: float32, bf16, and each compiled. On a GPU r3d_18 on 16 clips of
16 x 112 x 112, channels-last; on a CPU a small network on few of them, where
bf16 gains nothing and is left out. `over` is fit's time over the loop's, less
one: the goal is below 10 % at the loop's best form.
"""

import time

import pytest
import torch
from machine import DEVICE, wait

from lib.data.batches import Columns
from lib.lab import gpu, training
from lib.networks.cnn3d import clip_cnn
from lib.networks.released3d import pretrained3d
from lib.papers import sta_networks

GPU = DEVICE == "cuda"
BATCH, SIZE, STEPS, WARM = (16, 112, 60, 20) if GPU else (4, 64, 12, 4)
FORMS = [(precision, compiler) for precision in ("tf32", "bf16")
         for compiler in ("", "inductor")] if GPU else [("tf32", "")]


def network():
    torch.manual_seed(0)
    net = pretrained3d("r3d_18") if GPU else clip_cnn("resnet3d_small")
    clip = torch.rand(1, 16, 3, SIZE, SIZE)
    sta_networks.insert(net, clip, sta_networks.STA)
    return sta_networks.STAClassifier(net, net.channels, 51).to(DEVICE)


def videos():
    generator = torch.Generator().manual_seed(0)
    return Columns({
        "video": torch.randint(256, (2 * BATCH, 16, 3, SIZE, SIZE),
                               generator=generator, dtype=torch.uint8),
        "label": torch.arange(2 * BATCH) % 51})


class Clock:
    """Milliseconds a step, from step WARM to the last."""

    def __init__(self):
        self.calls = 0

    def tick(self):
        if self.calls in (WARM, STEPS - 1):
            wait()
            self.start, self.end = (
                getattr(self, "end", None), time.perf_counter())
        self.calls += 1

    def read(self):
        return 1000 * (self.end - self.start) / (STEPS - 1 - WARM)


def fitted(precision, compiler):
    clock = Clock()

    def step(model, batch):
        clock.tick()
        return sta_networks.loss(model(batch["video"]), batch["label"])

    training.fit(network(), videos(), step, steps=STEPS, batch=BATCH,
                 lr=1e-4, device=DEVICE, precision=precision,
                 compiler=compiler)
    return clock.read()


def bare(precision, compiler):
    net, clock, data = network().train(), Clock(), videos().columns
    video, label = (data[name].to(DEVICE) for name in ("video", "label"))
    if GPU:
        torch.set_float32_matmul_precision("high")
        gpu.lay_out(net, channels_last=True)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4)
    fast = torch.compile(net, backend=compiler) if compiler else net
    for at in range(STEPS):
        clock.tick()
        half = slice(at % 2 * BATCH, (at % 2 + 1) * BATCH)
        with torch.autocast(DEVICE, torch.bfloat16,
                            enabled=precision == "bf16"):
            out = fast(video[half].float() / 255)
        loss = torch.nn.functional.cross_entropy(out.logits.float(),
                                                 label[half])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    return clock.read()


@pytest.mark.benchmark(group="fit and the bare loop, ms a step")
@pytest.mark.parametrize("precision, compiler", FORMS)
def test_fit_and_the_bare_loop(benchmark, precision, compiler):
    took = {"bare": [], "fit": []}
    for turn in range(3):
        for name in (("bare", "fit"), ("fit", "bare"))[turn % 2]:
            run = {"bare": bare, "fit": fitted}[name]
            took[name].append(run(precision, compiler))
    best = {name: min(times) for name, times in took.items()}
    benchmark.extra_info |= best | {
        "over": f"{best['fit'] / best['bare'] - 1:+.1%}"}
    print(precision, compiler, benchmark.extra_info)
    benchmark.pedantic(lambda: None, rounds=1)
