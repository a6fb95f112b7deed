"""One spoilt file among good ones: what is said when it is read, and that a report holds it once and counts the others."""

import io
import os
import pickle
from functools import partial

import numpy as np
import pytest
import scipy.io
import trees
from conftest_kit import Canary, Made
from PIL import Image
from trees import name_of

from dataset_loaders import SubsetDataset, check_sample, open_dataset, prepare
from dataset_loaders.inspection import SplitReport, inspect_split
from kdam_hf.errors import DataIntegrityError, KdamError, LabelOrientationError
from kdam_hf.tasks import Depth, make_task


def other_key(path):
    scipy.io.savemat(path, {"other": np.ones((2, 2))})


def crop_struct(path):
    """The masks of an annotation lose a row."""

    def change(anno):
        for thing in anno[0, 0]["objects"].ravel():
            thing["mask"] = thing["mask"][:-1]
            for part in thing["parts"].ravel():
                part["mask"] = part["mask"][:-1]
        return anno

    trees.edit(path, change)


def edited(change):
    return partial(trees.edit, change=change)


half, empty = (partial(trees.truncate, keep=keep) for keep in (0.5, 0))
colours = edited(lambda ids: trees.palette()[ids])
millimetres = edited(lambda depth: depth * np.float32(1000))
eight_bits = edited(lambda depth: np.round(depth * (255 / depth.max())).astype(np.uint8))
from_0_to_1 = edited(lambda normals: (normals + 1) / 2)
from_0_to_255 = edited(lambda normals: (normals + 1) * np.float32(127.5))
cropped = edited(lambda array: array[:-1])
UNREADABLE_MAT = "not a readable MATLAB file of version 5"
# Fault, what the message says (SIZE: height x width; SHORT: a row less), layout and file.
FAULTS = [
    (half, "not a readable photo", "A images/{}.jpg"),
    (half, "not a readable photo", "pascal JPEGImages/{}.jpg"),
    (half, "not a readable PNG or TIFF", "C segmentation/{}.png"),
    (half, "not a readable .npy array", "D val/image/{}.npy"),
    (half, UNREADABLE_MAT, "A segmentation/{}.mat"),
    (half, UNREADABLE_MAT, "pascal human_parts/{}.mat"),
    (empty, "not a readable", "A depth/{}.mat"),
    (empty, "not a readable", "B depth/{}.npy"),
    (colours, "one channel", "A edge/{}.png"),
    (colours, "expected an 8-bit grey PNG", "pascal sal_distill/{}.png"),
    (trees.set_label, "holds [41]; expected 1..40 or 0", "A segmentation/{}.mat"),
    (trees.set_label, "holds [41]; expected 0..12 or -1", "D val/label/{}.npy"),
    (trees.set_label, "holds [41]; expected 0..10 or 200", "folder semseg/{}.png"),
    (partial(trees.set_label, value=500), "expected 0..459", "pascal pascal-context/trainval/{}.mat"),
    (eight_bits, "depth is 8-bit; expected 16-bit millimetres", "A depth/{}.mat"),
    (millimetres, " m; expected at most 20 m", "C depth/{}.npy"),
    (millimetres, " m; expected at most 655.35 m", "folder depth/{}.npy"),
    (trees.set_nan, "depth holds NaN or infinity", "A depth/{}.mat"),
    (trees.set_nan, "normals hold NaN or infinity", "folder normals/{}.npy"),
    (trees.set_nan, "photo holds nan", "D val/image/{}.npy"),
    (trees.set_nan, "fractions or NaN", "D val/label/{}.npy"),
    (from_0_to_1, "expected unit vectors in [-1, 1]", "B normals/{}.npy"),
    (from_0_to_255, "the longest is", "B normals/{}.npy"),
    (other_key, "holds other; expected the variable '", "A segmentation/{}.mat"),
    (trees.cut_after_mat_header, "holds nothing (cut after its header?)", "pascal human_parts/{}.mat"),
    (trees.make_bomb, "900000000 pixels", "A images/{}.jpg"),
    (trees.make_bomb, "900000000 pixels", "pascal sal_distill/{}.png"),
    (cropped, "SHORT pixels, its image SIZE", "A segmentation/{}.mat"),
    (cropped, "SHORT pixels, its image SIZE", "folder semseg/{}.png"),
    (cropped, "SIZE; expected one size", "pascal normals_distill/{}.png"),
    (crop_struct, "SHORT pixels, its image SIZE", "pascal human_parts/{}.mat"),
]


@pytest.mark.fault(16, 22)
@pytest.mark.parametrize(("fault", "says", "file"), FAULTS)
def test_a_spoilt_file_is_named_and_is_one_problem_among_good_samples(copy, fault, says, file):
    layout, file = file.split()
    root, truth = copy(layout)
    scene = truth["val"][1]
    path = root / file.format(scene.id)
    height, width = scene.image.shape[:2]
    if layout == "folder" and file.startswith("depth"):  # this image has none: make one to spoil
        np.save(path, np.ones((height, width), np.float32))
    fault(path)
    data = open_dataset(name_of(layout), "val", root)
    with pytest.raises(DataIntegrityError) as caught:
        check_sample(data[1], data.tasks)
    text = str(caught.value)
    assert str(path) in text
    assert says.replace("SIZE", f"{height}x{width}").replace("SHORT", f"{height - 1}x{width}") in text
    report = inspect_split(open_dataset(name_of(layout), "val", root, strict=False))
    assert report.problems == [text]
    found = report.as_json()
    assert (found["images"], found["usable"], found["tasks"]["semseg"]["images"]) == (3, 2, 2)
    assert f"PROBLEM: {path}" in report.text()


