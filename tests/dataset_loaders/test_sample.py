import numpy as np
import pytest

from dataset_loaders import check_id, check_sample, open_dataset, read_array
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import make_task

TASKS = (make_task("semseg", ["a", "b", "c"]), make_task("depth"), make_task("normals"), make_task("edge"))


def sample_of(height=4, width=6):
    normals = np.zeros((height, width, 3), np.float32)
    normals[..., 2] = 1
    labels = {
        "semseg": np.zeros((height, width), np.uint8),
        "depth": np.ones((height, width), np.float32),
        "normals": normals,
        "edge": np.zeros((height, width), np.uint8),
    }
    return {"id": "0001", "image": np.zeros((height, width, 3), np.uint8), "labels": labels}


def test_a_good_sample_passes_unchanged():
    sample = sample_of()
    assert check_sample(sample, TASKS) is sample


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
    sample = sample_of()
    sample["labels"][task] = label
    with pytest.raises(DataIntegrityError, match=says):
        check_sample(sample, TASKS)


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


def test_an_array_file_never_allocates_what_it_does_not_hold(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((50, 60), np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    for broken in (b"", data[:20], data[:-1], data.replace(b"(50, 60)", b"(9999999, 60)")):
        (tmp_path / "x.npy").write_bytes(broken)
        with pytest.raises(DataIntegrityError, match=r"x\.npy"):
            read_array(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "nyu"}, "'nyu'.*folder, hub, nyud_v2, pascal_context, photos, synthetic_rooms"),
        ({"name": "folder"}, "data_dir"),
        ({"name": "folder", "data_dir": ".", "height": 60}, "height.*layout|height.*strict"),
        ({"name": "synthetic_rooms", "data_dir": "."}, "data_dir"),
        ({"name": "synthetic_rooms", "hight": 60}, "hight.*num_images, height"),
        ({"name": "synthetic_rooms", "tasks": ["flow"]}, "flow"),
    ],
)
def test_a_wrong_request_is_refused(arguments, says):
    with pytest.raises(KdamValueError, match=says):
        open_dataset(split="train", **arguments)
