"""What keeps the match sound: properties of every task's distribution, over random and adversarial maps."""

from itertools import product

import pytest
import torch
from cases import TASKS
from torch.nn import functional as F

from kdam_hf.distillation import Batch, make_method

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
SIZE = (6, 8)
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
# Per match, the largest L1 norm of its gradient over all pixels at beta 1 and T 1. That of the supervised loss of a pixel
# that is wrong is 2 for a softmax, 1 for a metre, up to 10 for a normal and its weight for an edge.
LARGEST = {"semseg": 4.0, "human_parts": 4.0, "saliency": 4.0, "edge": 4.0, "depth": 15.0, "normals": 128.0}


def maps_of(task):
    """Predictions (1, C, h, w) of many kinds, by name."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, task.channels, *SIZE, generator=generator)
    maps = {f"noise {spread}": spread * noise for spread in (0.1, 3.0, 1e3)}
    maps |= {"zero": torch.zeros_like(noise), "far": torch.full_like(noise, 300.0), "opposite": -3 * noise}
    one_pixel = torch.zeros_like(noise)
    one_pixel[..., 2, 3] = 50.0
    maps["one pixel"] = one_pixel
    if task.name == "depth":
        maps = {name: x.abs() + 0.1 for name, x in maps.items()}
    if task.name == "normals":
        maps = {name: F.normalize(x + torch.tensor([0, 0, 1e-3])[:, None, None], dim=1) for name, x in maps.items()}
    return maps


def gradients(task, student, teacher, temperature=1.0, others=()):
    """Term -> gradient with respect to the student's map, at beta 1; `others` stand beside the task, with its kinds of maps."""
    student = student.clone().requires_grad_()
    method = make_method("cs", [task, *others], beta=1.0, temperature=temperature, inter_temperature=temperature)
    valid = torch.ones(1, *SIZE, dtype=torch.bool)
    sides = {task.name: student}, {task.name: teacher}
    for other in others:
        for side, kind in zip(sides, ("noise 3.0", "opposite"), strict=True):
            side[other.name] = maps_of(other)[kind]
    terms = method.terms(Batch(*sides, valid, float(valid.sum())))
    own = {name: term for name, term in terms.items() if name.endswith(("kd_inter_task", task.name))}
    return {name: torch.autograd.grad(term, student, retain_graph=True)[0] for name, term in own.items()}


@every_task
@pytest.mark.parametrize("alone", [True, False])
def test_the_influence_of_any_error_is_bounded_alone_and_beside_other_tasks(task, alone):
    maps, others = maps_of(task), [other for other in TASKS if other is not task and not alone]
    for temperature, student, teacher in product(TEMPERATURES, maps.values(), maps.values()):
        limit = LARGEST[task.name] * temperature ** (task.temperature_power - 1)
        limits = {"kd_inter_task": limit if alone else LARGEST[task.name] * temperature}
        for name, gradient in gradients(task, student, teacher, temperature, others).items():
            assert gradient.abs().sum() <= limits.get(name, 2 * limit), name


@every_task
def test_a_column_that_the_teacher_does_not_occupy_moves_nothing(task):
    mass = torch.tensor([0.0, 1e-12, 40.0])
    weights = task.column_weights(mass)
    assert weights[0] == 0
    assert weights[1] < 1e-10 * weights[2]


@every_task
def test_equal_maps_have_no_gradient_and_constant_columns_no_intra_task_one(task):
    maps = maps_of(task)
    for prediction in maps.values():
        assert all(g.abs().max() < 1e-4 for g in gradients(task, prediction, prediction).values())
    student, teacher = (maps[name][..., :1, :1].expand(maps[name].shape) for name in ("noise 0.1", "noise 3.0"))
    found = gradients(task, student, teacher)
    assert found[f"kd_intra_task_{task.name}"].abs().max() < 1e-4
    assert found["kd_inter_task"].abs().max() > 1e-4
