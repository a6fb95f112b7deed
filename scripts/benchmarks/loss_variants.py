"""One semseg problem on random stride-4 logits, and every way to compute its loss.

Unusual here: the teacher's logits are the student's plus noise, as late in training; a tenth of the labels is missing.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.plain_losses import IGNORE_INDEX, MATCHES, semseg_loss
from kdam_hf.distillation.kernels import BACKENDS, Match, dense_loss
from kdam_hf.tasks import Task, make_task

Loss = Callable[[Tensor], Tensor]
"""Student's logits (B, C, h, w) -> scalar."""
Settings = Mapping[str, Any]
"""`batch_size`, `classes`, `height`, `width`, `temperature`, `beta`, `seed`, `device`."""

NAIVE, DIST, CROSS_ENTROPY = "naive CS", "DIST", "cross-entropy alone"
OURS, OUR_CROSS_ENTROPY = "ours, {}", "ours, cross-entropy alone"


class Problem(NamedTuple):
    """Logits (B, C, h, w) of both, float32; label (B, H, W) int64; mask (B, H, W) bool, all true."""

    task: Task
    student: Tensor
    teacher: Tensor
    label: Tensor
    mask: Tensor


def make_problem(settings: Settings) -> Problem:
    """The same numbers for the same settings, on any device."""
    generator = torch.Generator().manual_seed(settings["seed"])
    batch, classes, height, width = (settings[name] for name in ("batch_size", "classes", "height", "width"))
    small = batch, classes, height // 4, width // 4
    student = 3 * torch.randn(small, generator=generator)
    teacher = student + torch.randn(small, generator=generator)
    label = torch.randint(0, classes, (batch, height, width), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.1] = IGNORE_INDEX
    mask = torch.ones(label.shape, dtype=torch.bool)
    task = make_task("semseg", [f"class {k}" for k in range(classes)])
    return Problem(task, *(x.to(settings["device"]) for x in (student, teacher, label, mask)))


def our_loss(z: Tensor, problem: Problem, settings: Settings, matched: bool, backend: str) -> Tensor:
    """`dense_loss`, with or without the match; the teacher in the precision of the student."""
    name, temperature = problem.task.name, settings["temperature"]
    match = Match({name: problem.teacher.to(z)}, temperature, weight(settings), "concat", True) if matched else None
    labels = {name: problem.label}
    return dense_loss((problem.task,), {name: z}, labels, problem.mask, match, backend=backend).total


def weight(settings: Settings) -> float:
    """Of the match: beta T^2."""
    return settings["beta"] * settings["temperature"] ** 2


def variants(problem: Problem, settings: Settings) -> dict[str, Loss]:
    """Every way that runs on the device, by name."""
    plain = partial(
        semseg_loss,
        t_BChw=problem.teacher,
        label_BHW=problem.label,
        temperature=settings["temperature"],
        weight=weight(settings),
    )
    ours = partial(our_loss, problem=problem, settings=settings)
    return {
        **{name: partial(plain, match=match) for name, match in MATCHES.items()},
        CROSS_ENTROPY: partial(plain, match=None),
        **{OURS.format(name): partial(ours, matched=True, backend=name) for name in backends(settings["device"])},
        OUR_CROSS_ENTROPY: partial(ours, matched=False, backend="banded"),
    }


def backends(device: str) -> list[str]:
    """Backends that run here; the fastest, which "auto" takes, comes last."""
    elsewhere = {"cpu": "triton", "cuda": "compiled"}[device]
    return [name for name in BACKENDS if name not in ("auto", elsewhere)]


def differentiate(loss: Loss, student: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient, (B, C, h, w)."""
    leaf = student.detach().requires_grad_()
    value = loss(leaf)
    value.backward()
    return value.detach(), leaf.grad
