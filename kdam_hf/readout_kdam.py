"""How a prediction is read: the one table of values, averages, colours, words and files.

`readout_of(entry)` is the reader of one task; `entry` is the task's entry in a model's config, as made by `Task.spec`, whose
`readout` names a class in `READOUTS`. A new readout is one more class; nothing else knows the names. Values in numpy have
the layout of a raw label, (H, W) or (H, W, c). This file travels with published models and loads alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .colours_kdam import NEAR_TO_FAR, RGB, Picture, Values, class_palette, number_colours, ramp
from .configuration_kdam import IGNORE_INDEX
from .upsampling_kdam import bands_of_rows

Legend = list[tuple[str, RGB]]


class Readout(ABC):
    """What readers share. `quantity`, `decide` and `unmirrored` see the channels last: (B, rows, W, C)."""

    words = "number"  # what a value is, e.g. for a table; behind `number` the unit of the task may follow
    has_ids = False  # values are class ids
    has_scale = True  # the legend lists colours along one scale, low to high, not those of separate things
    suffix = ".npy"  # end of the file name of a stored map
    stored = "float32"
    # which arrays `from_file` takes, in words, and by kind or name of their type the factor that makes values of them
    readable: tuple[str, Mapping[str, float]] = ("floats", {"f": 1})
    maps: int = 0  # numbers per pixel in a decoded map; as many as channels unless stated

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry = entry
        self.maps = self.maps or entry["channels"]

    def quantity(self, prediction: Tensor) -> Tensor:
        """What may be averaged over views: probabilities, metres, vectors."""
        return prediction

    def decide(self, quantity: Tensor) -> Tensor:
        """Values (B, rows, W) or (B, rows, W, c) from an average."""
        return quantity

    def values(self, prediction: Tensor) -> Tensor:
        """Values from a single view."""
        return self.decide(self.quantity(prediction))

    def unmirrored(self, quantity: Tensor) -> Tensor:
        """The quantity of a mirrored photo in the frame of the photo."""
        return quantity.flip(2)

    def read(
        self, views: Sequence[Tensor], seen: tuple[int, int], target: tuple[int, int], keep: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Values at the size of the photo, in bands of rows: dozens of classes at the size of a camera fill the memory.

        Args:
            views: predictions (B, C, h, w) at stride 4 of the photo and, if there is a second, of its mirror image.
            seen: (height, width) the model saw.
            target: (height, width) of the photo.
            keep: return the averaged quantity (B, H, W, K) too, e.g. class probabilities; None otherwise.

        Returns:
            Values (B, H, W), or (B, c, H, W) where `decide` keeps the channels: ids int64, everything else float32.
        """
        values, kept = [], []
        for first, *second in zip(*(bands_of_rows(view, seen, target) for view in views), strict=True):
            if not second and not keep:
                values.append(self.values(first))
                continue
            quantity = self.quantity(first)
            for mirrored in second:
                quantity = (quantity + self.unmirrored(self.quantity(mirrored))) / 2
            values.append(self.decide(quantity))
            kept += [quantity] if keep else []
        whole = torch.cat(values, 1)
        return whole.movedim(-1, 1) if whole.ndim == 4 else whole, torch.cat(kept, 1) if keep else None

    def decode(self, prediction: Tensor, size: Sequence[int]) -> Tensor:
        """Values, as of `read`, of one prediction (B, C, ceil(H / 4), ceil(W / 4)) at the `size` (H, W) the model saw."""
        whole = int(size[0]), int(size[1])
        return self.read([prediction], whole, whole)[0].contiguous()

    @abstractmethod
    def colours(self, values: Values) -> Picture:
        """RGB of decoded values or of a raw label, (H, W, 3); what is invalid has a colour of its own."""

    @abstractmethod
    def legend(self) -> Legend:
        """What the colours mean: (text, RGB)."""

    def to_file(self, values: Values) -> Values:
        """Values -> the array that is stored."""
        return values.astype(self.stored)

    def from_file(self, array: Values) -> Tensor:
        """What `decode` gave for one image, from an array in any usual form; values are left to the metric.

        Raises:
            ValueError: wrong shape or type.
        """
        what, factors = self.readable
        factor = factors.get(array.dtype.kind, factors.get(array.dtype.name))
        suffix = () if self.maps == 1 else (self.maps,)
        if factor is None or array.ndim < 2 or array.shape[2:] != suffix:
            sides = ", ".join(["H", "W", *map(str, suffix)])
            raise ValueError(f"{array.dtype} array {array.shape}; expected {what}, of shape ({sides}).")
        pixels = array.reshape(*array.shape[:2], self.maps).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)) * factor


