"""Prepared data: every raw sample of a split, decoded once, in one memory-mapped file that training reads windows of.

`samples.bin` holds the arrays, in the stored form of their label kinds. The first line of `index.jsonl` says what was
prepared, each other line where a sample lies, its checksum and what its labels hold. Both grow in a hidden folder that
gets its name when every sample is in it; after a kill the next call keeps what the checksums confirm.
"""

import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from glob import escape
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_loaders.inspection import SplitReport, iter_reports
from dataset_loaders.reading import check_id
from dataset_loaders.sample import DenseDataset, Sample, stored_task
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import differences, exclusive, sync
from kdam_hf.photos_kdam import PhotoHeader
from kdam_hf.tasks import select_tasks

FORMAT = 4
DATA_FILE, INDEX_FILE = "samples.bin", "index.jsonl"
AGAIN = "Remove that folder and prepare the data again with kdam prepare"


class PreparedDataset(DenseDataset):
    """A dense dataset read from a folder made by `prepare`; its images are read-only views.

    Args:
        path: the folder.
        tasks: names of the tasks to read; all for None.

    Raises:
        DataIntegrityError: the folder is missing, incomplete or of another version.
        KdamValueError: a task that was not prepared.
    """

    checked = True

    def __init__(self, path: str | Path, tasks: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        header, self._entries = read_index(self.path)
        facts = header["facts"]
        self.name, self.split, self.registered = facts["name"], facts["split"], facts["registered"]
        self.options, self.notes = facts["options"], tuple(header["notes"])
        self.origin = f"{self.name}: prepared in {path}"
        prepared = []
        for name, of in facts["tasks"].items():
            settings = {key: value for key, value in of.items() if key not in ("kind", "class_names")}
            prepared.append(replace(stored_task(name, of["class_names"], self.name), **settings))
        self.tasks = select_tasks(prepared, tasks)
        self._map: NDArray[np.uint8] | None = None

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry["id"] for entry in self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[index]
        size, start = entry["size"], entry["offset"]
        labels = {}
        for task in self.tasks:
            if task.name in entry["labels"]:
                kind = task.label
                stored = self._view(start + entry["labels"][task.name], (*size, *kind.shape_suffix), kind.stored_dtype)
                labels[task.name] = kind.decode(stored)
        return {"id": entry["id"], "image": self._view(start, (*size, 3), np.dtype(np.uint8)), "labels": labels}

    def stamp(self, index: int) -> str:
        return f"{self._entries[index]['stamp']} {self._entries[index]['crc']}"

    def photo_header(self, index: int) -> PhotoHeader:  # as stored, upright
        return PhotoHeader(*self._entries[index]["size"])

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        if self._map is None:  # opened by the process that reads
            self._map = np.asarray(np.memmap(self.path / DATA_FILE, np.uint8, "r"))
        return self._map[offset : offset + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


def read_index(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was prepared, and the entries of its samples in order; DataIntegrityError if incomplete or of another version."""
    try:
        header, *entries = map(json.loads, (path / INDEX_FILE).read_text("utf-8").splitlines())
        expected = header["facts"]["format"], header["facts"]["length"], max(e["offset"] + e["bytes"] for e in entries)
        found = FORMAT, len(entries), (path / DATA_FILE).stat().st_size
        if found != expected:
            raise ValueError(f"format, samples and bytes are {found}, expected by its index {expected}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataIntegrityError(f"{path}: no complete prepared data of this version ({error}). {AGAIN}.") from error
    return header, sorted(entries, key=lambda entry: entry["index"])


def find_prepared(folder: Path, name: str, split: str) -> Path | None:
    """The prepared split below a folder that is opened by `name`; None if nothing is prepared there.

    Raises:
        DataIntegrityError: it cannot be read.
        KdamValueError: what is prepared there was opened by another name, or there are several.
    """
    paths = sorted(folder.glob(f"*-{escape(check_id(split))}/{DATA_FILE}")) if folder.is_dir() else []
    facts = {path.parent: read_index(path.parent)[0]["facts"] for path in paths}
    names = {path: of["registered"] for path, of in facts.items() if of["split"] == split}  # no hard-val for val
    fitting = [path for path, registered in names.items() if registered in ("", name)]
    if names and len(fitting) != 1:
        found = ", ".join(f"{path.name} ({registered})" for path, registered in names.items())
        raise KdamValueError(f"{folder} holds prepared {found}; expected one that was opened as {name}.")
    return fitting[0] if fitting else None


def prepare(
    dataset: DenseDataset, path: str | Path, num_proc: int = 1, report: SplitReport | None = None
) -> PreparedDataset:
    """Write every sample of `dataset` to the folder `path`, or take the folder as it is when it was made from the same.

    The same means equal name, split, length, classes and options, and equal stamps, which hold names, sizes and times of
    files: an edit shows, and so does a copy that lost its times. An interrupted call is continued by the next one, also
    after some files were corrected.

    Args:
        dataset: raw samples; they are checked on the way.
        path: the folder to make. It is built under another name beside it and renamed when complete.
        num_proc: processes that read and encode; the content does not depend on it.
        report: filled with what the samples hold.

    Raises:
        KdamValueError: the folder holds something else, or the dataset is empty.
        DataIntegrityError: samples are broken, or hold a value that cannot be stored; all are in the report.
    """
    target, report = Path(path), SplitReport(dataset) if report is None else report
    if not len(dataset):
        raise KdamValueError(f"{dataset.name} {dataset.split}: empty dataset; nothing to prepare in {target}.")
    facts = {
        "format": FORMAT,
        "name": dataset.name,
        "split": dataset.split,
        "registered": dataset.registered,
        "length": len(dataset),
        "tasks": {
            t.name: {"kind": t.kind, "class_names": list(t.class_names), **t.file_settings} for t in dataset.tasks
        },
        "options": dict(dataset.options),
    }
    with exclusive(target.parent / f".{target.name}.lock", str(target)):
        if not _holds(target, dataset, facts):
            _write(dataset, target, {"facts": facts, "notes": list(dataset.notes)}, num_proc, report)
    prepared = PreparedDataset(target)
    prepared.tasks = tuple(dataset.tasks)  # with their settings
    if not report.sizes:
        for entry in prepared._entries:
            report.add(entry)
    return prepared


def _holds(target: Path, dataset: DenseDataset, facts: dict[str, Any]) -> bool:
    """Whether `target` is this very dataset; an error when it is anything else but absent or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not (target / DATA_FILE).is_file():
        raise KdamValueError(f"{target}: exists and is no prepared data; remove it or choose another folder.")
    header, entries = read_index(target)
    if different := "; ".join(differences(header["facts"], facts)):
        raise KdamValueError(f"{target}: prepared from another dataset: {different}. {AGAIN}, or choose another one.")
    if changed := [entry for entry in entries if entry["stamp"] != dataset.stamp(entry["index"])]:
        first = changed[0]
        raise KdamValueError(
            f"{target}: prepared from other files: those of {len(changed)} of {len(dataset)} samples, first {first['id']!r}, "
            f"differ in name, size or time ({first['stamp']} -> {dataset.stamp(first['index'])}). If they were only copied, "
            f"use what is prepared: --data_dir {target.parent}, without --cache_dir. Otherwise: {AGAIN}."
        )
    return True


def _write(dataset: DenseDataset, target: Path, header: dict[str, Any], num_proc: int, report: SplitReport) -> None:
    building = target.parent / f".{target.name}.building"
    left, bad = dict.fromkeys(range(len(dataset))), []
    for entry in _recover(building, header, dataset):
        report.add(entry)
        del left[entry["index"]]
    with (building / DATA_FILE).open("ab") as data, (building / INDEX_FILE).open("ab") as index:
        for sample, made in iter_reports(dataset, [*left], partial(_encode, dataset=dataset), num_proc, "preparing"):
            report.add(sample)
            if "problem" in sample:
                bad.append(sample["problem"])
                continue
            content, facts = made
            entry = facts | {"offset": data.tell()} | sample
            data.write(content)
            data.flush()  # a kill must not leave a line without its sample
            index.write(json.dumps(entry).encode() + b"\n")
            index.flush()
    if bad:
        raise DataIntegrityError(
            f"{dataset.name} {dataset.split}: {len(bad)} of {len(dataset)} samples are not usable, first: {bad[0]} Nothing "
            f"was put at {target}. Correct or remove them and run again: the good samples are kept."
        )
    sync(building / DATA_FILE)
    sync(building / INDEX_FILE)
    if target.exists():  # an empty folder
        target.rmdir()
    building.rename(target)


def _encode(sample: Sample, index: int, dataset: DenseDataset) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a sample, and what its entry says of them; each array begins at a multiple of 64."""
    data, labels = bytearray(sample["image"].tobytes()), {}
    for task in dataset.tasks:
        if task.name in sample["labels"]:
            data += bytes(-len(data) % 64)
            labels[task.name] = len(data)
            data += task.label.encode(sample["labels"][task.name], f"sample {sample['id']!r}: {task.name}").tobytes()
    data += bytes(-len(data) % 64)
    facts = {"stamp": dataset.stamp(index), "labels": labels, "bytes": len(data), "crc": zlib.crc32(data)}
    return bytes(data), facts


def _recover(folder: Path, header: dict[str, Any], dataset: DenseDataset) -> list[dict[str, Any]]:
    """The entries that an interrupted call left whole: their samples have their checksums and stamps.

    The rest is cut off. A folder that was begun for anything else is emptied; one that is absent is made.
    """
    first, index = json.dumps(header).encode() + b"\n", folder / INDEX_FILE
    if not index.is_file() or not index.read_bytes().startswith(first):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / DATA_FILE).touch()
        index.write_bytes(first)
    lines, kept, end = [first], [], 0
    with (folder / DATA_FILE).open("r+b") as data:
        for line in index.read_bytes()[len(first) :].splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            data.seek(entry["offset"])
            if zlib.crc32(data.read(entry["bytes"])) != entry["crc"]:
                break
            if entry["stamp"] == dataset.stamp(entry["index"]):
                lines.append(line)
                kept.append(entry)
                end = entry["offset"] + entry["bytes"]
        index.write_bytes(b"".join(lines))
        data.truncate(end)
    return kept
