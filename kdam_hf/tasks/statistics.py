"""What the labels of one task look like over many images: sums and extremes, so that shares of a split add up."""

from dataclasses import asdict, dataclass
from math import inf
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
    """

    images: int = 0
    pixels: int = 0
    valid: int = 0
    lowest: float = inf
    highest: float = -inf
    counts: tuple[int, ...] = ()

    def __add__(self, other: "LabelStatistics") -> "LabelStatistics":
        counts = other.counts if not self.counts else self.counts
        if self.counts and other.counts:
            counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return LabelStatistics(
            self.images + other.images,
            self.pixels + other.pixels,
            self.valid + other.valid,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            counts,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it."""
        extremes = {} if self.lowest > self.highest else {"lowest": self.lowest, "highest": self.highest}
        plain = {key: value for key, value in asdict(self).items() if key not in ("lowest", "highest")}
        return plain | {"counts": list(self.counts)} | extremes

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LabelStatistics":
        """What `as_json` wrote."""
        return cls(**(data | {"counts": tuple(data["counts"])}))
