"""The two matches of KDAM: inter-task (one row per pixel) and intra-task (one column per task and class).

Padding never gets here: callers gather the valid pixels first. Both matches are exact over the global batch of a
distributed run.

Source: Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970): "gather the corresponding predicted probabilities in
a batch for all tasks" (inter-task), and "for each task, gather the predicted probabilities of all classes in a batch".

Shapes: N valid pixels of this process's batch, C channels of one task's distribution.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdam_hf.distillation.divergences import Divergence
from kdam_hf.distributed import LOCAL, Processes

INTER_MODES = ("concat", "per_task", "off")


def inter_task(
    log_p: Mapping[str, Tensor], log_q: Mapping[str, Tensor], divergence: Divergence, mode: str, pixels: Tensor | float
) -> Tensor:
    """Mean over pixels of the divergence between the student's and the teacher's row.

    Args:
        log_p: the student's log-probabilities, task name -> (N, C_t), in canonical task order.
        log_q: the teacher's, the same names and shapes.
        divergence: as in `divergences`.
        mode: "concat" matches one row of all tasks side by side; "per_task" one row per task, mean over tasks.
        pixels: what the sum over pixels is divided by: the mean number of valid pixels of all processes, at least 1.

    Returns:
        A scalar, zero with a gradient path if N = 0.
    """
    if mode == "concat":
        log_p, log_q = ({"all": torch.cat([maps[name] for name in log_p], 1)} for maps in (log_p, log_q))
    return torch.stack([divergence(log_p[name], log_q[name], 1, LOCAL).sum() / pixels for name in log_p]).mean()


def intra_task(
    log_p: Mapping[str, Tensor], log_q: Mapping[str, Tensor], divergence: Divergence, processes: Processes = LOCAL
) -> Tensor:
    """Divergence of the columns P_t(:, c) over all pixels of the batch; mean over classes, then over tasks.

    Arguments as of `inter_task`; `processes` share the batch. A scalar, zero with a gradient path if none has a pixel.
    """
    return torch.stack([divergence(log_p[name], log_q[name], 0, processes).mean() for name in log_p]).mean()
