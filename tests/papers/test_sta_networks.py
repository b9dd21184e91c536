"""The STA module, its halves and rivals against equations and slow loops."""

import pytest
import torch
from checks import random, refused
from torch import nn
from torch.testing import assert_close

from lib.papers import sta_networks
from lib.scores import metrics

C, L, H, W, K = 6, 5, 4, 3, 4
SIZE = (L, H, W)
KINDS = [*sta_networks.MODULES]
STEPS = [1, 2, 3, 4, None]  # None is Table IX's "w/o Deconv"


def feature_map(batch=2, channels=C, size=SIZE, seed=0):
    return random(batch, channels, *size, seed=seed)


def module(kind="sta", channels=C, size=SIZE, **options):
    """With weights of all signs and gates that differ, none dead."""
    torch.manual_seed(1)
    if kind in ("sta", "ta", "sa"):
        options.setdefault("start", "torch")
    if kind in ("se", "stc"):
        options.setdefault("reduction", 2)
    net = sta_networks.MODULES[kind](channels, size, **options)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.normal_(0, 0.4)
            if name in ("deconv.bias", "squeeze.bias"):
                parameter.fill_(1)
    return net


def gates(net, x):
    net.record = seen = []
    net(x)
    net.record = None
    (module, w), = seen
    assert module is net and not w.requires_grad
    assert_close(w, net.weights(x))
    return net.weights(x)


def squeezed(net, clip):
    """Eq. (2): one number a step, by loops; `clip` is (c, l, h, w)."""
    a, bias = net.conv1.weight[0, :, 0], net.conv1.bias[0]
    return [sum((a[j] * clip[j, i]).sum() for j in range(len(clip))) + bias
            for i in range(clip.shape[1])]


def stretched(net, z):
    """E_t: every number is laid down three times, `step` apart."""
    if isinstance(net.deconv, nn.Identity):
        return z
    step, taps = net.deconv.stride[0], net.deconv.weight[0, 0]
    out = [net.deconv.bias[0] for _ in range((len(z) - 1) * step + 3)]
    for i, value in enumerate(z):
        for k in range(3):
            out[i * step + k] = out[i * step + k] + taps[k] * value
    return out


def resumed(net, z, steps):
    """S_t and E_s: three numbers to one, for each channel."""
    stride = net.conv2.stride[0]
    weight, bias = net.conv2.weight, net.conv2.bias
    if isinstance(net.deconv, nn.Identity):
        z = [torch.zeros(()), *z, torch.zeros(())]
    return torch.stack([
        torch.stack([
            sum(weight[j, 0, k] * z[i * stride + k] for k in range(3))
            + bias[j] for i in range(steps)])
        for j in range(len(bias))])


@pytest.mark.equation("sta_networks", 1, 2, 5, 6, 7)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["ta", "sta"])
def test_module_equals_the_equations(kind, step):
    net, x = module(kind, step=step).double(), feature_map().double()
    y = net(x)
    stopped = 0
    for row, clip in enumerate(x):
        z = [value.clamp_min(0) for value in stretched(
            net, squeezed(net, clip))]
        stopped += sum(value == 0 for value in z)
        w = 1 / (1 + (-resumed(net, z, L)).exp())  # Eq. (1) or (6)
        for i in range(L):
            for j in range(C):
                gate = w[j, i] if kind == "sta" else w[0, i]
                # float64, a few hundred additions
                assert_close(
                    y[row, j, i], gate * clip[j, i], rtol=0, atol=1e-12)
    assert stopped > 0  # the ReLU did something


@pytest.mark.equation("sta_networks", 3, 4, 7)
def test_channel_attention_equals_the_equations():
    net, x = module("sa").double(), feature_map().double()
    y = net(x)
    for row, clip in enumerate(x):
        z = (net.conv1.weight[0] * clip).sum() + net.conv1.bias[0]
        z = z.clamp_min(0)
        for j in range(C):
            w = (net.conv2.weight[j, 0, 0] * z + net.conv2.bias[j]).sigmoid()
            assert_close(y[row, j], w * clip[j], rtol=0, atol=1e-12)


def test_a_kernel_of_the_map_s_size_is_one_product():
    net, x = module("sa"), feature_map()
    z = net.relu(net.conv1(x)[:, :, 0, 0])
    assert_close(gates(net, x), net.conv2(z).sigmoid())


