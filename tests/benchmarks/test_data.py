"""Videos per second: drawn puppets, and each decoder on the same file."""

import pytest
import torch

from lib import puppets, video


@pytest.mark.parametrize("extras", [(), ("flow", "joints", "distractor")])
@pytest.mark.benchmark(group="one puppet video, 16 x 64 x 64")
def test_puppets(benchmark, extras):
    data = puppets.Puppets("train", 10_000, extras=extras)
    at = iter(range(10_000))
    benchmark.pedantic(
        lambda: data[next(at)], rounds=100, iterations=1, warmup_rounds=5
    )


@pytest.mark.parametrize("backend", ["pyav", "torchcodec"])
@pytest.mark.benchmark(group="16 of 100 frames of 320 x 240")
def test_decoders(benchmark, backend, tmp_path):
    if backend == "torchcodec":
        pytest.importorskip("torchcodec", exc_type=(ImportError, RuntimeError))
    from data_scripts.puppets import write_video

    path = tmp_path / "clip.avi"
    noise = torch.randint(255, (100, 3, 30, 40), dtype=torch.uint8)
    write_video(path, noise.repeat_interleave(8, 2).repeat_interleave(8, 3))
    indices = video.sample_uniform(100, 16)
    benchmark(video.read, path, indices, backend=backend)
