"""A training cache: every raw sample, decoded once, in one memory-mapped file.

`samples.bin` holds the arrays, `index.json` where they lie; the folder appears under its name only when it is complete.
How a label is stored follows from its raw form: uint8 maps as they are; float32 (H, W), metres, as uint16 millimetres
(off by at most 0.5 mm, up to 65.535 m); float32 (H, W, 3), unit vectors, as int16 / 32767 (within 0.002 degrees).
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset_loaders.sample import DenseDataset, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import Task

_FORMAT = 1
_ALIGNMENT = 64
_DATA, _INDEX = "samples.bin", "index.json"
_STORED_DTYPE: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("u1"),
    "millimetres": np.dtype("<u2"),
    "unit_vectors": np.dtype("<i2"),
}


class PackedDataset:
    """A dense dataset read from a folder made by `pack`; its samples are checked and its arrays are read-only views.

    Args:
        path: the folder.
        tasks: the tasks to read, with the class names they were packed with.

    Raises:
        DataIntegrityError: the folder is missing, incomplete or of another version.
        KdamValueError: a task that was not packed, or was packed with other classes.
    """

    def __init__(self, path: str | Path, tasks: Sequence[Task]) -> None:
        self._path = Path(path)
        index = _read_index(self._path)
        fingerprint = index["fingerprint"]
        self.name, self.split = fingerprint["name"], fingerprint["split"]
        for task in tasks:
            if _task_facts(task) not in fingerprint["tasks"]:
                raise KdamValueError(
                    f"{path}: asked for {_task_facts(task)}, packed were {fingerprint['tasks']}. "
                    "Pack again into another folder."
                )
        self.tasks = tuple(tasks)
        self._samples = index["samples"]
        self._map: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """One sample, without decoding an image."""
        entry = self._samples[index]
        size = entry["size"]
        labels = {}
        for task in self.tasks:
            if task.name in entry["labels"]:
                stored = entry["labels"][task.name]
                array = self._view(entry["offset"] + stored["offset"], size, stored["form"])
                labels[task.name] = _decode(array, stored["form"])
        return {"id": entry["id"], "image": self._view(entry["offset"], [*size, 3], "ids"), "labels": labels}

    def _view(self, offset: int, size: Sequence[int], form: str) -> NDArray[Any]:
        if self._map is None:  # opened by the process that reads
            self._map = np.asarray(np.memmap(self._path / _DATA, np.uint8, "r"))
        dtype = _STORED_DTYPE[form]
        shape = (*size, 3) if form == "unit_vectors" else tuple(size)
        return self._map[offset : offset + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


def pack(
    dataset: DenseDataset,
    path: str | Path,
    num_proc: int = 1,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
) -> PackedDataset:
    """Write every sample of `dataset` to the folder `path`, or take the folder as it is when it was made from the same.

    The same means equal name, split, length, task classes and `options`. Files changed in place are not noticed.

    Args:
        dataset: raw samples; they are checked on the way.
        path: the folder to make. It is built under another name beside it and renamed when complete.
        num_proc: processes that read and encode; the result does not depend on it.
        progress: show a bar.
        options: what else the samples depend on, as plain JSON data.

    Raises:
        KdamValueError: the folder holds something else, or the dataset is empty.
        DataIntegrityError: a sample is broken, or a depth is above 65.535 m.
    """
    target = Path(path)
    fingerprint = {
        "name": dataset.name,
        "split": dataset.split,
        "length": len(dataset),
        "tasks": [_task_facts(task) for task in dataset.tasks],
        "options": json.loads(json.dumps(dict(options or {}))),
    }
    if not len(dataset):
        raise KdamValueError(f"{dataset.name} {dataset.split}: empty dataset; nothing to pack into {target}.")
    if not _holds(target, fingerprint):
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.building-", dir=target.parent))
        try:
            _write(building, dataset, fingerprint, num_proc, progress)
            _publish(building, target, fingerprint)
        except DataIntegrityError as error:
            # The frames of a DataLoader would keep its workers waiting; what the worker did stands in the message.
            raise error.with_traceback(None) from error.__cause__
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return PackedDataset(target, dataset.tasks)


def _task_facts(task: Task) -> dict[str, Any]:
    return {"name": task.name, "class_names": list(task.class_names)}


def _holds(target: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Whether `target` is this very dataset; an error when it is anything else but absent or empty."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not (target / _INDEX).is_file():
        raise KdamValueError(f"{target}: exists and is no packed dataset; remove it or choose another folder.")
    found = _read_index(target)["fingerprint"]
    differing = [key for key in fingerprint if found.get(key) != fingerprint[key]]
    if differing:
        key = differing[0]
        raise KdamValueError(
            f"{target}: packed from another dataset: {key} is {found.get(key)}, now {fingerprint[key]}. "
            "Remove that folder to pack again, or choose another one."
        )
    return True


def _publish(building: Path, target: Path, fingerprint: Mapping[str, Any]) -> None:
    building.chmod(0o755)  # mkdtemp keeps others out
    try:
        building.rename(target)
    except OSError:
        if not _holds(target, fingerprint):  # otherwise another process was faster
            raise


def _write(folder: Path, dataset: DenseDataset, fingerprint: Mapping[str, Any], num_proc: int, progress: bool) -> None:
    # A DataLoader keeps the order, bounds what waits in memory and notices a killed worker.
    encoded: Iterable[tuple[bytes, dict[str, Any]]] = DataLoader(
        _Encoded(dataset), batch_size=None, num_workers=num_proc if num_proc > 1 else 0, collate_fn=_unchanged
    )
    samples, offset = [], 0
    with (folder / _DATA).open("wb") as file:
        for record, entry in tqdm(encoded, f"packing {dataset.split}", len(dataset), disable=not progress):
            file.write(record)
            samples.append(entry | {"offset": offset})
            offset += len(record)
        _sync(file)
    with (folder / _INDEX).open("w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, "bytes": offset, "fingerprint": fingerprint, "samples": samples}, file)
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _unchanged(item: Any) -> Any:
    return item


class _Encoded(Dataset[tuple[bytes, dict[str, Any]]]):
    """Record and index entry of each sample; offsets in the entry count from the start of the record."""

    def __init__(self, dataset: DenseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[bytes, dict[str, Any]]:
        sample = check_sample(self.dataset[index], self.dataset.tasks)
        record = bytearray(_aligned(sample["image"]))
        labels = {}
        for task in self.dataset.tasks:
            if task.name in sample["labels"]:
                stored, form = _encode(sample["labels"][task.name], f"sample {sample['id']!r}: {task.name}")
                labels[task.name] = {"form": form, "offset": len(record)}
                record += _aligned(stored)
        return bytes(record), {"id": sample["id"], "size": sample["image"].shape[:2], "labels": labels}


def _aligned(array: NDArray[Any]) -> bytes:
    data = array.tobytes()
    return data + bytes(-len(data) % _ALIGNMENT)


def _encode(label: NDArray[Any], where: str) -> tuple[NDArray[Any], str]:
    """Raw label -> what is stored, and the name of its form."""
    if label.dtype == np.uint8:
        return label, "ids"
    if label.ndim == 3:
        return np.rint(label * np.float32(32767)).clip(-32767, 32767).astype("<i2"), "unit_vectors"
    millimetres = np.rint(label * np.float32(1000))
    if millimetres.max() > 65535:
        raise DataIntegrityError(f"{where}: {label.max():.1f} m; at most 65.535 m can be packed; mark it invalid (0).")
    return np.where(label > 0, np.maximum(millimetres, 1), 0).astype("<u2"), "millimetres"


def _decode(stored: NDArray[Any], form: str) -> NDArray[Any]:
    if form == "ids":
        return stored
    return stored * np.float32(1e-3 if form == "millimetres" else 1 / 32767)


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / _INDEX).read_text("utf-8"))
        size = (path / _DATA).stat().st_size
    except (OSError, ValueError) as error:
        raise DataIntegrityError(f"{path}: no complete packed dataset ({error}). Make it with `pack`.") from error
    if index.get("format") != _FORMAT or index["bytes"] != size:
        raise DataIntegrityError(
            f"{path}: format {index.get('format')} with {size} bytes of samples; expected format {_FORMAT} with "
            f"{index.get('bytes')} bytes. Remove the folder and pack again."
        )
    return index
