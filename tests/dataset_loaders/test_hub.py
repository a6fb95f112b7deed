"""Data sets of `datasets`: foreign columns, names of classes, storage, shares of splits, streams, and our own as tables."""

import json
import re
from itertools import groupby

import numpy as np
import pytest
import trees
from datasets import Array2D, Array3D, ClassLabel, Dataset, Features, List, Value
from datasets import Image as Picture
from torch.utils.data import DataLoader

from dataset_loaders import (
    EpochSampler,
    MixedSampler,
    SubsetDataset,
    TransformedDataset,
    check_sample,
    open_dataset,
    prepare,
    rows,
    shuffled,
)
from dataset_loaders.builders import as_table
from dataset_loaders.rows import in_memory
from dataset_loaders.sample import Runs
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import source_parts

H, W = 8, 10
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
IDS, DEEP = RNG.integers(0, 3, (H, W), np.uint8), RNG.integers(1, 60_000, (H, W), np.uint16)
PHOTOS = {"pixel_values": Picture()}


def file_of(array, kind="PNG", **options):
    return {"bytes": trees.encoded(array, kind, **options), "path": None}


def table(columns, count=2, **cells):
    """Rows of these columns; pictures unless cells are given."""
    columns = {name: Picture() if kind is None else kind for name, kind in columns.items()}
    shown = {name: file_of(RGB if name in ("image", "pixel_values", "photo") else IDS) for name in columns}
    return Dataset.from_list([{**shown, **cells}] * count, Features(columns))


def written(data, folder, split="train", **options):
    data.to_parquet(folder / f"{split}-00000-of-00001.parquet", **options)
    return folder


# ---- columns ----


@pytest.mark.parametrize(
    ("columns", "stated", "found"),
    [
        (["image", "annotation"], [], "semseg"),
        (["pixel_values", "label", "depth_map"], [], "semseg depth"),
        (["photo", "objects", "normal", "boundary", "saliency"], [], "semseg saliency normals edge"),
        (["image", "semseg", "mask"], [], "semseg"),  # the task's own name comes first
        (["left", "mask", "segmentation"], ["image=left", "semseg=mask"], "semseg"),
        (["image", "mask", "silhouette"], ["saliency=mask"], "saliency"),
        (["image", "mask", "label", "depth"], [], "depth"),  # which is semseg does not matter
    ],
)
def test_columns_are_known_by_common_names_or_stated(columns, stated, found):
    with in_memory(table(dict.fromkeys(columns))) as source:
        data = open_dataset("hub", "train", source, found.split(), columns=stated)
        assert [task.name for task in data.tasks] == found.split()
        assert data._columns["image"] == columns[0]


@pytest.mark.parametrize(
    ("columns", "stated", "words"),
    [
        ({"image": None, "mask": None, "label": None}, [], ["mask", "label", "--columns image=image semseg=mask"]),
        ({"rgb": None, "mask": None, "text": Value("string")}, [], ["rgb", "text", "string", "--columns image=rgb"]),
        ({"image": None, "label": ClassLabel(names=["cat", "dog"])}, [], ["label", "ClassLabel", "semseg"]),
        ({"image": None, "mask": None}, ["semsec=mask"], ["'semsec'", "did you mean 'semseg'"]),
        ({"image": None, "mask": None}, ["semseg=maks"], ["'maks'", "did you mean 'mask'"]),
        ({"image": None, "mask": None}, ["semseg"], ["semseg", "mask"]),
        ({"image": None, "text": Value("string")}, ["semseg=text"], ["text", "no pixels"]),
    ],
)
def test_what_is_no_photo_or_label_or_several_is_named_with_all_columns_and_what_to_type(columns, stated, words):
    cells = {name: 0 if isinstance(kind, ClassLabel) else "x" for name, kind in columns.items() if kind}
    with in_memory(table(columns, **cells)) as source, pytest.raises(KdamValueError) as caught:
        open_dataset("hub", "train", source, columns=stated)
    assert not [word for word in words if word not in str(caught.value)]


NAMES = ["sky", "road", "car"]
ARRAY = List(List(ClassLabel(names=NAMES)))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("columns", "cells", "file", "names"),
    [
        ({"label_classes": List(ClassLabel(names=NAMES))}, {"label_classes": [0]}, None, NAMES),
        ({"label": ARRAY}, {"label": IDS.tolist()}, None, NAMES),
        ({}, {}, dict(enumerate(NAMES)), NAMES),
        ({}, {}, None, ["class_0", "class_1", "class_2"]),
        ({}, {}, {"1": "sky"}, None),
        ({}, {}, ["sky"], None),
    ],
)
def test_classes_are_named_by_class_labels_or_a_file_or_else_counted(tmp_path, columns, cells, file, names, streaming):
    folder = written(table({**PHOTOS, "label": None, **columns}, **cells), tmp_path / "set")
    written(table({**PHOTOS, "label": None, **columns}, **{"label": file_of(IDS % 2)} | cells), folder, "val")
    if file:
        (folder / "id2label.json").write_text(json.dumps(file))
    counted = names and names[0] == "class_0"
    if names is None or (counted and streaming):
        with pytest.raises(DataIntegrityError if names is None else KdamValueError, match=r"id2label\.json"):
            open_dataset("hub", "val", folder, streaming=streaming)
        return
    data = open_dataset("hub", "val", folder, streaming=streaming)
    assert list(data.tasks[0].class_names) == names
    assert bool([note for note in data.notes if "3 classes, counted" in note]) == counted


