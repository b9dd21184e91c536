"""The few real clips at hand: they and their annotations fit."""

import numpy as np
import pytest
from scipy.io import savemat
from video_files import real_samples

from lib.data import datasets, decode, matlab
from lib.data.sets import hmdb51, jhmdb
from lib.data.sets.records import Record


def sample_clip(name):
    found = [p for p in real_samples() if p.name == name]
    if not found:
        pytest.skip(f"no samples/{name} below DATA_ROOT")
    return found[0]


def test_a_real_clip_of_jhmdb_and_its_joints(tmp_path):
    path = sample_clip("Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2.avi")
    joints = sample_clip("joint_positions.mat")
    assert hmdb51.CLIP.fullmatch(path.name)[1] == "Goal_Keeping_Tips_catch"
    place = matlab.read_mat(joints, "pos_img")["pos_img"]
    frames = decode.probe(path).frames
    assert place.shape == (2, 15, frames)  # 40, where the header claims 48
    mask = np.zeros((240, 320, frames), np.uint8)
    for t in range(frames):  # a mask is not at hand: the joints' box
        (x1, y1), (x2, y2) = place[:, :, t].min(1), place[:, :, t].max(1)
        mask[int(y1):int(y2), int(x1):int(x2), t] = 1
    savemat(tmp_path / "mask.mat", {"part_mask": mask})
    record = Record(path, 0, "x", "y", truth=jhmdb.Annotation(
        tmp_path / "mask.mat", joints))
    one = datasets.Videos([record], classes=["catch"], frames=8, size=112,
                          extras=("joints",))[0]
    low, high = one["joints"].amin(1), one["joints"].amax(1)
    assert (low - one["boxes"][:, :2]).abs().max() < 1.5
    assert (high - one["boxes"][:, 2:]).abs().max() < 1.5
    assert (low[:, 1] >= 14).all() and (high[:, 1] <= 98).all()  # no margin
