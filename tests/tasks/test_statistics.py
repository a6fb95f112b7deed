"""Facts of labels that add up, settings of tasks from the command line, and what a dataset may say of its files."""

import io
import json
from math import inf

import numpy as np
import pytest
from PIL import Image

from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import NYUD_V2, LabelStatistics, make_task, with_options
from kdam_hf.tasks.normals import Normals

# ---- statistics ----


def test_classes_are_counted_over_valid_pixels():
    task = make_task("semseg", ["wall", "floor", "lamp"])
    facts = task.label.statistics(np.array([[0, 0, 2], [255, 2, 2]], np.uint8))
    assert facts == LabelStatistics(images=1, pixels=6, valid=5, counts=(2, 0, 3))


def test_depth_has_its_valid_range_in_metres():
    facts = make_task("depth").label.statistics(np.array([[0, 1.5, 0.25], [9, 0, 0]], np.float32))
    assert facts == LabelStatistics(images=1, pixels=6, valid=3, lowest=0.25, highest=9.0)
    assert all(type(value) in (int, float, tuple) for value in (facts.valid, facts.lowest, facts.highest, facts.counts))


def test_normals_are_only_counted():
    normals = np.zeros((2, 2, 3), np.float32)
    normals[0, 0] = 0, 0, 1
    normals[1, 1] = -1, 0, 0
    assert make_task("normals").label.statistics(normals) == LabelStatistics(images=1, pixels=4, valid=2)


@pytest.mark.parametrize("name", ["edge", "saliency"])
def test_binary_maps_count_both_sides(name):
    facts = make_task(name).label.statistics(np.array([[0, 1, 1, 255]], np.uint8))
    assert facts == LabelStatistics(images=1, pixels=4, valid=3, counts=(1, 2))


def test_valid_pixels_are_those_of_the_statistics(all_tasks):
    rng = np.random.default_rng(0)
    for task in all_tasks:
        label = task.label.unlabelled(8, 9)
        chosen = rng.random((8, 9)) < 0.4
        label[chosen] = (0, 0, 1) if label.ndim == 3 else 1
        np.testing.assert_array_equal(task.label.valid(label), chosen)
        assert task.label.statistics(label).valid == chosen.sum(), task.name


A = LabelStatistics(2, 10, 7, counts=(3, 4, 0))
B = LabelStatistics(1, 6, 6, counts=(0, 1, 5))
C = LabelStatistics(1, 4, 2, 0.5, 3.0)
D = LabelStatistics(3, 9, 1, 2.0, 8.25)


def test_statistics_add_up():
    together = A + B, C + D
    assert together == (LabelStatistics(3, 16, 13, counts=(3, 5, 5)), LabelStatistics(4, 13, 3, 0.5, 8.25))


@pytest.mark.parametrize(("first", "second"), [(A, B), (C, D), (A, LabelStatistics(1, 4)), (LabelStatistics(1, 4), D)])
def test_addition_is_commutative_and_nothing_is_neutral(first, second):
    assert first + second == second + first
    assert first + LabelStatistics() == LabelStatistics() + first == first


def test_the_statistics_of_two_labels_are_those_of_both_side_by_side(all_tasks):
    rng = np.random.default_rng(1)
    for task in all_tasks:
        labels = []
        for _ in range(2):
            label = task.label.unlabelled(5, 6)
            chosen = rng.random((5, 6)) < 0.6
            values = rng.integers(0, 2, (5, 6)) if label.dtype == np.uint8 else rng.uniform(0.5, 9, (5, 6))
            label[chosen] = (0, 1, 0) if label.ndim == 3 else values[chosen]
            labels.append(label)
        first, second = (task.label.statistics(label) for label in labels)
        whole = task.label.statistics(np.concatenate(labels))
        assert first + second == LabelStatistics(
            2, whole.pixels, whole.valid, whole.lowest, whole.highest, whole.counts
        )


@pytest.mark.parametrize("facts", [A, C, D, LabelStatistics(), LabelStatistics(1, 4)])
def test_statistics_survive_json(facts):
    text = json.dumps(facts.as_json(), allow_nan=False)  # no Infinity, which other parsers refuse
    assert LabelStatistics.from_json(json.loads(text)) == facts


def test_without_a_valid_value_there_is_no_range_in_json():
    assert "lowest" not in A.as_json()
    assert (LabelStatistics().lowest, LabelStatistics().highest) == (inf, -inf)
    assert C.as_json() == {"images": 1, "pixels": 4, "valid": 2, "counts": [], "lowest": 0.5, "highest": 3.0}


