"""What the labels of one task look like over many images: sums and extremes, so that shares of a split add up."""

from dataclasses import asdict, dataclass
from itertools import zip_longest
from math import exp, inf
from typing import Any


@dataclass(frozen=True)
class LabelStatistics:
    """Facts of the raw labels of one task; add two to get those of both.

    Args:
        images: labelled images.
        pixels: their pixels.
        valid: pixels whose label counts.
        lowest: smallest valid value, in the task's unit; +inf when there is none.
        highest: largest valid value; -inf when there is none.
        counts: valid pixels per class id; empty for a task without classes.
        logarithms: sum of the natural logarithms of the valid values of a task whose values are positive.
    """

    images: int = 0
    pixels: int = 0
    valid: int = 0
    lowest: float = inf
    highest: float = -inf
    counts: tuple[int, ...] = ()
    logarithms: float = 0.0

    @property
    def typical(self) -> float:
        """Geometric mean of positive values, which for depth lies near the median."""
        return exp(self.logarithms / max(self.valid, 1))

    def __add__(self, other: "LabelStatistics") -> "LabelStatistics":
        counts = tuple(a + b for a, b in zip_longest(self.counts, other.counts, fillvalue=0))
        return LabelStatistics(
            self.images + other.images,
            self.pixels + other.pixels,
            self.valid + other.valid,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            counts,
            self.logarithms + other.logarithms,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it."""
        plain = asdict(self) | {"counts": list(self.counts)}
        return {key: value for key, value in plain.items() if value not in (inf, -inf)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LabelStatistics":
        """What `as_json` wrote."""
        return cls(**(data | {"counts": tuple(data["counts"])}))
