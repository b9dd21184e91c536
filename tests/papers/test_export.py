"""Every paper's model can be exported for any number of videos, and saved."""

import pytest
import torch

from lib.networks.cnn2d import frame_cnn
from lib.networks.cnn3d import clip_cnn
from lib.papers import jsta, rstan, sta_cnn, sta_networks, where_and_when

VIDEOS = torch.export.Dim("videos", min=2, max=64)


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def where_and_when_():
    net = where_and_when.WhereAndWhen(8, 3, hidden=4, mask_channels=(8, 4))
    return net, lambda b: (random(b, 4, 8, 5, 5),)


def rstan_(**options):
    net = rstan.RSTAN((8, 6), (5, 4), 3, hidden=4, units=4, **options)
    return net, lambda b: (random(b, 4, 8, 5, 5), random(b, 4, 5),
                           random(b, 4, 6, 5, 5), random(b, 4, 4))


def jsta_(head="fc"):
    cnn = clip_cnn("resnet3d_small")
    cnn.stages["identity3b"] = jsta.SpatialAttention(16)
    net = jsta.JSTA(
        jsta.ClipClassifier(cnn, cnn.channels, 3),
        jsta.TemporalClassifier(cnn.channels, 3, head=head, hidden=4,
                                attention=jsta.TemporalAttention(64, 4)))
    return net, lambda b: (random(b, 2, 8, 3, 32, 32),)


def sta_cnn_(san=True):
    cnn = frame_cnn("small_narrow")
    net = sta_cnn.STACNN(
        cnn, cnn.channels, 5, side=4, san=sta_cnn.AttentionNetwork(
            (4, 4, 8, 8, 8, 8), 3) if san else None)
    return net, lambda b: (random(b, 3, *(2,) * san, 3, 32, 32),)


def sta_networks_(length=None):
    cnn = clip_cnn("resnet3d_small")
    sta_networks.insert(cnn, random(1, 8, 3, 32, 32), sta_networks.STA)
    net = sta_networks.STAClassifier(cnn, cnn.channels, 3, length=length)
    return net, lambda b: (random(b, 20, 3, 32, 32) if length
                           else random(b, 2, 8, 3, 32, 32),)


# torch's own LSTM assigns its weights while it is exported, JSTA's block
# what it has seen
@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.parametrize(("make", "options"), [
    (where_and_when_, {}), (rstan_, {}), (rstan_, {"window": 2}),
    (jsta_, {}), (jsta_, {"head": "lstm"}), (sta_cnn_, {}),
    (sta_cnn_, {"san": False}), (sta_networks_, {}),
    (sta_networks_, {"length": 8})])
def test_export_and_save(make, options, tmp_path):
    torch.manual_seed(0)
    net, inputs = make(**options)
    net.eval()
    three = inputs(3)
    shapes = tuple({0: VIDEOS} for _ in three)
    if make is rstan_:  # which takes *features
        shapes = (shapes,)
    with torch.no_grad():
        exported = torch.export.export(
            net, three, dynamic_shapes=shapes).module()
        torch.save(net, tmp_path / "net.pt")
        again = torch.load(tmp_path / "net.pt", weights_only=False)
        for batch in (3, 5):
            expected = net(*inputs(batch))
            for other in (exported, again):
                for ours, theirs in zip(
                        other(*inputs(batch)), expected, strict=True):
                    torch.testing.assert_close(ours, theirs)
