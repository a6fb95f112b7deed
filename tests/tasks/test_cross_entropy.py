"""One compiled pass against torch in float64."""

import pytest
import torch
from torch.nn import functional as F

from kdam_hf.tasks.cross_entropy import cross_entropy_sum

IGNORE = 255


def problem(size=(13, 8), classes=7, spread=5.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, classes, *size, generator=generator)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    target.view(-1)[::5] = IGNORE
    return logits.requires_grad_(), target, torch.rand(classes, generator=generator) + 0.1


@pytest.mark.parametrize("spread", [0.1, 5.0, 300.0])
@pytest.mark.parametrize(("size", "classes"), [((1, 1), 2), ((8, 8), 2), ((13, 8), 7), ((25, 41), 40)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_value_and_gradient_are_those_of_torch_in_float64(size, classes, spread, channels_last):
    logits, target, weights = problem(size, classes, spread)
    if channels_last:
        logits = logits.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    truth = 3 * F.cross_entropy(exact, target, weights.double(), ignore_index=IGNORE, reduction="sum")
    truth.backward()
    loss = 3 * cross_entropy_sum(logits, target, weights, IGNORE)
    loss.backward()
    torch.testing.assert_close(loss.double(), truth, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


def test_the_number_of_threads_changes_no_more_than_rounding():
    values = []
    for threads in (1, 2):
        logits, target, weights = problem((77, 13))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            values.append(cross_entropy_sum(logits, target, weights, IGNORE))
        finally:
            torch.set_num_threads(before)
    torch.testing.assert_close(*values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_shows_in_the_loss_and_an_ignored_one_does_not(value):
    for column, finite in ((0, True), (1, False)):
        logits, target, weights = problem()
        with torch.no_grad():
            logits[0, 3, 0, column] = value
        loss = cross_entropy_sum(logits, target, weights, IGNORE)
        assert loss.isfinite().item() is finite
        loss.backward()
        assert logits.grad.movedim(1, -1)[target == IGNORE].eq(0).all()


def test_all_ignored_is_zero_with_a_gradient_path():
    logits, target, weights = problem()
    loss = cross_entropy_sum(logits, torch.full_like(target, IGNORE), weights, IGNORE)
    loss.backward()
    assert loss == 0
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("label", [7, -1])
def test_a_target_that_is_no_class_is_refused(label):
    logits, target, weights = problem()
    target[0, 0, 3] = label
    with pytest.raises(IndexError, match=r"0\.\.6"):
        cross_entropy_sum(logits, target, weights, IGNORE)
