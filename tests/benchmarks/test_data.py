"""Videos per second: drawn puppets, and the loader beside the decoder.

Plain PyAV decodes every frame into RGB; the loader gives 16 of them, probed,
letterboxed to 112 pixels, as a sample. Whole files per round.
"""

import time

import av
import pytest
from video_files import real, real_samples

from lib.data import datasets, decode
from lib.data.sets.records import Record
from lib.worlds import worlds


@pytest.mark.parametrize("world, extras", [
    *((world, ()) for world in ("alone", "crowd", "lights", "stage")),
    ("alone", worlds.EXTRAS)])
@pytest.mark.benchmark(group="one puppet video, 16 x 64 x 64")
def test_puppets(benchmark, world, extras):
    data = worlds.Puppets("train", 10_000, dials=worlds.WORLDS[world],
                          extras=extras)
    at = iter(range(10_000))
    benchmark.pedantic(
        lambda: data[next(at)], rounds=100, iterations=1, warmup_rounds=5)


def clips():
    """Eight clips of UT-Interaction, and four single ones."""
    single = [p for p in real_samples() if p.name in (
        "test.avi", "test.mp4", "demo.mp4", "person01_walking_d1_uncomp.avi")]
    folder = real("ut_interaction") / "ut_interaction/clips_set1"
    return [*sorted(folder.glob("*.avi"))[:8], *single]


def by_pyav(paths):
    for path in paths:
        with av.open(str(path)) as file:
            for frame in file.decode(video=0):
                frame.to_ndarray(format="rgb24")


def by_loader(paths):
    decode._probe.cache_clear()
    records = [Record(p, 0, p.stem, p.stem) for p in paths]
    data = datasets.Videos(records, classes=["x"], frames=16, size=112)
    for i in range(len(data)):
        data[i]


@pytest.mark.parametrize("way", [by_pyav, by_loader])
@pytest.mark.benchmark(group="12 real clips, whole files")
def test_ways(benchmark, way):
    paths = clips()
    benchmark.pedantic(way, [paths], rounds=2, warmup_rounds=1)


def test_the_loader_keeps_the_decoders_pace():
    """Processor time, so that a busy machine does not decide."""
    paths, spent = clips(), {}
    for _ in range(2):
        for way in (by_pyav, by_loader):
            start = time.process_time()
            way(paths)
            spent.setdefault(way, []).append(time.process_time() - start)
    assert min(spent[by_loader]) <= min(spent[by_pyav])
