"""Colours of predictions and labels, one function per kind of task.

This file travels with published models, where the package and its tasks are not: `kdam_hf.tasks` renders with the same
functions, so a picture from the pipeline, `predict.py` or a contact sheet is one and the same. numpy only.
"""

import colorsys
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Values = NDArray[Any]
Picture = NDArray[np.uint8]

IGNORE_INDEX = 255
NEAREST, FARTHEST = 0.7, 10.0
SALIENCY_STOPS: tuple[RGB, RGB] = ((10, 10, 30), (255, 210, 60))
EDGE_STOPS: tuple[RGB, RGB] = ((255, 255, 255), (20, 20, 40))
NEAR_TO_FAR: tuple[RGB, ...] = (
    (253, 231, 37),
    (122, 209, 81),
    (34, 168, 132),
    (42, 120, 142),
    (65, 68, 135),
    (68, 1, 84),
)


def categorical_palette(n: int) -> NDArray[np.uint8]:
    """n distinct colours, (n, 3) uint8: golden-ratio steps in hue with three levels of brightness and saturation."""
    golden = (5**0.5 - 1) / 2
    rgb = [
        colorsys.hsv_to_rgb((0.58 + k * golden) % 1, (0.75, 0.5, 0.9)[k % 3], (0.95, 0.75, 0.6)[(k // 2) % 3])
        for k in range(n)
    ]
    return (np.array(rgb) * 255).round().astype(np.uint8).reshape(n, 3)


def ramp(values: Values, *stops: RGB) -> Picture:
    """Linear interpolation through equally spaced colours; values in [0, 1] of any shape -> (..., 3) uint8."""
    positions = np.linspace(0, 1, len(stops))
    table = np.array(stops, np.float32)
    channels = [np.interp(values, positions, table[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def class_colors(ids: Values, classes: int) -> Picture:
    """Class ids (H, W) -> one colour per class, black where ignored (255)."""
    table = np.zeros((256, 3), np.uint8)
    table[:classes] = categorical_palette(classes)
    return table[ids.astype(np.uint8)]


def probability_colors(values: Values, stops: tuple[RGB, RGB], ignored: int) -> Picture:
    """Probabilities or labels {0, 1, 255} (H, W) -> between two colours, a grey level where ignored (255)."""
    rgb = ramp(np.clip(values.astype(np.float32), 0, 1), *stops)
    rgb[values == IGNORE_INDEX] = ignored
    return rgb


def saliency_colors(values: Values) -> Picture:
    """Black to yellow by probability; ignored pixels grey."""
    return probability_colors(values, SALIENCY_STOPS, ignored=90)


def edge_colors(values: Values) -> Picture:
    """White background, dark edges; ignored pixels grey."""
    return probability_colors(values, EDGE_STOPS, ignored=160)


def depth_colors(metres: Values, nearest: float = NEAREST, farthest: float = FARTHEST) -> Picture:
    """Metres (H, W) -> yellow near, violet far, on a log scale between `nearest` and `farthest`; black where 0 or less."""
    share = np.log(np.maximum(metres, 1e-3) / nearest) / math.log(farthest / nearest)
    rgb = ramp(np.clip(share, 0, 1), *NEAR_TO_FAR)
    rgb[metres <= 0] = 0
    return rgb


def normal_colors(vectors: Values) -> Picture:
    """Unit vectors (H, W, 3) -> (n + 1) / 2 as RGB; black where the vector is zero."""
    rgb = np.clip((vectors + 1) * 127.5, 0, 255).round().astype(np.uint8)
    rgb[(vectors == 0).all(-1)] = 0
    return rgb


RENDERERS: dict[str, Callable[[Values, Mapping[str, Any]], Picture]] = {
    "categorical": lambda values, spec: class_colors(values, spec["channels"]),
    "human_parts": lambda values, spec: class_colors(values, spec["channels"]),
    "saliency": lambda values, spec: saliency_colors(values),
    "depth": lambda values, spec: depth_colors(values),
    "normals": lambda values, spec: normal_colors(values),
    "edge": lambda values, spec: edge_colors(values),
}


def render(values: Values, spec: Mapping[str, Any]) -> Picture:
    """Colours of a prediction in physical units.

    Args:
        values: class ids, probabilities or metres (H, W), or unit vectors (H, W, 3).
        spec: the task's entry in the model's config; its `kind` says which colours, its `channels` how many classes.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ValueError: a kind that has no colours here.
    """
    if spec["kind"] not in RENDERERS:
        raise ValueError(
            f"task {spec['name']!r} is of kind {spec['kind']!r}; pictures are known for {', '.join(RENDERERS)}. "
            "Ask for values only, or update the code that comes with the model."
        )
    return RENDERERS[spec["kind"]](values, spec)
