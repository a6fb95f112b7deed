"""The two matches of KDAM: inter-task (a row per pixel) and intra-task (a column per task and class).

Padding never gets here: callers gather the valid pixels first. Both matches are exact over the global batch of a
distributed run.

Source: Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970): "gather the corresponding predicted probabilities in
a batch for all tasks" (inter-task), and "for each task, gather the predicted probabilities of all classes in a batch".

Shapes: N valid pixels of this process's batch, K classes, bins or directions of one task's distribution.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kdam_hf.distillation.divergences import Divergence
from kdam_hf.distributed import LOCAL, Processes


def inter_task(log_p: Tensor, log_q: Tensor, divergence: Divergence, pixels: Tensor | float) -> Tensor:
    """Mean over pixels of the divergence between the student's and the teacher's row; zero with a gradient path if N = 0.

    Args:
        log_p: the student's log-probabilities, (N, K) of one task, or (N, sum of K) of all tasks side by side.
        log_q: the teacher's, the same shape.
        divergence: as in `divergences`.
        pixels: what the sum over pixels is divided by: the mean number of valid pixels of all processes, at least 1.
    """
    return divergence(log_p, log_q, 1, LOCAL).sum() / pixels


def intra_task(
    log_p: Tensor,
    log_q: Tensor,
    divergence: Divergence,
    weigh: Callable[[Tensor], Tensor],
    processes: Processes = LOCAL,
) -> Tensor:
    """Weighted mean over columns P(:, k), over all pixels of the batch, of the divergence between student and teacher.

    A divergence does not see the scale of a column: one that no pixel occupies would be decided by the few pixels that come
    nearest to it. Columns are therefore weighted by what the teacher has in them.

    Args:
        log_p, log_q, divergence: of one task, as of `inter_task`; zero with a gradient path if no process has a pixel.
        weigh: the teacher's mass of each column, (K,) in pixels, -> weights (K,) >= 0; see `Task.column_weights`.
        processes: those that share the batch.
    """
    mass = processes.mean(log_q.detach().exp().sum(0)) * processes.size
    weights = weigh(mass)
    return divergence(log_p, log_q, 0, processes) @ (weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny))
