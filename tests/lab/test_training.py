"""Training: bits that repeat, selection, prediction."""

import copy
import functools
import warnings
from collections import namedtuple

import pytest
import torch
from checks import refused
from small_run import STEPS, net, run, same, step, videos
from torch import nn

from lib.data.batches import Batches, Columns
from lib.lab import gpu, training
from lib.lab.checkpoints import CheckpointError
from lib.lab.registry import device_name
from lib.networks.cnn3d import clip_cnn
from lib.papers import sta_networks


@pytest.fixture(scope="module")
def whole():
    return run()


def test_a_run_repeats_itself_bit_for_bit(whole):
    model, history = run()
    assert same(model, whole[0]) and history == whole[1]
    other, _ = run(seed=1)
    assert not same(other, whole[0])


def test_the_best_weights_by_validation_are_kept(whole):
    model, history = whole
    assert model.norm.num_batches_tracked == 6
    assert [row["score"] for row in history if "score" in row] == [
        -4, -2, 0, -2, -4, -6, -8]
    last, plain = run(val=None, score=None)
    assert last.norm.num_batches_tracked == STEPS
    # looking at the validation split changes nothing that is trained
    assert [r["loss"] for r in plain] == [r["loss"] for r in history]


def test_bf16_computes_in_bf16_and_leaves_no_trace():
    model, types = net(), set()
    model.conv.register_forward_hook(
        lambda module, inputs, output: types.add(output.dtype))
    run(model=model, precision="bf16")
    assert types == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    types.clear()
    model(torch.rand(1, 3, 3, 6, 6))
    assert types == {torch.float32}
    run(model=model, precision="float32")
    assert types == {torch.float32}

    def interrupted(model, batch):
        raise KeyboardInterrupt

    refused(None, run, model=model, precision="bf16", step=interrupted,
            error=KeyboardInterrupt)
    model.eval()(torch.rand(1, 3, 3, 6, 6))
    assert types == {torch.float32}


def test_the_environment_chooses_as_accelerate_names_it(monkeypatch):
    for name in ("MIXED_PRECISION", "DYNAMO_BACKEND"):
        monkeypatch.delenv(f"ACCELERATE_{name}", raising=False)
    assert gpu.environment() == ("tf32", "")
    assert device_name("cpu") == "cpu"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    assert gpu.environment() == ("bf16", "inductor")
    assert device_name("cpu") == "cpu (bf16, compiled by inductor)"
    seen, model = [], net()
    monkeypatch.setattr(torch, "compile", lambda model, backend: (
        seen.append((model, backend)) or model))
    model.conv.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype))
    run(model=model, steps=1, val=None, score=None)
    assert seen == [(model, "inductor"), torch.bfloat16]
    run(model=model, steps=1, val=None, score=None, compiler="",
        precision="float32")
    assert seen[2:] == [torch.float32]


def test_loaders_give_the_batches_of_one_process():
    batches = Batches(Jittered(), 8, seed=0)
    before = torch.get_rng_state()
    with warnings.catch_warnings(action="ignore"):  # of memory to pin for
        ahead = batches.ahead(range(2, 6), torch.device("cuda"))
        assert ahead.num_workers > 0
        ahead = [*ahead]
    assert torch.equal(torch.get_rng_state(), before)
    here = [*batches.ahead(range(2, 6), torch.device("cpu"))]
    assert torch.equal(torch.get_rng_state(), before)
    for at, one, other in zip(range(2, 6), ahead, here, strict=True):
        assert torch.equal(one["video"], batches[at]["video"])
        assert torch.equal(other["video"], batches[at]["video"])
    # not what is in memory, or measured on the GPU itself
    for data in (videos(), Jittered()):
        data.needs_gpu = True
        made = Batches(data, 8, 0).ahead(range(2), torch.device("cuda"))
        assert made.num_workers == 0


