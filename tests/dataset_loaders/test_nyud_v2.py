"""NYUD-v2 beyond what every layout is held to: rows of Parquet, and the official set with what is derived."""

import re

import h5py
import numpy as np
import pyarrow
import pytest
import scipy.io
import trees
from pyarrow import parquet

from dataset_loaders import check_sample, open_dataset
from dataset_loaders.geometry import KINECT_COLOR, Intrinsics
from dataset_loaders.inspection import inspect_split
from dataset_loaders.nyud_v2_official import parse_crop, parse_intrinsics
from kdam_hf.errors import DataIntegrityError, KdamValueError


def only(root, **options):
    data = open_dataset("nyud_v2", "val", root, **options)
    assert len(data) == 1
    return check_sample(data[0], data.tasks)


# ---- arrays and rows ----


def test_frames_of_mtan_count_as_numbers(tmp_path):
    trees.write_tree("D", tmp_path, 1, 11, 24, 32)
    data = open_dataset("nyud_v2", "val", tmp_path)
    assert list(data.ids) == [str(k) for k in range(11)]  # 10 comes after 9
    assert data.tasks[0].class_names[:5] == ("bed", "books", "ceiling", "chair", "floor")


@pytest.mark.parametrize("name", ["data/val-00000-of-00001.parquet", "val.parquet"])
def test_parquet_without_the_types_of_the_hub_or_with_a_column_less(tmp_path, name):
    truth, path = trees.write_tree("E", tmp_path / "tree", 1, 2)["val"], tmp_path / name
    table = parquet.read_table(tmp_path / "tree/data/val-00000-of-00001.parquet")
    path.parent.mkdir(exist_ok=True)
    lists = pyarrow.table({column: table[column].to_pylist() for column in table.column_names})
    parquet.write_table(lists, path)
    data = open_dataset("nyud_v2", "val", tmp_path, layout="parquet")
    assert list(data.ids) == ["0", "1"]
    for k, scene in enumerate(truth):
        sample = check_sample(data[k], data.tasks)
        np.testing.assert_array_equal(sample["image"], scene.image)
        for task, label in sample["labels"].items():
            np.testing.assert_allclose(label, scene.labels[task], atol=1e-6)
    parquet.write_table(lists.drop_columns(["depth"]), path)
    with pytest.raises(DataIntegrityError, match=r"parquet: columns image, segmentation, normal.*depth"):
        open_dataset("nyud_v2", "val", tmp_path, layout="parquet")
    assert len(open_dataset("nyud_v2", "val", tmp_path, tasks=["semseg"], layout="parquet")) == 2
    trees.truncate(path)
    with pytest.raises(DataIntegrityError, match=r"parquet: not a readable"):
        open_dataset("nyud_v2", "val", tmp_path, layout="parquet")


# ---- the official files ----


