"""Checks the inputs once and hands them to a backend."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kdam_hf.distillation.kernels import compiled, rows
from kdam_hf.distillation.kernels.banded import banded, matched
from kdam_hf.distillation.kernels.objective import STRIDE, DenseLoss, DenseTask, Match, Problem
from kdam_hf.distillation.kernels.reference import reference, reference_match
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.jit import HAS_NUMBA

_ENGINES: dict[str, Any] = {"banded": rows}
# numba and triton are extras
if HAS_NUMBA:
    _ENGINES["compiled"] = compiled
with suppress(ImportError):
    _ENGINES["triton"] = import_module("kdam_hf.distillation.kernels.triton_rows")
BACKENDS = ("auto", "reference", *_ENGINES)
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
    name = _chosen(backend, student, match)
    return reference(problem, student) if name == "reference" else banded(problem, student, _ENGINES[name])


def match_loss(
    tasks: Sequence[DenseTask],
    student: Mapping[str, Tensor],
    match: Match,
    valid: Tensor,
    processes: Processes = LOCAL,
    backend: str = "auto",
) -> DenseLoss:
    """The CS match alone, on the maps as they are.

    Args:
        tasks: in canonical order.
        student: task name -> predictions (B, C, h, w), floating.
        match: with the teacher, of the same sizes.
        valid: (B, h, w) bool, False on padding.
        processes: those that share the batch; averaged over them, the value is that of the global batch.
        backend: one of `BACKENDS`.

    Returns:
        The loss and its parts `kd_inter_task` and `kd_intra_task`, types as of `dense_loss`.

    Raises:
        KdamValueError: an unknown backend. Tasks and shapes are those that `DistillationCriterion.match` has checked.
    """
    problem = Problem(tasks, {}, valid, match, processes)
    name = _chosen(backend, student, match)
    if name == "reference":
        return reference_match(problem, student, match)
    return matched(problem, student, match, _ENGINES[name])


def _chosen(backend: str, student: Mapping[str, Tensor], match: Match | None) -> str:
    """The kernels take single precision or less; on the CPU finite logits alone (see `compiled`)."""
    if backend not in BACKENDS:
        raise KdamValueError(
            f"backend {backend!r} is not known or not installed: choose one of {', '.join(BACKENDS)}; "
            "compiled needs numba (pip install 'kdam-hf[fast]'), triton needs Triton"
        )
    if backend != "auto":
        return backend
    maps = [*student.values(), *(match.teacher.values() if match is not None else [])]
    if match is None or any(x.dtype == torch.float64 for x in maps):
        return "banded"
    if maps[0].device.type != "cpu":
        return "banded"  # the Triton kernels have never been compiled
    return "compiled" if "compiled" in _ENGINES and all(bool(x.isfinite().all()) for x in maps) else "banded"
