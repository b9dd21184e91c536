"""FlyingChairs: the list of pairs, and .flo files whole and damaged."""

import struct

import pytest
import torch

from lib.data import flow
from lib.data.sets.flying_chairs import pairs, read_flo


@pytest.mark.parametrize("text, reason", [
    ("1\n2\n3\n", ":3: '3' is not 1 or 2"), ("1\nx y\n", ":2: 'x y'"),
    ("", " lists no pairs of train"), ("2\n\n\n", " lists no pairs of train"),
    ("1\n\x00\n", ":2: '\\x00'"), ("1 2\n", ":1: '1 2'")])
def test_flying_chairs_name_the_wrong_line(tmp_path, text, reason):
    (tmp_path / "flying_chairs/data").mkdir(parents=True)
    sheet = tmp_path / "flying_chairs/FlyingChairs_train_val.txt"
    sheet.write_text("\ufeff1\n2\n1\n\n")
    names = [[file.name[:5] for file in own]
             for own in pairs(tmp_path, "train")]
    assert names == [["00001"] * 3, ["00003"] * 3]
    with pytest.raises(ValueError, match="part 'test'"):
        pairs(tmp_path, "test")
    sheet.write_text(text)
    with pytest.raises(ValueError) as caught:
        pairs(tmp_path, "train")
    assert f"{sheet}{reason}" in str(caught.value)


def flo(flow):
    """The bytes of a .flo file, one number at a time."""
    height, width = flow.shape[1:]
    raw = struct.pack("<fii", 202021.25, width, height)
    for row in range(height):
        for column in range(width):
            raw += struct.pack("<ff", *flow[:, row, column].tolist())
    return raw


def test_flo_files_are_read(tmp_path):
    given = torch.randn(2, 5, 7, generator=torch.manual_seed(0))
    path = tmp_path / "00001_flow.flo"
    path.write_bytes(flo(given))
    read = read_flo(path)
    assert read.dtype == torch.float32 and read.is_contiguous()
    assert torch.equal(read, given)
    # four weights that add up to one, but for rounding
    torch.testing.assert_close(flow.warp(torch.ones(3, 5, 7), read),
                               torch.ones(3, 5, 7))


@pytest.mark.parametrize(("change", "message"), [
    (lambda raw: raw[:-1], "copy or unpack"),
    (lambda raw: raw + b"\0", "copy or unpack"),
    (lambda raw: raw[:9], "copy or unpack"),
    (lambda raw: b"", "no .flo file"),
    (lambda raw: b"PIEG" + raw[4:], "no .flo file"),
    (lambda raw: raw[:4] + struct.pack("<ii", -5, -7) + raw[12:], "no .flo"),
    (lambda raw: raw[:4] + struct.pack("<ii", 2**30, 2**30) + raw[12:],
     "copy or unpack"),
])
def test_damaged_flo_files_are_named(tmp_path, change, message):
    path = tmp_path / "bad.flo"
    path.write_bytes(change(flo(torch.zeros(2, 5, 7))))
    with pytest.raises(ValueError, match=f"bad.flo.*{message}"):
        read_flo(path)