def write_official(root, height=6, width=8, frames=3, train=(3,), val=(1, 2), **arrays):
    """The three files; unless given, frame k has the value k everywhere, fine label k and depth k metres."""
    level = np.arange(1, frames + 1)
    full = {
        "images": np.broadcast_to(level[:, None, None, None], (frames, 3, width, height)).astype(np.uint8),
        "depths": np.broadcast_to(level[:, None, None], (frames, width, height)).astype(np.float32),
        "labels": np.broadcast_to(level[:, None, None], (frames, width, height)).astype(np.uint16),
        "instances": np.ones((frames, width, height), np.uint8),
        **arrays,
    }
    root.mkdir(exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        for name, array in full.items():
            file.create_dataset(name, data=array, chunks=(1, *array.shape[1:]), compression="gzip")
    scipy.io.savemat(root / "splits.mat", {"trainNdxs": np.array([train]).T, "testNdxs": np.array([val]).T})
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": (np.arange(894) % 40 + 1)[None].astype(np.uint8)})
    return root


@pytest.fixture
def official(tmp_path):
    return write_official(tmp_path)


def test_894_labels_become_40_classes(tmp_path):
    """mapClass[k] is the class 1..40 of label k + 1; label 0 is unlabelled."""
    labels = np.zeros((1, 8, 6), np.uint16)
    labels[0, :, 0] = 0, 1, 2, 40, 41, 893, 894, 0  # the top row of the picture, from left to right
    write_official(tmp_path, frames=1, val=(1,), train=(1,), labels=labels)
    mapping = scipy.io.loadmat(tmp_path / "classMapping40.mat")["mapClass"]
    assert mapping[0, [0, 1, 39, 40, 892, 893]].tolist() == [1, 2, 40, 1, 13, 14]
    semseg = only(tmp_path, tasks=["semseg"])["labels"]["semseg"]
    assert semseg[0].tolist() == [255, 0, 1, 39, 0, 12, 13, 255]
    assert (semseg[1:] == 255).all()


def test_the_crop_keeps_its_rows_and_columns_and_normals_and_edges_are_derived_before(tmp_path):
    """The camera is that of the whole picture, and pixels beyond the rim of the crop still count."""
    truth = trees.write_tree("O", tmp_path, 1, 1, 60, 80)["val"][0]
    whole, part = (only(tmp_path, crop=crop) for crop in ("none", "10:40:20:70"))
    np.testing.assert_array_equal(part["image"], truth.image[10:40, 20:70])
    for name, label in part["labels"].items():
        np.testing.assert_array_equal(label, whole["labels"][name][10:40, 20:70], name)
    notes = open_dataset("nyud_v2", "val", tmp_path).notes
    assert [note.split(":")[0] for note in notes if "derived" in note] == ["normals", "edge"]


def test_a_crop_or_camera_is_what_its_text_says_or_is_named():
    size = (480, 640)
    assert parse_crop("auto", size) == (45, 470, 41, 601)
    assert parse_crop("auto", (240, 320)) == parse_crop("none", (240, 320)) == (0, 240, 0, 320)
    assert parse_crop("0:6:0:8", (6, 8)) == (0, 6, 0, 8)
    assert parse_intrinsics("kinect", size) == KINECT_COLOR
    assert parse_intrinsics("kinect", (240, 320)).fx == pytest.approx(KINECT_COLOR.fx / 2)
    assert parse_intrinsics("500, 501.5,320,240", size) == Intrinsics(500, 501.5, 320, 240)
    crops = ("", "1:2", "45:470:41:601:3", "9:5:0:8", "0:481:0:8", "0:6:0:641", "a:b:c:d", "-1:6:0:8", "2:2:0:8")
    cameras = ("", "519", "1,2,3", "1,2,3,4,5", "f,f,c,c", "Kinect", "0,1,1,1", "nan,1,1,1")
    for parse, texts in ((parse_crop, crops), (parse_intrinsics, cameras)):
        for text in texts:
            with pytest.raises(KdamValueError, match=re.escape(repr(text))):
                parse(text, size)


def test_normals_follow_the_given_camera_and_holes_have_none(tmp_path):
    """A floor one metre below a camera that looks ahead, the horizon 200 rows above the picture: depth = fy / (row + 200)."""
    height, width = 24, 20
    column = 600 / (np.arange(height) + 200)
    depths = np.broadcast_to(column, (1, width, height)).astype(np.float32).copy()
    depths[0, 4, 20] = 0
    write_official(tmp_path, height, width, 1, (1,), (1,), depths=depths)
    normals = only(tmp_path, intrinsics="500,600,9.5,-200")["labels"]["normals"]
    assert np.argwhere(~normals.any(-1)).tolist() == [[20, 4]]
    np.testing.assert_allclose(normals[normals.any(-1)], np.tile([0, 1, 0], (height * width - 1, 1)), atol=2e-3)
    other = only(tmp_path, intrinsics="500,600,9.5,-100")["labels"]["normals"]
    assert np.abs(other - normals).max() > 0.05


def test_edges_lie_between_segments_and_void_goes_to_the_nearest_one(tmp_path):
    """Two labels with unlabelled columns between them, and two instances of one label: one line each, not two."""
    labels = np.array([[5, 5, 0, 0, 0, 7, 7, 7]] * 4, np.uint16)
    instances = np.where(labels == 7, np.array([[1], [1], [2], [2]]), (labels > 0).astype(int)).astype(np.uint8)
    write_official(tmp_path, 4, 8, 1, (1,), (1,), labels=labels.T[None], instances=instances.T[None])
    edge = only(tmp_path)["labels"]["edge"]
    # the border of the instances goes on to the left as far as their void reaches; columns 0 and 1 are inside label 5
    assert edge[:, 4:].tolist() == [[0] * 4, [1] * 4, [0] * 4, [0] * 4]
    assert not edge[:, :2].any()
    # the middle column of void is as near to either side: the line between the labels is before or behind it
    assert all(row in ([1, 0], [0, 1]) for row in edge[[0, 2, 3], 2:4].tolist())
    labels[:] = 0
    write_official(tmp_path / "void", 4, 8, 1, (1,), (1,), labels=labels.T[None])
    assert not only(tmp_path / "void", tasks=["edge"])["labels"]["edge"].any()


def spoil(path, key, change):
    with h5py.File(path, "r+") as file:
        array = change(file[key][()])
        del file[key]
        file[key] = array


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("depths", lambda a: a.astype(np.uint16)),
        ("images", lambda a: a[:, 0]),
        ("labels", lambda a: a.astype(np.int16)),
        ("labels", lambda a: a[:, :-1]),
        ("instances", lambda a: a[:-1]),
    ],
)
def test_arrays_of_another_kind_are_refused_when_the_file_is_opened(official, key, change):
    spoil(official / "nyu_depth_v2_labeled.mat", key, change)
    with pytest.raises(DataIntegrityError, match=rf"labeled\.mat: holds .*{key}"):
        open_dataset("nyud_v2", "val", official)


