"""Figures: precision-recall curves, confusion matrices, shares of pixels below an error, losses (extra `plots`).

Unusual here: figures are built without pyplot, so nothing global is set and nothing has to be closed; colours are those of
Okabe and Ito, told apart by readers with any colour vision, and every curve also has a line style of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdam_hf.errors import KdamValueError

try:
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("plots need matplotlib: pip install 'kdam-hf[plots]'") from error

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that vanishes on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
GREY, LIGHT = "#5A5A5A", "#C8C8C8"
MOST_CURVES = len(COLORS)
MARKER: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "zorder": 4}
LARGEST_WITH_NUMBERS = 25


def precision_recall_figure(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str = "", f_name: str = "F"
) -> Figure:
    """Precision over recall of 1 to 7 models with lines of equal F1; the best point of each model is marked.

    Args:
        curves: label -> (precision, recall), both (K,) in [0, 1], one entry per threshold; both 0, or NaN, where a
            threshold finds nothing, which leaves the point out.
        title, f_name: above the axes, and what the best F1 is called in the legend, such as "odsF".

    Raises:
        KdamValueError: another number of curves, other shapes, values outside of [0, 1], or only NaN.
    """
    figure, axes = _figure(5.6, 5.4 + 0.2 * len(curves), title)
    for level in np.arange(1, 10) / 10:
        r = np.linspace(level / (2 - level), 1, 200)
        axes.plot(r, level * r / (2 * r - level), color=LIGHT, linewidth=0.8, zorder=1, label=f"_F {level:.1f}")
        axes.text(1.012, r[0], f"F {level:.1f}", color=GREY, fontsize=7.5, va="center")
    for (label, curve), line in zip(curves.items(), _lines(curves), strict=True):
        p, r = (np.asarray(side, dtype=np.float64) for side in curve)
        known = ~np.isnan(p + r) if p.shape == r.shape and p.ndim == 1 else np.zeros(0, np.bool_)
        if not known.any() or not all(0 <= value <= 1 for value in (*p[known], *r[known])):
            expected = "values in [0, 1], not percent, one of each per threshold, and not all of them NaN"
            raise KdamValueError(f"{label}: precision is {p.shape}, recall {r.shape}; expected {expected}.")
        found = known & (p + r > 0)
        p, r = (p[found], r[found]) if found.any() else (p[known][:1], r[known][:1])
        f = 2 * p * r / np.maximum(p + r, 1e-12)
        best = int(f.argmax())
        axes.plot(r, p, label=f"{label}  {f_name} {100 * f[best]:.1f}", zorder=3, **line)
        axes.plot(r[best], p[best], "o", color=line["color"], **MARKER)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
    # outside: whatever the curves, it hides none of them
    columns = 2 if len(curves) in (4, 6) else 1  # none is left empty
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handlelength=3.5)
    return figure


def confusion_figure(confusion: ArrayLike, class_names: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix, each row divided by its sum, and the IoU of each class beside it.

    Args:
        confusion: (C, C) counts; row: label, column: prediction (`metrics.confusion.confusion_matrix`).
        class_names, title: C names, and what stands above the axes.

    Raises:
        KdamValueError: not square, negative or not finite, or another number of names.
    """
    counts, size = _counts(confusion, (len(class_names),) * 2, "confusion"), len(class_names)
    labelled, hits = counts.sum(1), counts.diagonal()
    with np.errstate(invalid="ignore"):  # 0 / 0 of a class without pixels is NaN, and stays empty
        shares, iou = 100 * counts / labelled[:, None], 100 * hits / (labelled + counts.sum(0) - hits)

    has_numbers = size <= LARGEST_WITH_NUMBERS
    inches = (0.42 if has_numbers else 0.24) * max(size, 4)
    figure, axes = _figure(inches + 3.2, inches + 1.8, title)
    # square roots: a confusion of a few percent is what the reader looks for
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    axes.set(facecolor="#E6E6E6", xlabel="predicted", ylabel="labelled")
    axes.set_xticks(range(size), class_names, rotation=90)
    axes.set_yticks(range(size), class_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(shares >= 0.5) if has_numbers else ():  # smaller ones would fill it with zeros
        color = "white" if shares[row, column] > 35 else "black"
        axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=color, fontsize=8)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(size), ["–" if np.isnan(value) else f"{value:.1f}" for value in iou])
    right.tick_params(length=0, labelsize=9)
    right.spines[:].set_visible(False)
    axes.annotate("IoU, %", (1, 1), (4, 4), xycoords="axes fraction", textcoords="offset points", fontsize=9)
    percents: dict[str, Any] = {"label": "% of the pixels with this label", "ticks": [0, 1, 5, 20, 50, 100]}
    figure.colorbar(image, ax=axes, shrink=min(1.0, 3 / inches), pad=0.02, **percents)
    return figure


