"""From a raw sample to tensors: random scale, crop, flip and colour for training, normalisation alone for evaluation.

The crop window is chosen in the pixels of the source and only the window is resized; colours and normalisation are one
matrix. Everything random is drawn from a generator keyed by (seed, epoch, index): a run can resume inside an epoch, and
the number of workers changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from dataset_loaders.collate import pad_view
from dataset_loaders.sample import DenseDataset, Runs, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import IGNORE_INDEX, Task

Floats = NDArray[np.float32]
Transform = Callable[[Sample, int, int], dict[str, Any]]

MAX_CLASS_SHARE, CROP_TRIES = 0.75, 10
"""A crop in which one semseg class covers more of the labelled pixels is drawn again, this often in all."""

_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)
# A colour is its luma plus its chroma, which can be turned by 90 degrees; each as a matrix of RGB.
_LUMA = _RGB_FROM_YIQ @ np.diag([1, 0, 0]) @ _YIQ_FROM_RGB
_CHROMA = np.eye(3) - _LUMA
_TURNED_CHROMA = _RGB_FROM_YIQ @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YIQ_FROM_RGB


@dataclass(frozen=True)
class Window:
    """A rectangle of the source, in its pixels, and the size it is resized to; `mirrored` left to right."""

    top: int
    left: int
    height: int
    width: int
    rows: int
    columns: int
    mirrored: bool = False

    def resize_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bilinear, with antialiasing when the window shrinks; (H, W, 3) -> (rows, columns, 3)."""
        part = image[self.top : self.top + self.height, self.left : self.left + self.width].copy()
        planes = torch.from_numpy(part).permute(2, 0, 1)[None]  # of a copy: what is mapped cannot be written
        resized = F.interpolate(planes, (self.rows, self.columns), mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()[:, :: -1 if self.mirrored else 1]

    def resize_label(self, label: NDArray[Any]) -> NDArray[Any]:
        """The value under each pixel centre: no class or vector is invented; (H, W, ...) -> (rows, columns, ...).

        The channels of a row lie one after another in memory, which is near the order of tensors.
        """
        ys = self.top + ((np.arange(self.rows) + 0.5) * (self.height / self.rows)).astype(np.intp)
        xs = self.left + ((np.arange(self.columns) + 0.5) * (self.width / self.columns)).astype(np.intp)
        rows, xs = label.take(ys, 0), xs[::-1] if self.mirrored else xs
        if label.ndim == 2:
            return rows.take(xs, 1)  # faster than label[ys[:, None], xs]
        channels = np.arange(label.shape[2])[:, None]
        planes = rows.reshape(self.rows, -1).take((xs * channels.size + channels).ravel(), 1)
        return planes.reshape(self.rows, channels.size, self.columns).swapaxes(1, 2)


def _draw_span(source: int, target: int, scale: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """Start and extent in the source, and pixels in the crop, of a random window along one axis."""
    count = min(target, max(1, round(source * scale)))
    extent = min(source, max(1, round(count / scale)))
    return int(rng.integers(source - extent + 1)), extent, count


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


class EvalTransform:
    """The whole image at its own size, normalised.

    Args:
        tasks: the tasks to deliver; one that is missing in a sample comes out invalid everywhere.
        mean: per channel, of values in [0, 1].
        std: likewise.
    """

    def __init__(self, tasks: Sequence[Task], mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise KdamValueError(f"mean {mean}, std {std}: expected three numbers each, std above 0.")
        self.tasks = tuple(tasks)
        self._factors = 1 / (255 * np.array(std))
        self._offsets = -np.array(mean) / np.array(std)

    def __call__(self, sample: Sample, epoch: int, index: int) -> dict[str, Any]:
        """As `TrainTransform.__call__`, the same in every epoch."""
        return self._to_tensors(self._normalize(sample["image"]), sample["labels"], sample["id"], index)

    def _normalize(self, image: NDArray[np.uint8], colors: NDArray[np.float64] | None = None) -> Floats:
        """(v / 255 - mean) / std, after a change of colours, an affine map (3, 4) of RGB, that is clipped to 0..255.

        uint8 (h, w, 3) -> float32 (3, h, w).
        """
        values = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        if colors is None:
            values *= self._factors[:, None, None].astype(np.float32)
            values += self._offsets[:, None, None].astype(np.float32)
            return values
        matrix = (self._factors[:, None] * colors).astype(np.float32)
        values = (matrix[:, :3] @ values.reshape(3, -1)).reshape(values.shape)
        for k, offset in enumerate(self._offsets):  # a channel at a time stays in the cache
            values[k] += np.float32(matrix[k, 3] + offset)
            np.clip(values[k], np.float32(offset), np.float32(offset + 255 * self._factors[k]), out=values[k])
        return values

    def _to_tensors(
        self, values: Floats, labels: Mapping[str, NDArray[Any]], sample_id: str, index: int
    ) -> dict[str, Any]:
        size, tensors = values.shape[1:], {}
        for task in self.tasks:
            label = labels.get(task.name)
            tensors[task.name] = task.label.to_tensor(task.label.unlabelled(*size) if label is None else label)
        view = {"pixel_values": torch.from_numpy(values), "pixel_mask": torch.ones(size, dtype=torch.bool)}
        return view | {"labels": tensors, "index": index, "id": sample_id}


class TrainTransform(EvalTransform):
    """Random scale, crop, flip and colour; an image smaller than the crop lies at its top left, the rest is padding.

    Args:
        tasks, mean, std: as of `EvalTransform`.
        size: (height, width) of the crop, pixels.
        scale: range of the enlargement, drawn uniformly; task labels are corrected for it.
        hflip: mirror half of the samples.
        photometric: brightness +-32/255, contrast and saturation 0.5 to 1.5, hue +-18 degrees, each in half of the
            samples.
        seed: first part of the key of the generator.
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
    ) -> None:
        if min(size) < 1 or not 0 < scale[0] <= scale[1] or seed < 0:
            expected = "positive sizes, 0 < lowest <= highest scale and a seed >= 0"
            raise KdamValueError(f"size {size}, scale {scale}, seed {seed}: expected {expected}.")
        super().__init__(tasks, mean, std)
        self.size, self.scale, self.seed = size, scale, seed
        self.hflip, self.photometric = hflip, photometric
        sizes = {"crop": list(size), "image_mean": list(mean), "image_std": list(std), "scale": list(scale)}
        chances = {"hflip": hflip, "photometric": photometric, "max_class_share": MAX_CLASS_SHARE}
        self.settings: dict[str, Any] = (
            sizes | chances | {"seed": seed, "crop_tries": CROP_TRIES, "resampling": "torch"}
        )
        self._balanced = next((task for task in self.tasks if task.limits_class_share), None)

    def __call__(self, sample: Sample, epoch: int, index: int) -> dict[str, Any]:
        """The view of a raw sample in one epoch.

        Returns:
            `pixel_values` float32 (3, h, w), padded by repeating the border; `pixel_mask` bool (h, w), False there; `labels`
            {task: tensor label}, invalid on padding; `index` and `id`.
        """
        rng = np.random.default_rng([self.seed, epoch, index])
        scale = rng.uniform(*self.scale)
        flip = self.hflip and rng.random() < 0.5
        colors = _draw_color_matrix(rng) if self.photometric else None
        window = self._draw_window(sample, scale, flip, rng)
        labels = {}
        for task in self.tasks:
            if task.name in sample["labels"]:
                label = window.resize_label(sample["labels"][task.name])
                labels[task.name] = task.label.rescale(task.label.mirror_values(label) if flip else label, scale)
        pixel_values = self._normalize(window.resize_image(sample["image"]), colors)
        view = self._to_tensors(pixel_values, labels, sample["id"], index)
        return pad_view(view, self.size, self.tasks)

    def _draw_window(self, sample: Sample, scale: float, flip: bool, rng: np.random.Generator) -> Window:
        """A window that is not filled by one class of the task whose share is limited, if there is one."""
        label = None if self._balanced is None else sample["labels"].get(self._balanced.name)
        (height, width), (most_rows, most_columns) = sample["image"].shape[:2], self.size
        for _ in range(CROP_TRIES):
            top, extent, rows = _draw_span(height, most_rows, scale, rng)
            left, across, columns = _draw_span(width, most_columns, scale, rng)
            window = Window(top, left, extent, across, rows, columns, flip)
            if label is None:
                break
            counts = Image.fromarray(window.resize_label(label)).histogram()[:IGNORE_INDEX]
            if max(counts) / max(1, sum(counts)) <= MAX_CLASS_SHARE:
                break
        return window


class TransformedDataset(Dataset[dict[str, Any]]):
    """A dense dataset seen through a transform; items are asked for by index, or by (epoch, index).

    Samples are checked before the transform sees them, unless the dataset says that it is `checked`.
    """

    def __init__(self, dataset: DenseDataset, transform: Transform) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The transformed sample; a bad one is a DataIntegrityError and never replaced by another."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        try:
            sample = self.dataset[index]
            if not self.dataset.checked:
                check_sample(sample, self.dataset.tasks)
        except DataIntegrityError as error:
            error.add_note(f"(index {index} of {self.dataset.name} {self.dataset.split})")
            raise
        return self.transform(sample, epoch, index)


def shuffled(rng: np.random.Generator, length: int, runs: Runs | None) -> NDArray[np.int64]:
    """Indices in random order; of runs, as many as are kept together are mixed with one another."""
    if runs is None:
        return rng.permutation(length)
    ends, order = np.cumsum(runs.lengths), rng.permutation(len(runs.lengths))
    parts = [np.arange(ends[run] - runs.lengths[run], ends[run]) for run in order]
    mixed = (np.concatenate(parts[k : k + runs.together]) for k in range(0, len(parts), runs.together))
    return np.concatenate([rng.permutation(part) for part in mixed])


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) for every index, ordered by a key of (seed, epoch); the epoch travels with the index to workers.

    Args:
        length: number of samples.
        seed: first part of the key.
        views: fixed crops per sample: the epoch that travels is taken modulo this number; None for ever new ones.
        runs: of the samples, if they are read in runs.
    """

    def __init__(self, length: int, seed: int = 0, views: int | None = None, runs: Runs | None = None) -> None:
        if length < 1 or seed < 0 or (views is not None and views < 1):
            raise KdamValueError(f"length {length}, seed {seed}, views {views}: expected at least 1, 0 and 1.")
        self.length, self.seed, self.views, self.runs, self.epoch = length, seed, views, runs, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # The spawn key keeps this stream apart from that of sample 0: trailing zeros of an entropy list do not count.
        key = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(0,))
        epoch = self.epoch if self.views is None else self.epoch % self.views
        return ((epoch, int(index)) for index in shuffled(np.random.default_rng(key), self.length, self.runs))


class MixedSampler(EpochSampler):
    """(epoch, index) of labelled samples and photos, a fixed share of photos in every run of consecutive ones.

    An epoch is one pass over the labelled samples. The photos follow in passes of their own, which go on from epoch to epoch,
    so that each is seen as often as the others; their pass takes the place of the epoch in the key.

    Args:
        counts: number of labelled samples, which come first, and of photos.
        share: of photos, between 0 and 1.
        seed, views: as of `EpochSampler`.
        runs: of either.
    """

    def __init__(
        self,
        counts: tuple[int, int],
        share: float,
        seed: int = 0,
        views: int | None = None,
        runs: tuple[Runs | None, Runs | None] = (None, None),
    ) -> None:
        super().__init__(round(counts[0] / (1 - share)), seed, views)
        self.runs_of = runs
        self.counts, self.share = counts, share

    def __iter__(self) -> Iterator[tuple[int, int]]:
        is_photo = np.diff(np.floor(np.arange(self.length + 1) * self.share)) > 0
        keys = np.empty((self.length, 2), int)
        for group, (chosen, count) in enumerate(zip((~is_photo, is_photo), self.counts, strict=True)):
            first = self.epoch * int(chosen.sum())
            keys[chosen] = self._draws(group, count, first, first + int(chosen.sum()))
        return ((int(number), int(index)) for number, index in keys)

    def _draws(self, group: int, count: int, first: int, last: int) -> NDArray[np.int64]:
        """(pass, index) of the draws from `first` to `last` of one group, which go through it in one order after another."""
        parts = [np.empty((0, 2), np.int64)]
        for number in range(first // count, -(-last // count)):
            key = np.random.SeedSequence([self.seed, number], spawn_key=(1 + group,))
            order = shuffled(np.random.default_rng(key), count, self.runs_of[group]) + group * self.counts[0]
            order = order[max(0, first - number * count) : last - number * count]
            view = number if self.views is None else number % self.views
            parts.append(np.stack([np.full(len(order), view), order], 1))
        return np.concatenate(parts)