# ---- settings ----


def test_settings_change_only_what_they_name():
    tasks = with_options(
        NYUD_V2, ["edge.positive_weight=0.8", "semseg.loss_weight=2", "depth.bins=20", "depth.nearest=1e-1"]
    )
    changed = {task.name: task for task in tasks}
    assert [task.name for task in tasks] == [task.name for task in NYUD_V2]
    assert changed["edge"].positive_weight == 0.8
    assert changed["edge"].loss_weight == 50
    assert changed["semseg"].loss_weight == 2.0
    assert changed["semseg"].classes == NYUD_V2[0].classes
    assert (changed["depth"].bins, changed["depth"].nearest, changed["depth"].farthest) == (20, 0.1, 10.0)
    assert type(changed["depth"].bins) is int
    assert changed["normals"] is NYUD_V2[2]
    assert NYUD_V2[3].positive_weight == 0.95
    assert with_options(NYUD_V2, []) == NYUD_V2
    assert with_options(NYUD_V2, ["edge.loss_weight=1", "edge.loss_weight=3"])[3].loss_weight == 3


def test_a_weight_of_zero_is_a_setting():
    assert with_options(NYUD_V2, ["edge.loss_weight=0"])[3].loss_weight == 0


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("saliency.loss_weight=1", "no task 'saliency'; expected one of semseg, depth, normals, edge"),
        ("loss_weight=1", "no task 'loss_weight'"),
        ("edge", "expected edge.NAME=NUMBER with NAME one of loss_weight, positive_weight"),
        ("edge.positive_weight", "expected edge.NAME=NUMBER"),
        ("edge.positive_weight=", "expected edge.NAME=NUMBER"),
        ("edge.positive_weight=high", "expected edge.NAME=NUMBER"),
        ("edge.weight=1", "NAME one of loss_weight, positive_weight"),
        ("edge.name=1", "NAME one of loss_weight, positive_weight"),
        ("semseg.classes=3", "NAME one of loss_weight and"),
        ("depth.bins=3.5", "whole where its default is"),
        ("depth.bins=-3", "a number >= 0"),
        ("edge.loss_weight=-1", "a number >= 0"),
        ("edge.loss_weight=nan", "a number >= 0"),
        ("edge.loss_weight=inf", "a number >= 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(option, says):
    with pytest.raises(KdamValueError) as caught:
        with_options(NYUD_V2, [option])
    assert f"task option {option!r}: " in str(caught.value)
    assert says in str(caught.value)


# ---- options of files ----


def test_first_id_and_ignore_index_say_what_the_ids_of_a_file_mean():
    """NYUD-v2 stores 0 for void and 1..40; MTAN -1 and 0..12; most others 0.. and 255."""
    task = make_task("semseg", ["a", "b", "c"])
    cases = [
        ({}, [0, 2, 255], [0, 2, 255]),
        ({"first_id": 1, "ignore_index": 0}, [0, 1, 3], [255, 0, 2]),
        ({"first_id": 1}, [1, 3, 255], [0, 2, 255]),
        ({"ignore_index": -1}, [-1, 0, 2], [255, 0, 2]),
        ({"first_id": 10, "ignore_index": 3}, [3, 10, 12], [255, 0, 2]),
        ({"ignore_index": 1}, [0, 1, 2], [0, 255, 2]),  # a class that shall not count
    ]
    for options, stored, expected in cases:
        found = task.label.from_file(np.array([stored], np.int16), options, "f.png")
        assert found.dtype == np.uint8
        assert found.tolist() == [expected], options


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("options", "wrong", "says"),
    [
        ({}, 3, r"holds \[3\]; expected 0\.\.2 or 255"),
        ({}, -1, r"holds \[-1\]"),
        ({"first_id": 1, "ignore_index": 0}, 4, r"holds \[4\]; expected 1\.\.3 or 0"),
        ({"first_id": 1}, 0, r"holds \[0\]; expected 1\.\.3 or 255"),
        ({"ignore_index": -1}, 255, r"holds \[255\]; expected 0\.\.2 or -1"),
    ],
)
def test_ids_outside_the_stated_range_are_named(options, wrong, says):
    task = make_task("semseg", ["a", "b", "c"])
    with pytest.raises(DataIntegrityError, match=rf"f\.png: semseg label {says}"):
        task.label.from_file(np.array([[1, wrong]], np.int16), options, "f.png")