@pytest.mark.parametrize(("columns", "expected"), [(["human_parts=b"], 3), (["semseg=a", "human_parts=b"], 7)])
def test_a_file_of_class_names_is_that_of_parts_where_no_other_classes_are(tmp_path, columns, expected):
    rows = table({**PHOTOS, "a": None, "b": None}, a=file_of(IDS), b=file_of(IDS))
    folder = written(rows, tmp_path / "set")
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    data = open_dataset("hub", "train", folder, columns=columns)
    assert len(data.tasks[-1].class_names) == expected
    assert list(data.tasks[0].class_names) == NAMES


# ---- storage ----


METRES = RNG.uniform(0.5, 9, (H, W)).astype(np.float32)
UP = np.tile(np.float32([0, 1, 0]), (H, W, 1))
FLOATS = (RGB / 255).astype(np.float32)
STORED = {  # column, kind, cell, task, label
    "16-bit png": ("depth", None, file_of(DEEP), DEEP / 1000),
    "float tiff": ("depth", None, file_of(METRES, "TIFF"), METRES),
    "float array": ("depth", Array2D((H, W), "float32"), METRES, METRES),
    "channel first": ("depth", Array3D((1, H, W), "float32"), METRES[None], METRES),
    "16-bit array": ("depth", List(List(Value("uint16"))), DEEP.tolist(), DEEP / 1000),
    "vectors": ("normals", Array3D((3, H, W), "float32"), UP.transpose(2, 0, 1), UP),
    "png as bytes": ("semseg", Value("binary"), file_of(IDS)["bytes"], IDS),
    "ids with void": ("semseg", Array2D((H, W), "int32"), IDS.astype(np.int32) - 1, np.where(IDS, IDS - 1, 255)),
    "small ids with void": ("semseg", Array2D((H, W), "int8"), IDS.astype(np.int8) - 1, np.where(IDS, IDS - 1, 255)),
    "mask of 0 and 255": ("edge", None, file_of((IDS > 1) * np.uint8(255)), IDS > 1),
    "jpeg": ("semseg", None, file_of(IDS, "JPEG"), None),
    "ragged": ("semseg", List(List(Value("uint8"))), [[1, 2], [1]], None),
    **{f"{photo.dtype} photo": ("image", Array3D((H, W, 3), str(photo.dtype)), photo, RGB) for photo in (RGB, FLOATS)},
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", STORED)
def test_a_column_is_read_as_it_is_stored_or_refused_and_named(tmp_path, kind, streaming):
    task, feature, cell, label = STORED[kind]
    beside = {"depth_map": Array2D((H, W), "float32")} if task == "image" else PHOTOS
    cells = {"truth": cell} | ({"depth_map": METRES} if task == "image" else {})
    folder = written(table({**beside, "truth": feature}, **cells), tmp_path / "set")
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    data = open_dataset("hub", "train", folder, columns=[f"{task}=truth"], streaming=streaming)
    if label is None:
        with pytest.raises(DataIntegrityError, match="set train row 1"):
            data[1]
    else:
        sample = check_sample(data[1], data.tasks)
        np.testing.assert_array_equal(sample["image"], RGB)
        np.testing.assert_allclose((sample["labels"] | {"image": sample["image"]})[task], label, atol=1e-6)


# ---- splits ----


def numbered(count, **more):
    """Row k has the depth k + 1."""
    cells = [{"image": file_of(RGB), "depth": np.full((H, W), k + 1, np.float32), **more} for k in range(count)]
    return Dataset.from_list(cells, Features({"image": Picture(), "depth": Array2D((H, W), "float32")}))


def depth_of(sample, *_):
    return int(sample["labels"]["depth"][0, 0])


def depths(data):
    return [depth_of(data[k]) for k in range(len(data))]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_split_is_a_name_or_a_share_and_one_that_is_not_there_is_answered_with_how_to_share_one_out(
    tmp_path, streaming
):
    folder = written(numbered(10), tmp_path / "set", batch_size=4)
    written(numbered(4), folder, "validation")
    shares = {"train": (0, 10), "train[:90%]": (0, 9), "train[90%:]": (9, 10), "train[3:5]": (3, 5), "val": (0, 4)}
    for split, (first, last) in shares.items():
        data = open_dataset("hub", split, folder, streaming=streaming)
        assert depths(data) == [*range(first + 1, last + 1)]
        assert data.split == split
        assert sum((data.runs or [[len(data)]])[0]) == len(data)
    for split in ("test", "train[90]", "train[50%:50%]", "train[:5%]+train[95%:]"):
        with pytest.raises(KdamValueError, match=re.escape("[:90%] --eval_split")):
            open_dataset("hub", split, folder, streaming=streaming)


# ---- streams ----


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """Ten rows in two files of row groups of two, of which two are kept together."""
    folder = written(numbered(7), tmp_path / "set", batch_size=2)
    numbered(10).select(range(7, 10)).to_parquet(folder / "train-00001-of-00002.parquet", batch_size=2)
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")
    monkeypatch.setattr(rows, "TOGETHER_BYTES", 1700)
    return folder


def test_data_of_the_folder_one_stands_in_are_found_and_have_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(written(numbered(3), tmp_path / "set"))
    for name in ("hub", "photos"):
        assert open_dataset(name, "train", ".").name == "set"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_configuration_is_named_after_a_colon(tmp_path, streaming):
    for name, count in (("indoor", 3), ("outdoor", 5)):
        written(numbered(count), tmp_path / name)
    names = [f"- config_name: {name}\n  data_files: {name}/*.parquet" for name in ("indoor", "outdoor")]
    (tmp_path / "README.md").write_text("\n".join(["---", "configs:", *names, "---"]))
    data = open_dataset("hub", "train", f"{tmp_path}:outdoor", streaming=streaming)
    assert (len(data), data.name) == (5, f"{tmp_path.name}-outdoor")
    assert source_parts("hf://datasets/org/x") == ("hf://datasets/org/x", None)
    with pytest.raises(KdamValueError, match="indoor"):  # which there are
        open_dataset("hub", "train", tmp_path, streaming=streaming)


def test_a_stream_is_the_stored_data_and_nothing_is_stored(stream, monkeypatch):
    stored = open_dataset("hub", "train", stream)
    monkeypatch.setattr("datasets.load_dataset", None)
    data, groups = open_dataset("hub", "train", stream, streaming=True), []
    assert (data.ids, depths(data)) == (stored.ids, depths(stored))
    assert data.runs.lengths == (2, 2, 2, 1, 2, 1)
    order = shuffled(np.random.default_rng(3), 10, data.runs).tolist()
    assert sorted(order) == [*range(10)]
    opened = rows._opened
    monkeypatch.setattr(rows, "_opened", lambda file: groups.append(file) or opened(file))
    for index in order:
        assert depth_of(data[index]) == index + 1
    assert len(groups) <= 6  # each row group is read once


def test_the_order_of_a_stream_is_that_of_its_seed_and_epoch_in_any_number_of_workers(stream):
    data, seen = open_dataset("hub", "train", stream, streaming=True), []
    sampler = EpochSampler(len(data), 1, runs=data.runs)
    for epoch, workers in ((0, 0), (0, 2), (1, 2)):
        sampler.set_epoch(epoch)
        loader = DataLoader(TransformedDataset(data, depth_of), 2, sampler=sampler, num_workers=workers)
        seen.append([int(value) for batch in loader for value in batch])
    assert sorted(seen[0]) == [*range(1, 11)]
    assert seen[0] == seen[1] != seen[2]


def test_photos_beside_a_stream_leave_its_runs_together():
    sampler = MixedSampler((10, 8), 0.5, runs=(Runs((2, 3, 2, 3), 1), None))
    labelled = [index for _, index in sampler if index < 10]
    groups = [key for key, _ in groupby(np.searchsorted([2, 5, 7], labelled, "right").tolist())]
    assert (sorted(labelled), sorted(groups)) == ([*range(10)], [0, 1, 2, 3])


def test_what_is_no_parquet_cannot_be_streamed_and_a_broken_file_is_named(stream, tmp_path):
    trees.truncate(stream / "train-00001-of-00002.parquet")
    with pytest.raises(DataIntegrityError, match=r"train-00001-of-00002\.parquet: not a readable Parquet file"):
        open_dataset("hub", "train", stream, streaming=True)
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/train.jsonl").write_text('{"image": "x"}\n')
    with pytest.raises(KdamValueError, match=r"train\.jsonl"):
        open_dataset("hub", "train", tmp_path / "lines", streaming=True)


# ---- our own data as tables ----


@pytest.mark.parametrize("layout", ["O", "pascal", "folder"])
def test_what_went_to_parquet_trains_as_it_was(tree, tmp_path, layout):
    """Ids and edges are exact, depth within half a millimetre, normals within 0.4 degrees."""
    source = open_dataset(trees.name_of(layout), "train", tree(layout)[0])
    made = as_table(source, num_proc=2)
    assert [row["id"] for row in as_table(source, streaming=True)] == list(made["id"]) == list(source.ids)
    in_view = set(source[0]["labels"]["semseg"].ravel().tolist()) - {255}
    assert made[0]["semseg_classes"] == sorted(in_view)
    for streaming in (False, True):
        back = open_dataset("hub", "train", written(made, tmp_path / "rows"), streaming=streaming)
        assert [task.spec() for task in back.tasks] == [task.spec() for task in source.tasks]
        for k in range(len(source)):
            a, b = source[k], check_sample(back[k], back.tasks)
            assert (a["id"], a["labels"].keys()) == (b["id"], b["labels"].keys())
            assert np.array_equal(a["image"], b["image"])
            for name, label in a["labels"].items():
                atol = 0 if label.dtype == np.uint8 else 0.0005 if label.ndim == 2 else 0.007
                np.testing.assert_allclose(b["labels"][name], label, rtol=0, atol=atol + 1e-6, err_msg=name)


def test_a_table_holds_the_rows_of_its_own_split_settings_and_files(tmp_path):
    def table_of(split, **settings):
        rooms = open_dataset("synthetic_rooms", split, num_images=3, height=24, width=32, tasks=["depth"])
        data = SubsetDataset(rooms, settings.get("ids", rooms.ids))
        if "folder" in settings:
            data = prepare(data, tmp_path / settings["folder"])
        return as_table(data)["id"][:]

    train, val = (open_dataset("synthetic_rooms", split, num_images=3).ids for split in ("train", "val"))
    assert [*table_of("train"), *table_of("val")] == [*train, *val]
    assert table_of("train", ids=train[1:]) == [*train[1:]]
    assert table_of("train", folder="a") == [*train]
    assert table_of("train", folder="b", ids=train[::-1]) == [*train[::-1]]


def test_files_that_cells_name_are_read_for_data_in_memory_and_inside_a_local_folder_alone(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    cells = {name: {"bytes": None, "path": str(folder / f"{name}.png")} for name in ("pixel_values", "label")}
    for name, array in (("pixel_values", RGB), ("label", IDS)):
        (folder / f"{name}.png").write_bytes(file_of(array)["bytes"])
    data = table({**PHOTOS, "label": None}, **cells)
    with in_memory(data) as name:
        found = open_dataset("hub", "train", name)[0]
    np.testing.assert_array_equal(found["labels"]["semseg"], IDS)
    np.testing.assert_array_equal(open_dataset("hub", "train", written(data, folder))[0]["image"], RGB)
    with pytest.raises(DataIntegrityError, match="bytes"):
        open_dataset("hub", "train", written(data, tmp_path / "elsewhere"))[0]


def test_an_id_beside_masks_of_0_and_255_does_not_make_them_ours(tmp_path):
    columns = {"id": Value("string"), "pixel_values": Picture(), "edge": Picture()}
    mask = (IDS > 0) * np.uint8(255)
    data = open_dataset("hub", "train", written(table(columns, 1, id="a", edge=file_of(mask)), tmp_path / "set"))
    np.testing.assert_array_equal(data[0]["labels"]["edge"] == 1, mask == 255)


def test_a_source_that_is_nowhere_and_an_id_that_repeats_are_named():
    with pytest.raises(KdamValueError, match="nobody/nothing: no such folder"):
        open_dataset("hub", "train", "nobody/nothing")
    with (
        in_memory(table({"id": Value("string"), "image": None, "saliency": None}, id="x")) as source,
        pytest.raises(DataIntegrityError, match="'x' 2 times"),
    ):
        open_dataset("hub", "train", source)[0]


def test_no_more_row_groups_are_kept_than_are_mixed(stream):
    data = open_dataset("hub", "train", stream, streaming=True)
    assert data.runs.together == 2
    for index in range(len(data)):
        data[index]
        assert len(data._rows._read) <= 2


def test_as_many_runs_as_are_kept_are_mixed():
    def first_half(together):
        orders = (shuffled(np.random.default_rng(k), 8, Runs((4, 4), together)) for k in range(9))
        return [len({index // 4 for index in order[:4].tolist()}) for order in orders]

    assert max(first_half(2)) == 2
    assert max(first_half(1)) == 1


def test_classes_are_counted_anew_for_each_data_set(tmp_path):
    for name, ids in (("three", IDS), ("two", IDS % 2)):
        folder = written(table({**PHOTOS, "label": None}, label=file_of(ids)), tmp_path / name)
        assert open_dataset("hub", "train", folder).tasks[0].channels == len(np.unique(ids))