def error_figure(
    edges: ArrayLike,
    histograms: Mapping[str, ArrayLike],
    limits: Sequence[float],
    axis: str,
    unit: str = "",
    title: str = "",
    log: bool = False,
) -> Figure:
    """How errors of 1 to 7 models are distributed: the share of pixels below each error, read off at limits.

    Args:
        edges: (K + 1,) ascending edges of the bins.
        histograms: label of a model -> (K,) counts, as `error_histogram` of `DepthErrors` and `NormalErrors` gives them.
        limits: errors whose share is marked, one or more, each one an edge, such as 11.25, 22.5 and 30 degrees.
        axis, unit, title: what the error is, what is written behind each, such as "°" or " m", and above the axes.
        log: logarithmic error axis, for ratios.

    Raises:
        KdamValueError: another number of models, other shapes, no pixel, no limit, or one that is no edge.
    """
    edges = np.asarray(edges, dtype=np.float64)
    counts = {label: _counts(each, (len(edges) - 1,), f"{label}: histogram") for label, each in histograms.items()}
    at_limits = [int(np.abs(edges - limit).argmin()) for limit in limits]
    if not limits or not np.allclose(edges[at_limits], limits):
        raise KdamValueError(f"limits are {tuple(limits)}; expected edges of the histogram, where shares are exact.")
    figure, axes = _figure(6.4, 4.4, title)
    shown = round(1.3 * max(at_limits))  # bins: room behind the last limit, and most pixels of every model
    for (label, each), line in zip(counts.items(), _lines(counts), strict=True):
        below = 100 * np.concatenate([[0], each.cumsum()]) / each.sum()
        shown = max(shown, int(np.searchsorted(below, 98)))
        name = f"{label}  " + " / ".join(f"{value:.1f}" for value in below[at_limits])
        axes.plot(edges, below, label=name, **line)
        axes.plot(limits, below[at_limits], "o", color=line["color"], **MARKER)
    for limit in limits:
        axes.axvline(limit, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    right = edges[min(shown, len(edges) - 1)]
    axes.set(ylabel="% of the pixels below", xlabel=axis, ylim=(0, 104), xlim=(edges[0], right))
    if log:
        axes.set_xscale("log")
        axes.set_xticks([edges[0], *limits])
        axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(value, unit)))
    heading = "% below " + " / ".join(_text(limit, unit) for limit in limits)
    axes.legend(title=heading, loc="lower right", handlelength=3.5)
    return figure


def loss_figure(steps: ArrayLike, losses: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Losses over the steps of trainings, beside each other for 1 or more tasks: the mean over seeds, and their range.

    Args:
        steps: (K,) ascending.
        losses: task -> label of 1 to 7 models -> (S, K) floats of S seeds.

    Raises:
        KdamValueError: another number of models, or other shapes.
    """
    columns = min(len(losses), 4 if len(losses) % 3 else 3)
    rows = -(-len(losses) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.0 * rows), layout="constrained", facecolor="white")
    steps = np.asarray(steps)
    for k, (task, models) in enumerate(losses.items(), start=1):
        axes = figure.add_subplot(rows, columns, k)
        for (label, values), line in zip(models.items(), _lines(models), strict=True):
            seeds = np.asarray(values, dtype=np.float64)
            if seeds.ndim != 2 or seeds.shape[1] != len(steps):
                raise KdamValueError(f"{task}, {label}: losses are {seeds.shape}; expected (seeds, {len(steps)}).")
            axes.plot(steps, seeds.mean(0), label=label, **line)
            axes.fill_between(steps, seeds.min(0), seeds.max(0), color=line["color"], alpha=0.2, linewidth=0)
        axes.set_title(task, loc="left", fontsize=10)
        axes.set(xlabel="step")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, handlelength=3.5)
    return figure


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG of 150 dots per inch, making its folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def _figure(width: float, height: float, title: str) -> tuple[Figure, Any]:
    """A figure of width x height inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.set_title(title, loc="left", fontsize=11, weight="bold", pad=12)
    return figure, axes


def _lines(models: Mapping[str, object]) -> list[dict[str, Any]]:
    """Colour and style of the line of each model."""
    if not 1 <= len(models) <= len(COLORS):
        raise KdamValueError(f"{len(models)} models given: a figure shows 1 to {len(COLORS)}; make several figures")
    return [{"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1.8} for k in range(len(models))]


def _counts(values: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.float64]:
    counts = np.asarray(values, dtype=np.float64)
    if counts.shape != shape or not np.isfinite(counts).all() or not counts.any() or counts.min() < 0:
        raise KdamValueError(f"{what} is {counts.shape}; expected {shape} counts, finite, not negative, not all 0.")
    return counts


def _text(value: float, unit: str) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + unit