@pytest.mark.parametrize(
    ("name", "key", "value", "says"),
    [
        ("splits.mat", None, 0, "no such file"),
        *(("splits.mat", "testNdxs", frames, "testNdxs") for frames in ([[0]], [[4]], [[1], [1]], [[]], [[np.nan]])),
        ("splits.mat", "trainNdxs", [[1]], "testNdxs"),
        ("classMapping40.mat", "mapClass", np.ones((1, 893)), "893"),
        *(("classMapping40.mat", "mapClass", np.full((1, 894), k), "40") for k in (0, 41, 1.5)),
    ],
)
def test_splits_and_mapping_are_checked(official, name, key, value, says):
    (official / name).unlink()
    if key is not None:
        scipy.io.savemat(official / name, {key: np.array(value)})
    with pytest.raises(DataIntegrityError, match=rf"{name.replace('.', '[.]')}: .*{says}"):
        open_dataset("nyud_v2", "val", official)


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        ("depths", lambda a: a * 1000, "frame 2: depth holds 2000 m"),
        ("depths", lambda a: -a, "frame 2: depth holds -2 m"),
        ("labels", lambda a: a + 893, "frame 2: label 895"),
        ("depths", None, "'depths', frame 2"),
    ],
)
def test_a_bad_or_damaged_frame_is_one_problem_and_the_others_count(official, key, change, says):
    path = official / "nyu_depth_v2_labeled.mat"
    if change is None:
        with h5py.File(path) as file:
            chunk = file[key].id.get_chunk_info(1)
        content = bytearray(path.read_bytes())
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
        path.write_bytes(content)
    else:
        spoil(path, key, lambda array: np.stack([array[0], change(array[1]).astype(array.dtype), *array[2:]]))
    report = inspect_split(open_dataset("nyud_v2", "val", official))
    assert [says in problem for problem in report.problems] == [True]
    assert report.sizes.total() == 1