class ClassIds(Readout):
    """The most probable class."""

    words, has_ids, has_scale, suffix, stored = "class id", True, False, ".png", "uint8"
    readable, maps = ("integer class ids, 0 for the first class", {"i": 1, "u": 1}), 1

    def quantity(self, prediction: Tensor) -> Tensor:
        return prediction.softmax(-1)

    def decide(self, quantity: Tensor) -> Tensor:
        return quantity.argmax(-1)

    def values(self, prediction: Tensor) -> Tensor:
        return prediction.argmax(-1)

    def colours(self, values: Values) -> Picture:
        """One colour per class, black where ignored (255)."""
        table = np.zeros((max(256, self.entry["channels"]), 3), np.uint8)
        table[: self.entry["channels"]] = class_palette(self.entry["channels"])
        return table[values.astype(np.uint16)]

    def legend(self) -> Legend:
        names = self.entry["class_names"] or [f"class {k}" for k in range(self.entry["channels"])]
        return legend_of(names, class_palette(len(names)))

    def from_file(self, array: Values) -> Tensor:
        return super().from_file(array)[0].long()


class Probability(Readout):
    """Each channel is a logit of its own. Stored as 255 p in 8 bits: off by 0.002 at most."""

    words, stored = "probability in [0, 1]", "uint8"
    readable = (
        "probabilities: floats, or 8 or 16 bits of which the largest number is 1",
        {"f": 1, "uint8": 1 / 255, "uint16": 1 / 65535},
    )
    stops: tuple[RGB, RGB] = ((255, 255, 255), (20, 20, 40))
    ignored = 160

    def __init__(self, entry: Mapping[str, Any]) -> None:
        super().__init__(entry)
        self.suffix = ".png" if self.maps == 1 else ".npy"

    def quantity(self, prediction: Tensor) -> Tensor:
        return prediction.sigmoid()

    def colours(self, values: Values) -> Picture:
        """Between two colours by the largest probability of a pixel; grey where ignored (255)."""
        largest = values.max(-1) if values.ndim == 3 else values
        picture = ramp(largest.astype(np.float32), self.stops)
        picture[largest == IGNORE_INDEX] = self.ignored
        return picture

    def legend(self) -> Legend:
        return [("0", self.stops[0]), ("1", self.stops[1])]

    def to_file(self, values: Values) -> Values:
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


class Foreground(Probability):
    """Softmax probability of the last class, one map without a channel axis."""

    stops, ignored, maps = ((10, 10, 30), (255, 210, 60)), 90, 1

    def quantity(self, prediction: Tensor) -> Tensor:
        return prediction.softmax(-1)

    def decide(self, quantity: Tensor) -> Tensor:
        return quantity[..., -1]

    def values(self, prediction: Tensor) -> Tensor:
        # as decided from the quantity, without a softmax over two neighbours in memory, which is slow
        return (prediction[..., -1] - prediction[..., :-1].logsumexp(-1)).sigmoid()

    def from_file(self, array: Values) -> Tensor:
        return super().from_file(array)[0]


class UnitVectors(Readout):
    """Directions, normalised again after interpolation. Stored within 0.03 degrees."""

    words, has_scale, stored = "unit vector (x right, y up, z towards the camera)", False, "float16"
    readable = ("vectors: floats in [-1, 1], or 8-bit n = 2 v / 255 - 1", {"f": 1, "uint8": 2 / 255})

    def quantity(self, prediction: Tensor) -> Tensor:
        return F.normalize(prediction, dim=-1, eps=1e-6)

    def decide(self, quantity: Tensor) -> Tensor:
        return F.normalize(quantity, dim=-1, eps=1e-6)

    def unmirrored(self, quantity: Tensor) -> Tensor:
        """x changes its sign."""
        return quantity.flip(2) * quantity.new_tensor([-1, 1, 1])

    def colours(self, values: Values) -> Picture:
        """(n + 1) / 2 as RGB; black where the vector is zero."""
        picture = np.clip((values + 1) * 127.5, 0, 255).round().astype(np.uint8)
        picture[(values == 0).all(-1)] = 0
        return picture

    def legend(self) -> Legend:
        return [("x, right", (255, 128, 128)), ("y, up", (128, 255, 128)), ("z, to camera", (128, 128, 255))]

    def from_file(self, array: Values) -> Tensor:
        return super().from_file(array) - (1 if array.dtype == np.uint8 else 0)


