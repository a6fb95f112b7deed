"""The dense losses that ours replaces, written plainly from their papers, at full resolution.

Unusual here: nothing is taken from kdam_hf and nothing is clever; every pixel is valid. Student and teacher are given as
stride-4 logits, one tensor per task.

Shapes: B batch, C channels of one task, h w stride-4 map, H W full resolution.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = 255
Maps = Sequence[Tensor]


def upsample(x_BChw: Tensor) -> Tensor:
    """To full resolution."""
    return F.interpolate(x_BChw, scale_factor=4, mode="bilinear", align_corners=False)


def cauchy_schwarz(z: Maps, t: Maps, temperature: float) -> Tensor:
    """Inter-task (a row per pixel, all tasks side by side) + intra-task (a column per class), from probabilities.

    Source: Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970); D = -log( <p,q>^2 / (<p,p> <q,q>) ).
    """
    p, q = ([(x / temperature).softmax(1) for x in side] for side in (z, t))
    row_p, row_q = (side[0] if len(side) == 1 else torch.cat(side, 1) for side in (p, q))
    inter = divergence(row_p, row_q, 1).mean()
    intra = torch.stack([divergence(a, b, (0, 2, 3)).mean() for a, b in zip(p, q, strict=True)]).mean()
    return inter + intra


def divergence(p: Tensor, q: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Of probabilities, along `dim`."""
    return -torch.log((p * q).sum(dim) ** 2 / ((p * p).sum(dim) * (q * q).sum(dim)))


def kl(z: Maps, t: Maps, temperature: float) -> Tensor:
    """KL(teacher || student) of every pixel. Source: Hinton, Vinyals, Dean, 2015 (arXiv:1503.02531)."""
    losses = []
    for a, b in zip(z, t, strict=True):
        log_p, q = F.log_softmax(a / temperature, 1), F.softmax(b / temperature, 1)
        losses.append(F.kl_div(log_p, q, reduction="sum") / (a.numel() / a.shape[1]))
    return torch.stack(losses).mean()


def cwd(z: Maps, t: Maps, temperature: float) -> Tensor:
    """KL of each channel's softmax over the pixels. Source: Shu et al., ICCV 2021 (arXiv:2011.13256), eq. 2-3."""
    losses = []
    for a, b in zip(z, t, strict=True):
        log_p, q = F.log_softmax(a.flatten(2) / temperature, 2), F.softmax(b.flatten(2) / temperature, 2)
        losses.append(F.kl_div(log_p, q, reduction="sum") / (a.shape[0] * a.shape[1]))
    return torch.stack(losses).mean()


def dist(z: Maps, t: Maps, temperature: float) -> Tensor:
    """1 - Pearson correlation along rows and along columns. Source: Huang et al., 2022 (arXiv:2205.10536), eq. 6-10."""
    losses = []
    for a, b in zip(z, t, strict=True):
        p, q = ((x / temperature).softmax(1).movedim(1, -1).flatten(0, -2) for x in (a, b))
        losses.append((1 - pearson(p, q, 1)).mean() + (1 - pearson(p, q, 0)).mean())
    return torch.stack(losses).mean()


def dist_on_maps(z: Maps, t: Maps, temperature: float) -> Tensor:
    """`dist` without the copy to rows, which the published code makes."""
    losses = []
    for a, b in zip(z, t, strict=True):
        p, q = ((x / temperature).softmax(1) for x in (a, b))
        losses.append((1 - pearson(p, q, 1)).mean() + (1 - pearson(p, q, (0, 2, 3))).mean())
    return torch.stack(losses).mean()


def pearson(a: Tensor, b: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Correlation along `dim`."""
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim) / (norms + 1e-8)


MATCHES: dict[str, Callable[[Maps, Maps, float], Tensor]] = {
    "naive CS": cauchy_schwarz,
    "KL": kl,
    "CWD": cwd,
    "DIST": dist,
    "DIST on maps": dist_on_maps,
}


def semseg_loss(
    z_BChw: Tensor,
    t_BChw: Tensor,
    label_BHW: Tensor,
    match: Callable[[Maps, Maps, float], Tensor] | None,
    temperature: float,
    weight: float,
) -> Tensor:
    """Upsampling, cross-entropy, and `weight` times a match with the teacher."""
    full = upsample(z_BChw)
    loss = F.cross_entropy(full, label_BHW, ignore_index=IGNORE_INDEX)
    if match is None:
        return loss
    with torch.no_grad():
        taught = upsample(t_BChw)
    return loss + weight * match([full], [taught], temperature)
