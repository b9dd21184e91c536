"""Run a frozen network over a data set's videos once, and keep its maps.

    python data_scripts/extract_features.py --dataset ucf101 --root data \
        --out cache/ucf101_resnet101 --network resnet101 --weights imagenet \
        --frames 25 --size 224 --workers 8

2D networks (lib/backbones2d.py) see frames: an entry has `video_cube`
(T, C, h, w) and `video_vector` (T, D), as `lib.features` makes them. 3D
networks (lib/backbones3d.py) see the clips of --clip frames that the video
is cut into: `video_cube` (K, T', C, h, w). --layer names any module of the
network, as stages.conv4, and keeps its output alone. All in float16, in
files of 1 GB. Stop it when you like: the next call goes on. Read with

    lib.shards.Sharded(out, names, classes)  # what training.fit takes
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import extraction  # puts the project's root on the path
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lib import backbones2d, backbones3d, video
from lib.annotations import Record
from lib.datasets import Videos
from lib.samples import collate
from lib.training import find_device, frozen, to_device

KEPT = {"video", "mask"}  # pictures are not copied into the features


class Attempts(Dataset):
    """Samples of the videos, or why there is none: (index, sample or text)."""

    def __init__(self, records: Sequence[Record], classes: Sequence[str],
                 **settings):
        self.records, self.classes = records, classes
        self.settings = settings

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> tuple[int, dict | str]:
        try:
            return i, Videos([self.records[i]], classes=self.classes,
                             **self.settings)[0]
        except (video.VideoError, OSError, ValueError) as error:
            return i, str(error)


def network(name: str, weights: str | None) -> nn.Module:
    """A 2D or 3D backbone by its name."""
    if name in backbones3d.MAKERS:
        return backbones3d.clip_cnn(name, weights)
    return backbones2d.frame_cnn(name, weights)


def reader(net: nn.Module, layer: str, clip: int) -> Callable[
        [Tensor], dict[str, Tensor]]:
    """What is kept of a batch of videos (B, T, 3, H, W), each (B, ...)."""
    volume = isinstance(net, backbones3d.ClipCNN)
    if layer:
        try:
            module = net.get_submodule(layer)
        except AttributeError as error:
            raise ValueError(f"no layer {layer!r}: one of "
                             f"{[n for n, _ in net.named_modules() if n]}"
                             ) from error
        seen: list[Tensor] = []
        module.register_forward_hook(lambda *call: seen.append(call[2]))

    def read(batch: Tensor) -> dict[str, Tensor]:
        count, inputs = len(batch), batch
        if volume:
            inputs = backbones3d.clips_of(batch, clip)[0].flatten(0, 1)
        if layer:
            seen.clear()
            net(inputs)
            out = seen[0].movedim(1, 2) if volume else seen[0]
            return {"video_cube": out.unflatten(0, (count, -1))}
        if volume:
            return {"video_cube": net(inputs).unflatten(0, (count, -1))}
        cube, vector = net.features(batch)
        return {"video_cube": cube, "video_vector": vector}

    return read


def results(names: Sequence[str], *, records: dict[str, Record],
            classes: Sequence[str], net: nn.Module, read: Callable,
            batch: int, workers: int, device: str,
            settings: dict) -> Iterator[extraction.Result]:
    """The features of each video, batch by batch."""
    data = Attempts([records[name] for name in names], classes, **settings)
    place = find_device(device)
    net.to(place)
    loader = DataLoader(data, batch, num_workers=workers, collate_fn=list,
                        multiprocessing_context="spawn" if workers else None)
    for rows in loader:
        good = [(names[i], one) for i, one in rows if isinstance(one, dict)]
        yield from ((names[i], one) for i, one in rows
                    if isinstance(one, str))
        if not good:
            continue
        clips = collate([{"video": one["video"]} for _, one in good])
        with frozen(net):
            made = read(to_device(clips, place)["video"])
        made = {key: value.half().cpu() for key, value in made.items()}
        for row, (name, one) in enumerate(good):
            own = {key: value[row] for key, value in made.items()}
            if not all(x.isfinite().all() for x in own.values()):
                yield name, "its features are not finite in float16"
            else:
                rest = {k: v for k, v in one.items() if k not in KEPT}
                yield name, rest | own


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if some videos could not be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--weights", default="imagenet",
                        help="imagenet, kinetics, puppets, none, or a file")
    parser.add_argument("--layer", default="", help="empty: the last maps")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--clip", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)  # without weights: the same network when resumed
    net = network(options.network, {"none": None}.get(options.weights,
                                                      options.weights))
    read = reader(net, options.layer, options.clip)
    records, classes = extraction.all_records(options.dataset, options.root)
    sizes = dict.fromkeys(records, 1)  # each takes the same space
    work = partial(
        results, records=records, classes=classes, net=net, read=read,
        batch=options.batch, workers=options.workers, device=options.device,
        settings={"frames": options.frames, "size": options.size})
    shape = ("network", "weights", "layer", "frames", "size", "clip")
    settings = {key: getattr(options, key) for key in shape}
    return int(bool(extraction.run(
        options.out.absolute(), settings, sorted(records), work, sizes,
        packed=False)))


if __name__ == "__main__":
    sys.exit(main())
