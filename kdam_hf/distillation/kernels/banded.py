"""The objective in bands of rows: exact, yet no full-resolution prediction, softmax or gradient is ever stored.

Unusual here: the gradient is computed in the forward pass. That of the match is in closed form (`rows`); supervised
losses, and the rules that make a distribution of a regression, are differentiated by autograd inside the band, so a task
stays one file. The intra-task match needs three sums per class over the whole batch first, hence two passes over the bands.

Shapes: as in `objective` and `rows`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kdam_hf.distillation.cauchy_schwarz import at_least_float32
from kdam_hf.distillation.kernels import rows as plain_rows
from kdam_hf.distillation.kernels.bands import Band, add_transposed, bands, upsampled
from kdam_hf.distillation.kernels.objective import DenseLoss, DenseTask, Match, Problem
from kdam_hf.distillation.kernels.rows import Columns, Rows, column_log_sums, columns_of, exact_columns_of
from kdam_hf.distributed import Processes

PIXELS_ON_CPU = 1 << 14  # some MB per map of 40 channels: the caches hold it
PIXELS_ON_GPU = 1 << 20


class RowEngine(Protocol):
    """What computes the match of a band: the module `rows` itself, or one that gives the same numbers faster."""

    def column_sums(self, rows: Rows) -> list[Tensor]:
        """See `rows.column_sums`."""

    def match_rows(
        self, rows: Rows, inter: str, columns: Columns | None, processes: Processes, differentiate: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """See `rows.match_rows`."""


def banded(problem: Problem, student: Mapping[str, Tensor], engine: RowEngine = plain_rows) -> DenseLoss:
    """See `dense_loss`."""
    terms: dict[str, Tensor] = {}
    total = _Banded.apply(problem, engine, terms, *(student[task.name] for task in problem.tasks))
    return DenseLoss(total, terms)


class _Banded(torch.autograd.Function):
    """Value and gradient in the forward pass; the backward pass scales the gradient."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, engine: RowEngine, terms: dict[str, Tensor], *predictions: Tensor
    ) -> Tensor:
        batch = _Batch.of(problem, engine, predictions)
        columns = _columns(batch, problem.match) if problem.match is not None and problem.match.intra else None
        found, gradients = _sweep(batch, columns, differentiate=any(ctx.needs_input_grad))
        terms.update(found)
        ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(gradients, predictions, strict=False)))
        return torch.stack(list(found.values())).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, None, *(gradient * upstream[0].to(gradient.dtype) for gradient in ctx.saved_tensors)


def matched(problem: Problem, student: Mapping[str, Tensor], match: Match, engine: RowEngine = plain_rows) -> DenseLoss:
    """See `match_loss`."""
    terms: dict[str, Tensor] = {}
    total = _Matched.apply(problem, match, engine, terms, *(student[task.name] for task in problem.tasks))
    return DenseLoss(total, terms)


class _Matched(torch.autograd.Function):
    """The match alone, on the maps as they are: one band that holds the whole batch."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, match: Match, engine: RowEngine, terms: dict[str, Tensor], *predictions: Tensor
    ) -> Tensor:
        differentiate, processes, mask = any(ctx.needs_input_grad), problem.processes, problem.mask
        student = [_planar(x).requires_grad_(differentiate) for x in predictions]
        teacher = [_planar(match.teacher[task.name]) for task in problem.tasks]
        with torch.set_grad_enabled(differentiate):
            z = [task.distribution_logits(_without_padding(x, mask)) for task, x in _each(problem, student)]
        t = [task.distribution_logits(_without_padding(x, mask)) for task, x in _each(problem, teacher)]
        per_pixel = 1 / processes.mean(mask.sum().to(student[0].dtype)).clamp_min(1)
        rows = _rows(z, t, match, mask, per_pixel)
        columns = None
        if match.intra:
            columns = columns_of(engine.column_sums(rows), processes)
            columns = columns or exact_columns_of(column_log_sums(rows), processes)
        value, pulls = engine.match_rows(rows, match.inter, columns, processes, differentiate)
        terms.update(_match_terms(match, value, columns))
        if differentiate:
            torch.autograd.backward(z, [_maps(pull, mask) for pull in pulls])
            gradients: list[Any] = [x.grad for x in student]
            ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(gradients, predictions, strict=True)))
        return torch.stack(list(terms.values())).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, None, None, *(gradient * upstream[0].to(gradient.dtype) for gradient in ctx.saved_tensors)


@dataclass(frozen=True)
class _Batch:
    """A problem with its maps contiguous, in at least float32, and its bands.

    Args:
        problem: as given.
        engine: that computes the match.
        student: per task (B, C, h, w).
        teacher: per task; empty without a match.
        bands: that cover the batch.
        per_pixel: scalar, one over the mean number of valid pixels of the processes.
    """

    problem: Problem
    engine: RowEngine
    student: list[Tensor]
    teacher: list[Tensor]
    bands: list[Band]
    per_pixel: Tensor

    @classmethod
    def of(cls, problem: Problem, engine: RowEngine, predictions: Sequence[Tensor]) -> "_Batch":
        mask, match = problem.mask, problem.match
        student = [_planar(x) for x in predictions]
        teacher = [_planar(match.teacher[task.name]) for task in problem.tasks] if match is not None else []
        pixels = PIXELS_ON_CPU if mask.device.type == "cpu" else PIXELS_ON_GPU
        count = problem.processes.mean(mask.sum().to(student[0].dtype)).clamp_min(1)
        batch, height, width = mask.shape
        parts = list(bands(batch, height, width, student[0].shape[2], pixels))
        return cls(problem, engine, student, teacher, parts, 1 / count)

    def full(self, maps: Sequence[Tensor], band: Band) -> list[Tensor]:
        """A band of every map, without padding."""
        mask = band.of_full(self.problem.mask)
        full = [upsampled(x, band, mask.shape[2]) for x in maps]
        return [_without_padding(x, mask) for x in full]

    def rows(self, band: Band, student_logits: Sequence[Tensor]) -> Rows:
        """The band's pixels for the match."""
        teacher_logits = self.logits(self.full(self.teacher, band))
        match, mask = self.problem.match, band.of_full(self.problem.mask)
        return _rows(student_logits, teacher_logits, match, mask, self.per_pixel)  # type: ignore[arg-type]

    def logits(self, full: Sequence[Tensor]) -> list[Tensor]:
        """Distribution logits of every task."""
        return [task.distribution_logits(x) for task, x in _each(self.problem, full)]


