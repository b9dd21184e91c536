"""mAP of detected actions, the toolkit's way, and rivals without a model."""

import torch
from torch.testing import assert_close
from video_files import real

from lib.data.untrimmed import Annotated, official
from lib.papers.detection import Detected, at_threshold, overlap
from lib.scores import detections as detection

NONE = torch.empty(0, 2)
VIDEOS = [
    Annotated("a", torch.tensor([[1.0, 3], [5, 9]]), torch.tensor([0, 1]),
              torch.tensor([[10.0, 11]])),
    Annotated("b", torch.tensor([[2.0, 4]]), torch.tensor([0]), NONE)]
PERFECT = [Detected(v.segments, v.labels, torch.ones(len(v.labels)))
           for v in VIDEOS]


def test_a_perfect_detector_scores_100():
    assert {*detection.map_scores(PERFECT, VIDEOS).values()} == {1.0}
    assert {*detection.map_scores(PERFECT, VIDEOS)} == {
        f"mAP@{a}" for a in detection.ALPHAS}
    assert detection.recall([v.segments for v in VIDEOS], VIDEOS) == 1
    assert detection.recall([v.segments[:1] for v in VIDEOS], VIDEOS) == 2 / 3


def test_a_wrong_class_a_bad_fit_and_a_second_find_are_misses():
    found = Detected(
        torch.tensor([[1.0, 3], [1.2, 3], [5, 6.5], [5, 9], [10, 12]]),
        torch.tensor([0, 0, 1, 0, 0]),
        torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]))
    right = detection.hits(found, VIDEOS[0])
    assert right.tolist() == [True, False, False, False, False]
    assert detection.hits(found, VIDEOS[0], 0.3).tolist() == [
        True, False, True, False, False]
    # the last one is ambiguous, the second one suppressed
    value = detection.map_scores([found, PERFECT[1]], VIDEOS, (0.5,))
    assert_close(value["mAP@0.5"], (1 + 0) / 2)


def toolkit(found, videos, alpha):
    """THUMOS14's rules in loops: actions choose detections, above alpha."""
    values = []
    for k in sorted({k for v in videos for k in v.labels.tolist()}):
        scored, count = [], 0
        for one, video in zip(found, videos, strict=True):
            own, mine = one.labels == k, video.labels == k
            count += int(mine.sum())
            order = one.scores[own].argsort(descending=True)
            ends, scores = one.segments[own][order], one.scores[own][order]
            free = [True] * len(ends)
            for row in overlap(video.segments[mine], ends):
                open_ = [i for i in range(len(ends)) if free[i]]
                best = max(open_, key=lambda i: row[i], default=None)
                if best is not None and row[best] > alpha:
                    free[best] = False
            unsure = overlap(ends, video.ambiguous).sum(1) > 0
            scored += [(float(s), not f) for s, f, u in zip(
                scores, free, unsure, strict=True) if not (f and u)]
        right = total = 0.0
        for rank, (_, hit) in enumerate(sorted(scored, reverse=True), 1):
            right += hit
            total += hit * right / rank
        values.append(total / count)
    return sum(values) / len(values)


def noisy(videos, copies):
    """Each action found so many times, as far as it has its class."""
    draw, found = torch.Generator().manual_seed(0), []
    for v in videos:
        ends = torch.cat((*[v.segments] * copies, v.ambiguous))
        size = ends[:, 1:] - ends[:, :1]
        ends = ends + 0.15 * size * torch.randn(ends.shape, generator=draw)
        ends = torch.stack((ends.amin(1), ends.amax(1) + 0.1), 1)
        labels = torch.randint(20, (len(ends),), generator=draw)
        right = torch.rand(len(ends), generator=draw) < 0.7
        right[copies * len(v.labels):] = False
        own = torch.cat((*[v.labels] * copies, labels[
            copies * len(v.labels):]))
        found.append(Detected(ends, torch.where(right, own, labels),
                              torch.rand(len(ends), generator=draw)))
    return found


def test_official_rules_on_the_official_annotations():
    """Noisy copies of THUMOS14's own segments, ambiguous ones as well."""
    videos, _ = official(real("annotations/thumos14"), "test")
    videos = videos[:25]
    # with several finds of an action the toolkit's actions take the one that
    # fits best; here the surest one is right
    for copies, alpha, apart in ((1, 0.3, 1e-3), (1, 0.7, 1e-3),
                                 (2, 0.5, 0.02)):
        found = noisy(videos, copies)
        ours = detection.map_scores(found, videos, (alpha,))
        theirs = toolkit([at_threshold(one, alpha) for one in found], videos,
                         alpha)
        assert 0.05 < theirs < 0.95
        assert abs(ours[f"mAP@{alpha}"] - theirs) < apart


def test_buffers_of_a_video_are_joined_in_seconds():
    one = Detected(torch.tensor([[8.0, 16]]), torch.tensor([1]),
                   torch.tensor([0.5]))
    found = detection.in_videos([one] * 3, ["b", "a", "a"], [0.0, 2.0, 4.0],
                                [8.0, 8.0, 16.0], VIDEOS)
    assert found[0].segments.tolist() == [[3, 4], [4.5, 5]]
    assert found[1].segments.tolist() == [[1, 2]]


def test_the_lazy_and_the_knowing():
    lazy = detection.one_segment([10.0, 8.0], torch.tensor([0.7, 0.3]))
    assert lazy[0].segments.tolist() == [[0, 10], [0, 10]]
    assert lazy[1].scores.tolist() == torch.tensor([0.7, 0.3]).tolist()
    assert detection.map_scores(lazy, VIDEOS, (0.5,))["mAP@0.5"] == 0
    some = torch.tensor([[1.0, 2.5], [5, 9], [2, 4]])
    knowing = detection.true_windows(lambda video: some, VIDEOS)
    assert knowing[0].labels.tolist() == [0, 1, 0]
    assert_close(knowing[0].scores, torch.tensor([0.75, 1, 1 / 3]))
    assert detection.map_scores(knowing, VIDEOS, (0.7,))["mAP@0.7"] == 1
