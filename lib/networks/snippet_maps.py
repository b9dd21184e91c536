"""Snippets of videos with the maps that frozen networks make of them.

What a frozen network gives needs to be computed once. So every video has a
fixed number of snippets, and a model is trained on those, in memory::

    maps = SnippetMaps({"RGB": cnn}, splits.train, 36, 25, size=64)
    train = Segments(maps(splits.train), 9)  # nine of 36, at random
    test = Columns(maps(splits.test))
"""

import copy
import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from lib.data import flow, sampling
from lib.data.batches import Columns, collate
from lib.data.snippets import Snippets, Streams, Whole
from lib.data.store import Store
from lib.networks.cnn2d import FrameCNN, stream_cnn

AT_ONCE = 50  # videos of a file in the folder
TRUTHS = ("relevant", "mask")


class SnippetMaps:
    """Called with a data set and a stream; what was computed is kept.

    networks: by stream, as in `Streams.KEYS`; they are left in eval mode on
        `device`, where all that is given lies too.
    train, n_train, n: snippets of each video of `train`, and of any other;
        they are the middles of as many equal segments.
    size: height and width of files' frames; built-in videos have their own.
    fields: of a flow snippet.
    folder: keeps what was computed, counted from the project root; several
        processes that start together share the work. None keeps nothing.
    """

    def __init__(self, networks: Mapping[str, FrameCNN], train: Dataset,
                 n_train: int, n: int, *, size: int, fields: int = 1,
                 device: torch.device | str = "cpu",
                 folder: str | Path | None = None):
        self.networks = {stream: net.eval().to(device)
                         for stream, net in networks.items()}
        self.train, self.numbers = train, (n_train, n)
        self.size, self.fields, self.device = size, fields, device
        self.store = None if folder is None else Store(folder)
        self._given: dict[tuple, tuple] = {}
        self._scales: dict[str, tuple] = {}

    def __call__(self, videos: Dataset, stream: str = "RGB", *,
                 video: bool = False, pooled: bool = False,
                 ) -> dict[str, Tensor]:
        """Columns of the snippets of all videos.

        `maps` float16 (N, n, C, h, w), each channel less its mean, over the
        spread that it has in the first training videos; `pooled` leaves
        their means over places, (N, n, C, 1, 1). `label` (N,). Where they
        are known of the first frames: `relevant` (N, n), and `map` (N, n, h,
        w), the share of the actor that each cell has, even where there is
        none. With `video` also the pairs that begin the snippets, uint8 (N,
        n, 2, 3, H, W).
        """
        data = self._all(videos, "RGB") | self._all(videos, stream)
        data.pop("mask", None)
        if pooled:
            data["maps"] = data["maps"].mean((3, 4), keepdim=True)
        if video:
            data["video"] = self._all(videos, "frames")["video"]
        return data

    def truth(self, videos: Dataset) -> dict[str, Tensor]:
        """Labels and what is known of the first frames, on the CPU."""
        return {key: values.cpu() for key, values in self._all(
            videos, "RGB").items() if key in ("label", *TRUTHS)}

    def network(self, stream: str) -> nn.Module:
        """A copy to fine-tune: it gives maps of the same scale."""
        return Scaled(copy.deepcopy(self.networks[stream]),
                      *self._scale(stream))

    def _scale(self, stream: str) -> tuple[Tensor, Tensor]:
        """Mean and spread (1, C, 1, 1) in the first training videos."""
        if stream not in self._scales:
            maps = self._part(self.train, 0, stream)["maps"].float()
            std, mean = torch.std_mean(maps, (0, 1, 3, 4), keepdim=True)
            self._scales[stream] = (mean[0].to(self.device),
                                    std[0].clamp(min=1e-3).to(self.device))
        return self._scales[stream]

    def _all(self, videos: Dataset, kind: str) -> dict[str, Tensor]:
        """Columns of all videos; kind: "frames", or a stream."""
        key = id(videos), kind
        if key not in self._given:
            parts, starts = {}, range(0, len(videos), AT_ONCE)
            for start in random.sample(starts, len(starts)):
                parts[start] = self._part(videos, start, kind)
            made = {name: torch.cat([parts[start][name] for start in starts]
                                    ).to(self.device) for name in parts[0]}
            for one in made.get("maps", ()):  # all at once may fill memory
                mean, std = self._scale(kind)
                one.copy_((one.float() - mean) / std)
            # with the videos themselves, whose id stays theirs
            self._given[key] = videos, made
        return self._given[key][1]

    def _part(self, videos: Dataset, start: int,
              kind: str) -> dict[str, Tensor]:
        """AT_ONCE videos from `start` on, from the folder if there."""
        n = self.numbers[videos is not self.train]
        if self.store is None:
            return self._made(videos, start, n, kind)
        about = videos.contents(), start, n, kind, self.size, self.fields, (
            None if kind == "frames" else _digest(self.networks[kind]))
        return self.store.get(
            repr(about), lambda: self._made(videos, start, n, kind))

    def _made(self, videos: Dataset, start: int, n: int,
              kind: str) -> dict[str, Any]:
        if kind == "RGB":
            made = dict(self._part(videos, start, "frames"))
            made["maps"] = self._maps(kind, made.pop("video")[:, :, 0])
            if "mask" in made:
                shares = F.adaptive_avg_pool2d(
                    made["mask"].float(), made["maps"].shape[-2:])
                total = shares.sum((2, 3), keepdim=True)
                made["map"] = torch.where(
                    total > 0, shares / total.clamp(min=1e-9),
                    1 / shares[0, 0].numel()).half()
            return made
        films = Whole(videos, (self.size, self.size))
        keys = [Streams.KEYS.get(kind, "video"), "label"]
        if kind == "frames":
            keys += [key for key in TRUTHS if key in films[start]]
        data = Snippets(films, n, fields=self.fields, sampling="uniform",
                        keys=keys)
        made = collate([data[i] for i in range(
            start, min(start + AT_ONCE, len(films)))])
        if kind != "frames":
            made["maps"] = self._maps(kind, made.pop(keys[0]))
        return made

    @torch.inference_mode()
    def _maps(self, kind: str, inputs: Tensor) -> Tensor:
        scale = 255 if inputs.dtype == torch.uint8 else 1
        return torch.cat([
            self.networks[kind](one.to(self.device).float() / scale
                                ).half().cpu() for one in inputs.split(1)])


