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
from dataset_loaders.nyud_v2_official import LABELED, parse_crop, parse_intrinsics
from kdam_hf.errors import DataIntegrityError, KdamValueError

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


def spoil(path, key, change):
    with h5py.File(path, "r+") as file:
        array = change(file[key][()])
        del file[key]
        file[key] = array


def put(root, **pictures):
    """Give the first frame of val other pictures (H, W), as far as they reach; the rest of it is zero."""
    for key, picture in pictures.items():

        def change(array, picture=picture):
            array[0] = 0
            array[0, : picture.shape[1], : picture.shape[0]] = picture.T
            return array

        spoil(root / LABELED, key, change)


@pytest.fixture
def official(copy):
    return copy("O")[0]


def first(root, **options):
    data = open_dataset("nyud_v2", "val", root, **options)
    return check_sample(data[0], data.tasks)


def test_894_labels_become_40_classes(official):
    """mapClass[k] is the class 1..40 of label k + 1; label 0 is unlabelled."""
    put(official, labels=np.array([[0, 1, 2, 40, 41, 893, 894]]))
    semseg = first(official, tasks=["semseg"])["labels"]["semseg"]
    assert semseg[0, :8].tolist() == [255, *(trees.MAP_CLASS[[0, 1, 39, 40, 892, 893]] - 1).tolist(), 255]
    assert (semseg[1:] == 255).all()


def test_the_crop_keeps_its_rows_and_columns_and_normals_and_edges_are_derived_before(tree):
    """The camera is that of the whole picture, and pixels beyond the rim of the crop still count."""
    root, truth = tree("O")
    whole, part = (first(root, crop=crop) for crop in ("none", "10:40:20:55"))
    np.testing.assert_array_equal(part["image"], truth["val"][0].image[10:40, 20:55])
    for name, label in part["labels"].items():
        np.testing.assert_array_equal(label, whole["labels"][name][10:40, 20:55], name)
    notes = open_dataset("nyud_v2", "val", root).notes
    assert [note.split(":")[0] for note in notes if "derived" in note] == ["normals", "edge"]


def test_a_crop_or_camera_is_what_its_text_says_or_is_named():
    size = (480, 640)
    assert parse_crop("auto", size) == (45, 470, 41, 601)
    assert parse_crop("auto", (240, 320)) == parse_crop("none", (240, 320)) == (0, 240, 0, 320)
    assert parse_crop("0:6:0:8", (6, 8)) == (0, 6, 0, 8)
    assert parse_intrinsics("kinect", size) == KINECT_COLOR
    narrow = parse_intrinsics("kinect", (480, 320))
    assert (narrow.fx, narrow.fy) == pytest.approx((KINECT_COLOR.fx / 2, KINECT_COLOR.fy))
    assert parse_intrinsics("500, 501.5,320,240", size) == Intrinsics(500, 501.5, 320, 240)
    crops = ("", "1:2", "45:470:41:601:3", "9:5:0:8", "0:481:0:8", "0:6:0:641", "a:b:c:d", "-1:6:0:8", "2:2:0:8")
    cameras = ("", "519", "1,2,3", "1,2,3,4,5", "f,f,c,c", "Kinect", "0,1,1,1", "nan,1,1,1")
    for parse, texts in ((parse_crop, crops), (parse_intrinsics, cameras)):
        for text in texts:
            with pytest.raises(KdamValueError, match=re.escape(repr(text))):
                parse(text, size)


def test_normals_follow_the_given_camera_and_holes_have_none(official):
    """A floor one metre below a camera that looks ahead, the horizon 200 rows above the picture: depth = fy / (row + 200)."""
    depth = np.repeat(600 / (np.arange(45) + 200), 61).reshape(45, 61)
    depth[20, 4] = 0
    put(official, depths=depth)
    normals = first(official, intrinsics="500,600,30,-200")["labels"]["normals"]
    assert np.argwhere(~normals.any(-1)).tolist() == [[20, 4]]
    np.testing.assert_allclose(normals[normals.any(-1)], np.tile([0, 1, 0], (45 * 61 - 1, 1)), atol=2e-3)
    other = first(official, intrinsics="500,600,30,-100")["labels"]["normals"]
    assert np.abs(other - normals).max() > 0.05


def test_edges_lie_between_segments_and_void_goes_to_the_nearest_one(official):
    """Two labels with unlabelled columns between them, and two instances of one label: one line each, not two."""
    labels = np.array([[5, 5, 0, 0, 0, *[7] * 56]] * 45)
    put(official, labels=labels, instances=np.where(labels == 7, (np.arange(45) > 1)[:, None] + 1, labels > 0))
    edge = first(official, crop="0:4:0:8")["labels"]["edge"]
    # the border of the instances goes on to the left as far as their void reaches; columns 0 and 1 are inside label 5
    assert edge[:, 4:].tolist() == [[0] * 4, [1] * 4, [0] * 4, [0] * 4]
    assert not edge[:, :2].any()
    # the middle column of void is as near to either side: the line between the labels is before or behind it
    assert all(row in ([1, 0], [0, 1]) for row in edge[[0, 2, 3], 2:4].tolist())
    put(official, labels=0 * labels, instances=0 * labels)
    assert not first(official, tasks=["edge"])["labels"]["edge"].any()


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
    spoil(official / LABELED, key, change)
    with pytest.raises(DataIntegrityError, match=rf"labeled\.mat: holds .*{key}"):
        open_dataset("nyud_v2", "val", official)


@pytest.mark.parametrize(
    ("name", "key", "value", "says"),
    [
        ("splits.mat", None, 0, "no such file"),
        *(("splits.mat", "testNdxs", frames, "testNdxs") for frames in ([[0]], [[8]], [[1], [1]], [[]], [[np.nan]])),
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
        ("depths", lambda a: a * 1000, " m; expected at most 20 m"),
        ("depths", lambda a: -a, "frame 2: depth holds -"),
        ("labels", lambda a: a + 893, "frame 2: label"),
        ("depths", None, "'depths', frame 2"),
    ],
)
def test_a_bad_or_damaged_frame_is_one_problem_and_the_others_count(official, key, change, says):
    path = official / LABELED
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
    assert report.sizes.total() == 2


def test_segments_are_pairs_of_label_and_instance(official):
    put(official, labels=np.array([[1, 1, 2, 2]]), instances=np.array([[2, 2, 1, 1]]))
    assert first(official, tasks=["edge"], crop="0:1:0:4")["labels"]["edge"].tolist() == [[0, 1, 0, 0]]


def test_another_crop_or_camera_is_another_stamp(official):
    options = ({}, {"crop": "0:6:0:8"}, {"intrinsics": "500,500,20,20"})
    assert len({open_dataset("nyud_v2", "val", official, **each).stamp(0) for each in options}) == 3
