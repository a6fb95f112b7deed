"""Random materials from the few colours of one scene, the same for every class.

Unusual here: saturation is bounded for everything but the ornament, so that the salient object can be told by its
colour.
"""

from __future__ import annotations

import colorsys

from dataset_loaders.rooms.scene import Dice, Material, Vector, scaled
from dataset_loaders.rooms.textures import PATTERNS, PLAIN

MAX_SATURATION = 0.6  # of the HSV colour as the camera encodes it
ORNAMENT_SATURATION = 0.92  # at least


def _linear(hue: float, saturation: float, value: float) -> Vector:
    """A colour as displayed, undone by the camera's square-root response."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return (red * red, green * green, blue * blue)


class Painter:
    """Draws materials from the few colours of one scene."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._palette = [self.colour() for _ in range(6)]

    def colour(self) -> Vector:
        """A linear RGB colour of at most `MAX_SATURATION`."""
        dice = self._dice
        return _linear(dice.random(), MAX_SATURATION * dice.random() ** 1.7, dice.uniform(0.2, 1.0))

    def material(self, plain: float = 0.35) -> Material:
        """A random material, untextured with probability `plain`."""
        dice = self._dice
        first = dice.pick(self._palette) if dice.chance(0.65) else self.colour()
        if dice.chance(plain):
            return Material(first, scaled(first, dice.uniform(0.8, 0.95)), PLAIN, dice.uniform(0.8, 2.0))
        if dice.chance(0.6):
            second = scaled(first, dice.uniform(0.35, 0.8))
        else:
            second = dice.pick(self._palette)
        return Material(first, second, dice.pick(PATTERNS), dice.uniform(0.7, 2.2))

    def metal(self) -> Material:
        """A plain grey, dark or light, for thin structures."""
        grey = self._dice.uniform(0.02, 0.6)
        return Material((grey, grey, grey), (0.9 * grey, 0.9 * grey, 0.9 * grey), PLAIN, 1.0)

    def ornament(self) -> Material:
        """The one strongly saturated colour of the scene."""
        dice = self._dice
        colour = _linear(dice.random(), dice.uniform(ORNAMENT_SATURATION, 1.0), dice.uniform(0.8, 1.0))
        return Material(colour, colour, PLAIN, 1.0)