@pytest.mark.parametrize("kind", ["se", "stc"])
def test_se_and_stc_equal_a_loop(kind):
    net, x = module(kind).double(), feature_map().double()
    for row, clip in enumerate(x):
        mean = torch.stack([clip[j].sum() / (L * H * W) for j in range(C)])
        z = (net.squeeze.weight @ mean + net.squeeze.bias).clamp_min(0)
        w = (net.excite.weight @ z + net.excite.bias).sigmoid()
        if kind == "stc":
            each = torch.stack([
                clip[j, i].mean() for j in range(C) for i in range(L)])
            z = net.squeeze_steps.weight @ each + net.squeeze_steps.bias
            steps = (net.excite_steps.weight @ z.clamp_min(0)
                     + net.excite_steps.bias).sigmoid()
            w = (w + steps) / 2
        assert_close(net(x)[row], w[:, None, None, None] * clip)


@pytest.mark.equation("sta_networks", 5, 6)
@pytest.mark.parametrize(("c", "size"), [
    (1024, (8, 7, 7)), (2048, (4, 4, 4)), (512, (2, 7, 7)), (64, (4, 8, 8))])
def test_table_iv(c, size):
    """Parameters and multiplications, and the sizes of the halves."""
    steps, hw, count = size[0], size[1] * size[2], metrics.parameters
    net = sta_networks.STA(c, size)
    assert count(net) == c * (hw + 4) + 5
    assert count(sta_networks.TemporalAttention(c, size)) == c * hw + 9
    channels = sta_networks.ChannelAttention(c, size)
    assert count(channels) == c * steps * hw + 1 + 2 * c
    convolutions = metrics.flops(net, torch.zeros(1, c, *size)) // 2
    # Table IV has c l more: Conv2's biases as multiplications, or W's use
    assert convolutions + c * steps == c * steps * (hw + 4) + 3 * steps
    with torch.device("meta"):
        stc = sta_networks.ChannelCorrelation(c, size, reduction=16)
    biases = 2 * c + c * (steps + 1) // 16
    assert count(stc) - biases == c ** 2 * (steps ** 2 + steps + 2) // 16


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 96])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["ta", "sta"])
def test_length_is_restored_for_any_step(kind, step, frames):
    """Also for a length it was not made for, as R-C3D's 96 steps."""
    net = module(kind, step=step)
    x = feature_map(size=(frames, H, W))
    assert net(x).shape == x.shape
    assert gates(net, x).shape == (2, C if kind == "sta" else 1, frames)


SHAPES = {"sta": (C, L), "ta": (1, L), "sa": (C, 1), "se": (C, 1),
          "stc": (C, 1)}


@pytest.mark.equation("sta_networks", 7)
@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_open_shares_and_are_all_that_happens(kind):
    net, x = module(kind), feature_map()
    w = gates(net, x)
    assert w.shape == (2, *SHAPES[kind])
    assert ((w > 0) & (w < 1)).all() and w.std() > 0.01
    assert_close(net(x), w[..., None, None] * x)
    assert (net.per_channel, net.per_step) == tuple(
        n > 1 for n in SHAPES[kind])


@pytest.mark.equation("sta_networks", 2)
def test_a_step_s_gate_sees_its_neighbours_alone():
    """Conv1 mixes no steps; Deconv and Conv2 reach two to either side."""
    net = module(size=(9, H, W))
    with torch.no_grad():  # positive, to pass the ReLU; small, for sigmoid
        for parameter in net.parameters():
            parameter.abs_().mul_(0.1)
    x = feature_map(size=(9, H, W)).abs().requires_grad_()
    gates(net, x)[0, 0, 4].backward()
    reached = x.grad[0].abs().sum((0, 2, 3)) > 0
    assert reached.tolist() == [2 <= i <= 6 for i in range(9)]


@pytest.mark.equation("sta_networks", 6)
def test_printed_gates_have_rank_three_in_time():
    """Conv2 has three taps on one channel, however many channels follow."""
    net, x = module(channels=32, size=(9, H, W)).double(), feature_map(
        1, 32, (9, H, W)).double()
    scores = gates(net, x)[0].logit() - net.conv2.bias[:, None]
    assert torch.linalg.matrix_rank(scores, rtol=1e-8) == 3


