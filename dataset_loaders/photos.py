"""Photos without labels: a folder with its subfolders, an archive, or the image column of a data set; and both with labels.

A share of the photos is held out: those whose names have the smallest hashes, whatever their order. More photos move some.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_loaders.archives import extract, is_archive, without_suffix
from dataset_loaders.columns import image_column
from dataset_loaders.files import file_facts
from dataset_loaders.reading import PHOTO_SUFFIXES, composed, is_listable, picture, read_image, read_photo_header
from dataset_loaders.registry import register
from dataset_loaders.rows import load_splits, name_of, runs_of, undecoded
from dataset_loaders.sample import DenseDataset, Sample, SubsetDataset
from kdam_hf.errors import DataIntegrityError, KdamValueError, UnknownTaskError
from kdam_hf.photos_kdam import PhotoHeader, reduced
from kdam_hf.tasks import Task

SMALLEST_SIDE = 32
MOST_HELD_OUT = 200


@register("photos", unpacks=True)
class PhotosDataset(DenseDataset):
    """One split of unlabelled photos: `val` is the held-out share, at least one photo; `train` is the rest.

    Args:
        data_dir: a folder, searched with its subfolders, an archive of one, which is unpacked beside it, or the id of a data
            set on the Hub, or a folder of Parquet, with an image column.
        split: `train` or `val`.
        tasks: none; photos have no labels.
        held_out: share of `val`, at most 200 photos.
        streaming: of a data set on the Hub, read Parquet where it lies, and store nothing.
        shorter_side: photos are reduced to it, and never enlarged, as the processor of the student will do: a crop of a larger
            one would show a teacher a patch without its surroundings.
        columns: `image=COLUMN`, where a data set has several columns of images and none of a usual name.

    Raises:
        KdamValueError: nothing there, or fewer than two photos.
        DataIntegrityError: a file that is no photo, or is too small; names it.
    """

    ids: Sequence[str] = ()
    notes = ("there are no labels: every task is learnt from what its teacher says",)

    def __init__(
        self,
        data_dir: str | Path,
        split: str,
        tasks: Sequence[str] | None = None,
        held_out: float = 0.1,
        streaming: bool = False,
        shorter_side: int = 480,
        columns: Sequence[str] = (),
    ) -> None:
        root = Path(data_dir)
        if tasks:
            raise UnknownTaskError(f"photos have no labels of {', '.join(tasks)}; a teacher says which there are.")
        try:  # options are numbers, or texts of numbers
            share, self._shorter_side = float(held_out), int(shorter_side)
        except ValueError:
            share, self._shorter_side = 0.0, 0
        if split not in ("train", "val") or not 0 < share < 1 or self._shorter_side < 1:
            raise KdamValueError(
                f"photos: split {split!r}, held_out {held_out}, shorter_side {shorter_side}; expected train or val, a share "
                "between 0 and 1, and pixels, at least 1."
            )
        given = f"images {str(data_dir)!r}"
        if is_archive(root) and root.is_file():
            root = extract(root, root.with_name(f"{without_suffix(root.name)}-unpacked"))
        if not root.is_dir() and (root.exists() or len(root.parts) > 2):
            raise KdamValueError(f"{given}: expected a folder of photos, an archive, or a hub id.")
        self._files = _listed(root) if root.is_dir() else {}
        self._rows: Any = None
        if not root.is_dir() or (not self._files and next(root.rglob("*.parquet"), None)):
            splits = load_splits(str(data_dir), streaming)
            rows = splits["train"] if "train" in splits else next(iter(splits.values()))
            self._column = image_column(rows.features, columns, given)
            self._rows = undecoded(rows, [self._column])
        names = list(self._files) if self._rows is None else [f"{k:06d}" for k in range(len(self._rows))]
        if len(names) < 2:
            raise KdamValueError(f"{given}: {len(names)} photos ({', '.join(PHOTO_SUFFIXES)}); expected 2 or more.")
        order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        count = min(max(1, round(share * len(names))), MOST_HELD_OUT)
        held = {*order[:count]}
        self.ids = tuple(name for name in names if (name in held) == (split == "val"))
        self.runs = runs_of(self._rows, [*map(int, self.ids)]) if self._rows is not None else None
        self.name, self.split, self.tasks = name_of(root), split, ()
        self.origin = f"photos in {data_dir}: {len(names)}, of which {count} are held out"

    def __getitem__(self, index: int) -> Sample:
        name = self.ids[index]
        where = str(self._files.get(name) or f"{self.name} row {name}")
        image = read_image(self.photo(index), where)
        _check_size(image.shape, where)
        height, width = reduced(image.shape[:2], self._shorter_side)
        if (height, width) != image.shape[:2]:
            image = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return {"id": name, "image": image, "labels": {}}

    def photo(self, index: int) -> Path | bytes:
        name = self.ids[index]
        return self._files.get(name) or picture(self._rows[int(name)][self._column], f"{self.name} row {name}")

    def photo_header(self, index: int) -> PhotoHeader:
        header = read_photo_header(self.photo(index), f"{self.name} {self.ids[index]}")
        return PhotoHeader(*reduced((header.height, header.width), self._shorter_side), header.orientation)

    def stamp(self, index: int) -> str:
        return file_facts(self._files[self.ids[index]]) if self._files else str(self._rows._fingerprint)


class TaughtDataset(SubsetDataset):
    """The samples of `dataset` with other tasks; those that it does not label are unlabelled in every sample."""

    def __init__(self, dataset: DenseDataset, tasks: Sequence[Task]) -> None:
        super().__init__(dataset, dataset.ids)
        self.tasks = tuple(tasks)

    @property
    def labelled(self) -> set[str]:
        return super().labelled & {task.name for task in self.tasks}


class MixedDataset(TaughtDataset):
    """The samples of `dataset`, then the photos of `unlabelled`.

    Args:
        dataset: with labels.
        unlabelled: photos.
        tasks: of both.
        share: of the photos in every batch, see `MixedSampler`.
    """

    def __init__(self, dataset: DenseDataset, unlabelled: DenseDataset, tasks: Sequence[Task], share: float) -> None:
        super().__init__(dataset, tasks)
        if not 0 < share < 1:
            raise KdamValueError(f"unlabeled_share is {share}; expected a number between 0 and 1.")
        self._photos, self.share = unlabelled, share
        self.counts = (len(dataset), len(unlabelled))
        self.ids = (*dataset.ids, *(f"photos-{name}" for name in unlabelled.ids))
        self.name = f"{dataset.name} and {unlabelled.name}"
        self.origin = f"{dataset.origin}\n  {unlabelled.origin}; {share:g} of every batch"
        self.checked = dataset.checked and unlabelled.checked
        self.both_runs = (dataset.runs, unlabelled.runs)

    def __getitem__(self, index: int) -> Sample:
        return {**super().__getitem__(index), "id": self.ids[index]}

    def _at(self, index: int) -> tuple[DenseDataset, int]:
        first = self.counts[0]
        return (self._dataset, index) if index < first else (self._photos, index - first)


def _listed(root: Path) -> dict[str, Path]:
    """Photos by a name that is unique: the path below the folder with `__` for `/`; all headers and ends are looked at."""
    files: dict[str, Path] = {}
    broken: list[str] = []
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()):
        below = path.relative_to(root)
        if any(part.startswith(".") for part in below.parts):
            continue
        if not is_listable(str(below)):
            broken.append(f"{str(path)!a}: its name has characters that no list of ids can hold; rename it.")
            continue
        name = composed("__".join(below.with_suffix("").parts))
        name = f"{name}{path.suffix}" if name in files else name
        if name in files:
            raise DataIntegrityError(f"{root}: {files[name]} and {path} would have one name; rename one.")
        files[name] = path
        try:
            _check_size(read_photo_header(path), str(path))
        except DataIntegrityError as error:
            broken.append(str(error))
    if broken:
        raise DataIntegrityError(
            f"{root}: {len(broken)} of its photos cannot be learnt from: {' '.join(broken[:5])}"
            f"{' ...' if broken[5:] else ''} Mend them or take them out of the folder."
        )
    return files


def _check_size(size: Sequence[int], where: str) -> None:
    height, width, *_ = size
    if min(height, width) < SMALLEST_SIDE:
        raise DataIntegrityError(f"{where}: {width}x{height} pixels; expected at least {SMALLEST_SIDE} a side.")