@pytest.mark.parametrize(
    ("options", "stored", "says"),
    [
        ({"max_depth": 20.0}, np.array([[19.9, 20.5]], np.float32), "holds 20.5 m; expected at most 20 m"),
        ({"max_depth": 20.0, "unit": "mm"}, np.array([[20_500]], np.uint16), "holds 20.5 m; expected at most 20 m"),
        ({"max_depth": 80.0}, np.array([[81_000]], np.int32), "holds 81 m; expected at most 80 m"),
        ({}, np.array([[1200.0]], np.float32), "holds 1200 m; expected at most 655.35 m.*state unit 'mm'"),
        ({"unit": "m"}, np.array([[1200]], np.uint16), "holds 1200 m; expected at most 655.35 m"),
    ],
)
def test_depth_beyond_the_sensor_is_an_error(options, stored, says):
    with pytest.raises(DataIntegrityError, match=f"f: depth {says}"):
        make_task("depth").label.from_file(stored, options, "f")


def test_depth_up_to_the_limit_passes_in_either_unit():
    depth = make_task("depth")
    assert depth.label.from_file(np.array([[20.0]]), {"max_depth": 20.0}, "f").tolist() == [[20]]
    assert depth.label.from_file(np.array([[65_535]], np.uint16), {}, "f")[0, 0] == pytest.approx(65.535)
    assert depth.label.from_file(np.array([[1200.0]], np.float32), {"unit": "mm"}, "f")[0, 0] == pytest.approx(1.2)
    assert depth.label.from_file(np.array([[3]], np.uint16), {"unit": "m"}, "f").tolist() == [[3]]


# ---- normals in another scale ----


def wall(x, y, z):
    """8x8 normals: three quarters of a wall, and an axis of the room in each direction."""
    normals = np.empty((8, 8, 3))
    normals[:] = np.array([x, y, z]) / np.linalg.norm([x, y, z])
    normals[:2, :2], normals[:2, 2:4], normals[:2, 4:6] = (0, 1, 0), (1, 0, 0), (0, -1, 0)
    return normals


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 0, 0), (0, 1, 0), (-1, 0, 2), (0, -1, 1.5), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_vectors_pass_and_the_same_in_0_to_1_or_0_to_255_do_not(direction, dtype):
    task, normals = Normals(), wall(*direction).astype(dtype)
    np.testing.assert_allclose(task.label.from_file(normals, {}, "f"), normals, atol=1e-6)
    for stored in ((normals + 1) / 2, (normals + 1) * 127.5, normals * 2, normals * 0.8):
        with pytest.raises(DataIntegrityError, match=r"f: \d+% of the normals are not of length 1.*n = 2 v / 255 - 1"):
            task.label.from_file(stored, {}, "f")


def test_some_vectors_shortened_by_resizing_are_lengthened_again():
    normals = wall(0, 0, 1)
    normals[0] *= 0.7
    normals[1, 0] = 0.1, 0, 0.2
    found = Normals().label.from_file(normals, {}, "f")
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=-1), 1, atol=1e-6)
    assert not found[1, 0].any()


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64])
def test_integers_of_other_widths_are_no_normals(dtype):
    with pytest.raises(DataIntegrityError, match=rf"f: normals are {np.dtype(dtype)}; expected uint8 or float"):
        Normals().label.from_file(np.zeros((2, 2, 3), dtype), {}, "f")


@pytest.mark.parametrize(("quality", "subsampling"), [(95, 0), (75, 2), (50, 2)])
def test_normals_pass_through_jpeg(quality, subsampling):
    """Two walls, a floor and scattered holes, compressed as hard as photos are: many lengths change, and that is no fault."""
    normals = np.zeros((96, 128, 3))
    normals[:, :64], normals[:, 64:], normals[60:] = (0.8, 0, 0.6), (-0.6, 0, 0.8), (0, 1, 0)
    normals[::5, ::4] = 0
    buffer = io.BytesIO()
    codes = np.round((normals + 1) * 127.5).astype(np.uint8)
    Image.fromarray(codes).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    found = Normals().label.from_file(np.array(Image.open(buffer)), {}, "f")
    valid = normals.any(-1) & found.any(-1)
    cosines = (found[valid] * normals[valid]).sum(-1)
    assert np.degrees(np.arccos(np.clip(np.median(cosines), -1, 1))) < 8


def test_8_bit_pictures_that_are_no_normals_are_refused():
    """A photo, mostly grey: its vectors are short."""
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 1)).repeat(3, -1).astype(np.uint8)
    with pytest.raises(DataIntegrityError, match="of the normals are not of length 1"):
        Normals().label.from_file(photo, {}, "f")