STARTS = [(kind, {"step": step}) for kind in ("ta", "sta") for step in STEPS]
STARTS += [(kind, {}) for kind in ("sa", "se", "stc")]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("kind", "options"), STARTS)
def test_at_first_nearly_nothing_happens_and_nothing_is_dead(
        kind, options, centred):
    """As behind a ReLU, or behind a batch norm: centred at zero."""
    torch.manual_seed(0)
    net = sta_networks.MODULES[kind](64, SIZE, **options)
    x = feature_map(8, 64)
    x = x if centred else x.relu()
    assert_close(net(x), x * 0.9526, rtol=1e-4, atol=0)
    if kind in ("ta", "sta", "sa"):
        let_through = []
        net.relu.register_forward_hook(
            lambda *call: let_through.append(call[-1]))
        net(x)
        assert let_through[0].min() > 0.1
    # Conv2 learns at once, what lies before it from the second step
    optimiser = torch.optim.SGD(net.parameters(), 1.0)
    for step in range(2):
        optimiser.zero_grad()
        ((net(x) - random(*x.shape, seed=2)) ** 2).mean().backward()
        for name, parameter in net.named_parameters():
            learns = parameter.grad.abs().sum() > 0
            assert learns or step == 0, (name, step)
            assert learns or "conv2" not in name
        optimiser.step()


@pytest.mark.parametrize(("kind", "options"), [
    (kind, options) for kind, options in STARTS if kind in ("ta", "sta")]
    + [("sa", {})])
def test_from_one_half_everything_learns_at_once(kind, options):
    net = sta_networks.MODULES[kind](64, SIZE, start="half", **options)
    x = feature_map(8, 64)
    assert_close(net(x), x / 2, rtol=1e-5, atol=0)
    ((net(x) - random(*x.shape, seed=2)) ** 2).mean().backward()
    assert net.conv1.weight.grad.abs().sum() > 0
    assert net.conv2.bias.grad.abs().sum() > 0


def test_only_with_norm_a_module_reads_contrasts():
    """A channel's level and scale in a clip are then the same to it."""
    x = feature_map().double()
    other = x * random(2, C, 1, 1, 1, seed=3).exp() + random(
        2, C, 1, 1, 1, seed=4)
    contrast = sta_networks.contrast(x)
    assert_close(contrast.mean((2, 3, 4)), torch.zeros(2, C).double())
    for norm in (True, False):
        net = module(norm=norm).double()
        same = torch.allclose(gates(net, x), gates(net, other), atol=1e-3)
        assert same == norm
        plain = module().double()
        assert_close(gates(net, x), gates(plain, contrast if norm else x))


def test_a_softmax_over_steps_keeps_the_mean():
    net, x = sta_networks.StepSoftmax(C, SIZE), feature_map()
    assert_close(net(x), x)  # knows nothing yet
    torch.nn.init.normal_(net.conv1.weight)
    w = gates(net, x)
    scores = torch.stack([torch.stack(squeezed(net, clip)) for clip in x])
    assert_close(w, scores.softmax(1)[:, None] * L, rtol=1e-4, atol=1e-5)


def test_a_module_behind_known_maps_reads_them_standardised():
    known = feature_map(20).transpose(1, 2) * 3 + 1
    net = sta_networks.Behind(module(), known)
    seen = known.transpose(1, 2)
    std, mean = torch.std_mean(seen, (0, 2, 3, 4), keepdim=True)
    x = (seen[:2] - mean) / std
    assert_close(net(known[:2]).transpose(1, 2),
                 net.attention.weights(x)[..., None, None] * x)


def test_a_dead_module_never_recovers():
    net, x = sta_networks.STA(C, SIZE, start="torch"), feature_map().relu()
    with torch.no_grad():
        for layer, sign in ((net.conv1, -1), (net.deconv, 1)):
            layer.weight.abs_().mul_(sign)
            layer.bias.fill_(-1)
    assert_close(
        gates(net, x), net.conv2.bias.sigmoid().view(1, C, 1).expand(2, C, L))
    net(x).square().sum().backward()
    for layer in (net.conv1, net.deconv):
        assert layer.weight.grad.eq(0).all()


class Tiny(nn.Module):
    """A backbone with a module, or without: (N, L, 3, 8, 6) to l = 4."""

    def __init__(self, kind="sta"):
        super().__init__()
        self.first = nn.Conv3d(3, C, 3, 2, 1)
        self.norm = nn.BatchNorm3d(C)
        self.gated = module(kind, size=(4, 4, 3)) if kind else nn.Identity()

    def forward(self, clips):
        x = self.norm(self.first(clips.transpose(1, 2))).relu()
        return self.gated(x).transpose(1, 2)


