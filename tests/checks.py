"""What many tests do: draw numbers, read refusals, stand in for downloads."""

import pytest
import torch
from torch import nn


def refused(words, function, *given, error=ValueError, **options):
    """A call fails, and `words`, a pattern, are found in what it says."""
    with pytest.raises(error, match=words):
        function(*given, **options)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_if_trained(net):
    """Norms of 3D maps get statistics that a new network does not have."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return net.eval()


def offline(monkeypatch, state_of):
    """Weights in the place of torchvision's downloads, by what is asked."""
    from torchvision import models

    def get(self, **options):
        assert options["check_hash"] and options["weights_only"]
        return state_of(type(self).__name__.removesuffix("_Weights").lower())

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", get)
