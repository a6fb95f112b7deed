import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset_loaders import check_sample, open_dataset
from dataset_loaders.folder import FolderDataset
from kdam_hf.errors import DataIntegrityError

H, W = 4, 6
DESCRIPTION = {
    "name": "toy",
    "tasks": {
        "edge": {"ignore_index": 255},
        "depth": {"unit": "mm"},
        "semseg": {"num_classes": 3, "class_names": ["sky", "road", "car"], "ignore_index": 200},
        "normals": {},
    },
}


def write_png(path, array):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)


def describe(root, change):
    description = json.loads(json.dumps(DESCRIPTION))
    change(description)
    (root / "dataset.json").write_text(json.dumps(description))


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for k, suffix in enumerate([".png", ".jpg", ".jpeg"]):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{k:04}{suffix}")
        write_png(tmp_path / "semseg" / f"{k:04}.png", np.array([[0, 1, 2, 200, 0, 1]] * H, np.uint8))
        write_png(tmp_path / "edge" / f"{k:04}.png", np.array([[0, 255, 0, 0, 0, 0]] * H, np.uint8))
    write_png(tmp_path / "depth" / "0000.png", np.full((H, W), 1234, np.uint16))
    (tmp_path / "normals").mkdir()
    np.save(tmp_path / "normals" / "0001.npy", np.tile(np.array([0, 0, 1], np.float32), (H, W, 1)))
    (tmp_path / "train.txt").write_text("0001\n0000\n\n")
    (tmp_path / "val.txt").write_text("0002\n")
    describe(tmp_path, lambda d: None)
    return tmp_path


def test_samples_are_read_with_their_options_and_partial_labels(root):
    data = FolderDataset(root, "train")
    assert (data.name, data.split, len(data)) == ("toy", "train", 2)
    assert [task.name for task in data.tasks] == ["semseg", "depth", "normals", "edge"]
    assert data.tasks[0].class_names == ("sky", "road", "car")
    first, second = (check_sample(data[k], data.tasks) for k in range(2))
    assert (first["id"], second["id"]) == ("0001", "0000")
    assert set(first["labels"]) == {"semseg", "normals", "edge"}
    assert set(second["labels"]) == {"semseg", "depth", "edge"}
    assert first["labels"]["semseg"][0].tolist() == [0, 1, 2, 255, 0, 1]
    assert first["labels"]["edge"][0].tolist() == [0, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(second["labels"]["depth"], 1.234, rtol=1e-6)
    shutil.rmtree(root / "normals")  # some of the tasks need their own folders alone
    assert list(open_dataset("folder", "train", root, tasks=["edge", "semseg"])[0]["labels"]) == ["semseg", "edge"]


def remove(name):
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def write(name, text):
    return lambda root: (root / name).write_text(text)


def change(function):
    return lambda root: describe(root, function)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (remove("dataset.json"), r"dataset\.json: no such file"),
        (write("dataset.json", "{'name': 1"), r"dataset\.json: not valid JSON.*line 1"),
        (write("dataset.json", "[]"), r"dataset\.json: \[\]; expected an object"),
        (change(lambda d: d.pop("name")), r"dataset\.json: name missing"),
        (change(lambda d: d.update(tasks={})), r"dataset\.json: tasks missing or empty"),
        (change(lambda d: d.update(classes=3)), "unknown field 'classes'; expected some of name, tasks"),
        (change(lambda d: d["tasks"].update(flow={})), "unknown task flow; expected semseg"),
        (change(lambda d: d["tasks"]["depth"].update(units="m")), r"tasks\.depth: unknown field 'units'.*unit"),
        (change(lambda d: d["tasks"]["semseg"].update(num_classes="3")), 'semseg.num_classes: "3"; expected int'),
        (change(lambda d: d["tasks"]["semseg"].update(num_classes=4)), "num_classes is 4, class_names has 3"),
        (change(lambda d: d["tasks"]["semseg"].update(class_names=[1, 2, 3])), r"class_names: \[1, 2, 3\].*strings"),
        (change(lambda d: d["tasks"].update(semseg={})), r"tasks\.semseg:.*State num_classes"),
        (remove("train.txt"), r"train\.txt: no such file.*there: val\.txt"),
        (write("train.txt", "\n \n"), r"train\.txt: no ids"),
        (write("train.txt", "0000\n0001\n0000\n"), r"train\.txt: id '0000' occurs twice"),
        (write("train.txt", "0000\n../secret\n"), r"train\.txt: sample id '\.\./secret'"),
        (write("train.txt", "0000\n0001\n0007\n"), r"images: no file for id '0007'; expected 0007\.jpg or \.jpeg"),
        (remove("images"), "images: cannot be listed"),
        (remove("normals"), "normals: cannot be listed.*dataset.json"),
        (remove("normals/0001.npy"), r"normals: no label for any of the 2 ids of train\.txt"),
        (lambda root: shutil.copy(root / "semseg/0000.png", root / "images/0001.png"), "images: both .0001.*one file"),
    ],
)
def test_a_broken_folder_is_refused_before_any_image_is_read(root, spoil, says):
    spoil(root)
    with pytest.raises(DataIntegrityError, match=says):
        FolderDataset(root, "train")


def test_another_description_is_another_stamp(root):
    before, path = open_dataset("folder", "train", root).stamp(0), root / "dataset.json"
    path.write_text(path.read_text().replace("{", "{ ", 1))
    assert open_dataset("folder", "train", root).stamp(0) != before
