"""The match of a band as two compiled loops on the CPU: every logit is read once and stays in registers.

Unusual here: the exponential is a polynomial, so that the compiler can vectorise it (relative error below 2e-7). Rows are
split among threads without the interpreter's lock. What needs log space is left to `rows`, as is all without numba.
Not-a-number would not survive the compiler's liberties: give finite logits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdam_hf.distillation.kernels import rows as plain
from kdam_hf.distillation.kernels.rows import SMALLEST, Columns, Rows, column_share
from kdam_hf.distributed import Processes
from kdam_hf.jit import compiled
from kdam_hf.jit_softmax import exp_below_zero, in_threads

_LIBERTIES = {"reassoc", "contract", "arcp", "nsz", "nnan", "ninf"}
_f = np.float32
_BLOCK = 64  # rows whose sums are kept in float32 before they go to float64


@compiled(fastmath=_LIBERTIES, inline="always")
def _softmax(z: Any, scale: Any, p: Any) -> None:
    """Softmax of z * scale into p, both (K,). Loops from zero: an index that could be negative is not vectorised."""
    peak = z[0]
    for c in range(len(z)):
        peak = max(peak, z[c])
    total = _f(0)
    for c in range(len(z)):
        p[c] = exp_below_zero((z[c] - peak) * scale)
        total += p[c]
    total = _f(1) / total
    for c in range(len(z)):
        p[c] *= total


@compiled(fastmath=_LIBERTIES, inline="always")
def _pull_back(e: Any, p: Any, scale: Any, gradient: Any) -> None:
    """(e - p sum e) * scale into gradient, all (K,)."""
    total = _f(0)
    for c in range(len(e)):
        total += e[c]
    for c in range(len(e)):
        gradient[c] = (e[c] - p[c] * total) * scale


@compiled(fastmath=_LIBERTIES, nogil=True)
def _column_sums(z: Any, t: Any, valid: Any, starts: Any, scale: Any, begin: int, end: int, sums: Any) -> None:
    channels = z.shape[1]
    p, q = np.empty(channels, np.float32), np.empty(channels, np.float32)
    part = np.zeros((3, channels), np.float32)
    for block in range(begin, end, _BLOCK):
        part[:] = 0
        for i in range(block, min(block + _BLOCK, end)):
            if valid[i]:
                for k in range(len(starts) - 1):
                    first, last = starts[k], starts[k + 1]
                    _softmax(z[i, first:last], scale, p[first:last])
                    _softmax(t[i, first:last], scale, q[first:last])
                for c in range(channels):
                    part[0, c] += p[c] * p[c]
                    part[1, c] += q[c] * q[c]
                    part[2, c] += p[c] * q[c]
        for n in range(3):
            for c in range(channels):
                sums[n, c] += part[n, c]


@compiled(fastmath=_LIBERTIES, nogil=True)
def _match(
    z: Any,
    t: Any,
    valid: Any,
    starts: Any,
    scale: Any,
    weight: Any,
    scales: Any,
    begin: int,
    end: int,
    gradient: Any,
    found: Any,
) -> None:
    """found[0]: sum of divergences; found[1]: rows whose <p,q> underflows. The gradient is for z."""
    channels = z.shape[1]
    p, q, e = (np.empty(channels, np.float32), np.empty(channels, np.float32), np.empty(channels, np.float32))
    value, lost = 0.0, 0
    for i in range(begin, end):
        if not valid[i]:
            for c in range(channels):
                gradient[i, c] = _f(0)
            continue
        pp, qq, pq = _f(0), _f(0), _f(0)
        for k in range(len(starts) - 1):
            first, last = starts[k], starts[k + 1]
            _softmax(z[i, first:last], scale, p[first:last])
            _softmax(t[i, first:last], scale, q[first:last])
        for c in range(channels):
            pp += p[c] * p[c]
            qq += q[c] * q[c]
            pq += p[c] * q[c]
        if pq < _f(SMALLEST):
            lost += 1
            continue
        value += max(0.0, np.log(np.float64(pp)) + np.log(np.float64(qq)) - 2 * np.log(np.float64(pq)))
        over_pp, over_pq = _f(2) * weight / pp, _f(2) * weight / pq
        for c in range(channels):
            e[c] = p[c] * (p[c] * (over_pp + scales[0, c]) - q[c] * (over_pq + scales[1, c]))
        for k in range(len(starts) - 1):
            first, last = starts[k], starts[k + 1]
            _pull_back(e[first:last], p[first:last], scale, gradient[i, first:last])
    found[0] += value
    found[1] += lost


def column_sums(rows: Rows) -> list[Tensor]:
    """See `rows.column_sums`."""
    z, t, starts = _side_by_side(rows)
    parts = in_threads(
        len(z),
        lambda begin, end: _filled(
            np.zeros((3, z.shape[1])),
            lambda sums: _column_sums(z, t, _valid(rows), starts, _f(1 / rows.temperature), begin, end, sums),
        ),
    )
    return list(torch.from_numpy(np.sum(parts, 0)).split([x.shape[1] for x in rows.z], 1))


def match_rows(
    rows: Rows, inter: str, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """See `rows.match_rows`."""
    if columns is not None and not columns.plain:
        return plain.match_rows(rows, inter, columns, processes, differentiate)
    if inter == "per_task" and len(rows.z) > 1:
        return _task_by_task(rows, columns, processes, differentiate)
    z, t, starts = _side_by_side(rows)
    weight = _f(0) if inter == "off" else _f(rows.per_pixel)
    scales = np.zeros((2, z.shape[1]), np.float32)
    if columns is not None:
        scales[:] = np.concatenate([_scales(x, len(rows.z), processes) for x in columns.log_sums], 1)
    gradient = np.empty_like(z)
    parts = in_threads(
        len(z),
        lambda begin, end: _filled(
            np.zeros(2),
            lambda found: _match(
                z, t, _valid(rows), starts, _f(1 / rows.temperature), weight, scales, begin, end, gradient, found
            ),
        ),
    )
    value, lost = np.sum(parts, 0)
    if lost:
        return plain.match_rows(rows, inter, columns, processes, differentiate)
    gradients = torch.from_numpy(gradient).split([x.shape[1] for x in rows.z], 1) if differentiate else ()
    return rows.per_pixel * float(value) * (inter != "off"), list(gradients)


def _task_by_task(
    rows: Rows, columns: Columns | None, processes: Processes, differentiate: bool
) -> tuple[Tensor, list[Tensor]]:
    """A row of its own per task: the mean of one match per task."""
    count, value, gradients = len(rows.z), rows.per_pixel.new_zeros(()), []
    for k in range(count):
        own = None if columns is None else Columns([columns.log_sums[k]], columns.plain)
        one = Rows([rows.z[k]], [rows.t[k]], rows.temperature, rows.valid, rows.per_pixel)
        share, pulls = match_rows(one, "concat", own, processes, differentiate)
        value = value + share / count
        gradients += [gradient / count for gradient in pulls]
    return value, gradients


def _scales(log_sums_3K: Tensor, tasks: int, processes: Processes) -> np.ndarray:
    """(2, K): what p^2 and p q of a class are multiplied by."""
    share = 2 * column_share(log_sums_3K.shape[1], tasks, processes)
    return (share * torch.exp(-log_sums_3K[[0, 2]])).float().numpy()


def _side_by_side(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tasks' logits (N, K of all), student's and teacher's, and where each task begins and the last ends."""
    starts = np.cumsum([0, *(x.shape[1] for x in rows.z)])
    z, t = (side[0] if len(side) == 1 else torch.cat(list(side), 1) for side in (rows.z, rows.t))
    return z.contiguous().numpy(), t.contiguous().numpy(), starts


def _valid(rows: Rows) -> np.ndarray:
    return np.ones(len(rows.z[0]), np.bool_) if rows.valid is None else rows.valid.numpy()


def _filled(array: np.ndarray, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    fill(array)
    return array
