"""Own data beyond what every layout is held to: a broken folder is refused before any image is read."""

import json
import shutil

import pytest
import trees

from dataset_loaders import open_dataset
from dataset_loaders.folder import FolderDataset
from kdam_hf.errors import DataIntegrityError


def test_a_folder_has_its_stated_name_and_classes_and_some_tasks_need_their_own_folders_alone(copy):
    root = copy("folder")[0]
    shutil.rmtree(root / "normals")
    data = open_dataset("folder", "train", root, tasks=["edge", "semseg"])
    assert (data.name, data.tasks[0].class_names) == ("rooms", tuple(trees.CLASS_NAMES))
    assert list(data[0]["labels"]) == ["semseg", "edge"]


def remove(name):
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def write(name, text):
    return lambda root: (root / name).write_text(text)


def change(function):
    def spoil(root):
        function(description := json.loads((root / "dataset.json").read_text()))
        (root / "dataset.json").write_text(json.dumps(description))

    return spoil


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
        (change(lambda d: d["tasks"]["semseg"].update(num_classes=4)), "num_classes is 4, class_names has 11"),
        (change(lambda d: d["tasks"]["semseg"].update(class_names=[1, 2, 3])), r"class_names: \[1, 2, 3\].*strings"),
        (change(lambda d: d["tasks"].update(semseg={})), r"tasks\.semseg:.*State num_classes"),
        (remove("val.txt"), r"val\.txt: no such file.*there: train\.txt"),
        (write("val.txt", "\n \n"), r"val\.txt: no ids"),
        (write("val.txt", "0001\n0002\n0001\n"), r"val\.txt: id '0001' occurs twice"),
        (write("val.txt", "0001\n../secret\n"), r"val\.txt: sample id '\.\./secret'"),
        (write("val.txt", "0001\n0002\n0009\n"), r"images: no file for id '0009'; expected 0009\.jpg or \.jpeg"),
        (write("val.txt", "0002\n"), r"depth: no label for any of the 1 ids of val\.txt"),
        (remove("images"), "images: cannot be listed"),
        (remove("normals"), "normals: cannot be listed.*dataset.json"),
        (lambda root: shutil.copy(root / "semseg/0001.png", root / "images/0001.png"), "images: both .0001.*one file"),
    ],
)
def test_a_broken_folder_is_refused_before_any_image_is_read(copy, spoil, says):
    root = copy("folder")[0]
    spoil(root)
    with pytest.raises(DataIntegrityError, match=says):
        FolderDataset(root, "val")


def test_another_description_is_another_stamp(copy):
    root = copy("folder")[0]
    before, path = open_dataset("folder", "val", root).stamp(0), root / "dataset.json"
    path.write_text(path.read_text().replace("{", "{ ", 1))
    assert open_dataset("folder", "val", root).stamp(0) != before
