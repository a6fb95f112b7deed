"""How far the match of normals reaches: rows pull from any angle, columns from those that the width of a direction spans."""

import math

import pytest
import torch
from torch.nn import functional as F

from kdam_hf.distillation.divergences import cauchy_schwarz
from kdam_hf.distillation.matching import intra_task
from kdam_hf.tasks import Normals

T = 2


def vectors(count, towards_camera):
    """Unit vectors and, for each, one at a right angle to it, (N, 3) float64."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    first = F.normalize(first + torch.tensor([0, 0, towards_camera]), dim=1)
    return first, F.normalize(torch.linalg.cross(first, second), dim=1)


def pulls(task, teacher, aside, pixels, degrees):
    """What a column match adds to the loss per radian, for one pixel at a time that is turned from its teacher; (P,)."""
    found = []
    for pixel in pixels:
        angle = torch.zeros(len(teacher), 1, dtype=torch.float64)
        angle[pixel] = math.radians(degrees)
        angle.requires_grad_()
        student = teacher * angle.cos() + aside * angle.sin()
        log_p, log_q = ((task.distribution_logits(n) / T).log_softmax(1) for n in (student, teacher))
        term = len(teacher) * T * intra_task(log_p, log_q, cauchy_schwarz, task.column_weights)
        found.append(torch.autograd.grad(term, angle)[0][pixel, 0])
    return torch.stack(found)


@pytest.mark.parametrize("degrees", [10, 45, 90, 135, 170, 180])
def test_a_row_has_the_divergence_of_two_von_mises_fisher_densities(degrees):
    kappa, half = Normals().kappa / T, math.radians(degrees) / 2
    teacher, aside = vectors(300, 0.0)
    angle = torch.full((300, 1), 2 * half, dtype=torch.float64, requires_grad=True)
    student = teacher * angle.cos() + aside * angle.sin()
    log_p, log_q = ((Normals().distribution_logits(n) / T).log_softmax(1) for n in (student, teacher))
    found = cauchy_schwarz(log_p, log_q, 1)
    x, whole = 2 * kappa * max(math.cos(half), 1e-6), 2 * kappa
    expected = 2 * (math.log(math.sinh(whole) / whole) - math.log(math.sinh(x) / x))
    assert found.mean().item() == pytest.approx(expected, rel=0.02)
    slope = whole * math.sin(half) * (1 / math.tanh(x) - 1 / x)
    assert torch.autograd.grad(found.mean(), angle)[0].sum().item() == pytest.approx(slope, rel=0.02, abs=0.02)
    assert slope <= whole


def test_columns_pull_a_pixel_back_from_half_a_right_angle_and_wider_directions_from_further_away():
    teacher, aside = vectors(1000, 1.0)
    pixels = range(0, 200, 20)
    near, far, opposite = (pulls(Normals(), teacher, aside, pixels, degrees) for degrees in (45, 90, 180))
    assert near.min() > 3
    assert 0 < far.mean() < 0.2 * near.mean()
    assert opposite.abs().max() < 0.3 * near.min()
    assert pulls(Normals(kappa=4.0), teacher, aside, pixels, 90).min() > 1.5


def test_directions_narrower_than_the_angle_between_them_pull_at_random():
    teacher, aside = vectors(1000, 1.0)
    narrow = pulls(Normals(kappa=64.0), teacher, aside, range(0, 200, 20), 45)
    assert narrow.min() < -5 < 5 < narrow.max()
