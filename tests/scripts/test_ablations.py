"""Methods that differ from `cs` in one choice do differ in that choice, and in nothing else."""

from math import log1p
from unittest import mock

import pytest
import torch
from cases import TASKS
from command_kit import load
from torch.nn import functional as F

from kdam_hf.distillation import METHODS, Batch, make_method

NAMES = ("huber", "gaussian", "direct", "equal_columns")
SIZE = (6, 8)
VALID = torch.ones(1, *SIZE, dtype=torch.bool)


@pytest.fixture(scope="module", autouse=True)
def methods():
    with mock.patch.dict(METHODS):
        load("ablations.py")
        yield
    assert not set(NAMES) & set(METHODS)


def maps(seed):
    generator = torch.Generator().manual_seed(seed)
    found = {
        task.name: torch.randn(1, task.channels, *SIZE, generator=generator, dtype=torch.float64) for task in TASKS
    }
    found["depth"] = found["depth"].abs() + 0.5
    found["normals"] = F.normalize(found["normals"], dim=1)
    return found


def terms(name, student, teacher, **settings):
    return make_method(name, TASKS, beta=1.0, **settings).terms(Batch(student, teacher, VALID, float(VALID.sum())))


@pytest.mark.parametrize("name", NAMES)
def test_equal_maps_have_no_gradient_and_others_a_finite_one_for_every_task(name):
    for other, moves in ((0, False), (1, True)):
        student = {task: x.requires_grad_() for task, x in maps(0).items()}
        torch.stack([*terms(name, student, maps(other)).values()]).sum().backward()
        for task, x in student.items():
            assert x.grad.isfinite().all()
            assert (x.grad.abs().max() > 1e-6) == moves, task


@pytest.mark.parametrize("name", NAMES)
def test_terms_of_other_tasks_are_those_of_cs(name):
    student, teacher = maps(0), maps(1)
    found, expected = (terms(each, student, teacher, inter="per_task") for each in (name, "cs"))
    touched = {"direct": ("depth", "normals"), "equal_columns": ()}.get(name, ("depth",))
    for key in expected:
        if name == "equal_columns" and "intra" in key:
            assert found[key] != expected[key]
        elif not key.endswith(touched or ("?",)):
            torch.testing.assert_close(found[key], expected[key])
        elif key in found:
            assert found[key] != expected[key]


@pytest.mark.parametrize(("temperature", "of_rows"), [(1.0, 1.0), (4.0, 4.0), (4.0, 1.0)])
def test_gaussian_bins_have_the_divergence_of_two_gaussian_densities(temperature, of_rows):
    x, y = 8.0, 12.0
    student, teacher = ({**maps(0), "depth": torch.full((1, 1, *SIZE), d, dtype=torch.float64)} for d in (x, y))
    settings = {"inter": "per_task", "temperature": temperature, "inter_temperature": of_rows}
    found = terms("gaussian", student, teacher, **settings)["kd_inter_task_depth"]
    delta = (log1p(x) - log1p(y)) * 4  # in widths of a bin
    expected = delta**2 / 2  # T of the factor makes up for that of the width
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0)


def test_tasks_and_matches_may_be_left_out():
    depth = next(task for task in TASKS if task.name == "depth")
    alone = make_method("direct", [depth]).terms(Batch(maps(0), maps(1), VALID, float(VALID.sum())))
    assert list(alone) == ["kd_direct_depth"]
    found, expected = (terms(name, maps(0), maps(1), intra=False) for name in ("equal_columns", "cs"))
    assert found.keys() == expected.keys()


def test_direct_terms_are_means_over_pixels_of_distances():
    student, teacher = maps(0), maps(1)
    found = terms("direct", student, teacher)
    depth = ((1 + student["depth"]).log() - (1 + teacher["depth"]).log()).abs().mean() * 4
    normals = 16 * (1 - (student["normals"] * teacher["normals"]).sum(1)).mean()
    torch.testing.assert_close(found["kd_direct_depth"], depth)
    torch.testing.assert_close(found["kd_direct_normals"], normals)
    assert "kd_intra_task_depth" not in found
