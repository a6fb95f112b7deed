"""Colours of numbers, numpy alone: which task has which is said in `readout_kdam`. This file travels with published models."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Values = NDArray[Any]
Picture = NDArray[np.uint8]

NEAR_TO_FAR: tuple[RGB, ...] = (
    *((253, 231, 37), (122, 209, 81), (34, 168, 132)),
    *((42, 120, 142), (65, 68, 135), (68, 1, 84)),
)


def class_palette(n: int) -> Picture:
    """n distinct colours, (n, 3) uint8: golden-ratio steps in hue with three levels of brightness and saturation."""
    golden = (5**0.5 - 1) / 2
    rgb = [
        colorsys.hsv_to_rgb((0.58 + k * golden) % 1, (0.75, 0.5, 0.9)[k % 3], (0.95, 0.75, 0.6)[(k // 2) % 3])
        for k in range(n)
    ]
    return (np.array(rgb) * 255).round().astype(np.uint8).reshape(n, 3)


def ramp(shares: Values, stops: Sequence[RGB]) -> Picture:
    """Linear interpolation through equally spaced colours; shares of any shape, clipped to [0, 1] -> (..., 3) uint8."""
    positions = np.linspace(0, 1, len(stops))
    channels = [np.interp(shares, positions, channel) for channel in np.array(stops, np.float32).T]
    return np.stack(channels, -1).round().astype(np.uint8)


def number_colours(numbers: Values) -> Picture:
    """Colours (H, W, 3) of numbers (H, W) or (H, W, C) of which nothing is known; black where one is not finite.

    One channel is coloured along a ramp over its own range; of more the first three are red, green and blue, each over its own.
    """
    numbers = numbers.astype(np.float32).reshape(*numbers.shape[:2], -1)
    valid = np.isfinite(numbers)
    known = np.where(valid, numbers, 0)
    low = known.min((0, 1), initial=np.inf, where=valid)
    high = known.max((0, 1), initial=-np.inf, where=valid)
    shares = np.clip((known - low) / np.maximum(high - low, 1e-12), 0, 1)
    if shares.shape[2] == 1:
        picture = ramp(shares[..., 0], NEAR_TO_FAR[::-1])  # near stays light where the numbers are of inverse depth
    else:
        picture = np.zeros((*shares.shape[:2], 3), np.uint8)
        picture[..., : shares.shape[2]] = np.rint(255 * shares[..., :3])
    picture[~valid.all(-1)] = 0
    return picture
