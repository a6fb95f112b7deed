"""Classes of a teacher become those of a student: probabilities add up, and what nobody claims has no say."""

import numpy as np
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import make_task
from kdam_hf.teachers.class_map import ClassMap, equal_names, from_names, read_class_map
from kdam_hf.teachers.teaching import _with_classes

TEACHER = ("wall", "floor, flooring", "Chair", "sofa", "ceiling")
LOGITS = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))


def probabilities():
    x = LOGITS.double().numpy()
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_probabilities_of_classes_that_become_one_are_summed():
    found = from_names(
        {"flat": ["wall", "ceiling", "Wall"], "seat": ["chair", "SOFA"], "rest": "rest"}, TEACHER, None, "map"
    )
    p = probabilities()
    expected = np.stack([p[:, 0] + p[:, 4], p[:, 2] + p[:, 3], p[:, 1]], 1)
    np.testing.assert_allclose(found(LOGITS).double().exp().numpy(), expected, rtol=1e-5)
    assert found.unclaimed == ()


def test_unclaimed_classes_come_last_and_a_class_without_a_teacher_is_left_out_of_the_match():
    found = from_names({"seat": ["sofa"], "wall": ["wall"]}, TEACHER, ("lamp", "seat", "wall"), "map")
    p, out = probabilities(), found(LOGITS).double().exp().numpy()
    assert found.taught == (1, 2)
    np.testing.assert_allclose(out[:, 3], p[:, 1] + p[:, 2] + p[:, 4], rtol=1e-5)
    np.testing.assert_allclose(out[:, 1], p[:, 3], rtol=1e-5)
    assert out[:, 0].max() == 0
    assert found.to_dict(TEACHER)["ignore"] == ["floor, flooring", "Chair", "ceiling"]


def test_equal_names_are_found_whatever_their_case_and_number_of_words():
    found = equal_names(TEACHER, ("chair", "flooring", "lamp"))
    assert found.sources == {"chair": (2,), "flooring": (1,), "lamp": ()}
    with pytest.raises(KdamValueError, match="class_map"):
        equal_names(TEACHER, ("lamp", "tree"))
    assert equal_names(("a", "traffic_light"), ("Traffic  Light",)).sources == {"Traffic  Light": (1,)}
    with pytest.raises(KdamValueError, match="floor and flooring"):
        equal_names(TEACHER, ("floor", "wall", "flooring"))
    # a whole name counts before a word of another one, and the first of one name before the next
    assert equal_names(("screen door, screen", "screen", "Screen"), ("screen",)).sources == {"screen": (1,)}
    assert from_names({"a": ["screen"]}, ("screen", "wall", "Screen"), None, "map").sources == {"a": (0,)}


def test_a_typo_an_overlap_and_a_gap_are_named():
    for words, entries, student in (
        ("did you mean 'Chair'", {"seat": ["chiar"]}, None),
        ("claimed by 'seat' and 'couch'", {"seat": ["sofa"], "couch": ["sofa"]}, None),
        ("did you mean 'seat'", {"seats": ["sofa"]}, ("seat", "wall")),
        ("there can be one", {"a": "rest", "b": "rest"}, None),
        ("no student class", {"seat": "ignore"}, None),
    ):
        with pytest.raises(KdamValueError, match=words):
            from_names(entries, TEACHER, student, "map")


def test_a_teacher_that_knows_one_class_of_the_student_is_refused():
    own = make_task("semseg", ("wall", "floor", "bed"))
    with pytest.raises(KdamValueError, match=r"only wall.*class_map"):
        _with_classes(own, equal_names(("wall", "x"), own.class_names), ("wall", "x"), True)
    task, _ = _with_classes(own, equal_names(("wall", "floor"), own.class_names), ("wall", "floor"), True)
    assert task.taught == (0, 1)


def test_a_file_of_another_form_is_refused_and_words_that_yaml_takes_for_switches_stay_names(tmp_path):
    file = tmp_path / "map.yaml"
    for text in ("", "- a\n- b", "a: {b: c}", "a: []", "a: [", "a: nothing", "a: [b]\na: [c]"):
        file.write_text(text)
        with pytest.raises(KdamValueError, match="class_map"):
            read_class_map(file)
    file.write_text("off: [no]\n12: [yes]")
    assert read_class_map(file) == {"off": ["no"], "12": ["yes"]}


def test_the_match_leaves_out_ignored_pixels_and_unknown_classes():
    """The gradient of the student is zero where an ignored class wins, and for a class that no teacher knows."""
    from dataclasses import replace

    from kdam_hf.distillation import make_method
    from kdam_hf.distillation.methods import Batch

    found = ClassMap({"lamp": (), "seat": (3,), "wall": (0,)}, (1, 2, 4))
    task = replace(make_task("semseg", ("lamp", "seat", "wall")), taught=found.taught)
    teacher = found(LOGITS)
    for inter in ("per_task", "concat"):
        student = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        batch = Batch({"semseg": student}, {"semseg": teacher}, torch.ones(2, 3, 4, dtype=torch.bool), 24)
        torch.stack([*make_method("cs", [task], inter=inter).terms(batch).values()]).sum().backward()
        ignored = (teacher.argmax(1) == 3)[:, None].expand_as(student)
        assert 0 < ignored.float().mean() < 1
        assert student.grad[ignored].abs().max() == 0
        assert student.grad[:, 0].abs().max() == 0
        assert student.grad[:, 1][~ignored[:, 0]].abs().min() > 0
