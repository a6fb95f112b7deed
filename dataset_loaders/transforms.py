"""From a raw sample to tensors: random scale, crop, flip and colour for training, normalisation alone for evaluation.

The crop window is chosen in the pixels of the source and only the window is decoded and resized, colours and
normalisation are one matrix. Everything random is drawn from a generator keyed by (seed, epoch, index): a run can resume
inside an epoch, and the number of workers changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import cos, floor, radians, sin
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from dataset_loaders.resampling import (
    Floats,
    bilinear_taps,
    count_ids,
    nearest_indices,
    resize_image,
    resize_label,
)
from dataset_loaders.sample import DenseDataset, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import Task

Transform = Callable[[Sample, int, int], dict[str, Any]]

_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)
# A colour is its luma plus its chroma, which can be turned by 90 degrees; each as a matrix of RGB.
_LUMA = _RGB_FROM_YIQ @ np.diag([1, 0, 0]) @ _YIQ_FROM_RGB
_CHROMA = np.eye(3) - _LUMA
_TURNED_CHROMA = _RGB_FROM_YIQ @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ_FROM_RGB

_SAME_COLORS = np.eye(3, 4, dtype=np.float32)
_NO_LIMITS = np.array([[-np.inf, np.inf]] * 3, np.float32)


@dataclass(frozen=True)
class Window:
    """A rectangle of the source, in its pixels, and the size it is resized to: `rows` x `columns`.

    The columns of the result run from right to left when `mirrored`.
    """

    top: int
    left: int
    height: float
    width: float
    rows: int
    columns: int
    mirrored: bool = False

    def resize_image(
        self,
        image: NDArray[np.uint8],
        colors: Floats = _SAME_COLORS,
        limits: Floats = _NO_LIMITS,
        size: tuple[int, int] | None = None,
    ) -> Floats:
        """Bilinear, with antialiasing when the window shrinks; (H, W, 3) -> (3, rows, columns).

        Args:
            image: RGB.
            colors: (3, 4) affine map of RGB, applied to what is resized.
            limits: (3, 2), lowest and highest result in each channel.
            size: (height, width) of a larger result, in which it lies at the top left; the rest is 0.
        """
        columns = bilinear_taps(self.left, self.width, self.columns, image.shape[1])
        rows = bilinear_taps(self.top, self.height, self.rows, image.shape[0])
        return resize_image(image, rows, columns.reversed() if self.mirrored else columns, colors, limits, size)

    def resize_label(self, label: NDArray[Any], size: tuple[int, int] | None = None, fill: float = 0) -> NDArray[Any]:
        """The value under each pixel centre: no class or vector is invented; (H, W, ...) -> (rows, columns, ...).

        Args:
            label: raw.
            size: (height, width) of a larger result, in which it lies at the top left.
            fill: the value of the rest.
        """
        return resize_label(label, *self._centres, size, fill)

    @cached_property
    def _centres(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Source row of each row, source column of each column."""
        xs = nearest_indices(self.left, self.width, self.columns)
        ys = nearest_indices(self.top, self.height, self.rows)
        return ys, xs[::-1].copy() if self.mirrored else xs


def _draw_span(source: int, target: int, scale: float, rng: np.random.Generator) -> tuple[int, float, int]:
    """Start and extent in the source, and pixels in the crop, of a random window along one axis."""
    count = min(target, max(1, round(source * scale)))
    extent = min(float(source), count / scale)
    return int(rng.integers(floor(source - extent) + 1)), extent, count


def color_matrix(brightness: float, contrast: float, saturation: float, hue: float) -> NDArray[np.float64]:
    """Brightness, contrast, saturation and hue, in this order, as one affine map of RGB; (3, 4).

    Unlike a chain of HSV operations it is clipped to 0..255 once, at the end.

    Args:
        brightness: added, in units of 0..255.
        contrast: factor about black.
        saturation: factor about the luma (Rec. 601) of the pixel.
        hue: rotation in the chroma plane of YIQ, degrees; luma is kept.
    """
    angle = radians(hue)
    chroma = saturation * (cos(angle) * _CHROMA + sin(angle) * _TURNED_CHROMA)
    matrix = np.empty((3, 4))
    matrix[:, :3] = contrast * (_LUMA + chroma)
    matrix[:, 3] = contrast * brightness
    return matrix


def _draw_color_matrix(rng: np.random.Generator) -> NDArray[np.float64]:
    """Each of the four with probability one half, as in the photometric distortion of SSD (arXiv:1512.02325)."""
    use, share = rng.random((2, 4)).tolist()
    ranges = ((-32, 32, 0), (0.5, 1.5, 1), (0.5, 1.5, 1), (-18, 18, 0))  # lowest, highest, none
    drawn = zip(use, share, ranges, strict=True)
    return color_matrix(*(low + (high - low) * s if u < 0.5 else none for u, s, (low, high, none) in drawn))


