"""Random materials from the few colours of one scene, and the tileable patterns they show.

Unusual here: every class draws from the same materials, so that only shape and context tell a cabinet from a bed; and
saturation is bounded for everything but the ornament, so that the salient object can be told by its colour.
"""

import colorsys
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np

Vector = tuple[float, float, float]

MAX_SATURATION = 0.6  # of the HSV colour as the camera encodes it
TEXELS, LEVELS, PATTERNS = 256, 5, 9
PLAIN = 0


class Material(NamedTuple):
    """Two linear RGB colours mixed by a pattern that repeats every `period` metres; `glow` is emitted light."""

    colour: Vector
    second: Vector
    pattern: int = PLAIN
    period: float = 1.0
    glow: float = 0.0


def scaled(colour: Vector, factor: float) -> Vector:
    """A colour, lighter or darker."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def plain(colour: Vector) -> Material:
    """A linear RGB colour without a pattern."""
    return Material(colour, scaled(colour, 0.9))


class Painter:
    """Draws materials from the few colours of one scene."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._palette = [self._colour(MAX_SATURATION * dice.random() ** 1.7, 0.2) for _ in range(6)]

    def _colour(self, saturation: float, darkest: float) -> Vector:
        """Any hue, as displayed, undone by the camera's square-root response."""
        red, green, blue = colorsys.hsv_to_rgb(self._dice.random(), saturation, self._dice.uniform(darkest, 1.0))
        return (red * red, green * green, blue * blue)

    def material(self, plainly: float = 0.35) -> Material:
        """A random material, without a pattern with probability `plainly`."""
        dice = self._dice
        first = dice.choice(self._palette)
        if dice.random() < plainly:
            return plain(first)
        second = scaled(first, dice.uniform(0.35, 0.8)) if dice.random() < 0.6 else dice.choice(self._palette)
        return Material(first, second, dice.randrange(PLAIN + 1, PATTERNS), dice.uniform(0.7, 2.2))

    def frame(self) -> Material:
        """For thin structures: often a grey metal."""
        grey = self._dice.uniform(0.02, 0.6)
        return plain((grey, grey, grey)) if self._dice.random() < 0.5 else self.material()

    def ornament(self) -> Material:
        """The one strongly saturated colour of the scene."""
        return plain(self._colour(self._dice.uniform(0.92, 1.0), 0.8))


@cache
def pattern_bank() -> np.ndarray:
    """All patterns, (LEVELS, PATTERNS, TEXELS, TEXELS) float32 in [0, 1]; level l is averaged over 2**l texels."""
    rng = np.random.default_rng(20200604)
    grain, cloud, blotch = (_noise(rng, slope) for slope in (0.7, 1.3, 2.0))
    row, column = np.mgrid[:TEXELS, :TEXELS] / TEXELS
    board = np.floor(column * 8)
    seam = ((column * 8) % 1.0 < 0.04) | ((row + 0.37 * board) % 1.0 < 0.01)
    joint = ((column * 8 + 0.5 * np.floor(row * 16)) % 1.0 < 0.06) | ((row * 16) % 1.0 < 0.12)
    patterns = [
        cloud,
        ((column * 12) % 1.0 < 0.5) * 0.9 + 0.1 * grain,  # stripes
        (np.floor(row * 8) + np.floor(column * 8)) % 2 * 0.9 + 0.1 * cloud,  # checks
        0.5 + 0.5 * np.sin(2 * np.pi * (10 * column + 1.5 * blotch + 0.3 * grain)),  # wood
        np.where(seam, 1.0, 0.56 * ((board * 0.618) % 1.0) + 0.24 * grain),  # floor boards
        blotch,
        np.where(((row * 6) % 1.0 < 0.04) | ((column * 6) % 1.0 < 0.04), 1.0, 0.35 * cloud),  # tiles
        np.hypot((row * 12) % 1.0 - 0.5, (column * 12) % 1.0 - 0.5) < 0.28,  # dots
        np.where(joint, 1.0, 0.5 * cloud),  # bricks
    ]
    levels = np.empty((LEVELS, PATTERNS, TEXELS, TEXELS), np.float32)
    for level in range(LEVELS):
        step = 2**level
        blocks = np.stack(patterns).reshape(PATTERNS, TEXELS // step, step, TEXELS // step, step).mean((2, 4))
        levels[level] = blocks.repeat(step, axis=1).repeat(step, axis=2)
    return levels


def _noise(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Tileable 1/f^slope noise, stretched to [0, 1]."""
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.fftfreq(TEXELS)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TEXELS, TEXELS))) / frequency**slope).real
    low, high = np.percentile(field, (2, 98))
    return np.clip((field - low) / (high - low), 0.0, 1.0)
