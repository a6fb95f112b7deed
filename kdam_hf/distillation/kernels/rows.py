"""The CS match on rows of pixels, in closed form: what a band adds to the sums, the value and the gradient.

With a = z / T, b = t / T, P = softmax(a), Q = softmax(b) per pixel, and E = dD / d log P:

    a pixel's row (inter-task), all its channels:   D = log<p,p> + log<q,q> - 2 log<p,q>,  E = 2 (p^2 / <p,p> - p q / <p,q>)
    a class's column (intra-task), all its pixels:  the same
    for the logits of one task:                     dD/dz = (E - P sum_c E) / T

Sums of products are plain where they keep their digits. The few that underflow, because student and teacher agree on
nothing or a class is nowhere probable, are computed in log space.

Shapes: N pixels, K channels of one task's distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdam_hf.distillation.cauchy_schwarz import divergence_of_log_sums
from kdam_hf.distillation.matching import log_sum_over_processes
from kdam_hf.distributed import Processes

SMALLEST = 1e-25
"""Sums of products below this have lost digits to underflow in float32."""


@dataclass(frozen=True)
class Columns:
    """Sums of every class over the batch of all processes.

    Args:
        log_sums: per task (3, K): log<p,p>, log<q,q>, log<p,q>.
        plain: whether the plain sums keep their digits.
    """

    log_sums: list[Tensor]
    plain: bool

    def divergence(self) -> Tensor:
        """Mean over classes, then over tasks; a scalar."""
        return torch.stack([divergence_of_log_sums(*sums_3K).mean() for sums_3K in self.log_sums]).mean()


def columns_of(plain_sums: Sequence[Tensor], processes: Processes, dtype: torch.dtype) -> Columns | None:
    """The columns from this process's `column_sums`; None where log space is needed, the same on every process."""
    sums = [processes.sum(sums_3K) for sums_3K in plain_sums]
    no_pixel = all(not bool(x.any()) for x in sums)
    if not no_pixel and min(float(x.min()) for x in sums) < SMALLEST:
        return None
    return Columns([(torch.ones_like(x) if no_pixel else x).log().to(dtype) for x in sums], plain=True)


def exact_columns_of(log_sums: Sequence[Tensor], processes: Processes, dtype: torch.dtype) -> Columns:
    """The columns from this process's `column_log_sums`."""
    return Columns([log_sum_over_processes(sums_3K, processes).to(dtype) for sums_3K in log_sums], plain=False)


@dataclass(frozen=True)
class Rows:
    """Some pixels of a batch.

    Args:
        z: per task the student's distribution logits, (N, K).
        t: the teacher's.
        temperature: of both.
        valid: (N,) bool; None if all are.
        per_pixel: scalar, one over the mean number of valid pixels of the processes.
    """

    z: Sequence[Tensor]
    t: Sequence[Tensor]
    temperature: float
    valid: Tensor | None
    per_pixel: Tensor

    def scaled(self) -> tuple[list[Tensor], list[Tensor]]:
        """a = z / T and b = t / T."""
        return [x / self.temperature for x in self.z], [x / self.temperature for x in self.t]


def column_sums(rows: Rows) -> list[Tensor]:
    """Per task the sums of p^2, q^2 and p q over valid pixels, (3, K) float64."""
    found = []
    for a, b in zip(*rows.scaled(), strict=True):
        p, q = a.softmax(1), b.softmax(1)
        if rows.valid is not None:
            p, q = p * rows.valid[:, None], q * rows.valid[:, None]
        found.append(torch.stack([(p * p).sum(0), (q * q).sum(0), (p * q).sum(0)]).double())
    return found


def column_log_sums(rows: Rows) -> list[Tensor]:
    """Logarithms of the sums of `column_sums`, without underflow; (3, K) float64."""
    found = []
    for a, b in zip(*rows.scaled(), strict=True):
        log_p, log_q = (x.log_softmax(1) if rows.valid is None else x[rows.valid].log_softmax(1) for x in (a, b))
        products = (2 * log_p, 2 * log_q, log_p + log_q)
        found.append(torch.stack([torch.logsumexp(x, 0) for x in products]).double())
    return found