class TrainTransform:
    """Random scale, crop, flip and colour; an image smaller than the crop lies at its top left, the rest is padding.

    Args:
        tasks: the tasks to deliver; one that is missing in a sample comes out invalid everywhere.
        size: (height, width) of the crop, pixels.
        mean: per channel, of values in [0, 1].
        std: likewise.
        scale: range of the enlargement, drawn uniformly; task labels are corrected for it.
        hflip: mirror half of the samples.
        photometric: brightness +-32/255, contrast and saturation 0.5 to 1.5, hue +-18 degrees, each in half of the
            samples.
        seed: first part of the key of the generator.
        max_class_share: a crop in which one semseg class covers more of the labelled pixels is drawn again ...
        crop_tries: ... at most this often; the last one is taken.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        scale: tuple[float, float] = (0.5, 2.0),
        hflip: bool = True,
        photometric: bool = True,
        seed: int = 0,
        max_class_share: float = 0.75,
        crop_tries: int = 10,
    ) -> None:
        if min(size) < 1 or not 0 < scale[0] <= scale[1] or crop_tries < 1 or seed < 0:
            raise KdamValueError(
                f"size {size}, scale {scale}, crop_tries {crop_tries}, seed {seed}: expected positive sizes, "
                "0 < lowest <= highest scale, at least one try and a seed >= 0."
            )
        self.tasks, self.size, self.scale, self.seed = tuple(tasks), size, scale, seed
        self.hflip, self.photometric = hflip, photometric
        self.max_class_share, self.crop_tries = max_class_share, crop_tries
        self.settings: dict[str, Any] = {
            "crop": list(size),
            "image_mean": list(mean),
            "image_std": list(std),
            "scale": list(scale),
            "hflip": hflip,
            "photometric": photometric,
            "seed": seed,
            "max_class_share": max_class_share,
            "crop_tries": crop_tries,
        }
        self._normalize = _Normalize(mean, std)
        self._balanced = next((task.name for task in self.tasks if task.limits_class_share), None)
        self._invalid = {task.name: task.label.invalid for task in self.tasks}

    def __call__(self, sample: Sample, epoch: int, index: int) -> dict[str, Any]:
        """The view of a raw sample in one epoch.

        Returns:
            `pixel_values` float32 (3, h, w), 0 on padding; `pixel_mask` bool (h, w), False on padding; `labels`
            {task: tensor label}, invalid on padding; `index`.
        """
        rng = np.random.default_rng([self.seed, epoch, index])
        scale = rng.uniform(*self.scale)
        flip = self.hflip and rng.random() < 0.5
        colors = _draw_color_matrix(rng) if self.photometric else None
        window, balanced = self._draw_window(sample, scale, flip, rng)

        colors_and_limits = self._normalize.with_colors(colors)
        labels = {}
        for task in self.tasks:
            if task.name in sample["labels"]:
                cut = balanced if task.name == self._balanced else self._cut(task.name, sample, window)
                # The window is mirrored already: hflip gets it the other way round, and corrects the values.
                labels[task.name] = task.label.rescale(task.label.hflip(cut[:, ::-1]) if flip else cut, scale)
        pixel_values = window.resize_image(sample["image"], *colors_and_limits, self.size)
        return _to_tensors(pixel_values, (window.rows, window.columns), labels, self.tasks, index)

    def _draw_window(
        self, sample: Sample, scale: float, flip: bool, rng: np.random.Generator
    ) -> tuple[Window, NDArray[Any]]:
        """The window, and in it the label that must not be filled by one class; an empty array when there is none."""
        name = self._balanced if self._balanced in sample["labels"] else None
        for _ in range(self.crop_tries):
            (top, height, rows), (left, width, columns) = (
                _draw_span(source, target, scale, rng)
                for source, target in zip(sample["image"].shape[:2], self.size, strict=True)
            )
            window = Window(top, left, height, width, rows, columns, flip)
            label = np.empty((0, 0), np.uint8) if name is None else self._cut(name, sample, window)
            if _largest_share(label) <= self.max_class_share:
                break
        return window, label

    def _cut(self, name: str, sample: Sample, window: Window) -> NDArray[Any]:
        return window.resize_label(sample["labels"][name], self.size, self._invalid[name])


def _largest_share(label: NDArray[np.uint8]) -> float:
    """Share of the most frequent class among labelled pixels; 0 when there is none."""
    counts = count_ids(label)[:255]
    return float(counts.max() / max(1, counts.sum()))


class EvalTransform:
    """The whole image at its own size, normalised.

    Args:
        tasks: the tasks to deliver; one that is missing in a sample comes out invalid everywhere.
        mean: per channel, of values in [0, 1].
        std: likewise.
    """

    def __init__(self, tasks: Sequence[Task], mean: Sequence[float], std: Sequence[float]) -> None:
        self.tasks = tuple(tasks)
        self._normalize = _Normalize(mean, std)

    def __call__(self, sample: Sample, epoch: int, index: int) -> dict[str, Any]:
        """As `TrainTransform.__call__`, the same in every epoch."""
        height, width = sample["image"].shape[:2]
        labels = {name: label[:, :] for name, label in sample["labels"].items()}
        return _to_tensors(self._normalize(sample["image"]), (height, width), labels, self.tasks, index)


class _Normalize:
    """(v / 255 - mean) / std as one multiplication and one addition per value."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise KdamValueError(f"mean {mean}, std {std}: expected three numbers each, std above 0.")
        self._factors = 1 / (255 * np.array(std))
        self._offsets = -np.array(mean) / np.array(std)

    def __call__(self, image: NDArray[np.uint8]) -> Floats:
        """uint8 (h, w, 3) -> float32 (3, h, w)."""
        values = np.empty((3, *image.shape[:2]), np.float32)
        for channel, (factor, offset) in enumerate(zip(self._factors, self._offsets, strict=True)):
            np.multiply(image[..., channel], np.float32(factor), out=values[channel])
            values[channel] += np.float32(offset)
        return values

    def with_colors(self, colors: NDArray[np.float64] | None) -> tuple[Floats, Floats]:
        """Matrix (3, 4) and limits (3, 2) of a change of colours that is clipped to 0..255, and then normalised."""
        matrix = self._factors[:, None] * (_SAME_COLORS if colors is None else colors)
        matrix[:, 3] += self._offsets
        if colors is None:
            return matrix.astype(np.float32), _NO_LIMITS
        limits = np.column_stack([self._offsets, 255 * self._factors + self._offsets])
        return matrix.astype(np.float32), limits.astype(np.float32)


