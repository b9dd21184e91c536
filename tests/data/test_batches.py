"""Samples in batches and in memory are the samples of the dataset."""

import pytest
import torch
from checks import refused
from torch.utils.data import DataLoader, Subset
from video_files import same

from lib.data import batches


def sample(i, segments=1):
    return {
        "video": torch.full((2, 3, 4, 4), i, dtype=torch.uint8),
        "label": i % 3, "name": f"v{i}", "group": f"g{i // 4}",
        "fps": 8.0 + i, "segments": torch.full((segments, 2), float(i)),
        "relevant": torch.tensor([True, i % 2 == 0])}


class Listed(torch.utils.data.Dataset):
    classes = ["a", "b", "c"]

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_collate():
    batch = batches.collate([sample(0), sample(1, segments=3)])
    assert batch["video"].shape == (2, 2, 3, 4, 4)
    assert batch["video"].dtype == torch.uint8
    assert batch["label"].tolist() == [0, 1]
    assert batch["label"].dtype == torch.int64
    assert batch["fps"].tolist() == [8.0, 9.0]
    assert batch["relevant"].dtype == torch.bool
    assert batch["name"] == ["v0", "v1"]
    assert [len(s) for s in batch["segments"]] == [1, 3]
    assert batches.collate(batch) is batch


def test_collate_names_what_does_not_fit():
    for change, words in (({"flow": 1}, "same keys"),
                          ({"video": torch.zeros(1, 3, 4, 4)}, "letterbox")):
        both = [sample(0), sample(1) | change]
        refused(f"sample v1 .*{words}", batches.collate, both)
        refused("sample v1", batches.in_memory, Listed(both))


def test_in_memory_is_the_same_dataset():
    listed = Listed([sample(i, segments=1 + i % 2) for i in range(10)])
    columns = batches.in_memory(listed)
    assert len(columns) == 10 and columns.classes == ["a", "b", "c"]
    for i in range(10):
        same(columns[i], listed[i])
    same(columns.__getitems__([7, 0, 7]),
         batches.collate([listed[i] for i in (7, 0, 7)]))
    assert len(list(columns)) == 10


@pytest.mark.parametrize("subset", [False, True])
def test_a_loader_gives_the_same_batches_of_columns(subset):
    listed = Listed([sample(i) for i in range(10)])
    columns = batches.in_memory(listed)
    if subset:
        listed, columns = (Subset(d, [8, 1, 5]) for d in (listed, columns))
    loaders = [
        DataLoader(d, batch_size=4, shuffle=True,
                   generator=torch.Generator().manual_seed(0),
                   collate_fn=batches.collate)
        for d in (listed, columns)]
    for one, other in zip(*loaders, strict=True):
        same(one, other)


def test_columns_need_one_length():
    refused("'b': 3", batches.Columns, {"a": torch.zeros(2), "b": [1, 2, 3]})


def pairs(start, count):
    return Listed([{
        "x": torch.tensor([i]), "label": i, "name": str(i - start),
        "segments": torch.zeros(i - start, 2)}
        for i in range(start, start + count)])


def test_paired_samples_are_drawn_once_and_named():
    made = batches.paired(pairs(0, 5), pairs(100, 3), seed=1)
    assert len(made) == 5 and made.classes == ["a", "b", "c"]
    for i, one in enumerate(made[j] for j in range(5)):
        assert one["x"] == i and one["label"] == i
        assert one["other_x"] == one["other_label"] >= 100
        assert not {"other_segments", "other_name"} & {*one}
    again = batches.paired(pairs(0, 5), pairs(100, 3), seed=1)
    other = batches.paired(pairs(0, 5), pairs(100, 3), seed=2)
    both = [[int(data[i]["other_x"]) for i in range(5)]
            for data in (made, again, other)]
    assert both[0] == both[1] != both[2]


def test_columns_hold_what_was_asked_for_alone():
    found = batches.columns(pairs(0, 3), ("label", "name", "mask"))
    assert found["label"].tolist() == [0, 1, 2]
    assert found["name"] == ["0", "1", "2"] and "mask" not in found
