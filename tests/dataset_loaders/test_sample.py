import numpy as np
import pytest
from conftest_kit import Made

from dataset_loaders import MixedDataset, SubsetDataset, check_id, check_sample, open_dataset
from dataset_loaders.sample import Runs
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.tasks import make_task

TASKS = (make_task("semseg", ["a", "b", "c"]), make_task("depth"), make_task("normals"), make_task("edge"))


@pytest.mark.fault(16, 20, 22)
@pytest.mark.parametrize(
    ("task", "label", "says"),
    [
        ("semseg", np.full((4, 6), 3, np.uint8), r"0001.*semseg.*\[3\].*0\.\.2"),
        ("semseg", np.full((4, 6), -1, np.int64), r"0001.*semseg.*int64.*uint8"),
        ("semseg", np.zeros((4, 6), np.float32), r"0001.*semseg.*float32.*uint8"),
        ("semseg", np.zeros((1, 4, 6), np.uint8), r"0001.*semseg.*\(1, 4, 6\).*\(H, W\)"),
        ("depth", np.zeros((6, 4), np.float32), r"0001.*depth.*6x4.*4x6"),
        ("depth", np.full((4, 6), np.nan, np.float32), r"0001.*depth.*NaN"),
        ("depth", np.zeros((4, 6), np.float64), r"0001.*depth.*float64.*float32"),
        ("normals", np.zeros((4, 6), np.float32), r"0001.*normals.*\(4, 6\).*\(H, W, 3\)"),
        ("normals", np.full((4, 6, 3), 0.1, np.float32), r"0001.*normals.*unit"),
        ("edge", np.full((4, 6), 2, np.uint8), r"0001.*edge.*\[2\]"),
    ],
)
def test_a_bad_label_is_refused_with_id_and_task(task, label, says):
    with pytest.raises(DataIntegrityError, match=says):
        check_sample({"id": "0001", "image": np.zeros((4, 6, 3), np.uint8), "labels": {task: label}}, TASKS)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32), np.zeros((3, 4, 6), np.uint8)]
)
def test_an_image_of_another_form_is_refused(image):
    with pytest.raises(DataIntegrityError, match=r"0001.*image.*expected uint8 \(H, W, 3\)"):
        check_sample({"id": "0001", "image": image, "labels": {}}, TASKS)


@pytest.mark.fault(34)
@pytest.mark.parametrize("sample_id", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "x\0y"])
def test_an_id_that_could_leave_its_folder_is_refused(sample_id):
    with pytest.raises(DataIntegrityError, match="sample id"):
        check_id(sample_id)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "nyu"}, "'nyu'.*folder, hub, nyud_v2, pascal_context, photos, synthetic_rooms"),
        ({"name": "folder"}, "data_dir"),
        ({"name": "folder", "data_dir": ".", "height": 60}, "height.*layout|height.*strict"),
        ({"name": "synthetic_rooms", "data_dir": "."}, "data_dir"),
        ({"name": "synthetic_rooms", "hight": 60}, "hight.*num_images, height"),
        ({"name": "synthetic_rooms", "tasks": ["flow"]}, "flow"),
        ({"name": "synthetic_rooms", "seed": -1}, "-1"),
        ({"name": "synthetic_rooms", "height": 0}, "0"),
        *(({"name": name, "data_dir": "nowhere"}, "nowhere") for name in ("nyud_v2", "pascal_context", "folder")),
        ({"name": "nyud_v2", "data_dir": "set.tgz"}, "archive"),
    ],
)
def test_a_wrong_request_is_refused(arguments, says):
    with pytest.raises(KdamValueError, match=says):
        open_dataset(split="train", **arguments)


def test_a_subset_has_the_headers_of_its_own_samples_and_no_runs_of_others():
    sized = Made(ids=("a", "b", "c"), runs=Runs((2, 1), 1), photo_header=lambda index: PhotoHeader(10 + index, 20))
    chosen = SubsetDataset(sized, ["c", "a"])
    assert [chosen.photo_header(k).height for k in range(2)] == [12, 10]
    assert chosen.runs is None
    assert SubsetDataset(sized, sized.ids).runs == sized.runs


@pytest.mark.parametrize("checked", [(True, True), (True, False), (False, True)])
def test_a_mixture_is_checked_if_both_are(checked):
    labelled, photos = (Made(dict, dict, checked=value) for value in checked)
    assert MixedDataset(labelled, photos, (), 0.5).checked == all(checked)
