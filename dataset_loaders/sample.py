"""What every data set is: raw samples and how they are checked."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.reading import check_id, read_photo_header
from kdam_hf.errors import DataIntegrityError, KdamValueError, LabelOrientationError
from kdam_hf.io import lines_sha256
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.tasks import Task, make_task, task_class


class Sample(TypedDict):
    """A raw sample: `image` uint8 (H, W, 3) RGB, `labels` raw labels by task name, each (H, W, ...).

    A task that is absent from `labels` is unlabelled for that image (partial label).
    """

    id: str
    image: NDArray[np.uint8]
    labels: dict[str, NDArray[Any]]


class Runs(NamedTuple):
    """Samples that are read at once: how many there are in each run, and how many runs are kept in memory together."""

    lengths: tuple[int, ...]
    together: int


class DenseDataset(ABC):
    """One split of images with dense labels; picklable, so that it can be read in worker processes.

    A subclass has `name`, `split`, `tasks`, `ids` and `__getitem__`; everything else has a default.
    """

    name: str
    split: str
    tasks: tuple[Task, ...]
    registered: str = ""
    """The name by which `open_dataset` opened it."""
    origin: str = ""
    """Where the files are and which layout was recognised."""
    notes: Sequence[str] = ()
    """What a user should know of the labels, e.g. which are derived."""
    options: Mapping[str, Any] = {}
    """With which `open_dataset` opened it, defaults included."""
    checked: bool = False
    """Whether every sample is known to keep the contract, so that it need not be checked when it is read."""
    runs: Runs | None = None
    """The order in which it is read in good time, where not any order is."""

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """Of the samples, in order."""

    @abstractmethod
    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample.

        Raises:
            DataIntegrityError: a file is missing, unreadable, out of range or of another size than its image; names it.
        """

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of the ids, one a line: whether two scores are over the same images."""
        return lines_sha256(self.ids)

    @property
    def labelled(self) -> set[str]:
        """Names of the tasks that have labels."""
        return {task.name for task in self.tasks}

    def stamp(self, index: int) -> str:
        """Changes with what a sample depends on, such as its files; empty if that cannot be told."""
        return ""

    def photo(self, index: int) -> Path | bytes | None:
        """The image file of a sample, or its content, if it is one."""
        return None

    def photo_header(self, index: int) -> PhotoHeader | None:
        """Upright size and stored orientation of an image; None where only decoding would tell."""
        photo = self.photo(index)
        return None if photo is None else read_photo_header(photo, f"{self.name} {self.ids[index]}")

    def unlisted(self) -> list[str]:
        """Files that belong to no split though they should: one sentence per folder."""
        return []


class SubsetDataset(DenseDataset):
    """The samples of `dataset` with the given ids, in the order of `ids`; all else is that of `dataset`.

    Raises:
        KdamValueError: no id, an id that is not in the split, or twice.
    """

    ids: Sequence[str] = ()

    def __init__(self, dataset: DenseDataset, ids: Sequence[str]) -> None:
        index_of = {sample_id: index for index, sample_id in enumerate(dataset.ids)}
        unknown = [sample_id for sample_id in ids if sample_id not in index_of]
        if unknown or not ids or len(set(ids)) != len(ids):
            raise KdamValueError(
                f"{dataset.name} {dataset.split}: {len(unknown)} of {len(ids)} ids are not in the split, first "
                f"{', '.join(unknown[:5])}; expected some of its {len(index_of)}, such as {dataset.ids[0]}, each once."
            )
        self.name, self.split, self.tasks, self.ids = dataset.name, dataset.split, dataset.tasks, tuple(ids)
        self.registered, self.options, self.checked = dataset.registered, dataset.options, dataset.checked
        self.origin, self.notes = dataset.origin, dataset.notes
        self.runs = dataset.runs if self.ids == tuple(dataset.ids) else None
        self._dataset = dataset
        self._indices = [index_of[sample_id] for sample_id in ids]

    def _at(self, index: int) -> tuple[DenseDataset, int]:
        """Where the sample at `index` comes from."""
        return self._dataset, self._indices[index]

    def __getitem__(self, index: int) -> Sample:
        dataset, source_index = self._at(index)
        return dataset[source_index]

    @property
    def labelled(self) -> set[str]:
        return self._dataset.labelled

    def stamp(self, index: int) -> str:
        dataset, source_index = self._at(index)
        return dataset.stamp(source_index)

    def photo(self, index: int) -> Path | bytes | None:
        dataset, source_index = self._at(index)
        return dataset.photo(source_index)

    def photo_header(self, index: int) -> PhotoHeader | None:
        dataset, source_index = self._at(index)
        return dataset.photo_header(source_index)

    def unlisted(self) -> list[str]:
        return self._dataset.unlisted()


def stored_task(name: str, class_names: Sequence[str], dataset: str | None = None) -> Task:
    """The task called `name`, with these classes where it has classes of its own."""
    named = "class_names" in task_class(name).label_kind.file_options
    return make_task(name, class_names if named else (), dataset)


def check_sample(sample: Sample, tasks: Sequence[Task]) -> Sample:
    """The sample itself, if its image and the labels of `tasks` keep the contract; other labels are not looked at.

    Raises:
        DataIntegrityError: names the sample, the task and both sizes, dtypes or the values at fault.
    """
    where = f"sample {check_id(sample['id'])!r}"
    image = sample["image"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataIntegrityError(f"{where}: image is {image.dtype} {image.shape}; expected uint8 (H, W, 3).")
    for task in tasks:
        label, kind = sample["labels"].get(task.name), task.label
        if label is None:
            continue
        if label.dtype != kind.dtype or label.ndim < 2 or label.shape[2:] != kind.shape_suffix:
            expected = ", ".join(["H", "W", *map(str, kind.shape_suffix)])
            raise DataIntegrityError(
                f"{where}: {task.name} label is {label.dtype} {label.shape}; expected {kind.dtype} ({expected})."
            )
        check_sizes(image, label, f"{where}: {task.name} label")
        kind.check(label, where)
    return sample


def check_sizes(image: NDArray[np.uint8], label: NDArray[Any], where: str) -> None:
    """Raise DataIntegrityError when a label does not lie on the grid of its image, LabelOrientationError if it lies across."""
    if label.shape[:2] != image.shape[:2]:
        (h, w), (image_h, image_w) = label.shape[:2], image.shape[:2]
        found = f"{where} has {h}x{w} pixels, its image {image_h}x{image_w}; expected one size (height x width). "
        if (h, w) == (image_w, image_h):
            raise LabelOrientationError(
                f"{found}If the photo carries an EXIF rotation, either turn the label as the photo is shown, or remove the tag "
                "from the photo, which is then read as it is stored."
            )
        raise DataIntegrityError(f"{found}Resize the label by nearest neighbour.")
