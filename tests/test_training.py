"""Training: bits that repeat, selection, prediction, extraction."""

import pytest
import torch
from small_run import STEPS, net, run, same, step, videos
from torch import nn
from torch.nn import functional as F

from lib import training
from lib.datasets import Columns


@pytest.fixture(scope="module")
def whole():
    """The run that nobody interrupts."""
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
    run(model=model, precision="no")
    assert types == {torch.float32}


def test_bf16_that_was_interrupted_leaves_no_trace():
    model = net()

    def interrupted(model, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model=model, precision="bf16", step=interrupted)
    x = torch.rand(1, 3, 3, 6, 6)
    fresh = net().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x).logits, fresh(x).logits)


def test_clipping_bounds_the_norm_of_the_gradient():
    def norms(clip):
        seen = []

        def look(optimizer, args, kwargs):
            seen.append(torch.nn.utils.get_total_norm(
                [p.grad for group in optimizer.param_groups
                 for p in group["params"]]).item())

        from torch.optim.optimizer import (
            register_optimizer_step_pre_hook as register,
        )
        handle = register(look)
        run(clip=clip)
        handle.remove()
        return seen

    assert max(norms(None)) > 0.1
    assert max(norms(0.01)) < 0.0101  # rounding of the norm


def test_one_batch_can_be_learnt_by_heart():
    torch.manual_seed(0)
    noise = torch.randint(256, (8, 3, 3, 6, 6)).byte()
    data = Columns({"video": noise, "label": torch.arange(8) % 2},
                   classes=["a", "b"])
    model = nn.Sequential(nn.Flatten(), nn.Linear(324, 32), nn.ReLU(),
                          nn.Linear(32, 2))

    def learn(model, batch):
        return {"loss": F.cross_entropy(model(batch["video"]),
                                        batch["label"])}

    history = training.fit(model, data, learn, steps=60, batch=8, lr=0.01,
                           device="cpu", schedule="cosine")
    assert history[0]["loss"] > 0.5 and history[-1]["loss"] < 0.01


def test_the_cosine_schedule_warms_up_and_ends_low():
    _, history = run(schedule="cosine", steps=100, save_every=100)
    rates = [row["lr"] for row in history]
    assert rates[0] < rates[4] and max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.0001
    assert {row["lr"] for row in run()[1]} == {0.01}


def test_each_epoch_shows_each_video_once_in_a_new_order():
    data, epochs = videos(26), []
    batches = training._Batches(data, 8, seed=3)
    for epoch in range(3):
        names = [batches[3 * epoch + i]["name"] for i in range(3)]
        assert [len(batch) for batch in names] == [8, 8, 8]
        epochs.append(sum(names, []))
        assert len(set(epochs[-1])) == 24
    assert len(set(map(tuple, epochs))) == 3
    few = training._Batches(videos(5), 8, seed=3)
    assert len(few[0]["name"]) == 5 and len(few[9]["name"]) == 5


class Jittered(torch.utils.data.Dataset):
    """Draws from torch's random numbers while reading."""

    classes = ["no", "red"]

    def __init__(self):
        self.data = videos()

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        sample = dict(self.data[index])
        sample["video"] = sample["video"].float() / 255 + torch.rand(1)
        return sample


def test_workers_change_nothing():
    models = []
    for workers in (0, 2):
        models.append(net())
        training.fit(models[-1], Jittered(), step, steps=5, batch=8, lr=0.01,
                     device="cpu", workers=workers)
    assert same(*models)


def test_a_loss_that_is_not_finite_stops_the_run():
    def bad(model, batch):
        return {"loss": step(model, batch)["loss"] * float("nan")}

    with pytest.raises(FloatingPointError, match="lower lr"):
        run(step=bad)


def test_wrong_arguments_are_named():
    for wrong in ({"device": "gpu"}, {"precision": "fp8"},
                  {"schedule": "step"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            run(**wrong)
    with pytest.raises(ValueError, match="val and score"):
        run(val=None)
    with pytest.raises(ValueError, match="0 samples"):
        training.predict(net(), videos(0))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU"):
            training.find_device("cuda")


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


def test_predict_takes_some_keys_and_names_missing_inputs():
    answers = training.predict(net(), videos(), keys=("when",))
    assert set(answers) == {"when", "label"}
    with pytest.raises(KeyError, match="features"):
        training.predict(net(), videos(), inputs="features")


class Frames(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, video):
        features = self.norm(self.conv(video.flatten(0, 1)))
        return features.unflatten(0, video.shape[:2])


def test_extract_stores_what_the_backbone_says_and_every_answer():
    torch.manual_seed(0)
    backbone = Frames().train()
    segments = [torch.zeros(i % 3, 2) for i in range(27)]
    data = videos(segments=segments, mask=torch.rand(27, 3, 6, 6) > 0.5)
    frozen = training.extract(backbone, data, batch=4, device="cpu")
    assert backbone.training and frozen.classes == data.classes
    assert set(frozen.columns) == {"features", "label", "name", "segments",
                                   "mask"}
    stored = frozen.columns["features"]
    assert stored.shape == (27, 3, 4, 4, 4) and stored.dtype == torch.float16
    direct = backbone.eval()(data.columns["video"].float() / 255)
    # half precision keeps eleven bits
    assert torch.allclose(stored.float(), direct, rtol=2e-3, atol=1e-4)
    for key in ("label", "mask"):
        assert torch.equal(frozen.columns[key], data.columns[key])
    assert frozen.columns["name"] == data.columns["name"]
    assert [len(s) for s in frozen.columns["segments"]] == [
        i % 3 for i in range(27)]
    # the features can be trained on, as ordinary tensors
    weight = torch.ones(1, requires_grad=True)
    (frozen[0]["features"].float() * weight).sum().backward()
    batch = training.to_device(
        {"features": stored[:2]}, torch.device("cpu"))
    assert batch["features"].dtype == torch.float32


def test_extract_refuses_features_that_overflow():
    backbone = Frames()
    with torch.no_grad():
        backbone.norm.weight.fill_(1e7)
    with pytest.raises(FloatingPointError, match="float16"):
        training.extract(backbone, videos(), device="cpu")


def test_to_device_scales_bytes_only():
    batch = training.to_device(
        {"video": torch.tensor([0, 255], dtype=torch.uint8), "name": ["a"],
         "label": torch.tensor([3])}, torch.device("cpu"))
    assert batch["video"].tolist() == [0.0, 1.0] and batch["name"] == ["a"]
    assert batch["label"].dtype == torch.int64
