"""The objective in the plainest form: full-resolution maps and autograd. The oracle of the other backends."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.distillation.cauchy_schwarz import at_least_float32
from kdam_hf.distillation.kernels.objective import STRIDE, DenseLoss, Match, Problem
from kdam_hf.distillation.matching import inter_task, intra_task


def reference(problem: Problem, student: Mapping[str, Tensor]) -> DenseLoss:
    """See `dense_loss`."""
    size = problem.mask.shape[1:]
    full = {task.name: _upsampled(student[task.name], size) for task in problem.tasks}
    terms = {}
    for task in problem.tasks:
        label = problem.labels[task.name]
        weights = task.loss_weights(label, problem.mask, problem.processes)
        terms[f"loss_{task.name}"] = task.loss_weight * task.loss_share(full[task.name], label, problem.mask, weights)
    total = torch.stack(list(terms.values())).sum()
    found = {name: term.detach() for name, term in terms.items()}
    match = problem.match
    if match is None:
        return DenseLoss(total, found)
    taught = {task.name: _upsampled(match.teacher[task.name], size) for task in problem.tasks}
    matched = reference_match(problem, full, replace(match, teacher=taught))
    return DenseLoss(total + matched.total, found | matched.terms)


def reference_match(problem: Problem, student: Mapping[str, Tensor], match: Match) -> DenseLoss:
    """See `match_loss`."""
    padding = ~problem.mask[:, None]
    # a logarithm or norm inside a task's rule turns the zero gradient of a padded NaN into NaN
    z, t = (
        {task.name: task.distribution_logits(maps[task.name].masked_fill(padding, 1)) for task in problem.tasks}
        for maps in (student, match.teacher)
    )
    terms = {}
    if match.inter != "off":
        inter = inter_task(z, t, problem.mask, match.temperature, match.inter, problem.processes)
        terms["kd_inter_task"] = match.weight * inter
    if match.intra:
        terms["kd_intra_task"] = match.weight * intra_task(z, t, problem.mask, match.temperature, problem.processes)
    return DenseLoss(torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()})


def _upsampled(x_BChw: Tensor, size: torch.Size) -> Tensor:
    full = F.interpolate(at_least_float32(x_BChw), scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
