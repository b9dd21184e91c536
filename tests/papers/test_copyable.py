"""A paper's file works where it is copied to, without the rest of lib."""

import shutil
import subprocess
import sys

from equations import FILES, ROOT, TITLES

PAPERS = sorted({FILES.get(paper, paper) for paper in TITLES})
# What functions import when they are called is read by tests/test_house.py.
TRIAL = f"""
import sys, torch, {", ".join(PAPERS)}
net = where_and_when.WhereAndWhen(8, 3, hidden=4, mask_channels=(8, 4))
out = net(torch.rand(2, 4, 8, 5, 5))
where_and_when.loss(out, torch.tensor([0, 2]))["loss"].backward()
print(sorted(m for m in sys.modules if m.split(".")[0] == "lib"))
"""


def test_the_files_alone_work_elsewhere(tmp_path):
    for paper in PAPERS:
        shutil.copy(ROOT / "lib" / "papers" / f"{paper}.py", tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", TRIAL], cwd=tmp_path, capture_output=True,
        text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