B, T = 3, 3
VALID = torch.arange(T) < torch.tensor([T, 2, 1])[:, None]


def classifier(kind="sta", **options):
    torch.manual_seed(2)
    return sta_networks.STAClassifier(Tiny(kind), C, K, **options).eval()


def clips(t=T):
    return random(B, t, 8, 3, 8, 6)


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_classifier_equals_a_loop_over_clips(kind):
    net, x = classifier(kind).double(), clips().double()
    output = net(x, VALID)
    for row in range(B):
        logits, each = [], []
        for i in range(T):
            if not VALID[row, i]:
                assert output.clips[row, i].eq(0).all()
                assert output.features[row, i].eq(0).all()
                continue
            clip = x[row, i:i + 1]
            vector = net.backbone(clip).mean((0, 1, 3, 4))
            assert_close(output.features[row, i], vector)
            logits.append(net.classify(vector))
            assert_close(output.clips[row, i], logits[-1])
            if kind:
                seen = net.backbone.norm(net.backbone.first(
                    clip.transpose(1, 2))).relu()
                each.append(gates(net.backbone.gated, seen)[0])
        assert_close(output.logits[row], sum(logits) / len(logits))
        if not kind:
            continue
        w = torch.cat(each, 1)  # (c or 1, steps of the real clips)
        real = w.shape[1]
        assert_close(output.gates[row, :, :real], w)
        assert output.gates[row, :, real:].eq(0).all()
        if kind in ("sta", "ta"):
            assert_close(output.when[row, :real], w.mean(0))
        if kind != "ta":
            assert_close(output.what[row], w.mean(1))
    steps = 4 * T if kind in ("sta", "ta") else T
    length = 8 * T // steps
    assert output.spans.tolist() == [
        [i, i + length] for i in range(0, 8 * T, length)]
    assert (output.when is None) == (kind not in ("sta", "ta"))
    assert (output.what is None) == (kind in ("ta", None))
    assert (output.gates is None) == (kind is None)


def test_the_last_module_answers():
    net, last = classifier(), module(size=(4, 4, 3))
    net.backbone.gated = nn.Sequential(net.backbone.gated, last)
    nn.init.zeros_(last.conv2.weight), nn.init.ones_(last.conv2.bias)
    assert_close(
        net(clips()).when, torch.tensor(1.0).sigmoid().expand(B, 4 * T))


def test_whole_videos_are_cut_into_clips():
    net, x = classifier(length=8), clips()
    video = torch.cat((x.flatten(1, 2), random(B, 5, 3, 8, 6)), 1)
    assert_close(net(video), net(x), rtol=0, atol=0)
    net.length = None
    assert_close(net(x[:, 0]), net(x[:, :1]), rtol=0, atol=0)


def test_padded_clips_leave_no_trace():
    net, twin = classifier().train(), classifier().train()
    x = clips().requires_grad_()
    odd = x.detach().masked_fill(~VALID[..., None, None, None, None], 1e6)
    output = net(x, VALID)
    assert_close(output.logits, twin(odd, VALID).logits)
    assert_close(net.state_dict(), twin.state_dict())
    sta_networks.loss(output, torch.tensor([0, 1, 2]))["loss"].backward()
    assert x.grad[~VALID].eq(0).all() and x.grad[VALID].ne(0).any()


