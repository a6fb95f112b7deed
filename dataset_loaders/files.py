"""A split whose samples are files: one image and one label file per id and task, found by one listing per folder.

Everything that can be known without opening a file is known when the dataset is made. Which of several known trees a folder
holds is recognised by signs, explained in words, and overridable by name.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dataset_loaders.reading import composed, read_array, read_image
from dataset_loaders.sample import DenseDataset, Sample, check_sizes
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import lines_sha256
from kdam_hf.tasks import Task


@dataclass(frozen=True)
class Folder:
    """The files of the folder `path` that end in one of the suffixes, by id."""

    path: Path
    suffixes: tuple[str, ...]
    files: Mapping[str, Path]

    def __getitem__(self, sample_id: str) -> Path:
        """The file of an id; DataIntegrityError when there is none."""
        if lacking := self.lacks([sample_id]):
            raise DataIntegrityError(lacking)
        return self.files[sample_id]

    def lacks(self, ids: Sequence[str]) -> str | None:
        """In words, the ids without a file; None when every id has one."""
        if not (without := [sample_id for sample_id in ids if sample_id not in self.files]):
            return None
        more = f" and {len(without) - 1} others of {len(ids)}" if len(without) > 1 else ""
        return (
            f"{self.path}: no file for id {without[0]!r}{more}; expected {without[0]}{' or '.join(self.suffixes)}. "
            "Add it, or remove the id from the split."
        )


def list_folder(path: Path, suffix: str | tuple[str, ...], holds: str) -> Folder:
    """Every file of a folder with one of the suffixes, by its stem in the Unicode form of ids.

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
        stem, end = os.path.splitext(composed(name))
        if end.lower() not in suffixes or name.startswith("."):
            continue
        if stem in files:
            raise DataIntegrityError(f"{path}: both {files[stem].name!a} and {name!a}; expected one file per id.")
        files[stem] = path / name
    return Folder(path, suffixes, files)


@dataclass(frozen=True)
class LabelFiles:
    """The label files of one task.

    Args:
        folder: one file per id.
        load: opens a file; None if it says nothing of this task: the image is unlabelled.
        options: what is known of the arrays, as in the task's entry of dataset.json.
        beside: folders of further files of the same id that `load` opens.
    """

    folder: Folder
    load: Callable[[Path], NDArray[Any] | None] = read_array
    options: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[Folder, ...] = ()


@dataclass(kw_only=True, eq=False, repr=False)
class FileDataset(DenseDataset):
    """One split of a dataset on disk.

    Args:
        name: of the dataset.
        split: of the ids.
        ids: in order.
        images: one file per id.
        labels: per task its files.
        strict: refuse ids without files and files without ids.
        read_photo: opens an image file.
        partial: whether a label file may be missing (the task is then unlabelled for that image).
        listed: ids of all splits, to tell files that belong to none; none where other files are expected.
        origin: where the files are and what was recognised, in words.
        notes: what a user should know of the labels, e.g. which are derived.
        settings: more that the samples depend on.

    Raises:
        DataIntegrityError: with `strict`, the files do not fit the ids.
    """

    name: str
    split: str
    ids: Sequence[str] = ()
    images: Folder
    labels: Mapping[Task, LabelFiles]
    strict: bool
    read_photo: Callable[[Path], NDArray[Any]] = read_image
    partial: bool = False
    listed: Collection[str] = ()
    origin: str
    notes: Sequence[str] = ()
    settings: str

    def __post_init__(self) -> None:
        self.tasks, self._files = tuple(self.labels), {task.name: files for task, files in self.labels.items()}
        folders = [self.images, *(f for files in self._files.values() for f in (files.folder, *files.beside))]
        self._folders = folders  # in the order of the stamp
        missing = (folder.lacks(self.ids) for folder in ([self.images] if self.partial else folders))
        for problem in (*filter(None, missing), *self.unlisted()) if self.strict else ():
            raise DataIntegrityError(problem)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.ids[index]
        image = self.read_photo(self.images[sample_id])
        labels = {}
        for task in self.tasks:
            files = self._files[task.name]
            if self.partial and sample_id not in files.folder.files:
                continue
            path = files.folder[sample_id]
            if (array := files.load(path)) is not None:
                labels[task.name] = task.label.from_file(array, files.options, str(path))
                check_sizes(image, labels[task.name], f"{path}: label")
        return {"id": sample_id, "image": image, "labels": labels}

    def photo(self, index: int) -> Path | None:
        path = self.images[self.ids[index]]
        return None if path.suffix == ".npy" else path

    def unlisted(self) -> list[str]:
        found = []
        for folder in self._folders if self.listed else ():
            if names := [path.name for stem, path in folder.files.items() if stem not in self.listed]:
                found.append(
                    f"{folder.path}: {len(names)} files belong to no split, first {names[0]}. Restore the list of ids, remove "
                    "the files, or list their ids in a split of their own."
                )
        return found

    def stamp(self, index: int) -> str:
        sample_id = self.ids[index]
        files = (f"{folder.path.name}/{file_facts(folder.files.get(sample_id))}" for folder in self._folders)
        return lines_sha256([self.settings, sample_id, *files])[:16]


