"""Divergences of two sets of distributions, as pure functions of their logarithms along one axis.

A divergence is `f(log_p, log_q, dim, processes)`: p is the student's, q the teacher's. It sums over `dim`, and over the
processes that share this axis: along classes none do (`LOCAL`), along the pixels of a batch all of them. `@divergence`
makes it known by its name, for `--divergence NAME`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kdam_hf.distributed import LOCAL, Processes
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks.base import at_least_float32

Divergence = Callable[..., Tensor]
DIVERGENCES: dict[str, Divergence] = {}


def divergence(function: Divergence) -> Divergence:
    """Make a divergence known by its name."""
    DIVERGENCES[function.__name__] = function
    return function


@divergence
def cauchy_schwarz(log_p: Tensor, log_q: Tensor, dim: int = -1, processes: Processes = LOCAL) -> Tensor:
    """D(p, q) = -log( <p, q>^2 / (<p, p> <q, q>) ), from log p and log q.

    Symmetric, >= 0, zero iff p is proportional to q, unchanged when p or q is rescaled. There is no epsilon: where a sum
    under- or overflows it is computed in log space, D = LSE(2 log p) + LSE(2 log q) - 2 LSE(log p + log q).

    Args:
        log_p: logarithms of non-negative values, any shape, floating; -inf is zero.
        log_q: the same shape.
        dim: the axis of the inner products. An axis without any element gives zero.
        processes: those that share the axis.

    Returns:
        The divergence in nats, the shape of `log_p` without `dim`; float64 for float64 inputs, else float32. It is +inf for
        disjoint supports.

    Raises:
        KdamValueError: the shapes differ.

    Source:
        Xu, Yang, Zhang, ICCV 2023 (doi 10.1109/ICCV51070.2023.01970) for its use in distillation; docs/method.md.
    """
    log_p, log_q = _floats(log_p, log_q)
    if log_p.device.type == "cpu":  # elsewhere the check would wait for the device
        p, q = log_p.exp(), log_q.exp()
        sums = processes.sum(torch.stack([(p * p).sum(dim), (q * q).sum(dim), (p * q).sum(dim)]))
        # below that a sum has lost digits
        if bool(((sums > 1e6 * torch.finfo(sums.dtype).tiny) & sums.isfinite()).all()):
            return _cauchy_schwarz_of(sums.log())
    products = (2 * log_p, 2 * log_q, log_p + log_q)
    logs = torch.stack([torch.logsumexp(product, dim) for product in products])
    peak = processes.max(logs.detach())
    empty = (peak == -torch.inf).all(0)  # an axis without any element
    peak = torch.where(peak == -torch.inf, 0, peak)
    total = processes.sum(torch.exp(logs - peak))
    return _cauchy_schwarz_of(torch.where(empty, 0, torch.log(torch.where(empty, 1, total)) + peak))


def _cauchy_schwarz_of(logs: Tensor) -> Tensor:
    """D from log<p,p>, log<q,q>, log<p,q>, stacked, clamped at zero with the gradient kept.

    The three terms cancel where p is close to q, and rounding may leave -1e-7. A plain clamp would stop the gradient there.
    """
    log_pp, log_qq, log_pq = logs.unbind()
    value = log_pp + log_qq - 2 * log_pq
    return value - value.detach().clamp_max(0)


@divergence
def kullback_leibler(log_p: Tensor, log_q: Tensor, dim: int = -1, processes: Processes = LOCAL) -> Tensor:
    """KL(q || p) = sum q (log q - log p): of the teacher's q from the student's p, in nats.

    Args and errors as of `cauchy_schwarz`; finite logarithms.

    Source:
        Hinton, Vinyals, Dean, 2015 (arXiv:1503.02531).
    """
    log_p, log_q = _floats(log_p, log_q)
    return processes.sum((log_q.exp() * (log_q - log_p)).sum(dim))


@divergence
def pearson_distance(log_p: Tensor, log_q: Tensor, dim: int = -1, processes: Processes = LOCAL) -> Tensor:
    """One minus the Pearson correlation of p and q along `dim`, in [0, 2]; one where either is constant.

    Unusual here: it stays within a process, as published. An axis without any element gives zero.

    Args and errors as of `cauchy_schwarz`.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (arXiv:2205.10536), eq. 6-10; the
        constant that is added to the product of the norms is that of its code, github.com/hunto/DIST_KD.
    """
    log_p, log_q = _floats(log_p, log_q)
    if not log_p.shape[dim]:
        return log_p.sum(dim)
    p, q = log_p.exp(), log_q.exp()
    p, q = p - p.mean(dim, keepdim=True), q - q.mean(dim, keepdim=True)
    norms = torch.linalg.vector_norm(p, dim=dim) * torch.linalg.vector_norm(q, dim=dim)
    return 1 - (p * q).sum(dim) / (norms + 1e-8)


def _floats(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    if log_p.shape != log_q.shape:
        raise KdamValueError(
            f"log_p has shape {tuple(log_p.shape)}, log_q {tuple(log_q.shape)}: they are compared element by element "
            "and do not broadcast; give both the same shape"
        )
    return at_least_float32(log_p), at_least_float32(log_q)
