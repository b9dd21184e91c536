"""Fit a model, and predict with it.

The step function carries what a paper has of its own::

    def step(model, batch):
        out = model(batch["video"])
        return {"loss": F.cross_entropy(out.logits, batch["label"])}

    history = fit(model, train, step, steps=250, batch=16, lr=1e-3)
    outputs = predict(model, test)  # {"logits": (N, K), "when": ...}

A run that is killed at any moment and started again ends, on a CPU, with
the same bits as one that was not. Hence every batch depends on (seed, step)
alone, and everything else that a step reads is in the checkpoint.

Several processes train one model (`python -m lib.lab.many`): each sees its
part of every batch, and the gradients are averaged, as DistributedDataParallel
does, but for any step: one may call parts of a model, which DDP forbids. The
loss must be a mean over samples, and the same parameters must get a gradient
in every process. A batch norm that trains sees its own part alone; what it has
gathered is averaged too, whenever the model is scored or saved. `predict`
shares out the samples, and every process has all outputs.

What shall not train: `freeze` fixes a part for good, `fine_tune` all but some
parts, and inside `evaluating` nothing trains.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset
from tqdm import tqdm

from lib.data.batches import Batches, Columns, in_batches, mixed_seed
from lib.lab import gpu, processes
from lib.lab.checkpoints import Checkpoint
from lib.scores.metrics import topk_accuracy

Step = Callable[[nn.Module, dict], dict]
Score = Callable[[nn.Module, Dataset], float]
# Optimisers by name, for `fit(..., **RECIPES[name])`. "sgd" is that of
# two-stream networks: the rate falls to a tenth after three fifths, no clip.
RECIPES = {
    "adamw": {"optimizer": torch.optim.AdamW, "schedule": "cosine"},
    "sgd": {"optimizer": partial(torch.optim.SGD, momentum=0.9),
            "schedule": lambda done: 1.0 if done < 0.6 else 0.1,
            "clip": None},
    "rmsprop": {"optimizer": torch.optim.RMSprop, "clip": None},
}
READ = 50  # steps: so often are logged numbers fetched, which waits for a GPU


def fit(model: nn.Module, train: Dataset, step: Step, *, steps: int,
        batch: int, lr: float, weight_decay: float = 0.0,
        clip: float | None = 1.0, optimizer: Callable = torch.optim.AdamW,
        schedule: str | Callable[[float], float] = "constant", seed: int = 0,
        device: str = "auto", precision: str | None = None,
        compiler: str | None = None, val: Dataset | None = None,
        score: Score | None = None, every: int | None = None,
        checkpoint: str | Path | None = None,
        save_every: int = 200) -> list[dict]:
    """Train `model` in place; return one dict per step.

    `step(model, batch)` returns a dict with the tensor "loss"; its other
    entries are scalars to log. Batches come by `to_device`. With `val` and
    `score(model, val)` (higher is better), the model is scored every `every`
    steps and at the last one, and ends with the best scored weights. The
    model is left on the device, in eval mode.

    batch: samples of a step, of all processes together.
    optimizer: called as `optimizer(parameters, lr=, weight_decay=)`. A group
        of its parameters with an entry "times" has so many times the rate.
    schedule: "constant", "cosine" to zero after a short warm-up, or a
    function from the share of the steps done to the share of `lr`.
    clip: largest norm of the gradient over all parameters; None for none.
    precision: "float32"; "tf32", the same with a GPU's short products; or
        "bf16" in the model's forward pass. compiler: a backend of
        torch.compile, as "inductor", or "" for none. Both act where a step
        calls the whole model. None: what `gpu.environment` has.
    checkpoint: a folder of this run alone. If it holds one, the run goes on
    from there; a finished run is loaded and not trained again.
    """
    if (val is None) != (score is None):
        raise ValueError("give both val and score, or neither")
    rank, count = processes.ranks()
    if min(batch, len(train)) % count:
        raise ValueError(f"batches of {min(batch, len(train))} samples in "
                         f"{count} processes: give a multiple of {count}")
    asked = gpu.environment()
    precision = precision or asked[0]
    compiler = asked[1] if compiler is None else compiler
    settings = {
        "steps": steps, "batch": batch, "lr": lr, "clip": clip, "seed": seed,
        "weight_decay": weight_decay, "schedule": schedule, "every": every,
        "precision": {"tf32": "no"}.get(precision, precision),  # Accelerate's
        "train": len(train),
        "val": None if val is None else len(val),
        "parameters": sum(p.numel() for p in model.parameters())}
    torch.manual_seed(seed)
    history, unread, best = [], [], None
    make = partial(optimizer, lr=lr, weight_decay=weight_decay)
    with _prepared(model, make, device, precision) as (
            accelerator, optimizer):
        settings["optimizer"] = type(optimizer.optimizer).__name__
        store = checkpoint and Checkpoint(checkpoint, accelerator, settings)
        if store:
            history, best = store.load()
        processes.agree([*model.parameters(), *model.buffers()])
        left = range(len(history), steps)
        near = _near(train, accelerator.device)
        batches = Batches(near, batch, seed, rank, count).ahead(
            left, accelerator.device)
        fast = gpu.compiled(model, compiler)
        for at, samples in zip(tqdm(left, disable=None), batches,
                               strict=True):
            model.train()
            rate = lr * _share(schedule, at, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("times", 1.0)
            logged = step(fast, to_device(samples, accelerator.device))
            # what is kept must not keep the step's maps alive
            unread.append(({"step": at + 1, "lr": rate}, {
                key: value.detach() if isinstance(value, Tensor) else value
                for key, value in logged.items()}))
            optimizer.zero_grad()
            accelerator.backward(logged["loss"])
            processes.average(p.grad for p in model.parameters()
                              if p.grad is not None)
            if clip is not None:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            last = at + 1 == steps
            scored = score and (last or every and (at + 1) % every == 0)
            saved = store and (last or (at + 1) % save_every == 0)
            if scored or saved or last or len(unread) == READ:
                history += _numbers(unread)
                unread = []
            if scored or saved or last:
                processes.average(
                    buffer for module in model.modules()
                    if isinstance(module, _BatchNorm) and module.training
                    for buffer in module.buffers(recurse=False))
            if scored:
                history[-1]["score"] = float(score(model, val))
                if best is None or history[-1]["score"] > best[0]:
                    best = history[-1]["score"], _weights(model)
            if saved:
                store.save(history, best)
    if best is not None:
        model.load_state_dict(best[1])
    model.eval()
    return history


def predict(model: nn.Module, data: Dataset, *,
            inputs: str | tuple[str, ...] = "video",
            keys: tuple[str, ...] | None = None, batch: int = 32,
            device: str | None = None) -> dict:
    """The model's output for every sample of `data`, on the CPU.

    The model is called with the entries that `inputs` names, as in
    `model(batch["video"])`, in eval mode and without gradients; each
    module's mode is as before afterwards. Returned are the
    tensors of its NamedTuple, or those named by `keys`, joined over samples:
    `logits` (N, K), `where` (N, T', H', W'), ...; `spans` (T', 2) once; and
    the samples' `label` (N,). Without `device` the model stays where it is.
    """
    device = (find_device(device) if device
              else next(model.parameters(), torch.empty(0)).device)
    parts, names = [], (inputs,) if isinstance(inputs, str) else inputs
    rank, count = processes.ranks()
    with evaluating(model.to(device)):
        for samples in in_batches(data, batch, device=device, rank=rank,
                                  count=count):
            samples = to_device(samples, device)
            if missing := [name for name in names if name not in samples]:
                raise KeyError(f"no {missing} in samples of {[*samples]}")
            out = model(*(samples[name] for name in names))._asdict()
            wanted = keys or [k for k, v in out.items()
                              if isinstance(v, Tensor)]
            if "label" in samples:
                out["label"] = samples["label"]
                wanted = [*wanted, "label"]
            parts.append({key: out[key].cpu() for key in wanted})
    parts = [part for turn in zip_longest(*processes.everyone(parts))
             for part in turn if part is not None]
    spans = [part.pop("spans") for part in parts if "spans" in part]
    return join(parts) | ({"spans": spans[0].clone()} if spans else {})


def to_device(batch: dict, device: torch.device) -> dict:
    """Move a batch; the one place where stored numbers become floats.

    uint8 `video` -> float32 in [0, 1]; float16 (features) -> float32. The
    small types travel, and are widened on the device.
    """
    def move(key, value):
        if not isinstance(value, Tensor):
            return value
        value = value.to(device, non_blocking=True)
        if key == "video" and value.dtype == torch.uint8:
            return value.float() / 255
        return value.float() if value.dtype == torch.float16 else value

    return {key: move(key, value) for key, value in batch.items()}


def _near(data: Dataset, device: torch.device) -> Dataset:
    """Data in memory on the GPU, where it fits: no step waits for a copy."""
    if device.type == "cpu" or type(data) is not Columns:
        return data
    torch.cuda.empty_cache()  # what a run before has left counts as free
    tensors = {k: v for k, v in data.columns.items() if isinstance(v, Tensor)}
    if 2 * sum(v.nbytes for v in tensors.values()) > (
            torch.cuda.mem_get_info(device)[0]):
        return data
    return Columns(data.columns | {k: v.to(device) for k, v in
                                   tensors.items()}, classes=data.classes)


def find_device(device: str) -> torch.device:
    """"auto" (a GPU if there is one), "cpu" or "cuda" as a device."""
    processes.ranks()  # each process has a GPU of its own
    there = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device!r}: use 'auto', 'cpu' or 'cuda'")
    if device == "cuda" and not there:
        raise ValueError("device='cuda', but torch sees no GPU: use 'auto'")
    return torch.device("cuda" if there and device != "cpu" else "cpu")


@contextmanager
def _prepared(model: nn.Module, make: Callable, device: str, precision: str):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision not in gpu.PRECISIONS:
        raise ValueError(f"precision={precision!r}: use one of "
                         f"{', '.join(gpu.PRECISIONS)}")
    # Accelerate keeps the first run's device and precision for the life of
    # the process, and a notebook trains more than once
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=find_device(device).type == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        dynamo_backend="no")
    accelerator.prepare_model(model, evaluation_mode=True)  # no DDP, see above
    try:
        with gpu.prepared(model, accelerator.device, precision):
            optimizer = make([p for p in model.parameters()
                              if p.requires_grad])
            yield accelerator, accelerator.prepare_optimizer(optimizer)
    finally:
        # for bf16 `forward` was wrapped; without this it would stay so
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)


def _numbers(unread: list[tuple[dict, dict]]) -> list[dict[str, float]]:
    """Rows with what was logged as numbers: means over all processes.

    They come from the device at once.
    """
    values = [value for _, logged in unread for value in logged.values()]
    flat = torch.stack([
        torch.as_tensor(value).detach().double().reshape(()).to(
            unread[0][1]["loss"].device) for value in values])
    processes.average([flat])
    numbers = iter(flat.tolist())
    for row, logged in unread:
        row |= {key: next(numbers) for key in logged}
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss is {row['loss']}: try a lower lr, or clip")
    return [row for row, _ in unread]


def _share(schedule: str | Callable[[float], float], at: int,
           steps: int) -> float:
    if callable(schedule):
        return schedule(at / steps)
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"schedule={schedule!r}: use 'constant' or 'cosine'")
    if schedule == "constant":
        return 1.0
    warm_up = min(1.0, (at + 1) / max(1, steps // 20))
    return warm_up * 0.5 * (1 + math.cos(math.pi * at / steps))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True).contiguous()
            for key, value in model.state_dict().items()}


def join(parts: list[dict]) -> dict:
    """One dict of columns from the batches in `parts`.

    Called outside inference mode, so that the tensors can train.
    """
    def column(values):
        if isinstance(values[0], Tensor):
            return torch.cat(values)
        return [item for value in values for item in value]

    return {key: column([part[key] for part in parts]) for key in parts[0]}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; each module's mode is restored."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def freeze(module: nn.Module) -> nn.Module:
    """Fix weights, batch statistics and dropout, in place; returns it.

    A later `train()`, of the module or of what holds it, leaves it in eval
    mode: JSTA's Algorithm 1 fixes one part while the other trains.
    """
    for part in module.modules():
        _fix(part)
    return module


def fine_tune(net: nn.Module, *parts: str) -> nn.Module:
    """Train some parts and every inserted module only, in place; returns net.

    As MARS's code does with "layer4" and the classifier. No batch norm
    trains, in `parts` neither: a later `train()` leaves it in eval mode.
    ValueError if there is no part of a name.
    """
    modules = dict(net.named_modules())
    if missing := {*parts} - {*modules}:
        raise ValueError(f"no part {missing}: give names of named_modules()")
    net.requires_grad_(False)
    for name in parts:
        modules[name].requires_grad_(True)
    for module in modules.values():
        if isinstance(module, _BatchNorm):
            _fix(module)
    for name, parameter in net.named_parameters():
        if ".attention." in name:
            parameter.requires_grad_(True)
    return net


def _fix(module: nn.Module) -> None:
    module.training = False
    module.train = _stay.__get__(module)  # bound, so that copies have theirs
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def first_weights(module: nn.Module, name: str) -> None:
    """Draw the weights of `module` anew, each part from its own generator.

    A part's generator is named after `name` and the part's path, so equal
    parts of two models start equal, whatever else the models have. Parts
    without `reset_parameters` stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        for path, part in module.named_modules():
            if hasattr(part, "reset_parameters"):
                torch.manual_seed(mixed_seed(name, path))
                part.reset_parameters()


