"""Published opponents of KDAM on the same distribution logits: kl, dist, cwd.

Unusual here: all three leave padding out (the published codes have none), and the factor T^2 is left to the criterion.

Shapes: B batch, C channels of one task, H W map size, N valid pixels of this process's batch, S = H * W.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdam_hf.distillation.cauchy_schwarz import at_least_float32
from kdam_hf.distillation.matching import check_maps, log_rows, mean_over_pixels
from kdam_hf.distributed import LOCAL, Processes

# DIST's own constant, added to the product of the two norms
_DIST_EPS = 1e-8


def kl(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    valid_BHW: Tensor,
    temperature: float,
    processes: Processes = LOCAL,
) -> Tensor:
    """Per-pixel KL(teacher || student), mean over valid pixels, mean over tasks.

    Args:
        student: distribution logits, task name -> (B, C_t, H, W) floating.
        teacher: the same names and shapes.
        valid_BHW: (B, H, W) bool, False on padding.
        temperature: softmax temperature, > 0.
        processes: the processes that share the batch; averaged over them, this value is the mean over all pixels.

    Returns:
        A scalar in nats, without the factor T^2; zero, with a gradient path, if no pixel is valid.

    Raises:
        KdamValueError: names or shapes that do not fit each other.

    Source:
        Hinton, Vinyals, Dean, 2015 (arXiv:1503.02531), applied to every pixel.
    """
    check_maps(student, teacher, valid_BHW)
    per_task = []
    for name, logits in student.items():
        log_p_NC = log_rows(logits, valid_BHW, temperature)
        log_q_NC = log_rows(teacher[name], valid_BHW, temperature)
        per_task.append(mean_over_pixels((log_q_NC.exp() * (log_q_NC - log_p_NC)).sum(dim=1), processes))
    return torch.stack(per_task).mean()


def dist(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    valid_BHW: Tensor,
    temperature: float,
    processes: Processes = LOCAL,
) -> tuple[Tensor, Tensor]:
    """DIST: one minus the Pearson correlation of probabilities along rows (inter) and along columns (intra).

    DIST names the two after classes: its "inter" correlates the classes of one pixel, its "intra" the pixels of one
    class. Both are means over tasks, each with the published weights beta = gamma = 1. Published for segmentation with
    temperature 1 and without T^2; the temperature given is used here. Columns are those of this process, as published.

    Args:
        student: distribution logits, task name -> (B, C_t, H, W) floating.
        teacher: the same names and shapes.
        valid_BHW: (B, H, W) bool, False on padding.
        temperature: softmax temperature, > 0.
        processes: the processes that share the batch (used by the mean over rows).

    Returns:
        (inter, intra), scalars in [0, 2]; both zero, with a gradient path, if no pixel is valid.

    Raises:
        KdamValueError: names or shapes that do not fit each other.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (arXiv:2205.10536), eq. 6-10; code
        github.com/hunto/DIST_KD (segmentation).
    """
    check_maps(student, teacher, valid_BHW)
    inter, intra = [], []
    for name, logits in student.items():
        p_NC = log_rows(logits, valid_BHW, temperature).exp()
        q_NC = log_rows(teacher[name], valid_BHW, temperature).exp()
        inter.append(mean_over_pixels(1 - pearson(p_NC, q_NC, dim=1), processes))
        per_class_C = 1 - pearson(p_NC, q_NC, dim=0)
        # an empty column correlates with nothing: it would count as the constant 1
        intra.append(per_class_C.mean() * min(len(p_NC), 1))
    return torch.stack(inter).mean(), torch.stack(intra).mean()


def cwd(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    valid_BHW: Tensor,
    temperature: float,
    processes: Processes = LOCAL,
) -> Tensor:
    """Channel-wise distillation: softmax of each channel over the valid pixels of its image, KL(teacher || student).

    Mean over channels, over images that have a valid pixel, and over tasks. A channel that is constant by construction
    (the second logit of a binary task) adds zero to the sum and one to the number of channels.

    Args:
        student: distribution logits, task name -> (B, C_t, H, W) floating.
        teacher: the same names and shapes.
        valid_BHW: (B, H, W) bool, False on padding.
        temperature: softmax temperature, > 0; published with 4.
        processes: the processes that share the batch; averaged over them, this value is the mean over all images.

    Returns:
        A scalar in nats, without the published factor T^2; zero, with a gradient path, if no pixel is valid.

    Raises:
        KdamValueError: names or shapes that do not fit each other.

    Source:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021 (arXiv:2011.13256), eq. 2-3.
    """
    check_maps(student, teacher, valid_BHW)
    has_pixel_B = valid_BHW.flatten(1).any(dim=1)
    per_task = []
    for name, logits in student.items():
        log_p_BCS = log_softmax_over_pixels(logits, valid_BHW, temperature)
        log_q_BCS = log_softmax_over_pixels(teacher[name], valid_BHW, temperature)
        per_image_B = (log_q_BCS.exp() * (log_q_BCS - log_p_BCS)).sum(dim=2).mean(dim=1)
        per_task.append(mean_over_pixels(per_image_B[has_pixel_B], processes))
    return torch.stack(per_task).mean()


def pearson(a_NC: Tensor, b_NC: Tensor, dim: int) -> Tensor:
    """Pearson correlation of two (N, C) tensors along `dim`; zero where either is constant."""
    a_NC, b_NC = a_NC - a_NC.mean(dim, keepdim=True), b_NC - b_NC.mean(dim, keepdim=True)
    norms = torch.linalg.vector_norm(a_NC, dim=dim) * torch.linalg.vector_norm(b_NC, dim=dim)
    return (a_NC * b_NC).sum(dim) / (norms + _DIST_EPS)


def log_softmax_over_pixels(logits_BCHW: Tensor, valid_BHW: Tensor, temperature: float) -> Tensor:
    """Log-softmax (B, C, S) over the pixels of each image and channel; padding has probability zero and no gradient."""
    scaled_BCS = at_least_float32(logits_BCHW).flatten(2) / temperature
    # the lowest finite number and not -inf: 0 * (-inf - -inf) is NaN in the divergence that follows
    lowest = torch.finfo(scaled_BCS.dtype).min
    return torch.log_softmax(scaled_BCS.masked_fill(~valid_BHW.flatten(1)[:, None], lowest), dim=2)
