"""Scores of detected actions, and detectors that need no model.

Beside a detector's mAP belong those of the lazy (`one_segment`) and of the
knowing (`true_windows`): what its windows or anchors could reach at all.
Segments are in seconds of the whole video here.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lib.data.untrimmed import Annotated
from lib.papers.detection import Detected, at_threshold, overlap
from lib.scores.localisation import Detections, temporal_map

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def in_videos(found: Sequence[Detected], names: Sequence[str],
              starts: Sequence[float], fps: Sequence[float],
              videos: Sequence[Annotated]) -> list[Detected]:
    """Detections in frames of buffers as detections in seconds of videos.

    names, starts, fps: of each buffer its video, when it begins there, and
    its rate. Buffers of one video are joined, in the order of `videos`.
    """
    parts = {video.name: [] for video in videos}
    for one, name, start, rate in zip(found, names, starts, fps, strict=True):
        parts[name].append(one._replace(
            segments=one.segments / float(rate) + float(start)))
    return [Detected(*map(torch.cat, zip(*some, strict=True)))
            for some in parts.values()]


def map_scores(found: Sequence[Detected], videos: Sequence[Annotated],
               alphas: Sequence[float] = ALPHAS) -> dict[str, float]:
    """`mAP@alpha` for each tIoU, after NMS at alpha - 0.1 in each video.

    One entry of `found` per video. Misses on ambiguous segments do not
    count, as in THUMOS14's toolkit.
    """
    truths = [(video.segments, video.labels) for video in videos]
    unsure = [video.ambiguous for video in videos]
    return {f"mAP@{alpha}": temporal_map(
        [Detections(*at_threshold(one, alpha)) for one in found], truths,
        alpha, ambiguous=unsure).value for alpha in alphas}


def recall(segments: Sequence[Tensor], videos: Sequence[Annotated],
           alpha: float = 0.5) -> float:
    """Share of the actions that some segment overlaps by `alpha` or more.

    segments: of each video (M, 2), whatever their class.
    """
    hits = [(overlap(some, video.segments) >= alpha).any(0)
            for some, video in zip(segments, videos, strict=True)]
    return torch.cat(hits).double().mean().item()


def one_segment(seconds: Sequence[float],
                frequency: Tensor) -> list[Detected]:
    """The lazy rival: each video is one segment of every class.

    seconds: the videos' lengths. frequency (K,): of the classes in training,
    which are the scores.
    """
    classes = len(frequency)
    return [Detected(torch.tensor([[0.0, length]]).expand(classes, 2),
                     torch.arange(classes), frequency) for length in seconds]


def true_windows(segments: Callable[[Annotated], Tensor],
                 videos: Sequence[Annotated]) -> list[Detected]:
    """The knowing rival: windows with the class and overlap that they have.

    segments: called with a video, gives all its windows or anchors (N, 2).
    Its mAP is what classifying these segments could reach at all.
    """
    found = []
    for video in videos:
        some = segments(video)
        most, which = overlap(some, video.segments).max(1)
        found.append(Detected(some, video.labels[which], most))
    return found


def hits(found: Detected, video: Annotated, alpha: float = 0.5) -> Tensor:
    """Which detections (M,) of a video are right, as its mAP counts them.

    From the surest on, each takes the free action of its class that it
    overlaps most.
    """
    right = torch.zeros(len(found.scores), dtype=torch.bool)
    shared = overlap(found.segments, video.segments)
    shared[found.labels[:, None] != video.labels] = 0
    for i in found.scores.argsort(descending=True):
        most, action = shared[i].max(0)
        if most >= alpha:
            right[i] = True
            shared[:, action] = 0
    return right