def tune_frames(cnn: nn.Module, data: Dataset, key: str, classes: int,
                **options) -> nn.Module:
    """Train a CNN of frames on class labels, in place; returns it.

    A layer on the mean of its vectors (`cnn.features`) at three random
    moments of each video predicts the class, and is dropped. `key` is what
    the CNN reads, "video" or "motion"; `options` are those of `fit`.
    """
    def step(model, batch):
        moments = torch.randint(batch[key].shape[1], (3,))
        return {"loss": nn.functional.cross_entropy(
            model(batch[key][:, moments]), batch["label"])}

    layer = nn.Linear(cnn.vector_channels, classes)
    fit(_OfFrames(cnn, layer), data, step, **options)
    return cnn


class _OfFrames(nn.Module):
    """Class scores: a layer on the mean of a CNN's vectors of frames."""

    def __init__(self, cnn: nn.Module, layer: nn.Module):
        super().__init__()
        self.cnn, self.layer = cnn, layer

    def forward(self, frames: Tensor) -> Tensor:
        return self.layer(self.cnn.features(frames)[1].mean(1))


def accuracy(inputs: str | tuple[str, ...] = "video",
             batch: int = 32) -> Score:
    """A `score` for `fit`: top-1 of a model that reads these entries."""
    def score(model: nn.Module, data: Dataset) -> float:
        found = predict(model, data, inputs=inputs, keys=("logits",),
                        batch=batch)
        return topk_accuracy(found["logits"], found["label"])
    return score


def two_rates(kind: Callable, parts: Iterable[nn.Module],
              times: float) -> Callable:
    """An optimiser for `fit` in which some parts have `times` its rate.

    kind: called as `kind(groups, lr=, weight_decay=)`, as torch.optim.AdamW.
    parts: those that were trained before, say; the others are new.
    """
    own = {id(p) for part in parts for p in part.parameters()}

    def make(parameters: Iterable[nn.Parameter], **options: float):
        groups = {True: [], False: []}
        for parameter in parameters:
            groups[id(parameter) in own].append(parameter)
        return kind([{"params": groups[True], "times": times},
                     {"params": groups[False]}], **options)

    return make
