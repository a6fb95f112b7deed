"""Raw labels: how each kind of label is read from a file, checked, mirrored, rescaled, stored and made a tensor.

Two forms of a label: *raw* (NumPy, as a data set yields it) and *tensor* (torch, as the loss takes it). How a label is
stored is stated by its kind, never guessed from its dtype or shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from math import exp, inf
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdam_hf.configuration_kdam import IGNORE_INDEX
from kdam_hf.errors import DataIntegrityError

Label = NDArray[Any]
DType = np.dtype[Any]


@dataclass(frozen=True)
class LabelStatistics:
    """Facts of the raw labels of one task over any images: sums and extremes; add two to get those of both.

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
        found: dict[str, Any] = {"lowest": min(self.lowest, other.lowest), "highest": max(self.highest, other.highest)}
        found["counts"] = tuple(a + b for a, b in zip_longest(self.counts, other.counts, fillvalue=0))
        summed = ("images", "pixels", "valid", "logarithms")
        return LabelStatistics(**found, **{name: getattr(self, name) + getattr(other, name) for name in summed})

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it."""
        plain = asdict(self) | {"counts": list(self.counts)}
        return {key: value for key, value in plain.items() if value not in (inf, -inf)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LabelStatistics":
        """What `as_json` wrote."""
        return cls(**(data | {"counts": tuple(data["counts"])}))


@dataclass(frozen=True)
class LabelKind(ABC):
    """What a task says of its labels.

    Args:
        name: of the task, for error messages.
        channels: of its prediction: numbers per pixel of a `FloatMap`, classes of a `ClassMap`.
    """

    name: str
    channels: int = 1

    dtype: ClassVar[DType] = np.dtype(np.uint8)  # of a raw label
    stored_dtype: ClassVar[DType] = np.dtype("u1")  # of what `encode` gives
    invalid: ClassVar[float] = IGNORE_INDEX  # every number of a pixel without a label, raw or tensor
    file_options: ClassVar[dict[str, type]] = {}  # what `dataset.json` may say of the label files, with types
    own_options: ClassVar[dict[str, Any]] = {}  # with which `from_file` reads what `to_file` gives

    @property
    def shape_suffix(self) -> tuple[int, ...]:
        """Trailing dimensions of a raw label (H, W, ...)."""
        return ()

    def unlabelled(self, height: int, width: int) -> Label:
        """A raw label in which every pixel is invalid: what an image without this label gets."""
        # the channels of a row one after another, as a crop has them
        return np.full((height, *self.shape_suffix, width), self.invalid, self.dtype).swapaxes(1, -1)

    @abstractmethod
    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Turn the array stored in a label file into a raw label.

        Args:
            array: as decoded from PNG or NPY.
            options: this task's entry in `dataset.json`.
            where: the file, for the error message.

        Raises:
            DataIntegrityError: wrong shape, dtype or values.
        """

    @abstractmethod
    def check(self, label: Label, where: str) -> None:
        """Raise DataIntegrityError when a raw label is out of range; `where` names its file or sample."""

    def valid(self, label: Label) -> NDArray[np.bool_]:
        """Which pixels of a raw label count; (H, W)."""
        found: NDArray[np.bool_] = self.has_value(label if self.shape_suffix else label[..., None], -1)
        return found

    def has_value(self, numbers: Any, axis: int) -> Any:
        """Where the numbers along `axis` are a label; the one rule for arrays and tensors, by operators of both."""
        return (numbers != self.invalid).all(axis)

    def statistics(self, label: Label) -> LabelStatistics:
        """Facts of one raw label: its share of valid pixels, and the pixels of each class or the range of values."""
        valid = self.valid(label)
        facts = LabelStatistics(images=1, pixels=valid.size, valid=int(valid.sum()))
        return replace(facts, **self._value_statistics(label[valid])) if facts.valid else facts

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        """`counts`, or `lowest` and `highest`, of at least one valid value."""
        return {"lowest": float(values.min()), "highest": float(values.max())}

    def doubt(self, facts: LabelStatistics) -> str:
        """What a user should look at in the labels of a split; empty if nothing stands out."""
        return ""

    def mirror_values(self, label: Label) -> Label:
        """Correct the values (not the grid) of a raw label for an image mirrored left to right."""
        return label

    def rescale(self, label: Label, scale: float) -> Label:
        """Correct the values (not the grid) of a raw label for an image enlarged by `scale`."""
        return label

    @abstractmethod
    def to_tensor(self, label: Label) -> Tensor:
        """Raw label -> tensor label."""

    def encode(self, label: Label, where: str) -> Label:
        """Raw label -> what a prepared data set stores: `stored_dtype`, the same shape.

        Raises:
            DataIntegrityError: a value that the stored form cannot hold.
        """
        return label.astype(self.stored_dtype, copy=False)

    def decode(self, stored: Label) -> Label:
        """The raw label, or any part of it, from what `encode` gave; exact unless the kind states an error."""
        return stored.astype(self.dtype, copy=False)

    def to_file(self, label: Label, where: str) -> Label:
        """Raw label -> the array of a label file, which `from_file` reads with `own_options`: PNG for integers, else NPY.

        Raises:
            DataIntegrityError: a value that the file cannot hold.
        """
        return self.encode(label, where)

    def from_values(self, values: Label) -> Label:
        """Decoded predictions (H, W) or (H, W, c) -> the raw label of what they decide."""
        return values.astype(self.dtype)

    def _expect(self, fits: bool, where: str, given: str, expected: str) -> None:
        if not fits:
            raise DataIntegrityError(f"{where}: {self.name} {given}; expected {expected}.")

    def _expect_2d(self, array: Label, where: str) -> None:
        self._expect(array.ndim == 2, where, f"has the shape {array.shape}", "one channel (H, W)")