def _columns(batch: _Batch, match: Match) -> Columns:
    """First pass: the sums of the intra-task match."""
    processes = batch.problem.processes
    columns = columns_of(_over_bands(batch, batch.engine.column_sums, torch.add), processes)
    if columns is None:
        columns = exact_columns_of(_over_bands(batch, column_log_sums, torch.logaddexp), processes)
    return columns


def _over_bands(
    batch: _Batch,
    measure: Callable[[Rows], list[Tensor]],
    merge: Callable[[Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """What `measure` finds in the rows of each task, merged over the bands."""
    merged: list[Tensor] = []
    for band in batch.bands:
        found = measure(batch.rows(band, batch.logits(batch.full(batch.student, band))))
        merged = [merge(x, y) for x, y in zip(merged, found, strict=True)] if merged else found
    return merged


def _sweep(batch: _Batch, columns: Columns | None, differentiate: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Second pass: named terms, and per task the gradient for the stride-4 prediction (none unless wanted)."""
    problem, match = batch.problem, batch.problem.match
    weights = [t.loss_weights(problem.labels[t.name], problem.mask, problem.processes) for t in problem.tasks]
    gradients = [torch.zeros_like(x) for x in batch.student] if differentiate else []
    inter = batch.per_pixel.new_zeros(())
    supervised = [batch.per_pixel.new_zeros(()) for _ in problem.tasks]
    for band in batch.bands:
        mask = band.of_full(problem.mask)
        full = [x.requires_grad_(differentiate) for x in batch.full(batch.student, band)]
        roots: list[Tensor] = []
        with torch.set_grad_enabled(differentiate):
            for task, x, weight in zip(problem.tasks, full, weights, strict=True):
                label = band.of_full(problem.labels[task.name])
                roots.append(task.loss_weight * task.loss_share(x, label, mask, weight))
            logits = batch.logits(full) if match is not None else []
        supervised = [sum_ + root.detach() for sum_, root in zip(supervised, roots, strict=True)]
        directions: list[Tensor | None] = [None] * len(roots)
        if match is not None:
            rows = batch.rows(band, logits)
            value, pulls = batch.engine.match_rows(rows, match.inter, columns, problem.processes, differentiate)
            inter = inter + value
            roots, directions = [*roots, *logits], [*directions, *(_maps(pull, mask) for pull in pulls)]
        if differentiate:
            torch.autograd.backward(roots, directions)
            for gradient, x in zip(gradients, full, strict=True):
                add_transposed(gradient, band, x.grad)  # type: ignore[arg-type]
    terms = {f"loss_{task.name}": value for task, value in zip(problem.tasks, supervised, strict=True)}
    return terms | (_match_terms(match, inter, columns) if match is not None else {}), gradients


def _match_terms(match: Match, inter: Tensor, columns: Columns | None) -> dict[str, Tensor]:
    terms = {"kd_inter_task": match.weight * inter} if match.inter != "off" else {}
    if columns is not None:
        terms["kd_intra_task"] = match.weight * columns.divergence().to(inter.dtype)
    return terms


def _each(problem: Problem, maps: Sequence[Tensor]) -> Iterator[tuple[DenseTask, Tensor]]:
    """Tasks with their maps."""
    return zip(problem.tasks, maps, strict=True)


def _without_padding(x_BChw: Tensor, mask_Bhw: Tensor) -> Tensor:
    """Padding is 1, because it may hold NaN, and a task's rule may take its logarithm."""
    return x_BChw if mask_Bhw.all() else torch.where(mask_Bhw[:, None], x_BChw, 1)


def _planar(x_BChw: Tensor) -> Tensor:
    return at_least_float32(x_BChw.detach()).contiguous()


def _rows(z: Sequence[Tensor], t: Sequence[Tensor], match: Match, mask_bRW: Tensor, per_pixel: Tensor) -> Rows:
    """Distribution logits (b, K, rows, width) of student and teacher, for the match."""
    student, teacher = ([x.detach().flatten(2) for x in side] for side in (z, t))
    valid = None if mask_bRW.all() else mask_bRW.flatten(1)
    return Rows(student, teacher, match.temperature, valid, per_pixel, match.weight)


def _maps(x_bKn: Tensor, mask_bRW: Tensor) -> Tensor:
    """(b, K, n) -> (b, K, rows, width)."""
    return x_bKn.unflatten(2, mask_bRW.shape[1:])
