"""A GPU that is there is used."""

import pytest
import test_jsta
import test_rstan
import test_sta
import test_sta_cnn
import test_where_and_when
import torch
from machine import DEVICE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible")
@pytest.mark.parametrize("make", [
    lambda: test_jsta.network("plain"), test_rstan.network,
    lambda: test_sta.network("sta"), test_sta_cnn.network,
    test_where_and_when.network,
], ids=["jsta", "rstan", "sta", "sta_cnn", "where_and_when"])
def test_networks_lie_on_the_gpu(make):
    assert DEVICE == "cuda"
    assert {p.device.type for p in make().parameters()} == {"cuda"}
