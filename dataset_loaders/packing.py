"""Writes a training cache (see `packed`), and goes on where an interrupted run stopped.

Records are appended to `samples.bin` and then named, with a checksum, in `journal.jsonl`, in a hidden folder beside the
target; the folder gets its name when every sample is in it. After a kill, what the journal names and the checksum
confirms is kept.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock
from numpy.typing import NDArray

from dataset_loaders.inspection import Seen, SplitReport, examine
from dataset_loaders.packed import ALIGNMENT, DATA_FILE, FORMAT, INDEX_FILE, PackedDataset, read_index, task_facts
from dataset_loaders.sample import DenseDataset, Sample
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import LabelStatistics, Task

_JOURNAL = "journal.jsonl"


def pack(
    dataset: DenseDataset,
    path: str | Path,
    num_proc: int = 1,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
    report: SplitReport | None = None,
) -> PackedDataset:
    """Write every sample of `dataset` to the folder `path`, or take the folder as it is when it was made from the same.

    The same means equal name, split, length, task classes, `version` of the dataset and `options`, and for a dataset of
    files equal stamps, which hold names, sizes and times: an edit shows, and so does a copy that lost its times. Where the
    files lie, `data_dir` of `options`, does not count then. An interrupted call is continued by the next one, also after
    some files were corrected: the stamps tell which samples are still the same.

    Args:
        dataset: raw samples; they are checked on the way.
        path: the folder to make. It is built under another name beside it and renamed when complete.
        num_proc: processes that read and encode; the content does not depend on it.
        progress: show a bar.
        options: what else the samples depend on, as plain JSON data; the `version` of the dataset is added.
        report: filled with what the samples hold. With it, every bad sample is found before the call fails.

    Raises:
        KdamValueError: the folder holds something else, or the dataset is empty.
        DataIntegrityError: a sample is broken, or a depth is above 65.535 m.
    """
    target = Path(path)
    fingerprint = {
        "name": dataset.name,
        "split": dataset.split,
        "length": len(dataset),
        "tasks": [task_facts(task) for task in dataset.tasks],
        "options": json.loads(json.dumps({"version": getattr(dataset, "version", None), **(options or {})})),
    }
    if not len(dataset):
        raise KdamValueError(f"{dataset.name} {dataset.split}: empty dataset; nothing to pack into {target}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if not _holds(target, dataset, fingerprint):
            _build(dataset, target, fingerprint, num_proc, progress, report)
    packed = PackedDataset(target, dataset.tasks)
    if report is not None and not report.sizes:
        for seen in packed.seen():
            report.add(seen)
    return packed


def _holds(target: Path, dataset: DenseDataset, fingerprint: Mapping[str, Any]) -> bool:
    """Whether `target` is this very dataset; an error when it is anything else but absent or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not (target / INDEX_FILE).is_file():
        raise KdamValueError(f"{target}: exists and is no packed dataset; remove it or choose another folder.")
    index = read_index(target)
    found, stamp = index["fingerprint"], getattr(dataset, "stamp", None)
    remove = "Remove that folder to pack again, or choose another one."
    # a stamp says more than the version, and says it wherever the files lie
    for key, before, now in _facts(found, fingerprint, ("data_dir", "version") if stamp else ()):
        if before != now:
            raise KdamValueError(f"{target}: packed from another dataset: {key} is {before}, now {now}. {remove}")
    changed = [entry["id"] for entry in index["samples"] if stamp and entry.get("stamp") != stamp(entry["index"])]
    if changed:
        same = found["options"].get("version") == fingerprint["options"]["version"]
        copied = f"If they were only copied, use what is packed: --data_dir {target.parent}, without --cache_dir. "
        raise KdamValueError(
            f"{target}: packed from another dataset: the files of {len(changed)} of {len(dataset)} samples, first "
            f"{changed[0]!r}, have changed since, by name, size or time. {copied if same else ''}{remove}"
        )
    return True