class Numbers(Readout):
    """Numbers as the head gives them, any number of channels; for their colours see `number_colours`.

    `mirrored` in the settings lists the channels whose sign changes with a mirrored photo, such as the x of a vector.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        super().__init__(entry)
        self.has_scale = self.maps == 1

    def unmirrored(self, quantity: Tensor) -> Tensor:
        """Values of the channels that are `mirrored` change their sign."""
        mirrored = self.entry["settings"].get("mirrored", ())
        return quantity.flip(2) * quantity.new_tensor([-1 if k in mirrored else 1 for k in range(self.maps)])

    def colours(self, values: Values) -> Picture:
        return number_colours(values)

    def legend(self) -> Legend:
        if self.maps == 1:
            return [*zip(("lowest", "", "", "", "", "highest"), NEAR_TO_FAR[::-1], strict=True)]
        shown = min(self.maps, 3)
        return legend_of([f"channel {k}" for k in range(shown)], 255 * np.eye(shown, 3, dtype=np.uint8))


class Metres(Numbers):
    """Depth; coloured on a log scale between the `nearest` and the `farthest` of the settings."""

    words = "metres"
    readable = ("float metres (.npy) or 16-bit millimetres (PNG)", {"f": 1, "uint16": 1e-3})

    def __init__(self, entry: Mapping[str, Any]) -> None:
        super().__init__(entry)
        self.nearest, self.farthest = (entry["settings"][key] for key in ("nearest", "farthest"))
        if not 0 < self.nearest < self.farthest:
            limits = f"nearest {self.nearest}, farthest {self.farthest}"
            raise ValueError(f"task {entry['name']!r}: {limits}; expected 0 < nearest < farthest, in metres.")

    def colours(self, values: Values) -> Picture:
        """Yellow near, violet far; black where 0 or less."""
        shares = np.log(np.maximum(values, 1e-3) / self.nearest) / math.log(self.farthest / self.nearest)
        picture = ramp(shares, NEAR_TO_FAR)
        picture[values <= 0] = 0
        return picture

    def legend(self) -> Legend:
        places = np.geomspace(self.nearest, self.farthest, len(NEAR_TO_FAR))
        return [(f"{metres:.1f} m", rgb) for metres, rgb in zip(places, NEAR_TO_FAR, strict=True)]


def legend_of(names: Iterable[str], palette: Picture) -> Legend:
    """Names with their colours (n, 3)."""
    return [(name, (r, g, b)) for name, (r, g, b) in zip(names, palette.tolist(), strict=True)]


def numbers_or_metres(entry: Mapping[str, Any]) -> Readout:
    """Metres if the settings say how near and how far."""
    return (Metres if {"nearest", "farthest"} <= set(entry["settings"]) else Numbers)(entry)


READOUTS: dict[str, Callable[[Mapping[str, Any]], Readout]] = {
    "argmax": ClassIds,
    "foreground": Foreground,
    "sigmoid": Probability,
    "unit": UnitVectors,
    "none": numbers_or_metres,
}


def readout_of(entry: Mapping[str, Any]) -> Readout:
    """The reader of a task, by its entry in a model's config.

    Raises:
        ValueError: a readout this version does not know, or settings that make no sense.
    """
    if entry["readout"] not in READOUTS:
        given = f"task {entry['name']!r} has the readout {entry['readout']!r}; expected one of {', '.join(READOUTS)}"
        raise ValueError(f"{given}. Use the version of kdam-hf that wrote the model.")
    return READOUTS[entry["readout"]](entry)


def as_map(values: Tensor) -> Values:
    """Decoded values of one image, (H, W) or (c, H, W), in the layout of a raw label: (H, W) or (H, W, c)."""
    array = values.cpu().numpy()
    if array.ndim == 2:
        return array
    return array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))