def file_facts(path: Path | None) -> str:
    """Name, size and time of the last change: labels that are made again often keep their size."""
    if path is None:
        return "None:-1"
    try:
        found = path.stat()
    except OSError:  # to be reported when it is read
        return f"{path.name}:-1"
    return f"{path.name}:{found.st_size}:{found.st_mtime_ns}"


@dataclass(frozen=True)
class Layout:
    """A tree that users have on disk: its name for `--layout`, where such trees come from, and what lies in it.

    Each of the signs, patterns below the root, must match something; `a|b` matches if either does.
    """

    key: str
    title: str
    signs: tuple[str, ...]

    def absent(self, root: Path) -> list[str]:
        """The signs that match nothing."""
        return [sign for sign in self.signs if not any(any(root.glob(pattern)) for pattern in sign.split("|"))]

    def __str__(self) -> str:
        return f"{self.key} ({self.title}): {', '.join(self.signs)}"


def recognise(data_dir: str | Path, layouts: Sequence[Layout], key: str | None, dataset: str) -> tuple[Path, Layout]:
    """The root and layout of a dataset: `data_dir` itself or, as archives often add one, a folder directly below it.

    Args:
        data_dir: what the user gave.
        layouts: those that the loader knows.
        key: the layout the user asked for; None to recognise it.
        dataset: its name.

    Raises:
        KdamValueError: no such folder, or an unknown key.
        DataIntegrityError: nothing or more than one thing is recognised; lists what was looked for and found.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise KdamValueError(f"{dataset}: data_dir {str(data_dir)!r} is no folder; give the root of the dataset.")
    known = {layout.key: layout for layout in layouts}
    if key is not None and key not in known:
        raise KdamValueError(f"{dataset}: unknown layout {key!r}; expected one of {', '.join(known)}.")
    wanted = list(layouts) if key is None else [known[key]]
    content = sorted(root.iterdir())
    for places in ([root], [path for path in content if path.is_dir() and not path.name.startswith(".")]):
        found = [(place, layout) for place in places for layout in wanted if not layout.absent(place)]
        if len(found) > 1:
            several = "; ".join(f"{layout.key} in {place}" for place, layout in found)
            raise DataIntegrityError(
                f"{dataset}: {root} could be any of: {several}. Give one as data_dir, or --layout."
            )
        if found:
            return found[0]
    names = [path.name + "/" * path.is_dir() for path in content]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    raise DataIntegrityError(
        f"{dataset}: {root} is no layout that is known.\nLooked for, there and one folder below:\n"
        + "\n".join(f"  {layout}; absent: {', '.join(layout.absent(root))}" for layout in wanted)
        + f"\nFound: {', '.join(names[:12]) or 'nothing'}{more}.\nGive the folder that holds these as data_dir."
    )


def count_notes(published: dict[str, int], split: str, found: int) -> list[str]:
    """A note when a split is not as long as the published one."""
    expected = published.get(split)
    return [f"{found} images; the published split {split!r} has {expected}"] if expected not in (None, found) else []
