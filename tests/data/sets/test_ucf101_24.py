"""UCF101-24: tubes of boxes, and the one that cannot be."""


import numpy as np
import pytest
import torch
from checks import refused
from puppet_formats import structs
from scipy.io import savemat
from video_files import real

from lib.data.sets import ucf101_24
from lib.data.sets.ucf101_24 import Tubes

ALL = torch.arange(4)
NAME = "Archery/v_Archery_g08_c01"


TUBE = {"sf": 2.0, "ef": 3.0, "boxes": np.full((2, 4), 5, np.uint8)}


def test_official():
    root = real("annotations/ucf101_24")
    train, test, _ = ucf101_24.read(root, lists_only=True)
    assert sum(not r.spans for r in train) == 9
    one = next(r for r in test if r.name == "v_Basketball_g01_c01")
    assert one.spans == ((8, 52),)
    found = one.truth(torch.tensor([7, 8, 51, 52]))["boxes"]
    assert found.isnan().any(1).tolist() == [True, False, False, True]
    # 189 + 102 fits in eight bits, 188 + 78 does not
    assert found[1].tolist() == [189, 102, 236, 180]
    high = torch.cat([r.truth(torch.arange(50))["boxes"] for r in test[:99]])
    high = high[~high.isnan().any(1)]
    assert (high[:, 2:] > high[:, :2]).all() and high[:, 2].max() > 255


def test_boxes_are_offset_by_the_start_and_cast():
    small = np.array([[200, 10, 100, 20], [201, 10, 100, 20]], np.uint8)
    found = Tubes([(1, small)])(ALL)["boxes"]
    assert found.isnan().any(1).tolist() == [True, False, False, True]
    assert found[1:3].tolist() == [[200, 10, 300, 30], [201, 10, 301, 30]]
    # the longest tube wins where two people are
    other = np.tile(np.array([[0, 0, 5, 5]], np.uint8), (3, 1))
    both = Tubes([(0, other), (1, small)])(ALL)["boxes"]
    assert both[:, 2].nan_to_num().tolist() == [5, 5, 5, 0]
    assert repr(Tubes([(0, other)])) != repr(Tubes([(1, other)]))
    assert repr(Tubes([(0, other)])) == repr(Tubes([(0, other.astype(int))]))


def video(name=NAME, **changes):
    return {"name": name, "num_imgs": 4.0, "tubes": structs([TUBE | changes])}


@pytest.fixture
def write(tmp_path):
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 Archery\n")
    (folder / "trainlist01.txt").write_text("Archery/v_Archery_g09_c01.avi 1")
    (folder / "testlist01.txt").write_text(f"{NAME}.avi")
    (tmp_path / "ucf101_24").mkdir()

    def write(*videos):
        savemat(tmp_path / "ucf101_24/finalAnnots.mat",
                {"annot": structs(videos) if videos else np.zeros((0, 0))})
        return ucf101_24.read(tmp_path, lists_only=True)
    return write


def test_lists_are_those_of_ucf101(write):
    train, test, classes = write(video())
    assert (train[0].spans, test[0].spans) == ((), ((1, 3),))
    for videos, reason in (
            ([video(NAME.replace("08", "07"))], " holds boxes of 1 videos"),
            # boxes of a video for training alone leave no test
            ([video(NAME.replace("08", "09"))], " lists no test videos"),
            ([video(), video()], ": Archery/v_Archery.*already")):
        refused(f"finalAnnots.mat{reason}", write, *videos)


@pytest.mark.parametrize("changes", [
    {"sf": -5.0}, {"sf": 4.0, "ef": 1.0}, {"sf": 1.5}, {"ef": 4.0},
    {"sf": 4.0, "ef": 5.0}, {"sf": 2.0, "ef": 1.0, "boxes": np.zeros((0, 4))},
    {"boxes": np.full((4, 5), 5)}, {"boxes": np.full((2, 2, 4), 5)},
    {"boxes": np.full((2, 4), np.inf)}, {"boxes": np.full((2, 4), np.nan)},
    {"boxes": np.array([[-1, 2, 3, 4]] * 2)},
    {"boxes": np.array([[1, 2, 0, 4]] * 2)}], ids=str)
def test_the_tube_that_cannot_be_is_named(write, changes):
    refused("Annots.mat: Archery/v_Archery", write, video(**changes))


@pytest.mark.parametrize("held", [
    {"name": NAME}, {"name": NAME, "num_imgs": 4.0, "tubes": 3.0},
    {"name": NAME, "num_imgs": "x", "tubes": structs([TUBE])},
    {"name": NAME, "num_imgs": 4.0, "tubes": structs([{"sf": 1.0}])}], ids=str)
def test_what_holds_no_tubes_is_named(write, held):
    refused("finalAnnots.mat", write, held)
