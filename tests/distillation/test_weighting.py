"""Weightings of tasks against their formulas, over several batches and epochs, and by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import TASKS, ThreadedProcesses

from kdam_hf.distillation.weighting import make_weighting
from kdam_hf.distributed import LOCAL
from kdam_hf.errors import KdamValueError
from kdam_hf.objective import Objective

PARTS = (TASKS[1], replace(TASKS[3], name="parts"))
OF_PARTS = {"loss_human_parts": 3.0, "kd_kl_human_parts": 1.0, "loss_parts": 0.5, "kd_inter_task_parts": 0.25}
TERMS = OF_PARTS | {"kd_hint": 7.0}
LOSSES = np.array([4.0, 0.75])


def terms(share=1.0):
    return {name: torch.tensor(share * value, dtype=torch.float64) for name, value in TERMS.items()}


def test_uncertainty_is_its_formula_however_many_batches_a_step_has():
    s = np.array([0.7, -1.2])
    for shares in ([1.0], [0.75, 0.25]):
        made = Objective(PARTS, weighting=make_weighting("uncertainty", PARTS))
        made.weighting.log_variances.data.copy_(torch.from_numpy(s))
        loss = sum(made.total(terms(share), 1 / len(shares)) for share in shares)
        loss.backward()
        assert loss.item() == pytest.approx((np.exp(-s) * LOSSES + s / 2).sum() + 7, rel=1e-6)
        assert made.weighting.log_variances.grad.numpy() == pytest.approx(0.5 - np.exp(-s) * LOSSES, rel=1e-6)


def test_dwa_compares_the_last_two_epochs_and_begins_with_equal_weights():
    weighting, epochs = make_weighting("dwa", PARTS), [[(1.0, 4.0), (3.0, 4.0)], [(1.0, 8.0), (1.0, 0.0)], [(9.0, 9.0)]]
    seen = []
    for epoch, steps in enumerate(epochs):
        for _ in range(2):  # as where training goes on in the middle of an epoch
            weighting.begin_epoch(epoch)
            seen.append(weighting.weights().numpy())
        for losses in steps:
            weighting.end_step(torch.tensor(losses), LOCAL)
    ratio = np.exp(np.array([2 / 4, 8 / 8]) / 2)
    np.testing.assert_allclose(seen, [[1, 1]] * 4 + [2 * ratio / ratio.sum()] * 2, rtol=1e-6)
    assert weighting(terms()).item() == pytest.approx(seen[-1] @ LOSSES + 7, rel=1e-6)


def test_a_mistyped_name_is_told():
    with pytest.raises(KdamValueError, match="'uncertainty'"):
        make_weighting("uncertanty", PARTS)


def test_dwa_weighs_by_the_losses_of_all_processes_and_forgets_another_training():
    processes, ratio = ThreadedProcesses(2), np.exp(np.array([2 / 4, 8 / 8]) / 2)

    def work(rank):
        weighting = make_weighting("dwa", PARTS)
        for epoch, losses in enumerate([(4.0, 8.0), (2.0, 8.0)]):
            weighting.begin_epoch(epoch)
            weighting.end_step(torch.tensor(losses) * (0.5, 1.5)[rank] + torch.tensor([rank - 0.5, 0.0]), processes)
        weighting.begin_epoch(2)
        seen = weighting.weights().numpy()
        weighting.begin_epoch(0)
        return seen, weighting.weights().numpy()

    for seen, again in processes.run(work):
        np.testing.assert_allclose(seen, 2 * ratio / ratio.sum(), rtol=1e-6)
        np.testing.assert_array_equal(again, [1, 1])