@dataclass(frozen=True)
class ClassMap(LabelKind):
    """One of `channels` class ids per pixel: raw uint8 (H, W), tensor int64 (H, W); 255 = ignored."""

    file_options: ClassVar[dict[str, type]] = {
        "num_classes": int,
        "class_names": list,
        "ignore_index": int,
        "first_id": int,
    }

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Integer ids; `ignore_index` of the dataset becomes 255, `first_id` (0 unless stated) the id of the first class."""
        self._expect_2d(array, where)
        self._expect(array.dtype.kind in "iu", where, f"label is {array.dtype}", "integer class ids")
        ignore, first = options.get("ignore_index", IGNORE_INDEX), options.get("first_id", 0)
        ignored = array == ignore
        self._check_range(array[~ignored], first, ignore, where)
        return np.where(ignored, IGNORE_INDEX, array.astype(np.int64) - first).astype(np.uint8)

    def check(self, label: Label, where: str) -> None:
        self._check_range(label[label != IGNORE_INDEX], 0, IGNORE_INDEX, where)

    def from_values(self, values: Label) -> Label:
        """Ids beyond the classes are ignored."""
        return np.where(values < self.channels, values, IGNORE_INDEX).astype(np.uint8)

    def _check_range(self, ids: Label, first: int, ignore: int, where: str) -> None:
        last = first + self.channels - 1
        if ids.size and (ids.min() < first or ids.max() > last):
            wrong = [i for i in np.unique(ids).tolist() if not first <= i <= last]
            expected = (
                f"{first}..{last} or {ignore} (ignore); fix the file, or num_classes or ignore_index in dataset.json"
            )
            self._expect(False, where, f"label holds {wrong[:8]}", expected)

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        return {"counts": tuple(np.bincount(values, minlength=self.channels).tolist())}

    def to_tensor(self, label: Label) -> Tensor:
        return torch.from_numpy(label.astype(np.int64))


@dataclass(frozen=True)
class Mask(LabelKind):
    """0, 1 or 255 (ignored) per pixel: raw uint8 (H, W), tensor float32 (1, H, W)."""

    file_options: ClassVar[dict[str, type]] = {"ignore_index": int, "edge_value": int}
    own_options: ClassVar[dict[str, Any]] = {"edge_value": 1}

    def from_values(self, values: Label) -> Label:
        """Foreground from a probability of one half."""
        return (values >= 0.5).astype(np.uint8)

    def foreground(self, values: set[float], options: Mapping[str, Any]) -> int:
        """The value of the foreground in a file that holds `values`: 1 if it occurs, else 255, unless `edge_value` says."""
        return int(options.get("edge_value", 1 if 1 in values else IGNORE_INDEX))

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Two conventions: {0, 1} with `ignore_index`, or an 8-bit mask {0, 255} in which 255 is the foreground."""
        self._expect_2d(array, where)
        foreground = self.foreground(set(np.unique(array).tolist()), options)
        ignore = None if foreground == IGNORE_INDEX else options.get("ignore_index", IGNORE_INDEX)
        self._expect_values(array, foreground, ignore, where)
        return np.where(array == ignore, IGNORE_INDEX, array == foreground).astype(np.uint8)

    def check(self, label: Label, where: str) -> None:
        self._expect_values(label, 1, IGNORE_INDEX, where)

    def _expect_values(self, label: Label, foreground: int, ignore: int | None, where: str) -> None:
        unknown = sorted(set(np.unique(label).tolist()) - {0, foreground, ignore})
        self._expect(not unknown, where, f"label holds {unknown[:8]}", f"0 and {foreground}, ignore {ignore}")

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        return {"counts": tuple(np.bincount(values, minlength=2).tolist())}

    def to_tensor(self, label: Label) -> Tensor:
        return torch.from_numpy(label.astype(np.float32))[None]


