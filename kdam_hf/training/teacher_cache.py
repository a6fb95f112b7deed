"""The teacher's predictions on fixed crops, stored once and read beside the crops; `fill_teacher_cache` writes them.

`records.bin` holds a record of equal size per (view, index), and `manifest.json` what they were made from. A record ends
with its own checksum, so that a half-written one is told from a finished one without a journal, and with a checksum of
the crop: a student that sees another crop than the teacher saw is stopped.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dataset_loaders import TransformedDataset
from kdam_hf.errors import CheckpointError, KdamValueError

FORMAT = 3
MANIFEST, RECORDS = "manifest.json", "records.bin"
PAGE = 4096  # no two records share one: processes on several machines may write neighbours
STORED = {"fp16": "<f2", "fp32": "<f4"}
Key = tuple[int, int]


def crop_checksum(pixel_values: Tensor) -> int:
    """Of every eighth row and column of a crop (3, H, W): another window, flip or colour changes it."""
    return zlib.crc32(pixel_values[:, ::8, ::8].numpy().tobytes())


def record_dtype(manifest: Mapping[str, Any]) -> np.dtype[Any]:
    """One record: (C, h, w) per task, then padding and the checksums of crop and record."""
    stored, grid = STORED[manifest["dtype"]], manifest["grid"]
    fields: list[Any] = [(name, stored, (task["channels"], *grid)) for name, task in manifest["tasks"].items()]
    sums = [("_crop", "<u4"), ("_checksum", "<u4")]
    return np.dtype([*fields, ("_padding", "u1", (-np.dtype(fields + sums).itemsize % PAGE,)), *sums])


class TeacherCache:
    """A folder of records, one per (view, index), as `fill_cache` made it; picklable, opened by the process that reads.

    Raises:
        CheckpointError: no cache there, or one of another version or of another size.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.views, self.images, self.complete = (self.manifest[key] for key in ("views", "images", "complete"))
        self.dtype = record_dtype(self.manifest)
        path, expected = self.folder / RECORDS, self.views * self.images * self.dtype.itemsize
        found = path.stat().st_size if path.exists() else 0
        if found != expected:
            raise CheckpointError(f"{path}: {found} bytes; expected {expected}. Remove the folder and build it again.")
        self._map: NDArray[Any] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Whose predictions these are and how exact; as `FrozenTeacher.facts`."""
        return {
            "teacher_sha256": self.manifest["teacher"],
            "teacher_bf16": self.manifest["precision"] == "bf16",
            "teacher_stored_as": self.manifest["dtype"],
            "teaching": self.manifest["teaching"],
        }

    def read(self, view: int, index: int) -> tuple[int, dict[str, Tensor]]:
        """The checksum of the crop, and task name -> (C, h, w) float32; CheckpointError for a damaged or missing record."""
        if view >= self.views:
            raise KdamValueError(
                f"{self.folder} holds {self.views} views, asked for view {view}; give the trainer as many."
            )
        record = np.array(self.records[view, index : index + 1])
        if record["_checksum"][0] != _checksum(record):
            raise CheckpointError(
                f"{self.folder / RECORDS}: the record of sample {index} in view {view} is damaged or missing; run "
                "kdam cache-teacher with the same options: it checks every record and makes these again."
            )
        predictions = {name: torch.from_numpy(record[name][0]).float() for name in self.manifest["tasks"]}
        return int(record["_crop"][0]), predictions

    def holds(self, view: int, index: int) -> bool:
        """Whether a record was written to its end."""
        record = self.records[view, index : index + 1]
        return bool(record["_checksum"][0]) and record["_checksum"][0] == _checksum(np.array(record))

    def absent(self) -> int:
        """Number of records without a checksum; those that have one are not read."""
        return int((self.records["_checksum"] == 0).sum())

    def pack(self, keys: Sequence[Key], predictions: Mapping[str, Tensor], crops: Sequence[int]) -> NDArray[Any]:
        """The records of a batch, from the (view, index) of each, predictions (B, C, h, w) float32, and checksums of the crops.

        Raises:
            KdamValueError: a prediction is not finite, too large for fp16, or of an unexpected shape; names task and sample.
        """
        records = np.zeros(len(keys), self.dtype)
        for name in self.manifest["tasks"]:
            values, expected = predictions[name].cpu().numpy(), self.dtype[name].shape
            if values.shape[1:] != expected:
                raise KdamValueError(f"{name}: the teacher predicts {values.shape[1:]}, expected {expected}.")
            with np.errstate(over="ignore"):
                records[name] = values
            broken = np.flatnonzero(~np.isfinite(records[name]).all((1, 2, 3)))
            if len(broken):
                (view, index), stored = keys[broken[0]], self.manifest["dtype"]
                remedy = "up to 65504; use teacher_cache_dtype fp32. " if stored == "fp16" else ". "
                raise KdamValueError(
                    f"{name}: the teacher predicts up to {np.abs(values[broken[0]]).max():.4g} for sample {index} in view "
                    f"{view}; stored as {stored}, expected finite numbers {remedy}Check its weights."
                )
        records["_crop"] = crops
        records["_checksum"] = [_checksum(records[row : row + 1]) for row in range(len(keys))]
        return records

    @property
    def records(self) -> NDArray[Any]:
        """All records (views, images), mapped into memory."""
        if self._map is None:
            self._map = np.memmap(self.folder / RECORDS, self.dtype, "r", shape=(self.views, self.images))
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


class CachedTeacherDataset(Dataset[dict[str, Any]]):
    """Crops together with what the teacher predicts on them: `teacher`, task name -> (C, h, w) float32.

    Args:
        dataset: the crops, asked for by (view, index).
        cache: made from the same crops.
    """

    def __init__(self, dataset: TransformedDataset, cache: TeacherCache) -> None:
        self.dataset, self.cache = dataset, cache

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """As `TransformedDataset` has it, with `teacher`.

        Raises:
            CheckpointError: a damaged record, or another crop than the teacher saw.
        """
        item = self.dataset[key]
        crop, teacher = self.cache.read(*key)
        if crop != crop_checksum(item["pixel_values"]):
            raise CheckpointError(
                f"{self.cache.folder}: in view {key[0]} the teacher saw another crop of sample {key[1]} than the student "
                "does: the images, the code of the augmentation or a library it uses changed. Remove the folder and "
                "build it again."
            )
        return item | {"teacher": teacher}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a cache was made from; CheckpointError where there is none, or one of another version."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: no teacher cache ({error}). Make it with kdam cache-teacher.") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.get('format')}, expected {FORMAT}. Build it again elsewhere.")
    return manifest


def _checksum(record: NDArray[Any]) -> int:
    """CRC-32 of all but the last four bytes; never 0, which stands for a record that was not written."""
    return zlib.crc32(record.view(np.uint8)[:-4].data) or 1
