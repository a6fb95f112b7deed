"""A split whose samples are files: one image and one label file per id and task, found by one listing per folder.

Everything that can be known without opening a file is known when the dataset is made.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dataset_loaders.sample import Sample, check_id, check_sizes, read_array, read_image
from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import Task

Read = Callable[[Path], NDArray[Any]]
ReadOrSkip = Callable[[Path], NDArray[Any] | None]
"""None means that the file says nothing of this task: the image is unlabelled."""


@dataclass(frozen=True)
class ReadLabel:
    """Reads label files of one task.

    Args:
        task: whose `from_file` turns the stored array into a raw label.
        load: opens a file.
        options: what the layout knows of the files, as in the task's entry of dataset.json.
    """

    task: Task
    load: Read = read_array
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, path: Path) -> NDArray[Any]:
        """The raw label in a file."""
        return self.task.label.from_file(self.load(path), self.options, str(path))


@dataclass(frozen=True)
class Folder:
    """The files of one folder that carry an id of the dataset.

    Args:
        path: the folder.
        suffix: end of the file names, with its dot, or several that are all accepted.
        files: id -> file.
    """

    path: Path
    suffix: tuple[str, ...]
    files: Mapping[str, Path]

    def __getitem__(self, sample_id: str) -> Path:
        """The file of an id.

        Raises:
            DataIntegrityError: there is none.
        """
        if sample_id not in self.files:
            raise DataIntegrityError(
                f"{self.path}: no file for id {sample_id!r}; expected {sample_id}{' or '.join(self.suffix)}. "
                "Add it, or remove the id from the split."
            )
        return self.files[sample_id]

    def lacks(self, ids: Sequence[str], split: str) -> str | None:
        """In words, the ids without a file; None when every id has one."""
        without = [sample_id for sample_id in ids if sample_id not in self.files]
        if not without:
            return None
        return (
            f"{self.path}: no file for {len(without)} of {len(ids)} ids of split {split!r}, first {without[0]!r}; "
            f"expected {without[0]}{' or '.join(self.suffix)}. Add it, or remove the id from the split."
        )


def list_folder(path: Path, suffix: str | tuple[str, ...], holds: str) -> Folder:
    """Every file of a folder with one of the suffixes, by its stem.

    Raises:
        DataIntegrityError: the folder cannot be listed, or two files share a stem.
    """
    suffixes = (suffix,) if isinstance(suffix, str) else suffix
    files: dict[str, Path] = {}
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise DataIntegrityError(f"{path}: cannot be listed ({error.strerror}); expected {holds}.") from error
    for name in names:
        stem, end = os.path.splitext(name)
        if end.lower() not in suffixes or name.startswith("."):
            continue
        if stem in files:
            raise DataIntegrityError(f"{path}: both {files[stem].name} and {name}; expected one file per id.")
        files[stem] = path / name
    return Folder(path, suffixes, files)


class FileDataset:
    """One split of a dataset on disk.

    Args:
        name: of the dataset.
        split: of the ids.
        ids: in order.
        images: one file per id.
        labels: per task its files and how they are read.
        read_photo: opens an image file.
        partial: whether a label file may be missing (the task is then unlabelled for that image).
        listed: ids of all splits, to tell files that belong to none; None where other files are expected.
        origin: where the files are and what was recognised, in words.
        notes: what a user should know of the labels, e.g. which are derived.
        settings: more that the samples depend on.
    """

    def __init__(
        self,
        name: str,
        split: str,
        ids: Sequence[str],
        images: Folder,
        labels: Mapping[Task, tuple[Folder, ReadOrSkip]],
        read_photo: Read = read_image,
        partial: bool = False,
        listed: Collection[str] | None = None,
        origin: str = "",
        notes: Sequence[str] = (),
        settings: str = "",
    ) -> None:
        self.name, self.split, self.origin = name, split, origin
        self.ids = tuple(ids)
        self.tasks = tuple(labels)
        self.notes = tuple(notes)
        self._partial, self._listed = partial, listed
        self._images = images
        self._labels = {task.name: entry for task, entry in labels.items()}
        self._read_photo = read_photo
        self._settings = settings

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataIntegrityError: a file is missing, unreadable, out of range or of another size than its image; names it.
        """
        sample_id = self.ids[index]
        image = self._read_photo(self._images[sample_id])
        labels = {}
        for name, (folder, read) in self._labels.items():
            if self._partial and sample_id not in folder.files:
                continue
            path = folder[sample_id]
            label = read(path)
            if label is not None:
                check_sizes(image, label, f"{path}: label")
                labels[name] = label
        return {"id": sample_id, "image": image, "labels": labels}

    def photo(self, index: int) -> Path:
        """The image file of a sample."""
        return self._images[self.ids[index]]

    @property
    def folders(self) -> list[Folder]:
        """The images' folder, those of the labels, and those that a reader opens beside them (its `beside`)."""
        of_labels = ((folder, *getattr(read, "beside", ())) for folder, read in self._labels.values())
        return [self._images, *chain.from_iterable(of_labels)]

    def missing(self) -> list[str]:
        """What is wrong with files that should be there: one sentence per folder."""
        required = self.folders[:1] if self._partial else self.folders
        return [text for folder in required if (text := folder.lacks(self.ids, self.split))]

    def unlisted(self) -> list[str]:
        """Files that no split lists: one sentence per folder."""
        if self._listed is None:
            return []
        found = []
        for folder in self.folders:
            names = [path.name for stem, path in folder.files.items() if stem not in self._listed]
            if names:
                found.append(
                    f"{folder.path}: {len(names)} files belong to no split, first {names[0]}; expected every file in a "
                    "list of ids. Restore the list, remove the files, or list their ids in a split of their own."
                )
        return found

    def stamp(self, index: int) -> str:
        """Changes with a sample's id, the settings, and the names, sizes and times of its files: with any edit of them."""
        return digest(self._facts(index, timed=True))

    @cached_property
    def version(self) -> str:
        """Changes with the ids, the settings, and the names and sizes of the files: the same for a copy of them."""
        return digest(digest(self._facts(index, timed=False)) for index in range(len(self)))

    def _facts(self, index: int, timed: bool) -> Iterator[str]:
        sample_id = self.ids[index]
        yield from (self._settings, sample_id)
        for folder in self.folders:
            yield f"{folder.path.name}/{file_facts(folder.files.get(sample_id), timed)}"


