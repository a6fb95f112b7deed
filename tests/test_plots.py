"""Figures hold the data they were given, at the places where a reader looks for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import DepthErrors, NormalErrors

pytest.importorskip("matplotlib")

from kdam_hf.plots import COLORS, confusion_figure, error_figure, loss_figure, precision_recall_figure, save_png

PRECISION = np.array([0.3, 0.6, 0.9, np.nan])
RECALL = np.array([0.9, 0.6, 0.2, 0.0])
CONFUSION = [[6, 2, 0], [1, 3, 0], [0, 0, 0]]
NAMES = ("wall", "floor", "lamp")
EDGES, COUNTS = np.arange(11.0), [4, 3, 2, 1, 0, 0, 0, 0, 0, 0]
FIGURES = {
    "curves": lambda: precision_recall_figure({"a": (PRECISION, RECALL), "b": (RECALL, PRECISION)}, "Boundaries"),
    "confusion": lambda: confusion_figure(torch.tensor(CONFUSION), NAMES, "Semantic segmentation"),
    "large_confusion": lambda: confusion_figure(np.eye(40) * 7, [f"class {k}" for k in range(40)]),
    "losses": lambda: loss_figure([50, 100], {"depth": {"none": [[2.0, 1.0], [4.0, 2.0]], "cs": [[1.0, 0.5]]}}),
    "errors": lambda: error_figure(EDGES, {"a": COUNTS, "b": COUNTS[::-1]}, (1, 3), "error", " m", "Depth"),
}


def line_of(axes, label):
    return next(line for line in axes.get_lines() if line.get_label().startswith(label))


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())
def test_file_is_a_png_that_fits_a_page_is_not_blank_and_leaves_no_global_state(tmp_path, make):
    import matplotlib
    from matplotlib import _pylab_helpers

    before = dict(matplotlib.rcParams)
    save_png(make(), tmp_path / "new" / "figure.png")
    image = Image.open(tmp_path / "new" / "figure.png")
    assert image.format == "PNG"
    assert all(400 <= side <= 2000 for side in image.size)
    assert len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert dict(matplotlib.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_curves_mark_their_best_point_leave_out_what_finds_nothing_and_differ_in_colour_and_style():
    curves = {f"model {k}": (PRECISION, RECALL) for k in range(len(COLORS) - 1)} | {"none": ([0, 0], [0, 0])}
    figure = precision_recall_figure(curves, f_name="odsF")
    (axes,) = figure.axes
    assert len(curves) % figure.legends[0]._ncols == 0, "no cell of the legend is empty"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
    curve = line_of(axes, "model 0")
    assert curve.get_xydata().tolist() == [[0.9, 0.3], [0.6, 0.6], [0.2, 0.9]]
    assert curve.get_label() == "model 0  odsF 60.0"
    assert line_of(axes, "none").get_label() == "none  odsF 0.0"
    assert any(line.get_xydata().tolist() == [[0.6, 0.6]] for line in axes.get_lines())
    drawn = [line_of(axes, label) for label in curves]
    assert len({line.get_color() for line in drawn}) == len({str(line._unscaled_dash_pattern) for line in drawn}) == 7
    r, p = line_of(axes, "_F 0.4").get_xydata().T
    assert 2 * p * r / (p + r) == pytest.approx(np.full(len(r), 0.4))


def test_cells_are_shares_of_their_row_and_classes_without_pixels_are_left_empty():
    axes = FIGURES["confusion"]().axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "labelled")
    shown = axes.images[0].get_array()
    assert shown[:2].tolist() == [[75, 25, 0], [25, 75, 0]]
    assert shown.mask[2].all()
    assert {text.get_position(): text.get_text() for text in axes.texts}[(1, 0)] == "25"
    iou = [tick.get_text() for tick in axes.child_axes[0].get_yticklabels()]
    assert iou == [f"{100 * 6 / 9:.1f}", f"{100 * 3 / 6:.1f}", "–"]


@pytest.mark.parametrize(("metric", "channels", "log"), [(DepthErrors(), 1, True), (NormalErrors(), 3, False)])
def test_shares_below_limits_are_those_of_the_metric(metric, channels, log):
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(channels, 40, 50, generator=generator) + 0.5
    metric.update(label * torch.exp(torch.randn(label.shape, generator=generator) / 3), label)
    limits = (1.25, 1.25**2, 1.25**3) if log else (11.25, 22.5, 30)
    edges, counts = metric.error_histogram()
    (axes,) = error_figure(edges, {"m": counts}, limits, "error", log=log).axes
    shown = [float(share) for share in line_of(axes, "m").get_label()[3:].split(" / ")]
    expected = [value for key, value in metric.compute().items() if key.startswith(("delta", "within"))]
    assert shown == pytest.approx(expected, abs=0.051)
    assert np.interp(limits, *line_of(axes, "m").get_xydata().T) == pytest.approx(expected)
    assert axes.get_xlim()[1] >= limits[-1]
    assert axes.get_xscale() == ("log" if log else "linear")
    assert all(f"{round(limit, 2):g}" in axes.get_legend().get_title().get_text() for limit in limits)
    assert FIGURES["errors"]().axes[0].get_xlim() == (0, 10), "most pixels of each model are in sight"


REFUSED = {
    "no curve": lambda: precision_recall_figure({}),
    "8 curves": lambda: precision_recall_figure({f"{k}": (PRECISION, RECALL) for k in range(8)}),
    "other shapes": lambda: precision_recall_figure({"a": (PRECISION, RECALL[:2])}),
    "percent": lambda: precision_recall_figure({"a": (100 * PRECISION, RECALL)}),
    "only NaN": lambda: precision_recall_figure({"a": ([np.nan], [0.5])}),
    "not square": lambda: confusion_figure([[1, 2]], ("a", "b")),
    "negative counts": lambda: confusion_figure([[1, -1], [0, 1]], ("a", "b")),
    "no histogram": lambda: error_figure(EDGES, {}, (1,), "error"),
    "3 counts of 10": lambda: error_figure(EDGES, {"a": COUNTS[:3]}, (1,), "error"),
    "no pixel": lambda: error_figure(EDGES, {"a": np.zeros(10)}, (1,), "error"),
    "a limit inside a bin": lambda: error_figure(EDGES, {"a": COUNTS}, (1.5,), "error"),
    "no limit": lambda: error_figure(EDGES, {"a": COUNTS}, (), "error"),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_drawn_is_refused(make):
    with pytest.raises(KdamValueError):
        make()


def test_losses_are_means_over_seeds_within_their_range():
    (axes,) = FIGURES["losses"]().axes
    assert line_of(axes, "none").get_ydata().tolist() == [3, 1.5]
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["none", "cs"]
    assert line_of(axes, "cs").get_xdata().tolist() == [50, 100]
    assert axes.collections[0].get_paths()[0].get_extents().extents.tolist() == [50, 1, 100, 4]
    with pytest.raises(KdamValueError):
        loss_figure([50], {"depth": {"none": [[2.0, 1.0]]}})
