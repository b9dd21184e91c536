"""Videos per second: drawn puppets, and the decoder and loader on a file."""

import numpy as np
import pytest
from video_files import write

from lib.data import datasets, decode, sampling
from lib.data.sets import records
from lib.worlds import puppets


@pytest.mark.parametrize("extras", [(), ("flow", "joints", "distractor")])
@pytest.mark.benchmark(group="one puppet video, 16 x 64 x 64")
def test_puppets(benchmark, extras):
    data = puppets.Puppets("train", 10_000, extras=extras)
    at = iter(range(10_000))
    benchmark.pedantic(
        lambda: data[next(at)], rounds=100, iterations=1, warmup_rounds=5
    )


@pytest.mark.benchmark(group="16 of 100 frames of 320 x 240, H.264")
def test_decoder(benchmark, tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, noise(), "libx264")
    indices = sampling.sample_uniform(100, 16)
    benchmark(decode.read, path, indices)


@pytest.mark.benchmark(group="16 of 100 frames of 320 x 240, H.264")
def test_loader_beside_the_decoder(benchmark, tmp_path):
    """A whole sample: counted, decoded, letterboxed."""
    path = tmp_path / "clip.mp4"
    write(path, noise(), "libx264")
    record = records.Record(path, 0, "clip", "g01")
    data = datasets.Videos([record], classes=["x"], frames=16, size=112)
    benchmark(lambda: data[0])


def noise():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (100, 30, 40, 3), dtype=np.uint8)
    return small.repeat(8, 1).repeat(8, 2)