def test_weights_of_convolutions_change_their_order_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(4, 5, 3),
                          nn.Linear(2, 3))
    before = copy.deepcopy(model.state_dict())
    gpu.lay_out(model, channels_last=True)
    assert model[0].weight.stride()[1] == model[1].weight.stride()[1] == 1
    assert model[2].weight.is_contiguous()
    gpu.lay_out(model, channels_last=False)
    assert all(p.is_contiguous() for p in model.parameters())
    assert all(torch.equal(model.state_dict()[name], value)
               for name, value in before.items())


def test_clipping_bounds_the_norm_of_the_gradient():
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    seen = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append(
            torch.nn.utils.get_total_norm([
                p.grad for group in optimizer.param_groups
                for p in group["params"]]).item()))
    run()
    assert max(seen) > 0.1
    seen.clear()
    run(clip=0.01)
    handle.remove()
    assert max(seen) < 0.0101  # rounding of the norm


def test_the_cosine_schedule_warms_up_and_ends_low():
    _, history = run(schedule="cosine", steps=100, save_every=100)
    rates = [row["lr"] for row in history]
    assert rates[0] < rates[4] and max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.0001
    assert {row["lr"] for row in run()[1]} == {0.01}


def test_each_epoch_shows_each_video_once_in_a_new_order():
    data, epochs = videos(26), []
    batches = Batches(data, 8, seed=3)
    for epoch in range(3):
        names = [batches[3 * epoch + i]["name"] for i in range(3)]
        assert [len(batch) for batch in names] == [8, 8, 8]
        epochs.append(sum(names, []))
        assert len(set(epochs[-1])) == 24
    assert len(set(map(tuple, epochs))) == 3
    few = Batches(videos(5), 8, seed=3)
    assert len(few[0]["name"]) == 5 and len(few[9]["name"]) == 5


class Jittered(torch.utils.data.Dataset):
    """Draws from torch's random numbers while reading."""

    def __len__(self):
        return 27

    def __getitem__(self, index):
        return {"video": torch.rand(2, 3)}


def test_what_the_data_draws_depends_on_the_step_alone():
    """Whatever was drawn before, and it leaves no trace."""
    batches = Batches(Jittered(), 8, seed=0)
    first = batches[3]["video"]
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(batches[3]["video"], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(batches[4]["video"], first)
    other = Batches(Jittered(), 8, seed=1)
    assert not torch.equal(other[3]["video"], first)


def test_wrong_arguments_are_named():
    for name, value in (("device", "gpu"), ("precision", "fp8"),
                        ("schedule", "step"), ("precision", "no")):
        refused(name, run, **{name: value})
    refused("val and score", run, val=None)
    refused("lower lr", run, error=FloatingPointError,
            step=lambda model, batch: {
                "loss": step(model, batch)["loss"] * float("nan")})
    refused("0 samples", training.predict, net(), videos(0))
    refused("features", training.predict, net(), videos(), inputs="features",
            error=KeyError)
    if not torch.cuda.is_available():
        refused("no GPU", training.find_device, "cuda")


def test_predict_is_deterministic_in_order_and_leaves_modes_alone():
    model, data = net().train(), videos()
    model.norm.eval()
    before = torch.get_rng_state()
    first = training.predict(model, data, batch=4)
    assert torch.equal(before, torch.get_rng_state())
    second = training.predict(model, data, batch=4)
    assert model.training and model.drop.training
    assert not model.norm.training
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert set(first) == {"logits", "when", "spans", "label"}
    assert torch.equal(first["label"], data.columns["label"])
    assert first["spans"].shape == (3, 2)
    direct = model.eval()(data.columns["video"].float() / 255)
    # another batch size sums in another order
    assert torch.allclose(first["logits"], direct.logits, atol=1e-5)
    assert not any(value.is_inference() for value in first.values())
    some = training.predict(model, data, keys=("when",))
    assert {*some} == {"when", "label"}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(10.0))

    def forward(self, first, second):
        Answer = namedtuple("Answer", "logits")
        return Answer(self.weight * first + second)


