from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F

from kdam_hf.distillation import METHODS, DistillationCriterion, cwd, dist, inter_task, intra_task, kl
from kdam_hf.errors import KdamValueError

SIZE = (4, 6)


@dataclass(frozen=True)
class Classes:
    name: str = "semseg"

    def distribution_logits(self, prediction):
        return prediction


@dataclass(frozen=True)
class Metres:
    """A positive prediction in metres; the logarithm has no finite gradient at zero or NaN."""

    name: str = "depth"

    def distribution_logits(self, prediction):
        centres = torch.linspace(-1, 2, 6, dtype=prediction.dtype)[:, None, None]
        return -((prediction.log() - centres) ** 2) * 4


@dataclass(frozen=True)
class Products:
    """A matrix product, which autocast would take to bfloat16."""

    name: str = "normals"

    def distribution_logits(self, prediction):
        directions = torch.linspace(-1, 1, 15, dtype=prediction.dtype).reshape(5, 3)
        return torch.einsum("kc,bchw->bkhw", directions, prediction)


TASKS = (Classes(), Metres(), Products())


def predictions(seed, size=SIZE, dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(seed)
    raw = {
        name: torch.randn(2, c, *size, generator=generator) for name, c in (("semseg", 5), ("depth", 1), ("normals", 3))
    }
    raw["depth"] = raw["depth"].exp()
    return {name: x.to(dtype).requires_grad_(grad) for name, x in raw.items()}


def some_valid():
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[1, :, 4:] = False
    return valid


def logits(maps):
    return {task.name: task.distribution_logits(maps[task.name]) for task in TASKS}


@pytest.mark.parametrize("scaled", [True, False])
def test_terms_are_the_weighted_functions(scaled):
    student, teacher, valid, temperature, beta = predictions(0), predictions(1), some_valid(), 3.0, 0.25
    inputs = (logits(student), logits(teacher), valid, temperature)
    square = temperature**2 if scaled else 1
    dist_inter, dist_intra = dist(*inputs)
    expected = {
        "none": {},
        "kl": {"kd_kl": square * kl(*inputs)},
        "dist": {"kd_dist_inter": dist_inter, "kd_dist_intra": dist_intra},
        "cwd": {"kd_cwd": square * cwd(*inputs)},
        "cs": {"kd_inter_task": square * inter_task(*inputs), "kd_intra_task": square * intra_task(*inputs)},
    }
    assert set(expected) == set(METHODS)
    for method, terms in expected.items():
        criterion = DistillationCriterion(TASKS, method, temperature, beta, scale_by_temperature_squared=scaled)
        given = criterion(student, teacher, valid)
        assert list(given) == list(terms)
        for name, term in terms.items():
            assert given[name].item() == pytest.approx(beta * term.item(), rel=1e-6)


def test_defaults_are_the_reported_best_values():
    criterion = DistillationCriterion(TASKS)
    assert (criterion.method, criterion.temperature, criterion.beta, criterion.inter, criterion.intra) == (
        "cs",
        8.0,
        0.5,
        "concat",
        True,
    )


def test_each_match_can_be_switched_off_or_rowed_per_task():
    student, teacher, valid = predictions(0), predictions(1), some_valid()
    assert list(DistillationCriterion(TASKS, inter="off")(student, teacher, valid)) == ["kd_intra_task"]
    assert list(DistillationCriterion(TASKS, intra=False)(student, teacher, valid)) == ["kd_inter_task"]
    term = DistillationCriterion(TASKS, inter="per_task", beta=1.0)(student, teacher, valid)["kd_inter_task"]
    expected = 64 * inter_task(logits(student), logits(teacher), valid, 8.0, "per_task")
    assert term.item() == pytest.approx(expected.item(), rel=1e-6)


def test_none_does_not_look_at_the_teacher():
    assert DistillationCriterion(TASKS, method="none")(predictions(0), {}, some_valid()) == {}


@pytest.mark.parametrize("method", METHODS[1:])
def test_gradient_reaches_the_student_only(method):
    student, teacher = predictions(0, grad=True), predictions(1, grad=True)
    sum(DistillationCriterion(TASKS, method)(student, teacher, some_valid()).values()).backward()
    assert all(x.grad.abs().sum() > 0 for x in student.values())
    assert all(x.grad is None for x in teacher.values())


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("filler", [0.0, -1.0, torch.nan, torch.inf])
def test_padding_has_zero_gradient_through_a_tasks_own_function(method, filler):
    student, teacher, valid = predictions(0), predictions(1), some_valid()
    clean = DistillationCriterion(TASKS, method)(student, teacher, valid)
    for maps in (student, teacher):
        for x in maps.values():
            x.movedim(1, -1)[~valid] = filler
    student = {name: x.requires_grad_() for name, x in student.items()}
    terms = DistillationCriterion(TASKS, method)(student, teacher, valid)
    assert {name: term.item() for name, term in terms.items()} == {name: term.item() for name, term in clean.items()}
    sum(terms.values()).backward()
    for x in student.values():
        assert (x.grad.movedim(1, -1)[~valid] == 0).all()
        assert torch.isfinite(x.grad).all()


@pytest.mark.fault(17)
@pytest.mark.parametrize("method", METHODS[1:])
def test_no_valid_pixel_gives_zero_with_a_gradient_path(method):
    student = predictions(0, grad=True)
    loss = sum(
        DistillationCriterion(TASKS, method)(student, predictions(1), torch.zeros(2, *SIZE, dtype=torch.bool)).values()
    )
    loss.backward()
    assert loss.item() == 0
    assert all((x.grad == 0).all() for x in student.values())


def test_teacher_of_another_size_is_resized_bilinearly_to_the_student():
    student, teacher, valid = predictions(0), predictions(1, size=(7, 9)), some_valid()
    resized = {n: F.interpolate(x, size=SIZE, mode="bilinear", align_corners=False) for n, x in teacher.items()}
    criterion = DistillationCriterion(TASKS)
    ours, expected = criterion(student, teacher, valid), criterion(student, resized, valid)
    assert {name: term.item() for name, term in ours.items()} == {name: term.item() for name, term in expected.items()}


@pytest.mark.parametrize("method", METHODS[1:])
def test_half_precision_and_autocast_are_computed_in_float32(method):
    half = [predictions(seed, dtype=torch.bfloat16) for seed in (0, 1)]
    full = [{name: x.float() for name, x in maps.items()} for maps in half]
    criterion, valid = DistillationCriterion(TASKS, method), some_valid()
    expected = criterion(*full, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = criterion(*half, valid)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == expected[name].item()


@pytest.mark.fault(13)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_teacher_is_refused_with_the_task_named(value):
    teacher = predictions(1)
    teacher["depth"][1, 0, 2, 3] = value
    with pytest.raises(KdamValueError, match=r"teacher.*not finite for depth \(1 pixels\)"):
        DistillationCriterion(TASKS)(predictions(0), teacher, some_valid())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mse"}, "method 'mse' is not known"),
        ({"inter": "rows"}, "inter 'rows' is not known"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"beta": -0.5}, "beta is -0.5"),
        ({"inter": "off", "intra": False}, "no term left"),
        ({"tasks": ()}, "no task"),
    ],
)
def test_unusable_settings_are_refused(settings, message):
    with pytest.raises(KdamValueError, match=message):
        DistillationCriterion(**{"tasks": TASKS, **settings})


@pytest.mark.fault(15, 20)
def test_inputs_that_do_not_fit_are_refused_with_what_was_given():
    student, teacher, valid = predictions(0), predictions(1), some_valid()
    criterion = DistillationCriterion(TASKS)
    with pytest.raises(KdamValueError, match=r"teacher predicts \['depth', 'normals'\], not 'semseg'"):
        criterion(student, {name: teacher[name] for name in ("depth", "normals")}, valid)
    with pytest.raises(KdamValueError, match="student predicts"):
        criterion({"depth": student["depth"]}, teacher, valid)
    with pytest.raises(KdamValueError, match=r"semseg of shape \(2, 4, 4, 6\), student \(2, 5, 4, 6\)"):
        criterion(student, {**teacher, "semseg": teacher["semseg"][:, :4]}, valid)
    with pytest.raises(KdamValueError, match=r"\(2, 5, 4, 6\), valid is \(2, 16, 24\)"):
        criterion(student, teacher, torch.ones(2, 16, 24, dtype=torch.bool))