class Scaled(nn.Module):
    """A network of frames whose maps are less `mean`, over `std`."""

    def __init__(self, net: FrameCNN, mean: Tensor, std: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, video: Tensor) -> Tensor:
        """As `FrameCNN`: (B, T, 3, H, W) to (B, T, C, h, w)."""
        return (self.net(video) - self.mean) / self.std


class Feed:
    """What the rows of a two-stream model read of videos.

    Frozen maps from memory (`kept`), of 36 snippets of a training video and
    `frames` of any other; or snippets that are read at each access, in random
    crops (`Streams`). A row tells its `stream`; and, where they are so, that
    its backbone is `frozen`, that it learns to `attend` to places, and that
    it is told `where`.

    backbone, weights: as in `cnn2d.stream_cnn`. frozen: of rows that do not
    tell. device, folder: see `SnippetMaps`.
    """

    TRAIN = 36  # in each third and in each ninth equally many

    def __init__(self, train: Dataset, streams: Streams, frames: int,
                 backbone: str, weights: str, *, frozen: bool, kept: bool,
                 device: torch.device | str = "cpu",
                 folder: str | Path | None = None):
        self.streams, self.frames, self.frozen = streams, frames, frozen
        self.kept, self.named = kept, (backbone, weights)
        self.maps = SnippetMaps(
            {stream: self._network(stream) for stream in Streams.KEYS},
            train, self.TRAIN, frames, size=streams.size[0],
            fields=streams.fields, device=device, folder=folder,
        ) if kept else None

    def __call__(self, videos: Dataset, own: Mapping[str, Any], n: int = 0,
                 view: int = 4) -> Dataset:
        """n random snippets of each video, else all `frames` for a test.

        view: of those, one of the ten crops; from memory the whole alone.
        """
        if self.maps is None:
            return self.streams(videos, own["stream"], n or self.frames,
                                None if n else view)
        data = self.maps(videos, own["stream"],
                         video="video" in self.inputs(own),
                         pooled=not own.get("attend") and "where" not in own)
        return Segments(data, n) if n else Columns(data)

    def inputs(self, own: Mapping[str, Any]) -> tuple[str, ...]:
        """The entries that a row's model reads: frames or maps, what its
        attention network reads, and the true maps if it is told."""
        key = Streams.KEYS[own["stream"]]
        x = "maps" if self.kept and own.get("frozen", self.frozen) else key
        pairs = "video" if own.get("attend") and key == "video" else x
        return (x, pairs, *(["map"] if "where" in own else []))

    def backbone(self, own: Mapping[str, Any]) -> nn.Module:
        """What a row's model begins with: nothing, where it reads maps."""
        if self.maps is None:
            return self._network(own["stream"])
        return (nn.Identity() if own.get("frozen", self.frozen)
                else self.maps.network(own["stream"]))

    def truth(self, videos: Dataset) -> dict[str, Any]:
        """Labels and the true answers of the test's snippets."""
        return (self.maps.truth(videos) if self.maps is not None
                else self.streams.truth(videos, self.frames))

    def _network(self, stream: str) -> FrameCNN:
        channels = 3 if stream == "RGB" else 2 * self.streams.fields
        return stream_cnn(*self.named, channels)


class Segments(Columns):
    """Columns (N, S, ...) of snippets, of which training sees n: a random
    one of each of n equal segments, in all columns the same. What has no
    second dimension, as `label`, stays.
    """

    def __init__(self, columns: Mapping[str, Tensor], n: int):
        super().__init__(columns)
        self.n = n
        self.total = next(x.shape[1] for x in columns.values() if x.ndim > 1)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        at = torch.stack([sampling.sample_segments(self.total, self.n)
                          for _ in indices])
        rows = torch.as_tensor(indices)
        return {key: x[rows[:, None].to(x.device), at.to(x.device)]
                if x.ndim > 1 else x[rows.to(x.device)]
                for key, x in self.columns.items()}


def _digest(net: FrameCNN) -> str:
    """Of a network's numbers, and of the code that measures flow."""
    digest = hashlib.sha256(Path(flow.__file__).read_bytes())
    for value in net.state_dict().values():
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8)
                      .numpy())
    return digest.hexdigest()