def test_predict_gives_several_inputs_in_their_order():
    data = Columns({"a": torch.arange(5.0), "b": torch.ones(5)})
    answers = training.predict(Two(), data, inputs=("a", "b"), batch=2)
    assert answers["logits"].tolist() == [1, 11, 21, 31, 41]
    turned = training.predict(Two(), data, inputs=("b", "a"), batch=2)
    assert turned["logits"].tolist() == [10, 11, 12, 13, 14]


def test_any_optimizer_and_schedule_by_hand():
    model, rates = nn.Linear(1, 1, bias=False), []
    with torch.no_grad():
        model.weight.fill_(1.0)

    def slope(model, batch):
        return {"loss": 3 * model.weight.sum()}

    history = training.fit(
        model, Columns({"x": torch.zeros(4)}), slope, steps=2, batch=2,
        lr=0.1, clip=None, device="cpu",
        optimizer=functools.partial(torch.optim.SGD, momentum=0.9),
        schedule=lambda done: rates.append(done) or (0.5 if done else 1.0))
    assert rates == [0.0, 0.5]
    assert [row["lr"] for row in history] == [0.1, 0.05]
    # 1 - 0.1 * 3, then the velocity is 0.9 * 3 + 3
    assert model.weight.item() == pytest.approx(0.7 - 0.05 * 5.7)


def test_a_schedule_by_hand_is_kept_and_told_from_another(tmp_path):
    def slope(model, batch):
        return {"loss": model.weight.sum()}

    def run(steps, schedule):
        torch.manual_seed(0)
        return training.fit(
            nn.Linear(1, 1), Columns({"x": torch.zeros(4)}), slope,
            steps=steps, batch=2, lr=0.1, schedule=schedule, device="cpu",
            checkpoint=tmp_path)

    first = run(2, lambda done: 1.0 if done < 0.5 else 0.1)
    assert run(2, lambda done: 1.0 if done < 0.5 else 0.1) == first
    with pytest.raises(CheckpointError, match="schedule"):
        run(2, lambda done: 1.0 if done < 0.7 else 0.1)


def test_to_device_scales_bytes_only():
    batch = training.to_device(
        {"video": torch.tensor([0, 255], dtype=torch.uint8), "name": ["a"],
         "label": torch.tensor([3])}, torch.device("cpu"))
    assert batch["video"].tolist() == [0.0, 1.0] and batch["name"] == ["a"]
    assert batch["label"].dtype == torch.int64


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
        self.second = nn.Conv3d(4, 2, 1)

    def forward(self, x):
        return self.second(self.first(x))


def test_what_is_frozen_does_not_change_and_train_does_not_wake_it():
    net, x = Parts(), torch.randn(2, 3, 4, 4, 4)
    assert training.freeze(net.first) is net.first
    before = copy.deepcopy(net.state_dict())
    twin = copy.deepcopy(net)  # frozen by itself, not by its original
    assert twin.first.train() is twin.first and not twin.first[1].training
    optimiser = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        assert net.train() is net and net.training
        assert net.first.train() is net.first and net.first[1].train()
        net(x).square().sum().backward()
        optimiser.step()
    assert not any(part.training for part in net.first.modules())
    assert torch.equal(net.first(x), net.first(x))  # no dropout
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("first"), key


def test_fine_tuning_trains_late_parts_and_every_module():
    """To be seen after two steps: all else keeps its bits."""
    torch.manual_seed(0)
    net = clip_cnn("resnet3d_small").double()
    x = torch.rand(2, 16, 3, 64, 64).double()
    sta_networks.insert(net, x[:1], sta_networks.STA, "early")
    sta_networks.insert(net, x[:1], sta_networks.STA, "late")
    model = sta_networks.STAClassifier(net, net.channels, 3).double()
    late = ("backbone.stages.conv5a", "backbone.stages.identity5b", "classify")
    assert training.fine_tune(model, *late) is model
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 1.0)
    for _ in range(2):  # the second time Conv1 and Deconv move too
        optimiser.zero_grad()
        model.train()
        sta_networks.loss(model(x), torch.tensor([0, 1]))["loss"].backward()
        optimiser.step()
    norms = {name for name, module in model.named_modules()
             if isinstance(module, nn.BatchNorm3d)}
    for name, value in model.state_dict().items():
        norm = name.rpartition(".")[0] in norms
        trains = ".attention." in name or not norm and name.startswith(late)
        assert torch.equal(value, before[name]) != trains, name
    assert model.training and net.stages["conv5a"].training
    assert not any(m.training for m in model.modules()
                   if isinstance(m, nn.BatchNorm3d))
    refused("layer9.*named_modules", training.fine_tune, net, "layer9")


