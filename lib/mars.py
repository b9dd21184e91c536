"""MARS: an RGB stream that learns to answer as a flow stream would.

Crasto et al., CVPR 2019. Training needs flow, use does not. Tables I and II
of the STA paper put modules into such a stream and fuse it with others.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def mimic_loss(output: NamedTuple, flow: NamedTuple, label: Tensor,
               alpha: float = 50.0) -> dict[str, Tensor]:
    """Cross entropy plus `alpha` times the distance to a flow stream.

    `output` and `flow` are two `sta.STAClassifier`s' answers to the same
    clips, the second a trained flow stream's, which gets no gradient. The
    distance is the mean square between their features, the means over the
    last map; alpha as in the released code.

    Raises:
        ValueError: if the two streams saw different clips or differ in width.
    """
    if (output.features.shape != flow.features.shape
            or not torch.equal(output.valid, flow.valid)):
        raise ValueError(
            "both streams must see the same clips and give as many features: "
            f"{tuple(output.features.shape)} and "
            f"{tuple(flow.features.shape)}, valid {output.valid} and "
            f"{flow.valid}")
    entropy = F.cross_entropy(output.logits, label)
    mimic = F.mse_loss(output.features[output.valid],
                       flow.features[output.valid].detach())
    return {"loss": entropy + alpha * mimic, "entropy": entropy,
            "mimic": mimic}


def fuse(*logits: Tensor) -> Tensor:
    """Streams' logits ``(B, K)`` to their mean, as the released code does.

    MARS+Flow fuses two streams, MARS+RGB+Flow three.
    """
    return torch.stack(logits).mean(0)
