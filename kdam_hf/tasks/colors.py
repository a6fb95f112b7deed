"""Colours of rendered predictions: a categorical palette, linear ramps and a depth scale."""

import colorsys

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]


def categorical_palette(n: int) -> NDArray[np.uint8]:
    """n distinct colours, (n, 3) uint8: golden-ratio steps in hue with three levels of brightness and saturation."""
    golden = (5**0.5 - 1) / 2
    rgb = [
        colorsys.hsv_to_rgb((0.58 + k * golden) % 1, (0.75, 0.5, 0.9)[k % 3], (0.95, 0.75, 0.6)[(k // 2) % 3])
        for k in range(n)
    ]
    return (np.array(rgb) * 255).round().astype(np.uint8).reshape(n, 3)


def ramp(values: NDArray[np.float32], *stops: RGB) -> NDArray[np.uint8]:
    """Linear interpolation through equally spaced colours; values in [0, 1] of any shape -> (..., 3) uint8."""
    positions = np.linspace(0, 1, len(stops))
    table = np.array(stops, np.float32)
    channels = [np.interp(values, positions, table[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


NEAR_TO_FAR: tuple[RGB, ...] = (
    (253, 231, 37),
    (122, 209, 81),
    (34, 168, 132),
    (42, 120, 142),
    (65, 68, 135),
    (68, 1, 84),
)
