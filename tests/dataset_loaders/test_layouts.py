"""Every layout against the truth of the generated trees, and which layout a folder is taken for."""

import shutil

import numpy as np
import pytest
import trees

from dataset_loaders import check_sample, open_dataset
from kdam_hf.errors import DataIntegrityError, KdamValueError

KEYS = {"A": "astmt", "B": "mtl_pytorch", "C": "atrc", "D": "mtan", "E": "parquet", "O": "official"}
KEYS |= {"pascal": "pascal_mt", "pascal_edge": "pascal_mt"}
NYUD, PASCAL = ["semseg", "depth", "normals", "edge"], ["semseg", "human_parts", "saliency", "normals", "edge"]
TASKS = {layout: NYUD[:3] if layout in "DE" else PASCAL if layout.startswith("pascal") else NYUD for layout in KEYS}
TASKS["folder"] = ["semseg", "human_parts", "saliency", "depth", "normals", "edge"]
DERIVED = {"O": {"normals", "edge"}}


def name_of(layout):
    return "folder" if layout == "folder" else "pascal_context" if layout.startswith("pascal") else "nyud_v2"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Writes each layout once: `tree("A")` is (root, truth); the tree is alone in its parent folder."""
    written = {}

    def get(layout):
        if layout not in written:
            root = tmp_path_factory.mktemp(layout) / "tree"
            written[layout] = root, trees.write_tree(layout, root)
        return written[layout]

    return get


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
            for task in data.tasks:
                if task.name in DERIVED.get(layout, ()):
                    continue
                blank = task.label.unlabelled(*scene.image.shape[:2])
                found, expected = (labels.get(task.name, blank) for labels in (sample["labels"], scene.labels))
                where = f"{layout} {split} {scene.id} {task.name}"
                if task.name in ("depth", "normals"):  # one rounding of float32 more or less
                    np.testing.assert_array_equal(found == 0, expected == 0, where)
                    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=3e-7, err_msg=where)
                else:
                    np.testing.assert_array_equal(found, expected, where)


@pytest.mark.parametrize("layout", ["pascal", "folder"])
def test_an_image_without_a_label_of_a_task_has_none_in_its_sample(tree, layout):
    root, truth = tree(layout)
    data = open_tree(layout, "train", root)
    without = {scene.id: {t for t in TASKS[layout] if t not in scene.labels} for scene in truth["train"]}
    if layout == "pascal":  # there the files say it: nobody is annotated
        for scene in truth["train"]:
            without[scene.id] = set() if (scene.labels["human_parts"] != 255).any() else {"human_parts"}
    assert any(without.values())
    for k in range(len(data)):
        assert set(TASKS[layout]) - set(data[k]["labels"]) == without[data[k]["id"]]


# ---- which layout ----


@pytest.mark.parametrize("layout", KEYS)
def test_a_tree_is_recognised_and_says_where_it_is(tree, layout):
    root = tree(layout)[0]
    for data_dir in (root, root.parent, str(root)):
        data = open_tree(layout, "val", data_dir)
        assert f"layout {KEYS[layout]} (" in data.origin
        assert data.origin.endswith(f" in {root}")
        assert len(data) == 3


@pytest.mark.parametrize("layout", ["A", "D", "O", "pascal"])
def test_hidden_folders_are_not_looked_into(tree, tmp_path, layout):
    shutil.copytree(tree(layout)[0], tmp_path / ".hidden")
    with pytest.raises(DataIntegrityError, match="is no layout that is known"):
        open_tree(layout, "val", tmp_path)


@pytest.fixture
def both(tree, tmp_path):
    """B and C laid into one folder, which is either."""
    for layout in "BC":
        shutil.copytree(tree(layout)[0], tmp_path / "both", dirs_exist_ok=True)
    return tmp_path / "both"


def test_two_layouts_in_one_folder_are_named_and_the_override_decides(tree, both):
    with pytest.raises(DataIntegrityError, match=r"could be any of: mtl_pytorch in .*; atrc in .*--layout"):
        open_dataset("nyud_v2", "val", both)
    for layout in "BC":
        data, alone = (open_dataset("nyud_v2", "val", r, layout=KEYS[layout]) for r in (both, tree(layout)[0]))
        assert f"layout {KEYS[layout]} " in data.origin
        np.testing.assert_array_equal(data[1]["image"], alone[1]["image"])
        np.testing.assert_array_equal(data[1]["labels"]["normals"], alone[1]["labels"]["normals"])


def test_the_folder_itself_comes_before_those_below_it(tree, tmp_path):
    shutil.copytree(tree("C")[0], tmp_path / "root")
    shutil.copytree(tree("A")[0], tmp_path / "root" / "older")
    assert "layout atrc " in open_dataset("nyud_v2", "val", tmp_path / "root").origin


def test_a_wrong_override_says_what_that_layout_lacks(tree):
    with pytest.raises(DataIntegrityError) as caught:
        open_dataset("nyud_v2", "val", tree("A")[0], layout="atrc")
    text = str(caught.value)
    assert "atrc (NYUDv2 of ATRC, InvPT and later): gt_sets/*.txt, images/*.png, segmentation/*.png" in text
    assert "absent: images/*.png, segmentation/*.png" in text
    assert "Found: depth/, edge/, gt_sets/, images/, normals/, segmentation/." in text
    assert "astmt" not in text
    with pytest.raises(KdamValueError, match=r"unknown layout 'ATRC'; expected one of astmt, mtl_pytorch, atrc, mtan"):
        open_dataset("nyud_v2", "val", tree("A")[0], layout="ATRC")


def test_an_unknown_folder_gets_what_was_looked_for_and_what_was_found(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "README.txt").write_text("?")
    with pytest.raises(DataIntegrityError) as caught:
        open_dataset("nyud_v2", "val", tmp_path)
    text = str(caught.value)
    for key, sign in {
        "astmt": "segmentation/*.mat",
        "mtl_pytorch": "images/*.jpg",
        "atrc": "images/*.png",
        "mtan": "train/image/*.npy",
        "parquet": "data/*.parquet|*.parquet",
        "official": "nyu_depth_v2_labeled.mat",
    }.items():
        [line] = [line for line in text.splitlines() if line.startswith(f"  {key} (")]
        assert sign in line
        assert "absent: " in line
    assert "Found: README.txt, frames/." in text
    with pytest.raises(DataIntegrityError, match=r"(?s)ImageSets/Context/\*\.txt, JPEGImages/\*\.jpg.*Found: README"):
        open_dataset("pascal_context", "val", tmp_path)


@pytest.mark.parametrize("name", ["nyud_v2", "pascal_context", "folder"])
def test_a_folder_that_is_not_there_is_an_argument_at_fault(tmp_path, name):
    (tmp_path / "file").touch()
    for wrong in ("nowhere", "file"):
        with pytest.raises(KdamValueError, match=rf"data_dir '{tmp_path / wrong}'"):
            open_dataset(name, "val", tmp_path / wrong)
    with pytest.raises(KdamValueError, match=f"dataset '{name}' needs data_dir"):
        open_dataset(name, "val")
    with pytest.raises(
        KdamValueError, match=rf"set\.tgz is an archive; .*prepare_data\.py --dataset {name} --data_dir"
    ):
        open_dataset(name, "val", tmp_path / "set.tgz")


def test_unknown_options_and_tasks_are_named(tree):
    root = tree("A")[0]
    with pytest.raises(
        KdamValueError, match=r"nyud_v2: unknown option size; expected layout, strict, crop, intrinsics"
    ):
        open_dataset("nyud_v2", "val", root, size=3)
    with pytest.raises(KdamValueError, match=r"unknown task saliency; this dataset has semseg, depth, normals, edge"):
        open_dataset("nyud_v2", "val", root, tasks=["saliency"])
    with pytest.raises(KdamValueError, match=r"unknown task edge; this dataset has semseg, depth, normals\."):
        open_dataset("nyud_v2", "val", tree("D")[0], tasks=["edge"])


@pytest.mark.parametrize("layout", ["A", "B", "C", "pascal"])
def test_any_list_of_ids_is_a_split(tree, tmp_path, layout):
    root = shutil.copytree(tree(layout)[0], tmp_path / "tree")
    lists = root / ("ImageSets/Context" if layout == "pascal" else "gt_sets")
    ids = (lists / "train.txt").read_text().split()
    (lists / "mini.txt").write_text(f"{ids[3]}\r\n{ids[0]}\r\n")
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