class Pieces(nn.Module):
    """Runs a network on pieces of 4 frames and joins their maps."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, clips):
        maps = self.net(clips.unflatten(1, (-1, 4)).flatten(0, 1))
        return maps.unflatten(0, (len(clips), -1)).flatten(1, 2)


def test_gates_of_pieces_are_those_of_their_clip():
    whole, parts = classifier(), classifier()
    for net in (whole, parts):
        net.backbone.gated = module(size=(2, 4, 3))
    parts.backbone = Pieces(parts.backbone)
    x = random(B, 8, 3, 8, 6)
    out, each = parts(x), whole(x.unflatten(1, (2, 4)))
    assert_close(out.gates, each.gates)
    assert_close(out.logits, each.logits)
    assert torch.equal(out.spans, each.spans)


def test_no_record_is_left_behind():
    net = classifier()
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 1, 8, 2, 8, 6))
    assert net.backbone.gated.record is None
    net(clips())
    assert net.backbone.gated.record is None


def test_wrong_input_is_explained():
    for kind in ("sta", "ta"):
        with pytest.raises(ValueError, match=r"\(B, 6, any, 4, 3\).*insert"):
            module(kind)(feature_map(size=(L, H, W + 1)))
    with pytest.raises(ValueError, match=r"\(B, 6, 5, 4, 3\), got.*4, 4, 3"):
        module("sa")(feature_map(size=(4, H, W)))
    with pytest.raises(ValueError, match=r"\(B, 6, 5, any, any\)"):
        module("stc")(feature_map(size=(4, H, W)))
    for kind in KINDS:
        refused("made for maps", module(kind), feature_map(channels=C + 1))
        refused("made for maps", module(kind), feature_map()[0])
    refused("step=0", sta_networks.STA, C, SIZE, step=0)
    refused("start='shut'", sta_networks.STA, C, SIZE, start="shut")
    refused(r"\(B, t, L, 3, H, W\).*real clip", classifier(), clips()[0, 0])
    with pytest.raises(ValueError, match=r"of L frames or more.*\(3, 0, 9"):
        classifier(length=9)(clips()[:, 0])
    for valid in (VALID[:, 1:], VALID & False):
        refused("real clip in each row", classifier(), clips(), valid)


def test_true_gates_are_the_share_of_a_step():
    relevant = torch.tensor([[1.0, 1, 0, 0, 1, 0, 0, 0]])
    assert sta_networks.true_gates(relevant, 4).tolist() == [
        pytest.approx([0.95, 0.05, 0.5, 0.05])]


def knowing(module):
    """A classifier of single clips of 8 frames, in 4 steps."""
    torch.manual_seed(0)
    backbone = Tiny(None)
    backbone.gated = module
    return sta_networks.KnowingClassifier(backbone, C, 2).eval()


@pytest.mark.parametrize("even", [False, True])
def test_a_classifier_that_knows_the_frames_of_the_action(even):
    net = knowing(sta_networks.TrueGates(C, (4, 4, 3), even=even))
    video, relevant = torch.rand(2, 8, 3, 8, 6), torch.eye(4)
    frames = relevant.repeat_interleave(2, 1)
    with torch.no_grad():
        out, other = net(video, frames[:2]), net(video, frames[2:])
    wanted = 0.05 + 0.9 * (torch.full((2, 4), 0.25) if even else relevant[:2])
    assert torch.allclose(out.when, wanted)
    assert torch.allclose(out.logits, other.logits) == even


def test_changed_gates_are_those_of_a_copy():
    net, video = knowing(module(size=(4, 4, 3))), torch.rand(2, 8, 3, 8, 6)
    ones = sta_networks.with_gates(net, torch.ones_like)
    back = sta_networks.with_gates(net, lambda w: w.flip(2))
    with torch.no_grad():
        before = net(video)
        assert torch.equal(ones(video).gates, torch.ones_like(before.gates))
        assert torch.allclose(back(video).gates, before.gates.flip(2))
        assert torch.equal(net(video).logits, before.logits)


@pytest.mark.parametrize("kind, wide", [
    (torch.optim.AdamW, 2 / 16 ** 0.5), (torch.optim.SGD, 2.0)])
def test_modules_have_a_rate_of_their_own(kind, wide):
    """Under Adam a layer's over the root of its 16 inputs, a bias's whole."""
    net = nn.ModuleDict({"attention": nn.Linear(16, 3)})
    whole = nn.ModuleDict({"first": nn.Linear(16, 3), "block": net})
    made = sta_networks.gate_rates(whole, kind, 2.0)(
        [*whole.parameters()], lr=0.1)
    times = {id(p): group["times"] for group in made.param_groups
             for p in group["params"]}
    own = whole["block"]["attention"]
    assert times[id(own.weight)] == wide and times[id(own.bias)] == 2.0
    assert {times[id(p)] for p in whole["first"].parameters()} == {1.0}
    assert len(times) == 4


def test_changes_take_from_gates_what_they_say():
    w = random(2, 3, 4)
    made = {name: change(w) for name, change in sta_networks.CHANGES.items()}
    assert all(x.shape == w.shape for x in made.values())
    assert_close(made["gates at their mean"][1, :, 2], w.mean((0, 2)))
    assert_close(made["gates even in time"][..., 0], w.mean(2))
    assert_close(made["gates backwards"][..., 0], w[..., -1])
    assert_close(made["gates of another video"][0], w[1])
    assert made["no gates"].eq(1).all()
