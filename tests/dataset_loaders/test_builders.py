"""The data sets as builders of `datasets`: typed rows, streaming, several processes, and back from Parquet."""

import os

import numpy as np
import pytest
import trees
from datasets import ClassLabel

from dataset_loaders import check_sample, open_dataset
from dataset_loaders.builders import NyudV2, OwnData, PascalContext
from kdam_hf.errors import DataIntegrityError, KdamValueError

KINDS = {"B": NyudV2, "O": NyudV2, "pascal": PascalContext, "folder": OwnData}


@pytest.fixture(scope="module", params=KINDS)
def built(request, tmp_path_factory):
    """Builder, what it built with two processes, and the folder of files it read."""
    root = tmp_path_factory.mktemp("tree") / "data"
    trees.write_tree(request.param, root, 3, 2)
    builder = KINDS[request.param](data_dir=root, cache_dir=str(tmp_path_factory.mktemp("cache")))
    builder.download_and_prepare(num_proc=2)
    return builder, builder.as_dataset(), root


def test_streaming_gives_the_rows_that_were_built(built):
    builder, splits, _ = built
    streamed = list(builder.as_streaming_dataset(split="val"))
    assert [row["id"] for row in streamed] == splits["val"]["id"]
    assert np.array_equal(np.array(streamed[0]["image"]), np.array(splits["val"][0]["image"]))


def test_classes_in_view_are_typed_and_true(built):
    builder, splits, root = built
    source = open_dataset(builder.DATASET, "train", root)
    semseg = source.tasks[0]
    column = splits["train"].features["semseg_classes"].feature
    assert isinstance(column, ClassLabel)
    assert tuple(column.names) == semseg.class_names
    label = source[0]["labels"]["semseg"]
    assert splits["train"][0]["semseg_classes"] == sorted(set(label.ravel().tolist()) - {255})


def test_what_went_to_parquet_trains_as_it_was(built, tmp_path):
    """Ids and edges are exact, depth within half a millimetre, normals within 0.4 degrees."""
    builder, splits, root = built
    (tmp_path / "data").mkdir()
    for split, rows in splits.items():
        rows.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    for split in splits:
        source, back = open_dataset(builder.DATASET, split, root), open_dataset("hub", split, tmp_path)
        assert [task.spec() for task in back.tasks] == [task.spec() for task in source.tasks]
        for k in range(len(source)):
            a, b = source[k], check_sample(back[k], back.tasks)
            assert a["id"] == b["id"]
            assert np.array_equal(a["image"], b["image"])
            assert a["labels"].keys() == b["labels"].keys()
            for name, label in a["labels"].items():
                assert_close(label, b["labels"][name])


def assert_close(a, b):
    if a.dtype == np.uint8:
        assert np.array_equal(a, b)
    elif a.ndim == 2:
        assert np.array_equal(a > 0, b > 0)
        assert np.abs(a - b).max() <= 0.0005 + 1e-6
    else:
        valid = a.any(-1)
        assert np.array_equal(valid, b.any(-1))
        cosine = (a.astype(np.float64) * b).sum(-1)[valid]
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.4


def test_labels_made_again_in_the_same_size_are_another_cache(tmp_path):
    truth = trees.write_tree("B", tmp_path / "data")
    before = NyudV2(data_dir=tmp_path / "data", cache_dir=str(tmp_path / "cache")).cache_dir
    path = tmp_path / f"data/depth/{truth['train'][0].id}.npy"
    size = path.stat().st_size
    np.save(path, np.load(path) + 1)
    os.utime(path, ns=(0, 1))
    assert path.stat().st_size == size
    assert NyudV2(data_dir=tmp_path / "data", cache_dir=str(tmp_path / "cache")).cache_dir != before


def test_a_subset_of_tasks_has_its_own_columns(tmp_path):
    trees.write_tree("C", tmp_path / "data")
    builder = NyudV2(data_dir=tmp_path / "data", tasks=["depth"], cache_dir=str(tmp_path / "cache"))
    assert list(builder.info.features) == ["id", "image", "depth"]
    row = next(iter(builder.as_streaming_dataset(split="train")))
    assert row["depth"].mode == "I;16"


def test_a_builder_without_data_says_what_it_needs():
    with pytest.raises(KdamValueError, match="NyudV2 needs data_dir"):
        NyudV2()


def test_parquet_of_another_kind_is_refused_with_its_columns(tmp_path):
    trees.write_tree("E", tmp_path / "data")
    with pytest.raises(DataIntegrityError, match=r"columns image, segmentation.*expected id, image and some of semseg"):
        open_dataset("hub", "train", tmp_path / "data")


def test_a_source_that_is_nowhere_is_named():
    with pytest.raises(KdamValueError, match="nobody/nothing: `load_dataset` cannot read it"):
        open_dataset("hub", "train", "nobody/nothing")