def _facts(
    found: Mapping[str, Any], fingerprint: Mapping[str, Any], excused: Sequence[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Name, what it was and what it is now, of every part of a fingerprint; of `options`, those that differ."""
    yield from ((key, found.get(key), fingerprint[key]) for key in fingerprint if key != "options")
    before, now = found["options"], fingerprint["options"]
    other = [key for key in {**before, **now} if before.get(key) != now.get(key) and key not in excused]
    yield "options", {key: before.get(key) for key in other}, {key: now.get(key) for key in other}


def _build(
    dataset: DenseDataset,
    target: Path,
    fingerprint: Mapping[str, Any],
    num_proc: int,
    progress: bool,
    report: SplitReport | None,
) -> None:
    building = target.parent / f".{target.name}.building"
    problems = 0
    with _Journal(building, fingerprint, getattr(dataset, "stamp", None)) as journal:
        if report is not None:
            for entry in journal.entries.values():
                report.add(_seen(entry))
        left = [index for index in range(len(dataset)) if index not in journal.entries]
        make = partial(_encode_sample, tasks=dataset.tasks)
        for seen in examine(dataset, left, make, num_proc, progress, "packing"):
            if report is not None:
                report.add(seen)
            if seen.problem is None:
                journal.append(seen)
            elif report is None:
                raise DataIntegrityError(seen.problem)
            problems += seen.problem is not None
        if problems:
            raise DataIntegrityError(
                f"{dataset.name} {dataset.split}: {problems} of {len(dataset)} samples are not usable; nothing was put at "
                f"{target}. Correct or remove them and run again: the good samples are kept."
            )
        journal.finish(fingerprint, getattr(dataset, "notes", None))
    if target.exists():  # an empty folder
        target.rmdir()
    building.rename(target)
    # last: without a journal, what a kill left under the other name would be thrown away
    (target / _JOURNAL).unlink(missing_ok=True)


class _Record(NamedTuple):
    """The bytes of a sample and where its labels lie in them."""

    data: bytes
    labels: dict[str, int]


def _encode_sample(sample: Sample, tasks: tuple[Task, ...]) -> _Record:
    data = bytearray(_aligned(sample["image"]))
    labels = {}
    for task in tasks:
        if task.name in sample["labels"]:
            labels[task.name] = len(data)
            data += _aligned(task.label.encode(sample["labels"][task.name], f"sample {sample['id']!r}: {task.name}"))
    return _Record(bytes(data), labels)


def _aligned(array: NDArray[Any]) -> bytes:
    data = array.tobytes()
    return data + bytes(-len(data) % ALIGNMENT)


def _seen(entry: Mapping[str, Any]) -> Seen:
    statistics = {name: LabelStatistics.from_json(facts) for name, facts in entry["statistics"].items()}
    height, width = entry["size"]
    return Seen(entry["index"], entry["id"], f"{height}x{width}", statistics)


class _Journal:
    """The samples written so far, in a folder of their own.

    Args:
        folder: made if absent; one that another dataset began is emptied.
        fingerprint: of the dataset.
        stamp: of a sample by its index, in place of the version in the fingerprint: samples with another one are dropped.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], stamp: Callable[[int], str] | None = None) -> None:
        self.folder, self._stamp = folder, stamp or (lambda index: "")
        options = {key: value for key, value in fingerprint["options"].items() if key != "version" or stamp is None}
        begun = {"format": FORMAT, "fingerprint": {**fingerprint, "options": options}}
        header = json.dumps(begun, sort_keys=True) + "\n"
        if not _begins_with(folder / _JOURNAL, header):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / DATA_FILE).touch()
            (folder / _JOURNAL).write_text(header, "utf-8")
        self._data: BinaryIO = (folder / DATA_FILE).open("r+b")
        self._lines: BinaryIO = (folder / _JOURNAL).open("r+b")
        self.entries: dict[int, dict[str, Any]] = {}
        self._recover(len(header.encode()))

    def _recover(self, start: int) -> None:
        """Keep the lines that are whole and whose record has their checksum; cut off the rest."""
        self._lines.seek(start)
        end = 0
        for line in self._lines:
            try:
                entry = json.loads(line)
                self._data.seek(entry["offset"])
                whole = zlib.crc32(self._data.read(entry["bytes"])) == entry["crc"]
            except ValueError:
                break
            if not whole:
                break
            start += len(line)
            end = entry["offset"] + entry["bytes"]
            if entry.get("stamp") == self._stamp(entry["index"]):
                self.entries[entry["index"]] = entry
        self._lines.seek(start)
        self._lines.truncate()
        self._end = end
        self._data.seek(self._end)
        self._data.truncate()

    def append(self, seen: Seen) -> None:
        """Write one encoded sample."""
        record: _Record = seen.payload
        entry = {
            "index": seen.index,
            "id": seen.id,
            "stamp": self._stamp(seen.index),
            "size": [int(side) for side in seen.size.split("x")],
            "labels": record.labels,
            "offset": self._end,
            "bytes": len(record.data),
            "crc": zlib.crc32(record.data),
            "statistics": {name: facts.as_json() for name, facts in seen.statistics.items()},
        }
        self._data.write(record.data)
        self._data.flush()  # a kill must not leave a line without its record
        self._lines.write(json.dumps(entry).encode() + b"\n")
        self._lines.flush()
        self.entries[seen.index] = entry
        self._end += len(record.data)

    def finish(self, fingerprint: Mapping[str, Any], notes: Sequence[str] | None) -> None:
        """Write the index, with what a user should know of the labels, and bring everything to the disk."""
        os.fsync(self._data.fileno())
        samples = [self.entries[index] for index in sorted(self.entries)]
        with (self.folder / INDEX_FILE).open("w", encoding="utf-8") as file:
            index = {
                "format": FORMAT,
                "bytes": self._end,
                "fingerprint": fingerprint,
                "notes": notes,
                "samples": samples,
            }
            json.dump(index, file)
            file.flush()
            os.fsync(file.fileno())

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._data.close()
        self._lines.close()


def _begins_with(path: Path, text: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline() == text.encode()
    except OSError:
        return False
