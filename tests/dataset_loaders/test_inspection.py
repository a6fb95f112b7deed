"""One spoilt file among good ones: what is said when it is read, and that a report holds it once and counts the others."""

import io
import os
import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import scipy.io
import trees

from dataset_loaders import DenseDataset, check_sample, open_dataset
from dataset_loaders.inspection import inspect_split
from kdam_hf.errors import DataIntegrityError, KdamError
from kdam_hf.tasks import make_task


def name_of(layout):
    return "folder" if layout == "folder" else "pascal_context" if layout.startswith("pascal") else "nyud_v2"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Each layout once, one training image and three of val; copied before anything is spoilt."""
    written = {}

    def get(layout):
        if layout not in written:
            root = tmp_path_factory.mktemp("good") / layout
            written[layout] = root, trees.write_tree(layout, root, 1, 3)
        return written[layout]

    return get


@pytest.fixture
def copy(good, tmp_path):
    def get(layout):
        root, truth = good(layout)
        return shutil.copytree(root, tmp_path / layout), truth

    return get


# Which file of the second image of val, per layout; {} is its id.
PHOTO = {"A": "images/{}.jpg", "C": "images/{}.png", "pascal": "JPEGImages/{}.jpg", "folder": "images/{}.png"}
ARRAYS = {"D": ["val/image/{}.npy", "val/label/{}.npy", "val/depth/{}.npy", "val/normal/{}.npy"]}
SEMSEG = {"A": "segmentation/{}.mat", "B": "segmentation/{}.png", "C": "segmentation/{}.png", "D": "val/label/{}.npy"}
SEMSEG |= {"pascal": "semseg/VOC12/{}.png", "folder": "semseg/{}.png"}
DEPTH = {"A": "depth/{}.mat", "B": "depth/{}.npy", "C": "depth/{}.npy", "D": "val/depth/{}.npy"}
NORMALS = {"B": "normals/{}.npy", "D": "val/normal/{}.npy", "folder": "normals/{}.npy"}
MAT = {"A": ["segmentation/{}.mat", "depth/{}.mat"], "pascal": ["human_parts/{}.mat", "pascal-context/trainval/{}.mat"]}
KEY = {"segmentation": "segmentation", "depth": "depth", "human_parts": "anno", "trainval": "LabelMap"}


def each(fault, files, says, **kwargs):
    """Parameters of one fault on several files; `says` are the parts of the message, found and expected."""
    for layout, names in files.items():
        for name in [names] if isinstance(names, str) else names:
            folder = name.split("/")[-2]
            words = [word.replace("KEY", KEY.get(folder, "")) for word in says]
            yield pytest.param(
                layout, name, partial(fault, **kwargs), words, id=f"{fault.__name__}-{layout}-{folder}{name[-4:]}"
            )


def half(path):
    trees.truncate(path, 0.5)


def empty(path):
    trees.truncate(path, 0)


def crop_struct(path):
    """The masks of an annotation lose a row."""
    anno = scipy.io.loadmat(path)["anno"]
    for thing in anno[0, 0]["objects"].ravel():
        thing["mask"] = thing["mask"][:-1]
        for part in thing["parts"].ravel():
            part["mask"] = part["mask"][:-1]
    scipy.io.savemat(path, {"anno": anno})


FAULTS = [
    *each(half, PHOTO, ["not a readable PNG or JPEG", "truncated"]),
    *each(half, {"A": ["normals/{}.jpg", "edge/{}.png"], "C": "normals/{}.png"}, ["not a readable PNG"]),
    *each(half, {"C": "segmentation/{}.png", "pascal": ["sal_distill/{}.png"]}, ["not a readable PNG"]),
    *each(half, {"B": ["depth/{}.npy", "edge/{}.npy"], "D": ARRAYS["D"]}, ["not a readable .npy array"]),
    *each(half, MAT, ["not a readable MATLAB file of version 5"]),
    *each(empty, {"A": ["images/{}.jpg", *MAT["A"]], "B": ["segmentation/{}.png", "depth/{}.npy"]}, ["not a readable"]),
    *each(
        trees.colour_ids,
        {k: v for k, v in SEMSEG.items() if v.endswith("png")},
        ["semseg ", "(H, W)", "one channel"],
    ),
    *each(trees.colour_ids, {"A": "edge/{}.png"}, ["edge ", "(H, W)", "one channel"]),
    *each(trees.colour_ids, {"pascal": "sal_distill/{}.png"}, ["saliency is uint8", "8-bit grey PNG"]),
    *each(trees.set_label, {k: v for k, v in SEMSEG.items() if k in "ABC"}, ["holds [41]", "expected 1..40 or 0"]),
    *each(trees.set_label, {"D": SEMSEG["D"]}, ["holds [41]", "expected 0..12 or -1"]),
    *each(trees.set_label, {"pascal": SEMSEG["pascal"]}, ["holds [41]", "expected 0..20 or 255"]),
    *each(trees.set_label, {"folder": SEMSEG["folder"]}, ["holds [41]", "expected 0..15 or 255"]),
    *each(trees.set_label, {"A": "edge/{}.png", "B": "edge/{}.npy"}, ["edge label holds [41", "expected 0 and"]),
    *each(
        trees.set_label, {"pascal": "pascal-context/trainval/{}.mat"}, ["LabelMap holds", "expected 0..459"], value=500
    ),
    *each(trees.depth_as_8_bit, DEPTH, ["depth is 8-bit", "16-bit millimetres (PNG) or float metres"]),
    *each(trees.depth_as_millimetres, DEPTH, [" m; expected at most 20 m", "millimetres"]),
    *each(trees.depth_as_millimetres, {"folder": "depth/{}.npy"}, [" m; expected at most 655.35 m", "state unit 'mm'"]),
    *each(trees.set_nan, DEPTH, ["depth holds NaN or infinity", "mark invalid pixels with 0"]),
    *each(trees.set_nan, NORMALS, ["normals hold NaN or infinity", "mark invalid pixels with (0, 0, 0)"]),
    *each(trees.set_nan, {"D": "val/image/{}.npy"}, ["photo holds nan", "expected 0 to 1"]),
    *each(trees.set_nan, {"D": "val/label/{}.npy"}, ["fractions or NaN", "expected whole numbers"]),
    *each(
        trees.normals_as_0_to_1, NORMALS, ["% of the normals are not of length 1", "expected unit vectors in [-1, 1]"]
    ),
    *each(trees.normals_as_0_to_255, NORMALS, ["the longest is", "expected unit vectors in [-1, 1]"]),
    *each(trees.drop_mat_key, MAT, ["holds other; expected the variable 'KEY'"]),
    *each(trees.cut_after_mat_header, MAT, ["holds nothing (cut after its header?); expected the variable 'KEY'"]),
    *each(
        trees.pickle_npy, {"B": ["depth/{}.npy", "normals/{}.npy", "edge/{}.npy"], "C": "depth/{}.npy"}, [".npy array"]
    ),
    *each(trees.pickle_npy, {"D": ARRAYS["D"], "folder": ["depth/{}.npy", "normals/{}.npy"]}, [".npy array"]),
    *each(trees.make_bomb, PHOTO, ["900000000 pixels"]),
    *each(trees.make_bomb, PHOTO, ["8000x7000 pixels"], height=7000, width=8000),
    *each(
        trees.make_bomb,
        {"B": "segmentation/{}.png", "C": "normals/{}.png", "A": "normals/{}.jpg"},
        ["900000000 pixels"],
    ),
    *each(trees.make_bomb, {"pascal": ["semseg/VOC12/{}.png", "sal_distill/{}.png"]}, ["900000000 pixels"]),
    *each(trees.crop_label, {k: v for k, v in SEMSEG.items() if k in "ABC"}, ["SHORT pixels, its image SIZE"]),
    *each(trees.crop_label, {k: v for k, v in DEPTH.items() if k in "ABC"}, ["SHORT pixels, its image SIZE"]),
    *each(trees.crop_label, {"B": "normals/{}.npy", "A": "edge/{}.png"}, ["SHORT pixels, its image SIZE"]),
    *each(trees.crop_label, {"D": ARRAYS["D"][1:]}, ["SHORT pixels, its image SIZE"]),
    *each(
        trees.crop_label, {"pascal": ["semseg/VOC12/{}.png", "sal_distill/{}.png"]}, ["SHORT pixels, its image SIZE"]
    ),
    *each(trees.crop_label, {"pascal": "normals_distill/{}.png"}, ["SHORT pixels", "SIZE; expected one size"]),
    *each(crop_struct, {"pascal": "human_parts/{}.mat"}, ["SHORT pixels, its image SIZE"]),
    *each(trees.crop_label, {"folder": ["semseg/{}.png", "normals/{}.npy"]}, ["SHORT pixels, its image SIZE"]),
]


@pytest.mark.fault(22)
@pytest.mark.parametrize(("layout", "file", "fault", "says"), FAULTS)
def test_a_spoilt_file_is_named_and_is_one_problem_among_good_samples(copy, layout, file, fault, says):
    root, truth = copy(layout)
    scenes = truth["val"]
    bad = 1
    if file.startswith("human_parts"):  # only files with people are opened
        bad = next(k for k, scene in enumerate(scenes) if (scene.labels["human_parts"] != 255).any())
    path = root / file.format(scenes[bad].id)
    height, width = scenes[bad].image.shape[:2]
    if layout == "folder" and file.startswith("depth"):  # this image has none: make one to spoil
        np.save(path, np.ones((height, width), np.float32))
    fault(path)
    data = open_dataset(name_of(layout), "val", root)
    for k in {0, 1, 2} - {bad}:
        check_sample(data[k], data.tasks)
    with pytest.raises(DataIntegrityError) as caught:
        check_sample(data[bad], data.tasks)
    text = str(caught.value)
    assert str(path) in text
    for words in says:
        assert words.replace("SIZE", f"{height}x{width}").replace("SHORT", f"{height - 1}x{width}") in text
    report = inspect_split(open_dataset(name_of(layout), "val", root, strict=False), progress=False)
    assert report.problems == [text]
    assert (len(report.dataset), sum(report.sizes.values())) == (3, 2)
    assert report.as_json()["usable"] == 2
    assert report.statistics["semseg"].images == 2
    assert f"PROBLEM: {path}" in report.text()


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("layout", "file"), [("B", "depth/{}.npy"), ("D", "val/image/{}.npy"), ("folder", "normals/{}.npy")]
)
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
    report = inspect_split(open_dataset(name_of(layout), "val", root), progress=False)
    assert len(report.problems) == 1
    assert f"{path}: not a readable .npy array" in report.problems[0]
    assert not canary.exists()


@pytest.mark.parametrize(
    ("layout", "file", "problems"),
    [
        ("A", "segmentation/{}.mat", 1),
        ("B", "edge/{}.npy", 1),
        ("C", "images/{}.png", 1),
        ("D", "val/depth/{}.npy", 1),
        ("pascal", "JPEGImages/{}.jpg", 0),
        ("folder", "images/{}.png", 0),
    ],
)
def test_a_file_without_id_is_a_problem_only_where_lists_are_complete(copy, layout, file, problems):
    root, truth = copy(layout)
    stray = trees.add_stray_file(root / file.format(truth["val"][1].id))
    if problems:
        with pytest.raises(
            DataIntegrityError, match=f"1 files belong to no split, first {stray.name}; expected every file"
        ):
            open_dataset(name_of(layout), "val", root)
    else:
        open_dataset(name_of(layout), "val", root)
    report = inspect_split(open_dataset(name_of(layout), "val", root, strict=False), progress=False)
    assert len(report.problems) == problems
    assert all(str(stray.parent) in text and "9999" in text for text in report.problems)
    assert sum(report.sizes.values()) == 3


# ---- what the report says of good data ----


class Stub(DenseDataset):
    """A split of hand-made samples."""

    name, split = "stub", "val"
    tasks = (make_task("semseg", ["wall", "floor", "lamp"]), make_task("depth"), make_task("edge"))

    def __init__(self, *samples):
        self.samples = samples

    @property
    def ids(self):
        return ["x"] * len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]()


def sample(semseg=((0, 0, 1, 255),), depth=((0, 1, 2.5, 9),), **more):
    image = np.zeros((1, 4, 3), np.uint8)
    labels = {"semseg": np.array(semseg, np.uint8), "depth": np.array(depth, np.float32), **more}
    return {"id": "x", "image": image, "labels": labels}


def test_the_text_names_classes_units_and_what_never_occurs():
    data = Stub(sample, lambda: sample(semseg=((1, 1, 1, 1),), depth=((0, 0, 0, 0),)))
    lines = inspect_split(data, progress=False).text().splitlines()
    assert lines == [
        "stub val: 2 of 2 images usable",
        "  height x width: 1x4 (2)",
        "  semseg       2 of 2 images labelled, 87.5 % of their pixels valid",
        "      wall 29 %, floor 71 %",
        "      never: lamp",
        "  depth        2 of 2 images labelled, 37.5 % of their pixels valid, 1 to 9 m",
        "  edge         0 of 2 images labelled, no valid pixel",
    ]


def test_many_problems_are_counted_and_the_first_are_told():
    data = Stub(*[lambda: sample(semseg=((9, 0, 0, 0),))] * 25)
    report = inspect_split(data, progress=False)
    assert len(report.problems) == len(report.as_json()["problems"]) == 25
    text = report.text()
    assert text.count("PROBLEM") == 20
    assert text.endswith("... and 5 more problems")
    assert "stub val: 0 of 25 images usable" in text


def test_labels_that_break_the_contract_are_problems_too():
    data = Stub(
        sample,
        lambda: sample(edge=np.zeros((1, 4), np.float32)),
        lambda: sample(edge=np.zeros((2, 4), np.uint8)),
        lambda: sample(depth=((-1, 0, 0, 0),)),
    )
    problems = inspect_split(data, progress=False).problems
    assert len(problems) == 3
    for problem, words in zip(
        problems, ["edge label is float32", "has 2x4 pixels, its image 1x4", "-1 m"], strict=True
    ):
        assert words in problem


def test_a_programming_error_is_no_data_problem():
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inspect_split(Stub(sample, broken), progress=False)


def test_a_reading_process_that_dies_is_reported_with_where_it_was():
    data = Stub(sample, sample, sample, sample, lambda: os._exit(9), sample)
    with pytest.raises(KdamError, match=r"stub val: a reading process ended after .*num_proc 1"):
        inspect_split(data, num_proc=2, progress=False)
