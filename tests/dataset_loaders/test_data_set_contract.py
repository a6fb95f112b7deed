"""What every data set promises, whatever it reads from; each is a parameter."""

import pickle
from collections import Counter

import numpy as np
import pytest
import trees
from PIL import Image

from dataset_loaders import DATASETS, DenseDataset, SubsetDataset, check_sample, open_dataset, prepare
from dataset_loaders.builders import as_table
from dataset_loaders.inspection import inspect_split
from kdam_hf.errors import KdamValueError

OTHERS = ["hub", "synthetic_rooms", "photos"]


@pytest.fixture(scope="module", params=[*trees.LAYOUTS, *OTHERS, "prepared", "subset"])
def dataset(request, tree, tmp_path_factory):
    """Three samples of each kind."""
    root, kind = tmp_path_factory.mktemp("data"), request.param
    if kind == "synthetic_rooms":
        return open_dataset(kind, "val", num_images=3, height=24, width=32)
    if kind == "photos":
        for k in range(10):
            Image.fromarray(np.full((40, 48, 3), 20 * k, np.uint8)).save(root / f"{k}.png")
        return open_dataset(kind, "val", root, held_out=0.3)
    layout = kind if kind in trees.LAYOUTS else "folder"
    source = open_dataset(trees.name_of(layout), "val", tree(layout)[0])
    if kind == "hub":
        as_table(source).to_parquet(root / "hub" / "val-00000-of-00001.parquet")
        return open_dataset("hub", "val", root / "hub")
    if kind == "prepared":
        prepare(source, root / "out" / "rooms-val")
        return open_dataset("folder", "val", root / "out")
    return SubsetDataset(source, source.ids[::-1]) if kind == "subset" else source


def same(a, b):
    assert a["id"] == b["id"]
    np.testing.assert_array_equal(a["image"], b["image"])
    assert a["labels"].keys() == b["labels"].keys()
    for name, label in a["labels"].items():
        np.testing.assert_array_equal(label, b["labels"][name], err_msg=name)


def test_every_registered_data_set_is_held_to_the_contract():
    assert {*OTHERS, *map(trees.name_of, trees.LAYOUTS)} == set(DATASETS)


def test_samples_keep_the_contract_in_the_order_of_the_ids(dataset):
    assert isinstance(dataset, DenseDataset)
    samples = [check_sample(dataset[k], dataset.tasks) for k in range(len(dataset))]
    assert list(dataset.ids) == [sample["id"] for sample in samples]
    assert len(dataset.ids) == 3
    for sample in samples:
        assert sample["labels"].keys() <= {task.name for task in dataset.tasks}
    assert dataset.ids is dataset.ids  # made once
    same(pickle.loads(pickle.dumps(dataset))[1], samples[1])


def test_it_says_what_it_is_in_plain_data(dataset):
    assert dataset.split == "val"
    assert dataset.registered in DATASETS
    assert dataset.unlisted() == []
    assert dataset.stamp(0) == dataset.stamp(0)
    assert dataset.stamp(0) or dataset.checked, "a change of its files can be told"
    photo = dataset.photo(0)
    assert photo is None or isinstance(photo, bytes) or photo.is_file()


def test_a_subset_of_it_keeps_every_member(dataset):
    chosen = SubsetDataset(dataset, [dataset.ids[2], dataset.ids[0]])
    same(chosen[0], dataset[2])
    assert list(chosen.ids) == [dataset.ids[2], dataset.ids[0]]
    for name in ("name", "split", "tasks", "registered", "options", "origin", "notes", "checked", "runs"):
        assert getattr(chosen, name) == getattr(dataset, name), name
    assert chosen.unlisted() == dataset.unlisted()
    assert (chosen.stamp(1), chosen.photo(1)) == (dataset.stamp(0), dataset.photo(0))
    members = {name for name in vars(DenseDataset) if not name.startswith("_")}
    assert members <= vars(SubsetDataset).keys() | vars(chosen).keys() | {"digest"}
    assert SubsetDataset(dataset, dataset.ids).digest == dataset.digest != chosen.digest
    for ids in (["unknown"], [], [dataset.ids[0]] * 2):
        with pytest.raises(KdamValueError):
            SubsetDataset(dataset, ids)


def test_prepared_it_is_the_same_to_the_precision_of_its_labels(dataset, tmp_path):
    prepared = prepare(dataset, tmp_path / "p")
    assert [task.spec() for task in prepared.tasks] == [task.spec() for task in dataset.tasks]
    assert list(prepared.notes) == list(dataset.notes)
    for k in range(3):
        sample = dataset[k]
        kinds = {task.name: task.label for task in dataset.tasks}
        stored = {n: kinds[n].decode(kinds[n].encode(label, n)) for n, label in sample["labels"].items()}
        same(prepared[k], sample | {"labels": stored})


def test_its_report_counts_every_pixel(dataset):
    report = inspect_split(dataset).as_json()
    assert (report["images"], report["usable"], report["problems"]) == (3, 3, [])
    samples = [dataset[k] for k in range(3)]
    assert report["sizes"] == Counter("{}x{}".format(*sample["image"].shape[:2]) for sample in samples)
    for task in dataset.tasks:
        labels = [sample["labels"][task.name] for sample in samples if task.name in sample["labels"]]
        facts = report["tasks"][task.name]
        assert facts["images"] == len(labels)
        assert facts["pixels"] == sum(label.shape[0] * label.shape[1] for label in labels)
        assert facts["valid"] == sum(int(task.label.valid(label).sum()) for label in labels)
        for k, count in enumerate(facts.get("counts", ())):
            assert count == sum(int((label == k).sum()) for label in labels)