def test_equal_parts_start_equal_whatever_else_there_is():
    torch.manual_seed(0)
    small = nn.ModuleDict({"head": nn.Linear(4, 3)})
    large = nn.ModuleDict({"block": nn.Conv2d(3, 8, 3),
                           "head": nn.Linear(4, 3)})
    assert not torch.equal(small["head"].weight, large["head"].weight)
    before = torch.get_rng_state()
    for model in (small, large):
        training.first_weights(model, "seed 0")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(small["head"].weight, large["head"].weight)
    training.first_weights(small, "seed 1")
    assert not torch.equal(small["head"].weight, large["head"].weight)


class Lines(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, i):
        return {"x": torch.tensor([i % 2 - 0.5, 1.0]), "label": i % 2,
                "video": torch.full((4, 3, 8, 8), 255 * (i % 2),
                                    dtype=torch.uint8)}


def moved(make, net):
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    training.fit(net, Lines(), lambda model, batch: {
        "loss": (model(batch["x"])[:, 0] - 3).square().mean()},
        steps=1, batch=16, lr=0.01, optimizer=make, device="cpu")
    return {name: (p - before[name]).abs().max().item()
            for name, p in net.named_parameters() if p.ndim > 1}


def test_two_rates_are_those_that_were_asked_for():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    step = moved(training.two_rates(torch.optim.AdamW, [net[0]], 0.1), net)
    assert step == pytest.approx({"0.weight": 0.001, "1.weight": 0.01},
                                 rel=0.02)


@pytest.mark.parametrize("name", training.RECIPES)
def test_every_recipe_trains(name):
    torch.manual_seed(0)
    net = nn.Linear(2, 2)

    def step(model, batch):
        return {"loss": nn.functional.cross_entropy(
            model(batch["x"]), batch["label"])}

    history = training.fit(net, Lines(), step, steps=60, batch=8, lr=0.1,
                           device="cpu", **training.RECIPES[name])
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_accuracy_reads_the_entries_that_it_is_told():
    class Sign(nn.Module):
        def forward(self, x):
            return namedtuple("Output", ["logits"])(
                x @ torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))

    assert training.accuracy("x", batch=5)(Sign(), Lines()) == 1.0


def test_a_network_of_frames_learns_from_labels():
    class Mean(nn.Module):
        vector_channels = 1

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.1))

        def features(self, video):
            assert video.shape[1] == 3  # moments
            return None, video.mean((2, 3, 4))[..., None] * self.scale

    torch.manual_seed(0)
    net = Mean()
    assert training.tune_frames(net, Lines(), "video", 2, steps=20, batch=8,
                                lr=0.1, device="cpu") is net
    assert net.scale > 0.2 or net.scale < 0


def test_data_in_memory_move_to_the_gpu_where_they_fit(monkeypatch):
    """A device without memory stands for the GPU."""
    data = Columns({"x": torch.zeros(4, 10), "name": [*"abcd"]},
                   classes=["one"])
    card = torch.device("meta")
    for free, moved in ((1000, True), (200, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info",
                            lambda device, free=free: (free, free))
        near = training._near(data, card)
        assert (near.columns["x"].device == card) == moved
        assert near.columns["name"] == [*"abcd"]
        assert near.classes == ["one"]
    assert training._near(data, torch.device("cpu")) is data
    other = torch.utils.data.Subset(data, range(2))
    assert training._near(other, card) is other