@pytest.mark.fault(27)
@pytest.mark.parametrize(("layout", "file"), [("D", "val/image/{}.npy"), ("folder", "normals/{}.npy")])
@pytest.mark.parametrize("form", ["array", "pickle"])
def test_nothing_is_ever_unpickled(copy, tmp_path, layout, file, form):
    root, truth = copy(layout)
    path, canary = root / file.format(truth["val"][1].id), tmp_path / "canary"
    if form == "array":
        np.save(path, np.array([[Canary(canary)]], object))
        np.load(io.BytesIO(path.read_bytes()), allow_pickle=True)
    else:  # NumPy also takes a bare pickle for an array
        path.write_bytes(pickle.dumps(Canary(canary)))
        np.load(path, allow_pickle=True)
    canary.rmdir()  # so the file is live
    report = inspect_split(open_dataset(name_of(layout), "val", root))
    assert len(report.problems) == 1
    assert f"{path}: not a readable .npy array" in report.problems[0]
    assert not canary.exists()


@pytest.mark.parametrize(
    ("layout", "file", "problems"),
    [("A", "segmentation/{}.mat", 1), ("D", "val/depth/{}.npy", 1), ("pascal", "JPEGImages/{}.jpg", 0)],
)
def test_a_file_without_id_is_a_problem_only_where_lists_are_complete(copy, layout, file, problems):
    root, truth = copy(layout)
    stray = trees.add_stray_file(root / file.format(truth["val"][1].id))
    if problems:
        with pytest.raises(DataIntegrityError, match=stray.name):
            open_dataset(name_of(layout), "val", root)
    report = inspect_split(open_dataset(name_of(layout), "val", root, strict=not problems))
    assert len(report.problems) == problems
    assert report.sizes.total() == 3


# ---- what the report says of good data ----


TASKS = (make_task("semseg", ["wall", "floor", "lamp"]), make_task("depth"), make_task("edge"))


def sample(semseg=((0, 0, 1, 255),), depth=((0, 1, 2.5, 9),), **more):
    image = np.zeros((1, 4, 3), np.uint8)
    labels = {"semseg": np.array(semseg, np.uint8), "depth": np.array(depth, np.float32), **more}
    return {"id": "x", "image": image, "labels": labels}


@pytest.fixture
def turned(tmp_path):
    """Own data whose photos are stored 4x6 but for the square one, by id: (orientation, height and width of the label)."""
    photos = {"plain": (1, 4, 6), "raw": (6, 4, 6), "fitting": (8, 6, 4), "half": (3, 4, 6), "square": (5, 4, 4)}
    for name in ("images", "semseg"):
        (tmp_path / name).mkdir()
    for sample_id, (orientation, height, width) in photos.items():
        photo = Image.new("RGB", (4 if sample_id == "square" else 6, 4))
        (tmp_path / f"images/{sample_id}.jpg").write_bytes(trees.encoded(photo, "JPEG", orientation))
        Image.new("L", (width, height)).save(tmp_path / f"semseg/{sample_id}.png")
    (tmp_path / "val.txt").write_text("\n".join(photos))
    (tmp_path / "dataset.json").write_text('{"name": "turned", "tasks": {"semseg": {"num_classes": 2}}}')
    return tmp_path


def test_photos_that_exif_turns_are_counted_and_labels_of_their_stored_size_are_problems(turned, tmp_path):
    data = open_dataset("folder", "val", turned)
    with pytest.raises(LabelOrientationError, match="4x6 pixels, its image 6x4"):
        data[1]
    report = inspect_split(data)
    assert report.turned == {"raw": 1, "upright": 1, "unclear": 2}
    assert [str(turned / "semseg/raw.png") in problem for problem in report.problems] == [True]
    assert len(report.remarks()) == 2
    assert report.as_json()["notes"] == report.remarks()
    good = SubsetDataset(data, [sample_id for sample_id in data.ids if sample_id != "raw"])
    for _ in range(2):  # prepared, and taken as it is
        prepare(good, tmp_path / "prepared", report=(found := SplitReport(good)))
        assert found.turned == {"upright": 1, "unclear": 2}


@pytest.mark.parametrize(
    ("metres", "scale", "says"),
    [(3, 0, ""), (15, 0, "5000"), (0.003, 0, "scale=1;"), (3000, 0, "scale=1000000;"), (100, 0, ""), (15, 256, "")],
)
def test_depth_that_looks_5_or_1000_times_off_is_doubted_until_its_scale_is_stated(metres, scale, says):
    data = Made(lambda: sample(depth=((metres, 0.5 * metres, 2 * metres, 0),)), tasks=(Depth(scale=scale),))
    remarks = inspect_split(data).remarks()
    assert len(remarks) == bool(says)
    assert says in "".join(remarks)


def test_many_problems_are_counted_and_the_first_are_told_and_a_programming_error_is_none():
    report = inspect_split(Made(*[lambda: sample(semseg=((9, 0, 0, 0),))] * 25, tasks=TASKS))
    assert len(report.problems) == len(report.as_json()["problems"]) == 25
    assert report.text().count("PROBLEM") == 20
    with pytest.raises(ZeroDivisionError):
        inspect_split(Made(sample, lambda: 1 / 0, tasks=TASKS))


def test_a_reading_process_that_dies_is_reported_with_where_it_was():
    data = Made(sample, sample, sample, sample, lambda: os._exit(9), sample, tasks=TASKS)
    with pytest.raises(KdamError, match=r"made val: a reading process ended after .*num_proc 1"):
        inspect_split(data, num_proc=2)
