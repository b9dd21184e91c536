"""What every paper's model does alike: learn, repeat itself, be exported."""

import pytest
import torch
from torch import nn

from lib.networks.cnn2d import frame_cnn
from lib.networks.cnn3d import clip_cnn
from lib.papers import jsta, rstan, sta_cnn, sta_networks, where_and_when

VIDEOS = torch.export.Dim("videos", min=2, max=64)


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def where_and_when_(**options):
    net = where_and_when.WhereAndWhen(
        8, 3, hidden=16, mask_channels=(8, 4), dropout=0, **options)
    return net, lambda b: (random(b, 4, 8, 5, 5),)


def rstan_(**options):
    net = rstan.RSTAN((8, 6), (5, 4), 3, hidden=16, units=4, **options)
    return net, lambda b: (random(b, 4, 8, 5, 5), random(b, 4, 5),
                           random(b, 4, 6, 5, 5), random(b, 4, 4))


def jsta_(after=False, attend=True, **options):
    cnn = clip_cnn("resnet3d_small")
    block, old = jsta.SpatialAttention(16), cnn.stages["identity3b"]
    cnn.stages["identity3b"] = nn.Sequential(old, block) if after else block
    attention = jsta.TemporalAttention(64, 4) if attend else None
    net = jsta.JSTA(
        jsta.ClipClassifier(cnn, cnn.channels, 3),
        jsta.TemporalClassifier(cnn.channels, 3, hidden=16,
                                attention=attention, **options))
    return net, lambda b: (random(b, 2, 8, 3, 32, 32),)


def sta_cnn_(san=True):
    cnn = frame_cnn("small_narrow")
    net = sta_cnn.STACNN(
        cnn, cnn.channels, 3, side=4, san=sta_cnn.AttentionNetwork(
            (4, 4, 8, 8, 8, 8), 3) if san else None)
    return net, lambda b: (random(b, 3, *(2,) * san, 3, 32, 32),)


def sta_networks_(length=None, kind="sta"):
    cnn = clip_cnn("resnet3d_small")
    sta_networks.insert(
        cnn, random(1, 8, 3, 32, 32), sta_networks.MODULES[kind])
    for name, parameter in cnn.named_parameters():
        if ".attention." in name:  # some start at zero and pass nothing
            nn.init.normal_(parameter, 0, 0.1)
    net = sta_networks.STAClassifier(cnn, cnn.channels, 3, length=length)
    return net, lambda b: (random(b, 20, 3, 32, 32) if length
                           else random(b, 2, 8, 3, 32, 32),)


LOSSES = {
    where_and_when_: where_and_when.loss, rstan_: rstan.loss,
    jsta_: jsta.loss, sta_cnn_: sta_cnn.loss, sta_networks_: sta_networks.loss}
MODELS = [
    (where_and_when_, {}), (where_and_when_, {"normalised": True}),
    (where_and_when_, {"in_order": True}),
    (rstan_, {}), (rstan_, {"window": 2}),
    (jsta_, {}), (jsta_, {"head": "lstm"}), (sta_cnn_, {}),
    (sta_cnn_, {"san": False}), (sta_networks_, {}),
    (sta_networks_, {"length": 8})]
MORE = [(jsta_, {"head": "moe", "pool": "max"}), (jsta_, {"after": True}),
        (jsta_, {"attend": False}),
        *((sta_networks_, {"kind": kind})
          for kind in ("ta", "sa", "se", "stc"))]
every_model = pytest.mark.parametrize(("make", "options"), MODELS + MORE)


# torch's own LSTM assigns its weights while it is exported, JSTA's block
# what it has seen
@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.parametrize(("make", "options"), MODELS)
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
                torch.testing.assert_close(other(*inputs(batch)), expected)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("bf16", [False, True])
@every_model
def test_gradients_reach_every_parameter(make, options, bf16):
    """And are finite, as all answers are, in half precision too."""
    torch.manual_seed(0)
    net, inputs = make(**options)
    how = {"ts": sta_cnn.TS(1, 3, 2)} if make is sta_cnn_ else {}
    # oneDNN's bf16 gradient of a 3D convolution now and then is not finite
    with torch.backends.mkldnn.flags(enabled=not bf16):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = net(*inputs(3), **how)
            terms = LOSSES[make](output, torch.tensor([0, 1, 2]))
        terms["loss"].backward()
    assert all(x.isfinite().all() for x in output if x is not None)
    for name, parameter in net.named_parameters():
        if name.startswith("spatial.classify"):  # JSTA's first step's own
            continue
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every_model
def test_eval_repeats_itself_and_one_batch_is_learned(make, options):
    torch.manual_seed(0)
    net, inputs = make(**options)
    x, label = inputs(3), torch.tensor([0, 1, 2])
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        loss = LOSSES[make](net(*x), label)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.05:
            break
    assert loss < 0.05
    net.eval()
    for one, other in zip(net(*x), net(*x), strict=True):
        assert one is None or torch.equal(one, other)
