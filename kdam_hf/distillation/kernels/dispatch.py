"""Checks the inputs once and hands them to a backend."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from kdam_hf.distillation.kernels.banded import banded
from kdam_hf.distillation.kernels.objective import STRIDE, DenseLoss, DenseTask, Match, Problem
from kdam_hf.distillation.kernels.reference import reference
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError

_BACKENDS: dict[str, Callable[[Problem, Mapping[str, Tensor]], DenseLoss]] = {"reference": reference, "banded": banded}
for _name, _module in (("compiled", "compiled"), ("triton", "triton_rows")):
    # numba and triton are extras
    with suppress(ImportError):
        _BACKENDS[_name] = partial(banded, engine=import_module(f"kdam_hf.distillation.kernels.{_module}"))
BACKENDS = ("auto", *_BACKENDS)
"""What is there: "auto", "reference", "banded", "compiled" with numba, "triton" with Triton."""


def dense_loss(
    tasks: Sequence[DenseTask],
    student: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    mask: Tensor,
    match: Match | None = None,
    processes: Processes = LOCAL,
    backend: str = "auto",
) -> DenseLoss:
    """Weighted supervised losses of all tasks, and the CS match, at full resolution.

    Args:
        tasks: in canonical order.
        student: task name -> predictions (B, C, ceil(H/4), ceil(W/4)), floating; they are upsampled bilinearly.
        labels: task name -> label (B, ..., H, W) as the task's `to_tensor` makes it.
        mask: (B, H, W) bool, False on padding.
        match: with the teacher, at full resolution; None for the supervised losses alone.
        processes: those that share the batch; averaged over them, the value is that of the global batch.
        backend: one of `BACKENDS`; "auto" takes the fastest one that is there.

    Returns:
        The loss, float32 (float64 for float64 predictions), and its parts: `loss_<task>`, `kd_inter_task`, `kd_intra_task`.

    Raises:
        KdamValueError: an unknown backend, a missing task, or shapes that do not fit.
    """
    if backend not in BACKENDS:
        raise KdamValueError(
            f"backend {backend!r} is not known or not installed: choose one of {', '.join(BACKENDS)}; "
            "compiled needs numba (pip install 'kdam-hf[fast]'), triton needs Triton"
        )
    if mask.ndim != 3 or not tasks:
        raise KdamValueError(f"mask is {tuple(mask.shape)} for {len(tasks)} tasks: expected (B, H, W) and some task")
    size = [-(-side // STRIDE) for side in mask.shape[1:]]
    for task in tasks:
        for who, maps in (("student", student), ("teacher", match.teacher if match else student)):
            x = maps.get(task.name)
            if x is None or x.ndim != 4 or x.shape[0] != mask.shape[0] or list(x.shape[2:]) != size:
                raise KdamValueError(
                    f"{task.name}: the {who}'s prediction is {None if x is None else tuple(x.shape)}; expected "
                    f"({mask.shape[0]}, C, {size[0]}, {size[1]}) for a mask of {tuple(mask.shape)}"
                )
        if match and match.teacher[task.name].shape[1] != student[task.name].shape[1]:
            raise KdamValueError(
                f"{task.name}: student predicts {student[task.name].shape[1]} channels, teacher "
                f"{match.teacher[task.name].shape[1]}; build both models with the same classes"
            )
    problem = Problem(tasks, labels, mask, match, processes)
    return _BACKENDS[_fastest(problem, student) if backend == "auto" else backend](problem, student)


def _fastest(problem: Problem, student: Mapping[str, Tensor]) -> str:
    """The kernels take single precision or less; on the CPU finite logits alone (see `compiled`)."""
    maps = [*student.values(), *(problem.match.teacher.values() if problem.match is not None else [])]
    if problem.match is None or any(x.dtype == torch.float64 for x in maps):
        return "banded"
    if problem.mask.is_cuda:
        return "triton" if "triton" in _BACKENDS else "banded"
    return "compiled" if "compiled" in _BACKENDS and all(bool(x.isfinite().all()) for x in maps) else "banded"
