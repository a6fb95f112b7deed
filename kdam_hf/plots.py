"""Figures of metrics: precision-recall curves, confusion matrices, error histograms. Needs the extra `plots` (matplotlib).

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
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("plots need matplotlib: pip install 'kdam-hf[plots]'") from error

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that vanishes on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
GREY, LIGHT = "#5A5A5A", "#C8C8C8"
MARKER: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white", "zorder": 4}
LARGEST_WITH_NUMBERS = 25
VISIBLE_BINS = 100


def precision_recall_figure(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str = "", f_name: str = "F"
) -> Figure:
    """Precision over recall of one or more models with lines of equal F1; the best point of each model is marked.

    Args:
        curves: label -> (precision, recall), both (K,) in [0, 1], one entry per threshold; both 0, or NaN, where a
            threshold finds nothing, which leaves the point out.
        title: above the axes.
        f_name: what the best F1 is called in the legend, such as "odsF".

    Raises:
        KdamValueError: no curve, more than 7, arrays of other shapes, values outside of [0, 1], or only NaN.
    """
    figure, (axes,) = _figure(5.6, 5.4 + 0.2 * len(curves), title)
    for level in np.arange(1, 10) / 10:
        r = np.linspace(level / (2 - level), 1, 200)
        axes.plot(r, level * r / (2 * r - level), color=LIGHT, linewidth=0.8, zorder=1, label=f"_F {level:.1f}")
        axes.text(1.012, r[0], f"F {level:.1f}", color=GREY, fontsize=7.5, va="center")
    for (label, curve), line in zip(curves.items(), _lines(curves), strict=True):
        p, r = (np.asarray(side, dtype=np.float64) for side in curve)
        known = ~np.isnan(p + r) if p.shape == r.shape and p.ndim == 1 else np.zeros(0, np.bool_)
        if not known.any() or not all(0 <= value <= 1 for value in (*p[known], *r[known])):
            raise KdamValueError(
                f"{label}: precision is {p.shape}, recall {r.shape}: expected values in [0, 1], not percent, one of each per "
                "threshold, and not all of them NaN"
            )
        found = known & (p + r > 0)
        p, r = (p[found], r[found]) if found.any() else (p[known][:1], r[known][:1])
        f = np.divide(2 * p * r, p + r, out=np.zeros_like(p), where=p + r > 0)
        best = int(f.argmax())
        axes.plot(r, p, label=f"{label}  {f_name} {100 * f[best]:.1f}", zorder=3, **line)
        axes.plot(r[best], p[best], "o", color=line["color"], **MARKER)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
    # outside: whatever the curves, it hides none of them
    figure.legend(loc="outside lower center", ncols=1 if len(curves) < 4 else 2, frameon=False, handlelength=3.5)
    return figure


def confusion_figure(confusion: ArrayLike, class_names: Sequence[str], title: str = "") -> Figure:
    """A confusion matrix, each row divided by its sum, and the IoU of each class beside it.

    Args:
        confusion: (C, C) counts; row: label, column: prediction (`metrics.confusion.confusion_matrix`).
        class_names: C names.
        title: above the axes.

    Raises:
        KdamValueError: not square, negative or not finite, or another number of names.
    """
    counts, size = _counts(confusion, (len(class_names),) * 2, "confusion"), len(class_names)
    labelled, hits = counts.sum(1), counts.diagonal()
    with np.errstate(invalid="ignore"):  # 0 / 0 of a class without pixels is NaN, and stays empty
        shares, iou = 100 * counts / labelled[:, None], 100 * hits / (labelled + counts.sum(0) - hits)

    inches = (0.42 if size <= LARGEST_WITH_NUMBERS else 0.24) * max(size, 4)
    figure, (axes,) = _figure(inches + 3.2, inches + 1.8, title)
    # square roots: a confusion of a few percent is what the reader looks for
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    axes.set(facecolor="#E6E6E6", xlabel="predicted", ylabel="labelled")
    axes.set_xticks(range(size), class_names, rotation=90)
    axes.set_yticks(range(size), class_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(shares) if size <= LARGEST_WITH_NUMBERS else ():
        if value >= 0.5:  # smaller ones would fill the matrix with zeros
            color = "white" if value > 35 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
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
    """How errors are distributed: a histogram above, the share of pixels below each error underneath, read off at limits.

    Args:
        edges: (K + 1,) ascending edges of the bins.
        histograms: label of a model -> (K,) counts, as `error_histogram` of `DepthErrors` and `NormalErrors` gives them.
        limits: errors whose share is marked, one or more, each one an edge, such as 11.25, 22.5 and 30 degrees.
        axis: what the error is, such as "angle to the true normal".
        unit: written behind each error, such as "°" or " m".
        title: above the axes.
        log: logarithmic error axis, for ratios.

    Raises:
        KdamValueError: no model, more than 7, other shapes, no pixel, no limit, or one that is no edge.
    """
    edges = np.asarray(edges, dtype=np.float64)
    counts = {label: _counts(each, (len(edges) - 1,), f"{label}: histogram") for label, each in histograms.items()}
    at_limits = [int(np.abs(edges - limit).argmin()) for limit in limits]
    if not limits or not np.allclose(edges[at_limits], limits):
        raise KdamValueError(
            f"limits are {tuple(limits)}: expected one or more edges of the histogram, where shares are exact"
        )
    # as far as most pixels of every model and some room behind the last limit, in few enough bins to be seen
    last = max(int(np.searchsorted(each.cumsum(), 0.98 * each.sum())) + 1 for each in counts.values()) if counts else 1
    last = max(last, round(1.3 * max(at_limits)))
    step = next(first * 10**k for k in range(9) for first in (1, 2, 5) if last <= first * 10**k * VISIBLE_BINS)
    starts = np.arange(0, min(last + step, len(edges)), step)

    figure, (top, bottom) = _figure(6.4, 5.8, title, rows=(3, 2))
    for (label, each), line in zip(counts.items(), _lines(counts), strict=True):
        below = 100 * np.concatenate([[0], each.cumsum()]) / each.sum()
        top.stairs(np.diff(below[starts]), edges[starts], **line)
        name = f"{label}  " + " / ".join(f"{value:.1f}" for value in below[at_limits])
        bottom.plot(edges[: starts[-1] + 1], below[: starts[-1] + 1], label=name, **line)
        bottom.plot(limits, below[at_limits], "o", color=line["color"], **MARKER)
    top.set_ylabel(f"% of the pixels per {'bin' if log else _text(edges[step] - edges[0], unit)}")
    top.set_ylim(bottom=0)
    top.tick_params(labelbottom=False)
    bottom.set(ylabel="% of the pixels below", xlabel=axis, ylim=(0, 104))
    for axes in (top, bottom):
        for limit in limits:
            axes.axvline(limit, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.set_xlim(edges[0], edges[starts[-1]])
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator([edges[0], *limits]))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(value, unit)))
    heading = "% below " + " / ".join(_text(limit, unit) for limit in limits)
    top.legend(*bottom.get_legend_handles_labels(), title=heading, loc="upper right", handlelength=3.5)
    return figure


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG of 150 dots per inch, making its folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def _figure(width: float, height: float, title: str, rows: Sequence[int] = (1,)) -> tuple[Figure, Any]:
    """A figure of width x height inches, and its axes above each other in the proportion of `rows`."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = np.atleast_1d(figure.subplots(len(rows), 1, sharex=len(rows) > 1, gridspec_kw={"height_ratios": rows}))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=9)
    axes[0].set_title(title, loc="left", fontsize=11, weight="bold", pad=12)
    return figure, axes


def _lines(models: Mapping[str, object]) -> list[dict[str, Any]]:
    """Colour and style of the line of each model."""
    if not 1 <= len(models) <= len(COLORS):
        raise KdamValueError(f"{len(models)} models given: a figure shows 1 to {len(COLORS)}; make several figures")
    return [{"color": COLORS[k], "linestyle": STYLES[k], "linewidth": 1.8} for k in range(len(models))]


def _counts(values: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.float64]:
    counts = np.asarray(values, dtype=np.float64)
    if counts.shape != shape or not np.isfinite(counts).all() or not counts.any() or counts.min() < 0:
        raise KdamValueError(
            f"{what} is {counts.shape}: expected {shape} counts, finite, not negative and not all of them 0"
        )
    return counts


def _text(value: float, unit: str) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + unit
