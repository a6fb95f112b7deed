"""From a raw sample to tensors: random scale, crop, flip and colour for training, normalisation alone for evaluation.

The crop window is chosen in the pixels of the source and only the window is resized. Everything random is drawn from
a generator keyed by (seed, epoch, index): a run can resume inside an epoch, and the number of workers changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, cos, floor, radians, sin
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, Sampler

from dataset_loaders.sample import DenseDataset, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import Task

Transform = Callable[[Sample, int, int], dict[str, Any]]

_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)


@dataclass(frozen=True)
class Window:
    """A rectangle of the source, in its pixels, and the size it is resized to: `rows` x `columns`."""

    top: int
    left: int
    height: float
    width: float
    rows: int
    columns: int

    def resize_image(self, image: NDArray[np.uint8]) -> Image.Image:
        """Bilinear, with antialiasing when the window shrinks; (H, W, 3) -> rows x columns."""
        margin = ceil(max(1.0, self.height / self.rows, self.width / self.columns)) + 1  # support of the filter
        y, x = max(0, self.top - margin), max(0, self.left - margin)
        bottom, right = ceil(self.top + self.height) + margin, ceil(self.left + self.width) + margin
        box = (self.left - x, self.top - y, self.left - x + self.width, self.top - y + self.height)
        source = Image.fromarray(image[y:bottom, x:right])
        return source.resize((self.columns, self.rows), Image.Resampling.BILINEAR, box)

    def resize_label(self, label: NDArray[Any]) -> NDArray[Any]:
        """The value under each pixel centre: no class or vector is invented; (H, W, ...) -> (rows, columns, ...)."""
        ys = _nearest(self.top, self.height, self.rows, label.shape[0])
        xs = _nearest(self.left, self.width, self.columns, label.shape[1])
        window = label[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        ys, xs = ys - ys[0], xs - xs[0]
        # Picking columns is the slow half: done on whichever side has fewer rows.
        if len(ys) > len(window):
            return window.take(xs, axis=1).take(ys, axis=0)
        return window.take(ys, axis=0).take(xs, axis=1)


def _nearest(start: int, extent: float, count: int, size: int) -> NDArray[np.intp]:
    centres = start + (np.arange(count) + 0.5) * (extent / count)
    return np.minimum(centres.astype(np.intp), size - 1)


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
    rotation = np.array([[1, 0, 0], [0, cos(angle), -sin(angle)], [0, sin(angle), cos(angle)]])
    chroma = np.diag([1, saturation, saturation])
    linear = contrast * (_RGB_FROM_YIQ @ rotation @ chroma @ _YIQ_FROM_RGB)
    return np.column_stack([linear, linear.sum(1) * brightness])


def _draw_color_matrix(rng: np.random.Generator) -> NDArray[np.float64]:
    """Each of the four with probability one half, as in the photometric distortion of SSD (arXiv:1512.02325)."""
    use = rng.random(4) < 0.5
    drawn = rng.uniform([-32, 0.5, 0.5, -18], [32, 1.5, 1.5, 18])
    return color_matrix(*np.where(use, drawn, [0, 1, 1, 0]))


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
        self._normalize = _Normalize(mean, std)
        self._balanced = next((task.name for task in self.tasks if task.limits_class_share), None)

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
        window = self._draw_window(sample, scale, rng)

        image = window.resize_image(sample["image"])
        if colors is not None:
            image = image.convert("RGB", tuple(colors.ravel().tolist()))
        pixels = np.asarray(image)
        labels = {}
        for task in self.tasks:
            if task.name in sample["labels"]:
                label = task.rescale(window.resize_label(sample["labels"][task.name]), scale)
                labels[task.name] = task.hflip(label) if flip else label
        return _to_tensors(pixels[:, ::-1] if flip else pixels, labels, self.tasks, self.size, self._normalize, index)

    def _draw_window(self, sample: Sample, scale: float, rng: np.random.Generator) -> Window:
        balanced = sample["labels"].get(self._balanced) if self._balanced else None
        for _ in range(self.crop_tries):
            (top, height, rows), (left, width, columns) = (
                _draw_span(source, target, scale, rng)
                for source, target in zip(sample["image"].shape[:2], self.size, strict=True)
            )
            window = Window(top, left, height, width, rows, columns)
            if balanced is None or _largest_share(window.resize_label(balanced)) <= self.max_class_share:
                break
        return window


def _largest_share(label: NDArray[np.uint8]) -> float:
    """Share of the most frequent class among labelled pixels; 0 when there is none."""
    counts = np.bincount(label.ravel(), minlength=256)[:255]
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
        return _to_tensors(sample["image"], sample["labels"], self.tasks, (height, width), self._normalize, index)


class _Normalize:
    """(v / 255 - mean) / std as one multiplication and one subtraction per value."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise KdamValueError(f"mean {mean}, std {std}: expected three numbers each, std above 0.")
        self._factor = (1 / (255 * np.array(std))).astype(np.float32)[:, None, None]
        self._offset = (np.array(mean) / np.array(std)).astype(np.float32)[:, None, None]

    def __call__(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """uint8 (h, w, 3) -> float32 (3, h, w), written into `out`."""
        out[:] = image.transpose(2, 0, 1)
        out *= self._factor
        out -= self._offset


def _to_tensors(
    image: NDArray[np.uint8],
    labels: Mapping[str, NDArray[Any]],
    tasks: Sequence[Task],
    size: tuple[int, int],
    normalize: _Normalize,
    index: int,
) -> dict[str, Any]:
    """Content at the top left of a canvas of `size`; padding is 0, masked and invalid."""
    rows, columns = image.shape[:2]
    pixel_values = np.zeros((3, *size), np.float32)
    normalize(image, pixel_values[:, :rows, :columns])
    pixel_mask = torch.zeros(size, dtype=torch.bool)
    pixel_mask[:rows, :columns] = True
    tensors = {}
    for task in tasks:
        canvas = labels.get(task.name)
        if canvas is None or (rows, columns) != size:
            canvas = task.unlabelled(*size)
            if task.name in labels:
                canvas[:rows, :columns] = labels[task.name]
        tensors[task.name] = task.to_tensor(canvas)
    return {"pixel_values": torch.from_numpy(pixel_values), "pixel_mask": pixel_mask, "labels": tensors, "index": index}


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
    """

    def __init__(self, length: int, seed: int = 0) -> None:
        if length < 1 or seed < 0:
            raise KdamValueError(f"length {length}, seed {seed}: expected at least one sample and a seed >= 0.")
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # The spawn key keeps this stream apart from that of sample 0: trailing zeros of an entropy list do not count.
        key = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(0,))
        epoch = self.epoch
        return ((epoch, int(index)) for index in np.random.default_rng(key).permutation(self.length))
