"""Each method against plain loops in float64, and the contract that all of them keep."""

import numpy as np
import pytest
import torch
from cases import REFERENCES, TASKS, Case
from scipy.special import softmax
from torch.nn import functional as F

from kdam_hf.distillation import METHODS, make_method
from kdam_hf.errors import KdamValueError

T = 3.0
every_method = pytest.mark.parametrize("method", METHODS)
VALID = Case().mask[:, ::4, ::4]


def terms_of(method, student, teacher, valid=VALID, **settings):
    method = make_method(method, TASKS, **({"temperature": T} | settings))
    return method.terms(student, teacher, valid, float(valid.sum().clamp_min(1)))


def rows_of(task, prediction, valid):
    """Distribution logits over T of the valid pixels, (N, K), one pixel after the other."""
    pixels = [prediction[b, :, y, x] for b, y, x in np.argwhere(valid.numpy())]
    return np.stack([task.distribution_logits(pixel.double()[None])[0].numpy() for pixel in pixels]) / T


def over(divergence, p, q):
    return np.mean([divergence(a, b) for a, b in zip(p, q, strict=True)])


def reference(student, teacher):
    """Every term of every method, unweighted."""
    cs, kl, pearson = (REFERENCES[name] for name in ("cauchy_schwarz", "kullback_leibler", "pearson_distance"))
    z, t = ([rows_of(task, maps[task.name], VALID) for task in TASKS] for maps in (student, teacher))
    p, q = ([softmax(x, 1) for x in logits] for logits in (z, t))
    image = np.argwhere(VALID.numpy())[:, 0]
    pairs = list(zip(p, q, strict=True))
    cwd = [
        np.mean([over(kl, softmax(a[image == b], 0).T, softmax(c[image == b], 0).T) for b in np.unique(image)])
        for a, c in zip(z, t, strict=True)
    ]
    return {
        "cs": {
            "kd_inter_task": over(cs, np.concatenate(p, 1), np.concatenate(q, 1)),
            "kd_intra_task": np.mean([over(cs, a.T, b.T) for a, b in pairs]),
        },
        "cs per_task": {"kd_inter_task": np.mean([over(cs, a, b) for a, b in pairs])},
        "kl": {"kd_kl": np.mean([over(kl, a, b) for a, b in pairs])},
        "dist": {
            "kd_dist_inter": np.mean([over(pearson, a, b) for a, b in pairs]),
            "kd_dist_intra": np.mean([over(pearson, a.T, b.T) for a, b in pairs]),
        },
        "cwd": {"kd_cwd": np.mean(cwd)},
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_terms_agree_with_plain_loops_and_carry_their_weight(dtype, tolerance):
    case = Case()
    student, teacher = ({name: x.to(dtype) for name, x in maps.items()} for maps in (case.student, case.teacher))
    for key, expected in reference(case.student, case.teacher).items():
        method, *mode = key.split()
        settings = {"inter": mode[0], "intra": False} if mode else {}
        for squared in (True, False):
            found = terms_of(method, student, teacher, beta=0.25, scale_by_temperature_squared=squared, **settings)
            weight = 0.25 * (T**2 if squared and method != "dist" else 1)
            assert list(found) == list(expected)
            for name, value in expected.items():
                assert found[name].item() == pytest.approx(weight * value, rel=tolerance, abs=tolerance), (key, name)


def test_the_paper_s_best_values_are_the_defaults_of_cs_and_each_match_can_be_left_out():
    expected = {"beta": 0.5, "temperature": 8.0, "inter": "concat", "intra": True, "divergence": "cauchy_schwarz"}
    assert expected.items() <= make_method("cs", TASKS).settings().items()
    case = Case()
    assert list(terms_of("cs", case.student, case.teacher, inter="off")) == ["kd_intra_task"]
    assert list(terms_of("cs", case.student, case.teacher, intra=False)) == ["kd_inter_task"]


@every_method
def test_terms_vanish_where_student_and_teacher_agree_and_shifted_logits_change_nothing(method):
    case = Case(tasks=TASKS)
    assert all(abs(term.item()) < 1e-5 for term in terms_of(method, case.student, case.student).values())
    expected = terms_of(method, case.student, case.teacher)
    moved = case.student | {name: case.student[name] + 7 for name in ("semseg", "human_parts", "saliency")}
    for name, term in terms_of(method, moved, case.teacher).items():
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-9)