def _to_tensors(
    pixel_values: Floats, used: tuple[int, int], labels: Mapping[str, NDArray[Any]], tasks: Sequence[Task], index: int
) -> dict[str, Any]:
    """Image and labels of one size, of which `used` rows and columns at the top left are no padding."""
    size = pixel_values.shape[1:]
    pixel_mask = np.zeros(size, np.bool_)
    pixel_mask[: used[0], : used[1]] = True
    tensors = {}
    for task in tasks:
        tensors[task.name] = task.label.to_tensor(
            labels[task.name] if task.name in labels else task.label.unlabelled(*size)
        )
    image, mask = torch.from_numpy(pixel_values), torch.from_numpy(pixel_mask)
    return {"pixel_values": image, "pixel_mask": mask, "labels": tensors, "index": index}


class TransformedDataset(Dataset[dict[str, Any]]):
    """A dense dataset seen through a transform; items are asked for by index, or by (epoch, index).

    Args:
        dataset: raw samples.
        transform: `TrainTransform` or `EvalTransform`. Samples are checked before it sees them, unless the dataset says
            that it is `checked`.
    """

    def __init__(self, dataset: DenseDataset, transform: Transform) -> None:
        self.dataset, self.transform = dataset, transform
        self.check = not getattr(dataset, "checked", False)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The transformed sample; a bad one is never replaced by another.

        Raises:
            DataIntegrityError: with the sample's id or file and, as a note, its index.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            sample = self.dataset[index]
            if self.check:
                check_sample(sample, self.dataset.tasks)
        except DataIntegrityError as error:
            error.add_note(f"(index {index} of {self.dataset.name} {self.dataset.split})")
            raise
        return self.transform(sample, epoch, index)


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) for every index, ordered by a key of (seed, epoch); the epoch travels with the index to workers.

    Args:
        length: number of samples.
        seed: first part of the key.
        views: fixed crops per sample: the epoch that travels is taken modulo this number; None for ever new ones.
    """

    def __init__(self, length: int, seed: int = 0, views: int | None = None) -> None:
        if length < 1 or seed < 0 or (views is not None and views < 1):
            raise KdamValueError(
                f"length {length}, seed {seed}, views {views}: expected at least one sample, a seed >= 0 and at least "
                "one view."
            )
        self.length, self.seed, self.views, self.epoch = length, seed, views, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # The spawn key keeps this stream apart from that of sample 0: trailing zeros of an entropy list do not count.
        key = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(0,))
        epoch = self.epoch if self.views is None else self.epoch % self.views
        return ((epoch, int(index)) for index in np.random.default_rng(key).permutation(self.length))
