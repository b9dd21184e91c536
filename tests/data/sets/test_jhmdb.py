"""JHMDB: masks and joints, and the file that is wrong."""

import numpy as np
import pytest
import torch
from checks import refused
from scipy.io import savemat
from video_files import real_samples

from lib.data import datasets, decode, matlab
from lib.data.sets import hmdb51
from lib.data.sets.jhmdb import Annotation
from lib.data.sets.records import Record

ALL = torch.arange(4)


def test_masks_boxes_joints(tmp_path):
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[1:3, 2:5, :2] = 1  # the third frame is empty
    savemat(tmp_path / "m.mat", {"part_mask": mask})
    savemat(tmp_path / "j.mat", {"pos_img": np.full((2, 15, 3), 4.0)})
    told = Annotation(tmp_path / "m.mat", tmp_path / "j.mat")
    known = told(ALL, joints=True)
    assert known["mask"].sum((1, 2)).tolist() == [6, 6, 0, 0]
    assert known["boxes"][0].tolist() == [2, 1, 5, 3]
    assert known["boxes"].isnan().any(1).tolist() == [0, 0, 1, 1]
    assert (known["joints"][:3] == 3).all()
    assert known["joints"][3].isnan().all()
    assert "joints" not in told(ALL)
    for text in (b"", b"hello", mask.tobytes()):
        (tmp_path / "m.mat").write_bytes(text)
        refused("m.mat: no MATLAB file", told, ALL)
    (tmp_path / "m.mat").unlink()
    refused("m.mat.*script", told, ALL, error=FileNotFoundError)


@pytest.mark.parametrize("name, value", [
    ("part_mask", np.ones((6, 8))), ("part_mask", np.ones((6, 8, 3, 2))),
    ("part_mask", "mask"), ("part_mask", np.ones((6, 8, 3)) * 1j),
    ("part_mask", np.array([[{}]], object)), ("pos_img", np.ones((3, 15, 3))),
    ("pos_img", np.ones((2, 15))), ("pos_img", "joints"), ("other", 1)])
def test_names_the_wrong_file(tmp_path, name, value):
    mask, joints = tmp_path / "m.mat", tmp_path / "j.mat"
    savemat(mask, {"part_mask": np.ones((6, 8, 3))})
    savemat(joints, {"pos_img": np.ones((2, 15, 3))})
    told = Annotation(mask, joints)
    told(ALL, joints=True)
    wrong = joints if name == "pos_img" else mask
    savemat(wrong, {name: value})
    refused(wrong.name, told, ALL, joints=True)


def test_a_joint_that_is_half_unknown_is_unknown(tmp_path):
    place = np.full((2, 15, 3), 4.0)
    place[0, 2, 1], place[1, 3, 2] = np.nan, np.inf
    savemat(tmp_path / "m.mat", {"part_mask": np.ones((6, 8, 3))})
    savemat(tmp_path / "j.mat", {"pos_img": place})
    joints = Annotation(tmp_path / "m.mat", tmp_path / "j.mat")(
        torch.arange(3), joints=True)["joints"]
    gone = joints.isnan()
    assert gone[1, 2].all() and gone[2, 3].all() and gone.sum() == 4


def sample(name):
    found = [path for path in real_samples() if path.name == name]
    return found[0] if found else pytest.skip(f"no samples/{name}")


def test_a_real_clip_of_jhmdb_and_its_joints(tmp_path):
    path = sample("Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2.avi")
    joints = sample("joint_positions.mat")
    assert hmdb51.CLIP.fullmatch(path.name)[1] == "Goal_Keeping_Tips_catch"
    place = matlab.read_mat(joints, "pos_img")["pos_img"]
    frames = decode.probe(path).frames
    assert place.shape == (2, 15, frames)  # 40, where the header claims 48
    mask = np.zeros((240, 320, frames), np.uint8)
    for t in range(frames):  # a mask is not at hand: the joints' box
        (x1, y1), (x2, y2) = place[:, :, t].min(1), place[:, :, t].max(1)
        mask[int(y1):int(y2), int(x1):int(x2), t] = 1
    savemat(tmp_path / "mask.mat", {"part_mask": mask})
    record = Record(path, 0, "x", "y", truth=Annotation(
        tmp_path / "mask.mat", joints))
    one = datasets.Videos([record], classes=["catch"], frames=8, size=112,
                          extras=("joints",))[0]
    low, high = one["joints"].amin(1), one["joints"].amax(1)
    assert (low - one["boxes"][:, :2]).abs().max() < 1.5
    assert (high - one["boxes"][:, 2:]).abs().max() < 1.5
    assert (low[:, 1] >= 14).all() and (high[:, 1] <= 98).all()  # no margin