@every_method
def test_the_gradient_reaches_the_student_only_and_is_that_of_finite_differences(method):
    tasks = TASKS[:1] + TASKS[3:4]
    case = Case(tasks=tasks, batch=2, size=(8, 8))
    teacher = {name: x.requires_grad_() for name, x in case.teacher.items()}
    valid = torch.tensor([[[True, True], [True, False]]] * 2)
    made = make_method(method, tasks, temperature=T)

    def total(*predictions):
        student = dict(zip(case.student, predictions, strict=True))
        return sum(made.terms(student, teacher, valid, 6.0).values())

    inputs = tuple(x.requires_grad_() for x in case.student.values())
    assert torch.autograd.gradcheck(total, inputs, atol=1e-4)
    assert all(x.grad is None for x in teacher.values())


@pytest.mark.fault(18)
@every_method
@pytest.mark.parametrize("filler", [0.0, torch.nan, torch.inf])
def test_padding_has_exactly_zero_gradient_whatever_stands_there(method, filler):
    case = Case()
    clean = terms_of(method, case.student, case.teacher)
    for maps in (case.student, case.teacher):
        for x in maps.values():
            x.movedim(1, -1)[~VALID] = filler
    student = {name: x.requires_grad_() for name, x in case.student.items()}
    found = terms_of(method, student, case.teacher)
    assert found == clean
    sum(found.values()).backward()
    for x in student.values():
        assert (x.grad.movedim(1, -1)[~VALID] == 0).all()
        assert torch.isfinite(x.grad).all()


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_finite_at_extreme_logits(method, dtype):
    case = Case()
    teacher = {name: (1e4 * x.sign()).to(dtype) for name, x in case.teacher.items()}
    student = {name: (-x if name != "depth" else x / 9).requires_grad_() for name, x in teacher.items()}
    loss = sum(terms_of(method, student, teacher, temperature=1.0).values())
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(x.grad).all() for x in student.values())


@every_method
def test_half_precision_and_autocast_are_computed_in_float32(method):
    case = Case()
    half = [{name: x.bfloat16() for name, x in maps.items()} for maps in (case.student, case.teacher)]
    expected = terms_of(method, *({name: x.float() for name, x in maps.items()} for maps in half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = terms_of(method, *half)
    assert found == expected


@every_method
def test_a_teacher_of_another_size_is_resized_bilinearly(method):
    case, larger = Case(), Case(size=(61, 70))
    resized = {name: F.interpolate(x, VALID.shape[1:], mode="bilinear") for name, x in larger.teacher.items()}
    found, expected = (terms_of(method, case.student, teacher) for teacher in (larger.teacher, resized))
    assert found == expected


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mse", {}),
        ("cs", {"inter": "rows"}),
        ("cs", {"divergence": "euclid"}),
        ("cs", {"inter": "off", "intra": False}),
        ("kl", {"temperature": 0.0}),
        ("kl", {"temperature": float("nan")}),
        ("cwd", {"beta": -0.5}),
    ],
    ids=str,
)
def test_unusable_settings_are_refused(name, settings):
    with pytest.raises(KdamValueError):
        make_method(name, TASKS, **settings)
    with pytest.raises(KdamValueError):
        make_method("cs", ())


@pytest.mark.fault(15, 20)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda student, teacher: (student, {name: teacher[name] for name in ("depth", "normals")}, VALID),
        lambda student, teacher: ({"depth": student["depth"]}, teacher, VALID),
        lambda student, teacher: (student, teacher | {"semseg": teacher["semseg"][:, :4]}, VALID),
        lambda student, teacher: (student, teacher, torch.ones(3, 29, 38, dtype=torch.bool)),
        lambda student, teacher: (student, teacher, VALID.float()),
    ],
)
def test_predictions_that_do_not_fit_are_refused(spoil):
    case = Case()
    with pytest.raises(KdamValueError):
        terms_of("cs", *spoil(case.student, case.teacher))
