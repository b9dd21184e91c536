"""Where trained weights come from: files kept here, and torchvision's.

Those in `WEIGHTS` were trained on the built-in videos by data_scripts/
pretrain_backbone.py and pretrain_clip_backbone.py.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from torch import nn

from lib import ROOT

WEIGHTS = Path(__file__).parent / "weights"
FLOW_CHANNELS = 4  # of the puppet-trained flow weights: two fields
# Pixels per frame. DIS flow of 64-pixel puppets deviates by 0.56 over all
# pixels and by 1.0 on the actor; kernels made for RGB expect about one.
FLOW_STD = 0.5
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# what torchvision's weights for Kinetics-400 expect
KINETICS = {"mean": (0.43216, 0.394666, 0.37645),
            "std": (0.22803, 0.22145, 0.216989)}


def torchvision(name: str, pretrained: bool, **settings: bool) -> nn.Module:
    """torchvision's network, with its best weights, downloaded, if wanted."""
    from torchvision import models

    net = models.get_model(name, weights=None, **settings)
    if pretrained:
        # weights_only: never run what a downloaded file brings along
        state = models.get_model_weights(name).DEFAULT.get_state_dict(
            progress=False, check_hash=True, weights_only=True)
        # GoogLeNet's file has auxiliary classifiers, of use in training only
        net.load_state_dict(
            {k: v for k, v in state.items() if not k.startswith("aux")})
    return net


def save_weights(net: nn.Module, path: Path) -> None:
    """Write float16 weights beside and rename."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    half = {k: v.half() if v.is_floating_point() else v
            for k, v in net.state_dict().items()}
    save_file(half, beside)
    beside.replace(path)


def load_weights(net: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it holds no weights, or names and shapes of others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: run data_scripts/pretrain_backbone.py "
            "(flow: with --flow 2), for clips pretrain_clip_backbone.py")
    try:
        net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} does not fit: {error}") from error


def puppet_weights(name: str, channels: int = 3) -> Path:
    """The file of puppet-trained weights; ValueError if none are made."""
    if "small" not in name:
        raise ValueError(f"{name} has no puppet-trained weights")
    if channels not in (3, FLOW_CHANNELS):
        raise ValueError(f"puppet-trained flow weights: {FLOW_CHANNELS} "
                         f"channels (L = 2), not {channels}")
    kind = "puppets" if channels == 3 else "flow_puppets"
    return WEIGHTS / f"{name}_{kind}.safetensors"


def fingerprint(name: str, weights: str | None, channels: int = 3) -> str:
    """What tells these weights from others: their file's digest if one is.

    For the registry: weights that were trained anew make other results. A
    file of one's own counts from the project's root.
    """
    if weights == "puppets":
        return file_digest(puppet_weights(name, channels))
    if weights and weights.endswith(".safetensors"):
        return file_digest(ROOT / weights)
    return f"{weights}" if channels == 3 else f"{weights}, {channels} channels"


def file_digest(file: Path) -> str:
    """12 hex digits of what a file holds; "no file" if it is not there."""
    if not file.is_file():
        return "no file"
    return _digest(file, file.stat().st_mtime_ns)


@lru_cache
def _digest(file: Path, changed: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