def match_rows(
    rows: Rows, inter: str, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """Value of the inter-task match and gradient of both.

    Args:
        rows: of the band.
        inter: "concat", "per_task" or "off".
        columns: of the intra-task match; None without it.
        processes: those that share the batch.
        differentiate: whether the gradient is wanted.

    Returns:
        The band's share of the inter-task divergence; per task the gradient of inter + intra for `z`, (N, K).
    """
    a, b = rows.scaled()
    p, q = ([x.softmax(1) for x in side] for side in (a, b))
    count = len(p)
    groups = {"concat": [range(count)], "per_task": [[k] for k in range(count)], "off": []}[inter]
    weight_N1 = rows.per_pixel if rows.valid is None else rows.per_pixel * rows.valid[:, None]
    weight_N1 = (weight_N1 / max(1, len(groups))).expand(len(p[0]), 1)
    value = rows.per_pixel.new_zeros(())
    gradients: list[Tensor] = [torch.empty(0)] * count
    for group in groups or [range(count)]:
        pp = qq = pq = exact = None
        if groups:
            pp, qq, pq = (sum((x[k] * y[k]).sum(1, keepdim=True) for k in group) for x, y in ((p, p), (q, q), (p, q)))
            divergence = (pp.log() + qq.log() - 2 * pq.log()).clamp_min(0)
            lost = (pq < SMALLEST).squeeze(1)
            if lost.any():
                exact = _exact_rows([a[k][lost] for k in group], [b[k][lost] for k in group])
                divergence[lost] = exact.divergence
                pq = pq.masked_fill(lost[:, None], torch.inf)
            value = value + (divergence * weight_N1).sum()
        if not differentiate:
            continue
        for place, k in enumerate(group):
            e = _elasticity(p[k], q[k], weight_N1, pp, pq, columns and _column_scales(columns, k, count, processes))
            if exact is not None:
                e[lost] += exact.elasticity[place] * weight_N1[lost] - 2 * weight_N1[lost] * (p[k] * p[k] / pp)[lost]
            if columns is not None and not columns.plain:
                e += _exact_column_elasticity(a[k], b[k], columns.log_sums[k], count, processes)
            if rows.valid is not None:
                e.masked_fill_(~rows.valid[:, None], 0)  # a product would keep the infinity of a padded pixel
            gradients[k] = e.addcmul_(p[k], e.sum(1, keepdim=True), value=-1).div_(rows.temperature)
    return value, gradients


def _elasticity(
    p: Tensor, q: Tensor, weight_N1: Tensor, pp: Tensor | None, pq: Tensor | None, scales: tuple[Tensor, Tensor] | None
) -> Tensor:
    """E = p (c_p p - c_q q), c being what row and column divide by; (N, K)."""
    c_p = c_q = None
    if pp is not None and pq is not None:
        c_p, c_q = 2 * weight_N1 / pp, 2 * weight_N1 / pq
    if scales is not None:
        c_p, c_q = (s if c is None else c + s for c, s in zip((c_p, c_q), scales, strict=True))
    if c_p is None or c_q is None:
        return torch.zeros_like(p)
    return (c_p * p).sub_(c_q * q).mul_(p)


def column_share(channels: int, tasks: int, processes: Processes) -> float:
    """Weight of one class. Every process holds the whole value and gradients are averaged, hence their number."""
    return processes.size / (channels * tasks)


def _column_scales(columns: Columns, k: int, tasks: int, processes: Processes) -> tuple[Tensor, Tensor] | None:
    if not columns.plain:
        return None
    log_pp, _, log_pq = columns.log_sums[k]
    share = 2 * column_share(len(log_pp), tasks, processes)
    return share * torch.exp(-log_pp), share * torch.exp(-log_pq)


def _exact_column_elasticity(a: Tensor, b: Tensor, log_sums: Tensor, tasks: int, processes: Processes) -> Tensor:
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    log_pp, _, log_pq = log_sums
    share = 2 * column_share(a.shape[1], tasks, processes)
    return share * (torch.exp(2 * log_p - log_pp) - torch.exp(log_p + log_q - log_pq))


@dataclass(frozen=True)
class _Exact:
    """Divergence (n, 1) of rows and E per task (n, K), in log space."""

    divergence: Tensor
    elasticity: list[Tensor]


def _exact_rows(a: Sequence[Tensor], b: Sequence[Tensor]) -> _Exact:
    log_p, log_q = (torch.cat([x.log_softmax(1) for x in side], 1) for side in (a, b))
    log_pp, log_qq, log_pq = (torch.logsumexp(x, 1, keepdim=True) for x in (2 * log_p, 2 * log_q, log_p + log_q))
    e = 2 * (torch.exp(2 * log_p - log_pp) - torch.exp(log_p + log_q - log_pq))
    return _Exact(divergence_of_log_sums(log_pp, log_qq, log_pq), list(e.split([x.shape[1] for x in a], 1)))
