"""Teach STA-CNN's small attention network the flow of puppets, and keep it.

    python data_scripts/pretrain_attention.py

The paper pre-trains this network on a data set of flow (section III-B); this
one learns the exact flow between two frames of puppets, by Eq. (4). Training
videos come from the actors of the training split, drawn with another seed than
the notebooks use; the step with the least loss on videos of the validation
split's actors is kept. About four minutes on one core; writes
lib/networks/weights/attention_small_puppets.safetensors, the network with its
Expanded Part, as float16.
"""

import argparse
from dataclasses import replace

import torch
from pretrain_backbone import SEED

from lib.data.batches import in_batches, in_memory
from lib.data.datasets import Thinned
from lib.data.snippets import Snippets, Whole, keep
from lib.data.transforms import Crops
from lib.lab import training
from lib.networks import pretrained
from lib.papers import sta_cnn
from lib.worlds.worlds import ALONE, Puppets

# 64 pixels end as 8 x 8: three poolings of six
WIDTHS, POOLINGS = (8, 16, 32, 32, 32, 48), 3
PATH = pretrained.WEIGHTS / "attention_small_puppets.safetensors"
KEYS = ("video", "flow")


def score(model, data):
    """The loss over the data, less: higher is better."""
    losses = []
    with training.evaluating(model):
        for batch in in_batches(data, 64):
            batch = training.to_device(batch, torch.device("cpu"))
            loss = sta_cnn.flow_step(model, batch)["loss"]
            losses.append(loss * len(batch["video"]))
    return -(sum(losses) / len(data)).item()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--videos", type=int, default=1500)
    options = parser.parse_args()
    # frames of 72 pixels, of which 64 are seen: TSN's 256 and 224
    dials = replace(ALONE, size=72)
    train, val = (
        keep(Whole(Thinned(Puppets(part, n, dials=dials, seed=SEED,
                                   extras=("flow",)), dials.frames),
                   (72, 72)))
        for part, n in (("train", options.videos), ("val", 300)))
    print(f"{len(train)} training videos, {len(val)} validation, {dials}")
    train = Crops(Snippets(train, 1, keys=KEYS), 64)
    val = in_memory(Crops(Snippets(val, 1, keys=KEYS, sampling="uniform"),
                          64, 4))
    torch.manual_seed(SEED)
    model = sta_cnn.FlowPredictor(
        sta_cnn.AttentionNetwork(WIDTHS, POOLINGS))
    history = training.fit(
        model, train, sta_cnn.flow_step, steps=options.steps, batch=32,
        lr=2e-3, weight_decay=1e-4, schedule="cosine", seed=SEED, val=val,
        score=score, every=max(1, options.steps // 10), device="cpu")
    pretrained.save_weights(model, PATH)
    flow = torch.stack([one["flow"][0].float() for one in val])
    nothing = sta_cnn.flow_loss(flow.new_zeros(len(flow), 2, 16, 16), flow)
    best = -max(row["score"] for row in history if "score" in row)
    print(f"loss on validation videos {best:.3f}; of no motion {nothing:.3f}")


if __name__ == "__main__":
    main()
