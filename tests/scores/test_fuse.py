"""Late fusion: the weighted mean of several networks' probabilities."""

import math

import pytest
import torch

from lib.scores.metrics import fuse


def test_fuse_is_the_mean_of_probabilities():
    torch.manual_seed(0)
    logits = [torch.randn(5, 3) * 4 for _ in range(3)]
    slow = torch.zeros(5, 3)
    for n in range(5):
        for one, weight in zip(logits, (1, 2, 5), strict=True):
            shares = [math.exp(x) for x in one[n].tolist()]
            for k in range(3):
                slow[n, k] += weight * shares[k] / sum(shares) / 8
    assert torch.allclose(fuse(logits, (1, 2, 5)), slow, atol=1e-6)
    assert torch.allclose(fuse(logits), fuse(logits, [7] * 3))
    assert torch.allclose(fuse(logits[:1]), logits[0].softmax(1))
    assert torch.allclose(fuse(logits).sum(1), torch.ones(5))
    # a probability goes in as its logarithm
    shares = torch.eye(3)[[0, 1, 2, 0, 1]]
    assert torch.allclose(fuse([logits[0], shares.log()]),
                          (logits[0].softmax(1) + shares) / 2)


@pytest.mark.parametrize("shapes, weights, message", [
    ([(5, 3), (5, 4)], None, "one shape"), ([(5,)], None, "one shape"),
    ([], None, "one shape"), ([(5, 3), (1, 3)], None, "one shape"),
    ([(5, 3)] * 2, [1], "one for each"), ([(5, 3)] * 2, [1, -1], "negative"),
    ([(5, 3)] * 2, [0, 0], "not all zero"),
    ([(5, 3)] * 2, [1, math.nan], "one for each")])
def test_fuse_refuses_what_does_not_match(shapes, weights, message):
    with pytest.raises(ValueError, match=message):
        fuse([torch.zeros(shape) for shape in shapes], weights)