@dataclass(frozen=True)
class FloatMap(LabelKind):
    """Any float numbers per pixel, NaN = invalid: raw float32 (H, W) or (H, W, C), tensor float32 (C, H, W).

    Args:
        mirrored: channels whose sign changes when the image is mirrored, such as the x of a vector.
        scaling: an image enlarged by s multiplies the values by s ** scaling: 1 for pixels, -1 for depth, 0 for most.
    """

    mirrored: tuple[int, ...] = ()
    scaling: int = 0

    dtype: ClassVar[DType] = np.dtype(np.float32)
    stored_dtype: ClassVar[DType] = np.dtype("<f4")
    invalid: ClassVar[float] = float("nan")

    @property
    def shape_suffix(self) -> tuple[int, ...]:
        return () if self.channels == 1 else (self.channels,)

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Floats of the shape of a raw label; NaN marks invalid pixels."""
        fits = array.dtype.kind == "f" and array.ndim >= 2 and array.shape[2:] == self.shape_suffix
        shape = ", ".join(["H", "W", *map(str, self.shape_suffix)])
        self._expect(fits, where, f"is {array.dtype} {array.shape}", f"floats ({shape}), NaN where invalid")
        label = array.astype(np.float32)
        self.check(label, where)
        return label

    def check(self, label: Label, where: str) -> None:
        self._expect(not np.isinf(label).any(), where, "holds infinity", "NaN where invalid")

    def has_value(self, numbers: Any, axis: int) -> Any:
        return (abs(numbers) < inf).all(axis)

    def mirror_values(self, label: Label) -> Label:
        if not self.mirrored:
            return label
        label = label.copy("K")
        for values in (label[..., channel] for channel in self.mirrored) if self.channels > 1 else (label,):
            np.negative(values, out=values)
        return label

    def rescale(self, label: Label, scale: float) -> Label:
        return label * np.float32(scale**self.scaling) if self.scaling else label

    def to_tensor(self, label: Label) -> Tensor:
        array = np.ascontiguousarray(label[None] if self.channels == 1 else label.transpose(2, 0, 1), np.float32)
        # a mirrored row of one pixel counts as contiguous, and keeps its negative stride
        kept = array.flags.writeable and min(array.strides) >= 0
        return torch.from_numpy(array if kept else array.copy())


@dataclass(frozen=True)
class Metres(FloatMap):
    """Depth along the optical axis: raw float32 (H, W), metres, tensor float32 (1, H, W); 0 = invalid.

    Stored as 16-bit millimetres: off by 0.5 mm at most, up to 65.535 m.

    Args:
        scale: units per metre of files of integers; 0 as their options say.
    """

    scaling: int = -1
    scale: float = 0

    stored_dtype: ClassVar[DType] = np.dtype("<u2")
    invalid: ClassVar[float] = 0
    file_options: ClassVar[dict[str, type]] = {"unit": str, "max_depth": float, "scale": float}

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """Integers are millimetres, floats metres, unless the dataset states `unit: m | mm`, or the scale of integers.

        `max_depth` is the largest depth the sensor can report, in metres; without it, floats above 655.35 are taken for
        millimetres by mistake, since no 16-bit file could hold them in centimetres.
        """
        self._expect_2d(array, where)
        self._expect(array.dtype != np.uint8, where, "is 8-bit", "16-bit millimetres (PNG) or float metres (.npy)")
        integer = array.dtype.kind in "iu"
        unit = options.get("unit", "mm" if integer else "m")
        self._expect(unit in ("m", "mm"), where, f"unit is {unit!r}", "'m' or 'mm' in dataset.json")
        per_metre = self.scale if integer and self.scale else 1000 if unit == "mm" else 1
        metres = array.astype(np.float32) * np.float32(1 / per_metre)
        self.check(metres, where)
        limit = options.get("max_depth", 655.35 if per_metre == 1 else inf)
        farthest = metres.max(initial=0)
        hint = "; if it holds millimetres, state unit 'mm' or a scale" if per_metre == 1 else ""
        self._expect(farthest <= limit, where, f"holds {farthest:.4g} m", f"at most {limit:g} m{hint}")
        return metres

    def check(self, label: Label, where: str) -> None:
        finite, nearest = bool(np.isfinite(label).all()), label.min(initial=0)
        found = f"{nearest:.3g} m" if finite else "NaN or infinity"
        self._expect(finite and nearest >= 0, where, f"holds {found}", "at least 0 m, with 0 for invalid pixels")

    def doubt(self, facts: LabelStatistics) -> str:
        typical = facts.typical
        if self.scale or not facts.valid or 0.05 <= typical < 6 or 60 <= typical < 300:
            return ""
        far = typical >= 6
        times, scale = (5, 5000) if 6 <= typical < 60 else (1000, 10**6 if far else 1)
        way = f"{times} times too {'far' if far else 'near'} if these are rooms"
        return (
            f"typically {typical:.3g} m, {way}. If integers in the files are not millimetres, state their units per metre, "
            f"e.g. depth.scale={scale}; depth.scale=1000 says that they do."
        )

    def has_value(self, numbers: Any, axis: int) -> Any:
        return (numbers > 0).all(axis)

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        logarithms = np.log(values, dtype=np.float64).sum()
        return {**super()._value_statistics(values), "logarithms": float(logarithms)}

    def encode(self, label: Label, where: str) -> Label:
        """Millimetres, rounded; what is valid stays valid."""
        rounded = np.rint(label * np.float32(1000))
        farthest = f"holds {label.max(initial=0):.1f} m"
        self._expect(rounded.max(initial=0) <= 65535, where, farthest, "at most 65.535 m, or 0 for invalid")
        return np.where(label > 0, np.maximum(rounded, 1), 0).astype(self.stored_dtype)

    def decode(self, stored: Label) -> Label:
        return stored * np.float32(1e-3)


@dataclass(frozen=True)
class Vectors(FloatMap):
    """Unit vectors: raw float32 (H, W, 3), tensor float32 (3, H, W); the zero vector is invalid.

    Stored as int16 / 32767: within 0.002 degrees. The first component changes its sign in a mirrored image.
    """

    channels: int = 3
    mirrored: tuple[int, ...] = (0,)

    stored_dtype: ClassVar[DType] = np.dtype("<i2")
    invalid: ClassVar[float] = 0

    def from_file(self, array: Label, options: Mapping[str, Any], where: str) -> Label:
        """8-bit files hold n = 2 v / 255 - 1; vectors shorter than 0.5, and black, are invalid."""
        is_8_bit = array.dtype == np.uint8
        fits = array.ndim == 3 and array.shape[-1] == 3 and (is_8_bit or array.dtype.kind == "f")
        expected = "uint8 or floats in [-1, 1], of shape (H, W, 3)"
        self._expect(fits, where, f"are {array.dtype} {array.shape}", expected)
        vectors = array.astype(np.float32)
        if is_8_bit:
            vectors = vectors * np.float32(2 / 255) - 1
            vectors[(array == 0).all(-1)] = 0
        finite = bool(np.isfinite(vectors).all())
        self._expect(finite, where, "hold NaN or infinity", "unit vectors; mark invalid pixels with (0, 0, 0)")
        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        # A unit vector stored as (n + 1) / 2 and read as it is has the length sqrt(1 + (x + y + z) / 2): 1.2 along an axis,
        # but 1 on a wall at 45 degrees. Resizing moves the lengths of some floats, JPEG of medium quality those of many.
        lengths, (tolerance, share) = length[length >= 0.5], (0.1, 0.5) if is_8_bit else (0.05, 0.25)
        off = np.abs(lengths - 1) > tolerance
        if lengths.size and (lengths.max() > 1.8 or off.mean() > share):
            given = f"are not of length 1: {off.mean():.0%} are off, the longest is {lengths.max():.3g}"
            self._expect(False, where, given, "unit vectors in [-1, 1], or 8-bit PNGs with n = 2 v / 255 - 1")
        return np.where(length < 0.5, 0, vectors / np.maximum(length, 0.5)).astype(np.float32)

    def check(self, label: Label, where: str) -> None:
        length = np.linalg.norm(label, axis=-1)
        off = ~(np.abs(length - 1) <= 0.02) & (length != 0)
        self._expect(not off.any(), where, f"have {off.sum()} pixels of another length", "unit vectors or (0, 0, 0)")

    def has_value(self, numbers: Any, axis: int) -> Any:
        return (numbers != 0).any(axis)

    def _value_statistics(self, values: Label) -> dict[str, Any]:
        return {}

    def encode(self, label: Label, where: str) -> Label:
        return np.rint(label * np.float32(32767)).clip(-32767, 32767).astype(self.stored_dtype)

    def decode(self, stored: Label) -> Label:
        return stored * np.float32(1 / 32767)

    def to_file(self, label: Label, where: str) -> Label:
        """8-bit RGB, n = 2 v / 255 - 1: within 0.4 degrees."""
        return np.rint((label + 1) * 127.5).astype(np.uint8)
