"""Every layout against the truth of the generated trees, and which layout a folder is taken for."""

import shutil

import numpy as np
import pytest
from trees import name_of

from dataset_loaders import check_sample, open_dataset
from dataset_loaders.nyud_v2 import LAYOUTS
from kdam_hf.errors import DataIntegrityError, KdamValueError

KEYS = {"A": "astmt", "B": "mtl_pytorch", "C": "atrc", "D": "mtan", "E": "parquet", "O": "official"}
KEYS |= {"pascal": "pascal_mt", "pascal_edge": "pascal_mt"}
NYUD, PASCAL = ["semseg", "depth", "normals", "edge"], ["semseg", "human_parts", "saliency", "normals", "edge"]
TASKS = {layout: NYUD[:3] if layout in "DE" else PASCAL if layout.startswith("pascal") else NYUD for layout in KEYS}
TASKS["folder"] = ["semseg", "human_parts", "saliency", "depth", "normals", "edge"]
DERIVED = {"O": {"normals", "edge"}}


def open_tree(layout, split, root, **options):
    return open_dataset(name_of(layout), split, root, **options)


# ---- what comes out ----


@pytest.mark.parametrize("layout", TASKS)
def test_every_sample_is_the_truth(tree, layout):
    root, truth = tree(layout)
    for split, scenes in truth.items():
        data = open_tree(layout, split, root)
        assert (data.split, len(data)) == (split, len(scenes))
        assert [task.name for task in data.tasks] == TASKS[layout]
        for k, scene in enumerate(scenes):
            sample = check_sample(data[k], data.tasks)
            assert sample["id"] == scene.id
            assert sample["image"].flags.c_contiguous
            np.testing.assert_array_equal(sample["image"], scene.image)
            derived = DERIVED.get(layout, set())
            truth_of = {n: scene.labels[n] for n in set(TASKS[layout]) & scene.labels.keys() - derived}
            truth_of = {name: label for name, label in truth_of.items() if not (label == 255).all()}
            assert sample["labels"].keys() - derived == truth_of.keys()
            for name, expected in truth_of.items():
                found = sample["labels"][name]
                atol = 3e-7 if found.dtype == np.float32 else 0  # one rounding more or less
                np.testing.assert_array_equal(found == 0, expected == 0, name)
                np.testing.assert_allclose(found, expected, rtol=atol, atol=atol, err_msg=f"{split} {scene.id} {name}")


# ---- which layout ----


@pytest.mark.parametrize("layout", KEYS)
def test_a_tree_is_recognised_and_says_where_it_is(tree, layout):
    root = tree(layout)[0]
    for data_dir in (root, str(root.parent)):
        data = open_tree(layout, "val", data_dir)
        assert f"layout {KEYS[layout]} (" in data.origin
        assert data.origin.endswith(f" in {root}")
        assert len(data) == 3


def test_two_layouts_in_one_folder_are_named_the_override_decides_and_the_folder_itself_comes_first(tree, tmp_path):
    both = tmp_path / "both"
    for layout in "BC":
        shutil.copytree(tree(layout)[0], both, dirs_exist_ok=True)
    with pytest.raises(DataIntegrityError, match=r"mtl_pytorch in .*; atrc in .*--layout"):
        open_dataset("nyud_v2", "val", both)
    data, alone = (open_dataset("nyud_v2", "val", r, layout="atrc") for r in (both, tree("C")[0]))
    np.testing.assert_array_equal(data[1]["image"], alone[1]["image"])
    with pytest.raises(DataIntegrityError, match=r"(?s)absent: segmentation/\*\.mat.*Found: depth/, edge/"):
        open_dataset("nyud_v2", "val", both, layout="astmt")
    with pytest.raises(KdamValueError, match=r"'ATRC'.*astmt, mtl_pytorch, atrc, mtan"):
        open_dataset("nyud_v2", "val", both, layout="ATRC")
    root = shutil.copytree(tree("C")[0], tmp_path / "root")
    shutil.copytree(tree("A")[0], root / "older")
    assert "layout atrc " in open_dataset("nyud_v2", "val", root).origin


def test_an_unknown_folder_gets_what_was_looked_for_and_what_was_found(tree, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "README.txt").write_text("?")
    shutil.copytree(tree("A")[0], tmp_path / ".hidden")  # not looked into
    with pytest.raises(DataIntegrityError) as caught:
        open_dataset("nyud_v2", "val", tmp_path)
    text = str(caught.value)
    for layout in LAYOUTS:
        [line] = [line for line in text.splitlines() if line.startswith(f"  {layout.key} (")]
        assert f"absent: {', '.join(layout.signs)}" in line
    assert "Found: .hidden/, README.txt, frames/." in text


def test_a_task_that_a_layout_does_not_have_is_named_with_those_it_has(tree):
    with pytest.raises(KdamValueError, match=r"saliency.*semseg, depth, normals, edge"):
        open_dataset("nyud_v2", "val", tree("A")[0], tasks=["saliency"])


@pytest.mark.fault(34)
@pytest.mark.parametrize("layout", ["A", "B", "C", "pascal", "folder"])
def test_any_list_of_ids_is_a_split(copy, layout):
    root = copy(layout)[0]
    lists = root / {"pascal": "ImageSets/Context", "folder": "."}.get(layout, "gt_sets")
    ids = (lists / "train.txt").read_text().split()
    (lists / "mini.txt").write_text(f"{ids[3]}\r\n{ids[0]}\r\n\r\n")
    data = open_tree(layout, "mini", root)
    assert [data[k]["id"] for k in range(2)] == [ids[3], ids[0]]
    with pytest.raises(DataIntegrityError, match=r"test\.txt: no such file.*there: mini\.txt, train\.txt, val\.txt"):
        open_tree(layout, "test", root)
    with pytest.raises(DataIntegrityError, match=r"'\.\./train': expected a plain file name"):
        open_tree(layout, "../train", root)


@pytest.mark.parametrize(
    ("layout", "says"), [("D", "one of train, val"), ("E", "found train-"), ("O", "trainNdxs|train")]
)
def test_a_split_that_fixed_layouts_do_not_have_is_named(tree, layout, says):
    with pytest.raises(KdamValueError, match=f"split 'test' in .*{says}"):
        open_tree(layout, "test", tree(layout)[0])