def file_facts(path: Path | None, timed: bool = True) -> str:
    """Name, size and, if `timed`, time of the last change: labels that are made again often keep their size."""
    try:
        found = None if path is None else path.stat()
    except OSError:  # to be reported when it is read
        found = None
    name, size = None if path is None else path.name, -1 if found is None else found.st_size
    return f"{name}:{size}" + (f":{found.st_mtime_ns}" if timed and found is not None else "")


def digest(lines: Iterable[str]) -> str:
    """16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a split, one a line.

    Raises:
        DataIntegrityError: missing, not text, empty, an id twice, or one that could leave the folder.
    """
    lines = (line.strip() for line in read_text(path, "it lists the ids of the split, one a line").splitlines())
    ids = tuple(line for line in lines if line)
    if not ids:
        raise DataIntegrityError(f"{path}: no ids; expected one a line, e.g. 0001 for images/0001.jpg.")
    try:
        seen = set()
        for sample_id in ids:
            if check_id(sample_id) in seen:
                raise DataIntegrityError(f"id {sample_id!r} occurs twice; remove one.")
            seen.add(sample_id)
    except DataIntegrityError as error:
        raise DataIntegrityError(f"{path}: {error}") from error
    return ids


def read_text(path: Path, holds: str) -> str:
    """A text file.

    Raises:
        DataIntegrityError: missing, or not UTF-8; names what lies beside it.
    """
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        present = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))) or "none"
        raise DataIntegrityError(f"{path}: no such file; {holds}. {path.suffix} files there: {present}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataIntegrityError(f"{path}: not readable as UTF-8 text ({error}).") from error
