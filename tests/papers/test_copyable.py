"""A paper's file works where it is copied to, without the rest of lib."""

import shutil
import subprocess
import sys

import pytest
from equations import LAST, ROOT

# What a reader would try first with each file.
TRIALS = {
    "jsta.py": """
import torch, jsta
block = jsta.SpatialAttention(6)
cnn = torch.nn.Sequential(torch.nn.Conv3d(3, 6, 3, 2, 1), block)
class Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = cnn
    def forward(self, clips):
        return self.cnn(clips.transpose(1, 2)).transpose(1, 2)
first = jsta.ClipClassifier(Backbone(), 6, 3)
second = jsta.TemporalClassifier(
    6, 3, attention=jsta.TemporalAttention(6, 4))
out = jsta.JSTA(first, second)(torch.rand(2, 4, 8, 3, 10, 10))
assert out.where.shape == (2, 16, 5, 5) and out.when.shape == (2, 16)
jsta.loss(out, torch.tensor([0, 2]))["loss"].backward()
""",
    "rstan.py": """
import torch, rstan
net = rstan.RSTAN((8, 6), (5, 4), 3, hidden=4, units=4)
out = net(torch.rand(2, 4, 8, 5, 5), torch.rand(2, 4, 5),
          torch.rand(2, 4, 6, 5, 5), torch.rand(2, 4, 4))
target = rstan.silhouette(torch.rand(2, 4, 20, 20) > 0.5, (5, 5))
terms = rstan.loss(out, torch.tensor([0, 2]), target=target)
terms["loss"].backward()
""",
    "sta_cnn.py": """
import torch, sta_cnn
class Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = torch.nn.Conv2d(3, 8, 4, 4)
    def forward(self, frames):
        return self.cnn(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
net = sta_cnn.STACNN(Backbone(), 8, 3, side=5)
out = net(torch.rand(2, 9, 3, 20, 20), sta_cnn.TS(3, 3, 1))
assert out.where.shape == (2, 9, 5, 5) and out.selected.sum() == 6
sta_cnn.loss(out, torch.tensor([0, 2]))["loss"].backward()
sta_cnn.weighted(out.snippets[:, :, None])
san = sta_cnn.AttentionNetwork((4, 4, 8, 8, 8, 8), 3)
flow = sta_cnn.FlowPredictor(san)(torch.rand(2, 2, 3, 32, 32))
sta_cnn.flow_loss(flow, torch.rand(2, 2, 32, 32)).backward()
""",
    "sta_networks.py": """
import torch, sta_networks as sta
class Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = torch.nn.Sequential(
            torch.nn.Conv3d(3, 6, 3, 2, 1), sta.STA(6, (4, 5, 5)))
    def forward(self, clips):
        return self.cnn(clips.transpose(1, 2)).transpose(1, 2)
bare = Backbone()
bare.cnn[1] = torch.nn.BatchNorm3d(6)
assert [*sta.insert(bare, torch.rand(1, 8, 3, 10, 10), sta.STA, ["cnn.1"])]
net = sta.STAClassifier(Backbone(), 6, 3)
out = net(torch.rand(2, 4, 8, 3, 10, 10))
assert out.when.shape == (2, 16) and out.what.shape == (2, 6)
sta.loss(out, torch.tensor([0, 2]))["loss"].backward()
""",
    "where_and_when.py": """
import torch, where_and_when as ww
net = ww.WhereAndWhen(8, 3, hidden=4, mask_channels=(8, 4))
out = net(torch.rand(2, 4, 8, 5, 5))
ww.loss(out, torch.tensor([0, 2]))["loss"].backward()
""",
}
LEFT = """
import sys
print(sorted(m for m in sys.modules if m.split(".")[0] == "lib"))
"""


@pytest.mark.parametrize("paper", LAST)
def test_the_file_alone_works_elsewhere(paper, tmp_path):
    shutil.copy(ROOT / "lib" / "papers" / f"{paper}.py", tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", TRIALS[f"{paper}.py"] + LEFT],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
