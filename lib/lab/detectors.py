"""Detectors on buffers (`lib.data.untrimmed`): batches, windows, detections.

Where the frozen stages of a network are computed once, a batch has their maps
as `video_cube`, else the `video` itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lib.data.batches import in_batches
from lib.data.untrimmed import Annotated, answers
from lib.lab.training import evaluating, to_device
from lib.papers import detection
from lib.papers.detection import Detected, frames_of, label_windows
from lib.scores.detections import in_videos

Batch = Mapping[str, Any]
Read = Callable[[nn.Module, Batch], tuple[Detected, Tensor]]


def truths(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Of each buffer the actions (K, 2) in frames and their classes (K,)."""
    pairs = [answers(rows) for rows in batch["actions"]]
    return [(segments * float(fps), labels) for (segments, labels), fps in
            zip(pairs, batch["fps"], strict=True)]


class Drawn(NamedTuple):
    """Windows of a batch to train on."""

    clips: Tensor  # (n, ...) what the network reads of them
    label: Tensor  # (n,) of `label_windows`, no -1
    overlap: Tensor  # (n,)


class Windows:
    """S-CNN's windows of every buffer of a batch.

    segments: (W, 2) in frames, of some `lengths`. prior: (K, L), see
        `detection.length_prior`.
    """

    def __init__(self, frames: int, lengths: Sequence[int], prior: Tensor):
        self.segments = detection.windows(frames, lengths).float()
        self.lengths, self.prior = lengths, prior

    def see(self, batch: Batch, rows: Tensor) -> Tensor:
        """What a network reads of windows, by their number in the batch."""
        count = len(self.segments)
        which, window = rows // count, rows % count
        if "video_cube" in batch:
            cube = batch["video_cube"].unflatten(1, (count, -1))
            return cube[which, window]
        frames = frames_of(self.segments).to(rows.device)
        return batch["video"][which[:, None], frames[window]]

    def draw(self, batch: Batch, share: float) -> Drawn:
        """All windows of an action, `share` times as many of background."""
        found = [label_windows(self.segments.to(ends), ends, labels)
                 for ends, labels in truths(batch)]
        label, fit = (torch.cat([getattr(one, name) for one in found])
                      for name in ("label", "overlap"))
        good, rest = ((label > 0).nonzero()[:, 0],
                      (label == 0).nonzero()[:, 0])
        many = max(1, round(share * len(good)))
        rows = torch.cat((good, rest[torch.randperm(len(rest))][:many]))
        return Drawn(self.see(batch, rows), label[rows], fit[rows])

    def read(self, model: nn.Module, batch: Batch, propose: nn.Module,
             told: bool = False) -> tuple[Detected, Tensor]:
        """S-CNN's detections in one buffer, and its proposals (M, 2).

        model: the localisation network. propose: the proposal network; told:
            in its place, the windows that show an action.
        """
        clips = self.see(batch, torch.arange(len(self.segments)))
        action = propose(clips).softmax(1)[:, 1].cpu()
        if told:
            label = label_windows(self.segments, *(
                values.cpu() for values in truths(batch)[0])).label
            action = (label > 0).float()
        return (detection.read_windows(
            self.segments, action, model(clips).cpu(), self.prior,
            self.lengths), self.segments[action >= detection.KEEP])

    def fits(self, model: nn.Module,
             data: Dataset) -> list[tuple[float, float]]:
        """Overlap and probability of all windows on an action by half."""
        found = []
        for batch in buffers(model, data):
            ends, labels = truths(batch)[0]
            label, fit = label_windows(self.segments.to(ends), ends, labels,
                                       positive=0.5)
            good = (label > 0).nonzero()[:, 0]
            logits = model(self.see(batch, good))
            own = logits.softmax(1).gather(1, label[good][:, None])[:, 0]
            found += zip(fit[good].tolist(), own.tolist(), strict=True)
        return found


def read_buffer(model: detection.RC3D, batch: Batch,
                told: bool = False) -> tuple[Detected, Tensor]:
    """R-C3D's detections in one buffer, and its proposals (M, 2).

    told: the true segments take the place of the first stage's.
    """
    out = model(maps_of(batch))
    own = [truths(batch)[0][0]] if told else model.proposals(out)
    return detection.read_proposals(model, out, own)[0], own[0]


def maps_of(batch: Batch) -> Tensor:
    """What a network reads of whole buffers."""
    return batch["video_cube" if "video_cube" in batch else "video"]


def buffers(model: nn.Module, data: Dataset):
    """Batches of one buffer each on the model's device, to predict."""
    device = next(model.parameters()).device
    with evaluating(model):
        for batch in in_batches(data, 1):
            yield to_device(batch, device)


def detect(model: nn.Module, read: Read, data: Dataset,
           videos: Sequence[Annotated]) -> tuple[list[Detected],
                                                 list[Tensor]]:
    """Detections of each video and its proposals (M, 2), in seconds.

    read: called with the model and a batch of one buffer, as `Windows.read`
        and `read_buffer`; gives both in frames of the buffer.
    """
    found, proposals, known = [], [], []
    for batch in buffers(model, data):
        one, own = read(model, batch)
        found.append(Detected(*(values.cpu() for values in one)))
        own = own.cpu()
        proposals.append(Detected(own, own[:, 0], own[:, 0]))
        known.append((batch["name"][0], batch["start"], batch["fps"]))
    found, proposals = (in_videos(some, *zip(*known, strict=True), videos)
                        for some in (found, proposals))
    return found, [one.segments for one in proposals]
