"""The two matches of KDAM: inter-task (one row per pixel) and intra-task (one column per task and class).

Unusual here: valid pixels are gathered before anything is computed, so padding has exactly zero gradient and NaN in it
does no harm; and both matches are exact over the global batch of a distributed run, because the divergence of a column
needs only three sums, which the processes add up.

Shapes: B batch, C channels of one task, H W map size, N valid pixels of this process's batch, K channels of all tasks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdam_hf.distillation.cauchy_schwarz import at_least_float32, cauchy_schwarz_divergence, divergence_of_log_sums
from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError

INTER_MODES = ("concat", "per_task")


def inter_task(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    valid_BHW: Tensor,
    temperature: float,
    mode: str = "concat",
    processes: Processes = LOCAL,
) -> Tensor:
    """Mean over valid pixels of the CS divergence between the student's and the teacher's row.

    A row is [log P_1(i, :), ..., log P_K(i, :)], P_t = softmax of task t's logits over the temperature.

    Args:
        student: distribution logits, task name -> (B, C_t, H, W) floating, in canonical task order.
        teacher: the same names and shapes.
        valid_BHW: (B, H, W) bool, False on padding.
        temperature: softmax temperature, > 0.
        mode: "concat" matches one row of all tasks side by side; "per_task" one row per task, mean over tasks.
        processes: the processes that share the batch; averaged over them, this value is the mean over all pixels.

    Returns:
        A scalar in nats, float32 (float64 for float64 logits); zero, with a gradient path, if no pixel is valid.

    Raises:
        KdamValueError: an unknown mode, or names or shapes that do not fit each other.

    Source:
        Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970), inter-task: "gather the corresponding predicted
        probabilities in a batch for all tasks".
    """
    if mode not in INTER_MODES:
        raise KdamValueError(f"inter-task mode {mode!r} is not known: choose one of {INTER_MODES}")
    check_maps(student, teacher, valid_BHW)
    log_p = [log_rows(logits, valid_BHW, temperature) for logits in student.values()]
    log_q = [log_rows(teacher[name], valid_BHW, temperature) for name in student]
    if mode == "concat":
        log_p, log_q = [torch.cat(log_p, dim=1)], [torch.cat(log_q, dim=1)]
    per_row = [cauchy_schwarz_divergence(p_NK, q_NK) for p_NK, q_NK in zip(log_p, log_q, strict=True)]
    return torch.stack([mean_over_pixels(divergence_N, processes) for divergence_N in per_row]).mean()


def intra_task(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    valid_BHW: Tensor,
    temperature: float,
    processes: Processes = LOCAL,
) -> Tensor:
    """CS divergence of columns P_t(:, c) over all valid pixels of the batch; mean over classes, then over tasks.

    Args:
        student: distribution logits, task name -> (B, C_t, H, W) floating.
        teacher: the same names and shapes.
        valid_BHW: (B, H, W) bool, False on padding.
        temperature: softmax temperature, > 0.
        processes: the processes that share the batch; each of them returns the value of the global batch.

    Returns:
        A scalar in nats, float32 (float64 for float64 logits); zero, with a gradient path, if no pixel is valid.

    Raises:
        KdamValueError: names or shapes that do not fit each other.

    Source:
        Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970), intra-task: "for each task, gather the predicted
        probabilities of all classes in a batch".
    """
    check_maps(student, teacher, valid_BHW)
    log_sums = []
    for name, logits in student.items():
        log_p_NC = log_rows(logits, valid_BHW, temperature)
        log_q_NC = log_rows(teacher[name], valid_BHW, temperature)
        products = (2 * log_p_NC, 2 * log_q_NC, log_p_NC + log_q_NC)
        log_sums.append(torch.stack([torch.logsumexp(product_NC, dim=0) for product_NC in products]))
    # all tasks side by side, so that a distributed run pays for two collectives and not for two per task
    divergence_K = divergence_of_log_sums(*log_sum_over_processes(torch.cat(log_sums, dim=1), processes))
    per_task = divergence_K.split([log_sums_3C.shape[1] for log_sums_3C in log_sums])
    return torch.stack([divergence_C.mean() for divergence_C in per_task]).mean()


def log_rows(logits_BCHW: Tensor, valid_BHW: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (N, C) of the valid pixels of (B, C, H, W) logits, in float32 or float64."""
    rows_NC = logits_BCHW.permute(0, 2, 3, 1)[valid_BHW]
    return torch.log_softmax(at_least_float32(rows_NC) / temperature, dim=1)


def mean_over_pixels(values_N: Tensor, processes: Processes = LOCAL) -> Tensor:
    """Sum of (N,) values over the processes' mean count; zero with a gradient path for N = 0.

    Averaged over processes, as DDP averages gradients, it is the mean over the global batch.
    """
    count = torch.tensor(float(values_N.numel()), dtype=values_N.dtype, device=values_N.device)
    return values_N.sum() / processes.mean(count).clamp_min(1)


def log_sum_over_processes(local_3K: Tensor, processes: Processes = LOCAL) -> Tensor:
    """Log of the sum over processes of exp(`local_3K`), (3, K), differentiable; zero where all hold -inf (no pixel)."""
    peak_3K = processes.max(local_3K.detach())
    peak_3K = torch.where(peak_3K == -torch.inf, 0, peak_3K)
    sum_3K = processes.sum(torch.exp(local_3K - peak_3K))
    # the process that holds the peak adds one, so the sum is zero only without any pixel
    return torch.log(torch.where(sum_3K == 0, 1, sum_3K)) + peak_3K


def check_maps(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], valid_BHW: Tensor) -> None:
    """Raise KdamValueError unless both hold the same tasks, (B, C_t, H, W) each, and valid is (B, H, W) bool."""
    if not student or set(student) != set(teacher):
        raise KdamValueError(
            f"student has tasks {sorted(student)}, teacher {sorted(teacher)}: both need the same, at least one"
        )
    if valid_BHW.dtype != torch.bool:
        raise KdamValueError(f"valid is {valid_BHW.dtype}: it must be bool, True on pixels that count")
    for name, logits in student.items():
        if logits.shape != teacher[name].shape:
            raise KdamValueError(
                f"{name}: student logits are {tuple(logits.shape)}, teacher logits {tuple(teacher[name].shape)}: "
                "resize the teacher to the student's map and use the same classes"
            )
        if logits.dim() != 4 or valid_BHW.shape != (logits.shape[0], *logits.shape[2:]):
            raise KdamValueError(
                f"{name}: logits are {tuple(logits.shape)}, valid is {tuple(valid_BHW.shape)}: expected (B, C, H, W) "
                "and (B, H, W); bring the mask to the size of the map"
            )
