"""PASCAL-Context: annotations and maps written by hand, what is derived, and that the tree is never touched."""

import json
import shutil

import numpy as np
import pytest
import trees
from trees import save

from dataset_loaders import check_sample, open_dataset
from dataset_loaders.pascal_context import NORMALS_VALID
from kdam_hf.errors import DataIntegrityError

ID = "2008_000003"
H, W = 4, 6


def annotation(*things):
    return trees.annotation((H, W), things)


def person(*parts):
    return "person", 15, parts


CAR = "car", 7, [("wheel", np.ones((H, W), np.uint8))]


def at(*pixels):
    mask = np.zeros((H, W), np.uint8)
    for pixel in pixels:
        mask[pixel] = 1
    return mask


def write(root, anno=None, index=None, saliency=0, height=H):
    """A tree of one image, split val; whatever is not given is plain. `height` is that of the map of classes."""
    for kind in ("Context", "Parts"):
        (root / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (root / f"ImageSets/Context/{split}.txt").write_text(f"{ID}\n")
    if index is not None:
        (root / "ImageSets/Parts/val.txt").write_text(json.dumps(index))
    save(root / f"JPEGImages/{ID}.jpg", np.full((H, W, 3), 90, np.uint8))
    save(root / f"semseg/VOC12/{ID}.png", np.full((H, W), 15, np.uint8))
    save(root / f"sal_distill/{ID}.png", np.full((H, W), saliency, np.uint8))
    save(root / f"normals_distill/{ID}.png", np.full((H, W, 3), (128, 128, 255), np.uint8))
    save(root / f"pascal-context/trainval/{ID}.mat", np.full((height, W), 440, np.uint16), "LabelMap")
    save(root / f"human_parts/{ID}.mat", annotation(person()) if anno is None else anno, "anno")
    return root


def label(root, task, strict=True):
    data = open_dataset("pascal_context", "val", root, tasks=[task], strict=strict)
    return check_sample(data[0], data.tasks)["labels"].get(task)


# ---- human parts ----


def test_parts_by_hand(tmp_path):
    """Two people, the later one on top, within one the later part on top; cars and a person without parts count for nothing."""
    anno = annotation(
        CAR,
        person(("head", at((0, 2), (0, 3))), ("torso", at((1, 2), (0, 3))), ("rfoot", at((3, 2)))),
        person(),
        person(("luarm", at((1, 2), (1, 3))), ("rhand", at((2, 4))), ("luleg", at((3, 4)))),
    )
    assert label(write(tmp_path, anno=anno), "human_parts").tolist() == [
        [0, 0, 1, 2, 0, 0],
        [0, 0, 3, 3, 0, 0],
        [0, 0, 0, 0, 4, 0],
        [0, 0, 6, 0, 5, 0],
    ]


@pytest.mark.parametrize(
    ("anno", "says"),
    [
        (np.array([[1, 2]]), ""),
        (trees.struct_array("imname", (ID,)), ""),
        (annotation(person(("head", np.ones((H, W + 1))))), ""),
        (annotation(person(("tail", np.ones((H, W))))), "part 'tail' of a person; expected hair, head"),
    ],
)
def test_an_annotation_of_another_form_is_named(tmp_path, anno, says):
    with pytest.raises(DataIntegrityError, match=rf"human_parts/{ID}\.mat: {says}"):
        label(write(tmp_path, anno=anno), "human_parts")


@pytest.mark.parametrize("things", [[], [CAR], [person(), ("cat", 8, [])]])
def test_an_image_without_annotated_people_is_unlabelled(tmp_path, things):
    assert label(write(tmp_path, anno=annotation(*things)), "human_parts") is None


@pytest.mark.parametrize("index", [{ID: [2, 15]}, {ID: [2, 7]}, {ID: []}, {}, [], 3, {"a": 3}, {"a": ["x"]}])
def test_the_index_of_parts_spares_opening_files_without_people_and_is_named_if_it_is_broken(tmp_path, index):
    root = write(tmp_path, anno=annotation(person(("head", at((0, 0))))), index=index)
    if not isinstance(index, dict) or "a" in index:
        with pytest.raises(DataIntegrityError, match=r"Parts/val\.txt"):
            label(root, "human_parts")
    elif 15 in index.get(ID, [15]):
        assert label(root, "human_parts")[0, 0] == 1
    else:
        (root / f"human_parts/{ID}.mat").write_bytes(b"never opened")
        assert label(root, "human_parts") is None


# ---- other labels ----


def test_normals_count_on_170_of_the_459_classes():
    assert len(NORMALS_VALID) == 170
    known = {18, 23, 65, 68, 158, 284, 427, 457}  # bed, bicycle, cat, ceiling, floor, person, tvmonitor, wire
    unknown = {2, 25, 98, 187, 308, 360, 420, 459}  # aeroplane, bird, cow, grass, pottedplant, sky, tree, wool
    assert known <= NORMALS_VALID
    assert not unknown & NORMALS_VALID


def test_a_class_map_of_another_size_is_told_from_normals_of_another_size(tmp_path):
    root = write(tmp_path, height=H - 1)
    for task, file in (("normals", rf"normals_distill/{ID}\.png.*trainval"), ("edge", rf"trainval/{ID}\.mat")):
        with pytest.raises(DataIntegrityError, match=rf"{file}.*3x6"):
            label(root, task)


def test_saliency_counts_also_where_all_is_salient_and_semseg_may_lie_in_either_folder(tmp_path):
    root = write(tmp_path, saliency=255)
    assert label(root, "saliency").all()
    (root / "semseg/VOC12").rename(root / "semseg/pascal-context")
    assert (label(root, "semseg") == 15).all()
    shutil.rmtree(root / "semseg")
    with pytest.raises(DataIntegrityError, match="semseg"):
        label(root, "semseg")


@pytest.mark.parametrize("value", [1, 255])
def test_a_drawn_edge_map_is_preferred_image_by_image(tmp_path, value):
    truth = trees.write_tree("pascal", tmp_path, 1, 2)["val"]
    drawn = np.zeros(truth[0].image.shape[:2], np.uint8)
    drawn[3, :7] = value
    save(tmp_path / f"edge/{truth[0].id}.png", drawn)
    data = open_dataset("pascal_context", "val", tmp_path)
    np.testing.assert_array_equal(data[0]["labels"]["edge"], drawn / value)
    np.testing.assert_array_equal(data[1]["labels"]["edge"], truth[1].labels["edge"])


# ---- files ----


def test_the_stamp_follows_every_file_that_a_label_is_made_from(tmp_path):
    root = write(tmp_path)
    save(root / f"edge/{ID}.png", np.zeros((H, W), np.uint8))
    stamps = set()
    for path in (None, *sorted(root.rglob(f"{ID}.*"))):
        if path:
            path.write_bytes(path.read_bytes() + b"\0")
        stamps.add(open_dataset("pascal_context", "val", root).stamp(0))
    assert len(stamps) == 1 + 7  # photo, semseg, parts, saliency, normals, classes, edge
    (root / "ImageSets/Parts").mkdir(exist_ok=True)
    (root / "ImageSets/Parts/val.txt").write_text(json.dumps({ID: [1]}))  # which says who is in view
    assert open_dataset("pascal_context", "val", root).stamp(0) not in stamps
