import numpy as np
import pytest
import trees

from dataset_loaders import EvalTransform, SubsetDataset, TransformedDataset, open_dataset, pack
from kdam_hf.errors import KdamValueError


@pytest.fixture
def rooms():
    return open_dataset("synthetic_rooms", "val", num_images=4, height=24, width=32)


def ids_of_samples(dataset):
    return [dataset[k]["id"] for k in range(len(dataset))]


def test_every_dataset_knows_the_ids_of_its_samples(rooms, tmp_path):
    packed = pack(rooms, tmp_path / "packed", progress=False)
    for dataset in (rooms, packed, SubsetDataset(rooms, rooms.ids[2:])):
        assert list(dataset.ids) == ids_of_samples(dataset)
        assert dataset.ids is dataset.ids


@pytest.mark.parametrize(
    ("layout", "name", "boundaries"),
    [
        ("C", "nyud_v2", "nyud"),
        ("E", "nyud_v2", None),
        ("O", "nyud_v2", "nyud"),
        ("pascal", "pascal_context", "pascal"),
        ("folder", "folder", "pascal"),
    ],
)
def test_ids_and_the_protocol_of_boundaries_are_known_of_every_layout_and_after_packing(
    tmp_path, layout, name, boundaries
):
    trees.write_tree(layout, tmp_path / "tree", train=1, val=2)
    read = open_dataset(name, "val", tmp_path / "tree")
    pack(read, tmp_path / "packed" / f"{read.name}-val", progress=False)
    for dataset in (read, open_dataset(name, "val", tmp_path / "packed")):
        assert list(dataset.ids) == ids_of_samples(dataset)
        assert next((task.boundaries for task in dataset.tasks if task.name == "edge"), None) == boundaries


def test_samples_come_by_id_in_the_order_of_the_list(rooms):
    ids = [rooms.ids[3], rooms.ids[1]]
    subset = SubsetDataset(rooms, ids)
    assert (subset.name, subset.split, subset.tasks, list(subset.ids)) == (rooms.name, "val", rooms.tasks, ids)
    assert [sample["id"] for sample in map(subset.__getitem__, range(len(subset)))] == ids
    np.testing.assert_array_equal(subset[0]["image"], rooms[3]["image"])


def test_labels_of_packed_samples_are_still_decoded_where_they_are_sliced(rooms, tmp_path):
    packed = pack(rooms, tmp_path / "packed", progress=False)
    transform = EvalTransform(rooms.tasks, [0.5] * 3, [0.25] * 3)
    seen, whole = (TransformedDataset(data, transform) for data in (SubsetDataset(packed, packed.ids[2:]), packed))
    assert not seen.check
    for name, label in seen[1]["labels"].items():
        assert label.equal(whole[3]["labels"][name]), name


@pytest.mark.parametrize(
    ("ids", "message"), [(["0001"], "1 of 1 ids are not in the split, first 0001"), ([], "0 of 0"), ("twice", "once")]
)
def test_ids_that_cannot_be_meant_are_refused(rooms, ids, message):
    with pytest.raises(KdamValueError, match=message):
        SubsetDataset(rooms, [rooms.ids[0]] * 2 if ids == "twice" else ids)


def test_digests_tell_lists_apart(rooms):
    one, other = (SubsetDataset(rooms, ids).digest for ids in (rooms.ids[:2], rooms.ids[1:3]))
    assert one != other
    assert SubsetDataset(rooms, rooms.ids[:2]).digest == one
