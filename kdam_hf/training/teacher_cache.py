"""The teacher's predictions on fixed crops, stored once and read beside the crops; `teacher_caching` writes them.

One memory-mapped file per view holds a record of equal size per image, and `manifest.json` what they were made from. A
record ends with its own checksum, so that a half-written one is told from a finished one without a journal, and with a
checksum of the crop: a student that sees another crop than the teacher saw is stopped.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from dataset_loaders import TransformedDataset
from kdam_hf.errors import CheckpointError, KdamValueError

FORMAT = 1
MANIFEST = "manifest.json"
ALIGNMENT = 64
PAGE = 4096  # no two records share one: processes on several machines may write neighbours
TRAILER = 8  # checksums of crop and record, uint32 each
LOWEST, LEVELS = -64.0, 255  # of 8-bit log-probabilities: nats, steps
STORED: dict[str, np.dtype[Any]]
STORED = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4"), "log_probabilities": np.dtype("u1")}
Key = tuple[int, int]


def encode(prediction: Tensor, form: str) -> Tensor:
    """(B, C, h, w) float32 -> what is stored of it: fp16, fp32, or log-probabilities over C in 8 bits.

    The 8 bits hold the square root of the log-probability, clipped at `LOWEST`: steps are fine where a class is likely, and
    a temperature of 8 still finds the unlikely ones in place.
    """
    if form == "log_probabilities":
        share = F.log_softmax(prediction, dim=1).clamp(LOWEST, 0) / LOWEST
        return (share.sqrt() * LEVELS).round().to(torch.uint8)
    return prediction.to(torch.float16 if form == "fp16" else torch.float32)


def decode(stored: Tensor, form: str) -> Tensor:
    """What was stored -> float32, of the same shape."""
    values = stored.float()
    # in place: the loader would spend its time on fresh memory
    return values.mul_(1 / LEVELS).square_().mul_(LOWEST) if form == "log_probabilities" else values


def crop_checksum(pixel_values: Tensor) -> int:
    """Of every eighth row and column of a crop (3, H, W): another window, flip or colour changes it."""
    return zlib.crc32(pixel_values[:, ::8, ::8].numpy().tobytes())


class TeacherCache:
    """A folder of records, one per (view, index); picklable, opened by the process that reads.

    Args:
        folder: that `teacher_caching.start` made.

    Raises:
        CheckpointError: no cache there, or one of another version or with files of another size.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.views, self.images = self.manifest["views"], self.manifest["images"]
        self._slots, _ = _layout(self.manifest)
        self.record_bytes = record_bytes(self.manifest)
        self._maps: dict[int, NDArray[np.uint8]] = {}
        for view in range(self.views):
            path, expected = view_path(self.folder, view), self.images * self.record_bytes
            found = path.stat().st_size if path.exists() else 0
            if found != expected:
                raise CheckpointError(
                    f"{path}: {found} bytes; expected {expected}. Remove the folder and build it again."
                )

    @property
    def complete(self) -> bool:
        """Whether every record was written."""
        return self.manifest["complete"]

    def read(self, view: int, index: int) -> tuple[int, dict[str, Tensor]]:
        """The checksum of the crop, and task name -> (C, h, w) float32.

        Raises:
            CheckpointError: not written, or damaged.
            KdamValueError: more views than there are.
        """
        if view >= self.views:
            raise KdamValueError(
                f"{self.folder} holds {self.views} views, asked for view {view}; give the trainer as many."
            )
        record = np.array(self._map(view)[index])
        if not self._intact(record):
            raise CheckpointError(
                f"{view_path(self.folder, view)}: the record of sample {index} is damaged or missing; run "
                "scripts/cache_teacher.py with the same options: it checks every record and makes these again."
            )
        predictions = {}
        for name, (offset, shape, form) in self._slots.items():
            size = int(np.prod(shape)) * STORED[form].itemsize
            stored = record[offset : offset + size].view(STORED[form]).reshape(shape)
            predictions[name] = decode(torch.from_numpy(stored), form)
        return int(record[-TRAILER:].view("<u4")[0]), predictions

    def holds(self, view: int, index: int) -> bool:
        """Whether a record was written to its end."""
        record = self._map(view)[index]
        return bool(record[-4:].any()) and self._intact(np.asarray(record))

    def absent(self) -> int:
        """Number of records without a checksum; those that have one are not read."""
        return sum(int((~self._map(view)[:, -4:].any(1)).sum()) for view in range(self.views))

    def pack(self, keys: Sequence[Key], predictions: Mapping[str, Tensor], crops: Sequence[int]) -> Iterator[bytes]:
        """The records of a batch.

        Args:
            keys: (view, index) of each.
            predictions: task name -> (B, C, h, w) float32.
            crops: checksum of each crop.

        Raises:
            KdamValueError: a prediction is not finite, too large for fp16, or of an unexpected shape; names task and sample.
        """
        stored = {}
        for name, (_, shape, form) in self._slots.items():
            if predictions[name].shape[1:] != shape:
                raise KdamValueError(
                    f"{name}: the teacher predicts {tuple(predictions[name].shape[1:])}, expected {shape}."
                )
            encoded = encode(predictions[name], form)
            bad = (~(predictions[name].isfinite() & encoded.isfinite())).flatten(1).any(1)
            if bad.any():
                row = int(bad.nonzero()[0])
                view, index = keys[row]
                raise KdamValueError(
                    f"{name}: the teacher predicts up to {predictions[name][row].abs().max():.4g} for sample {index} in view "
                    f"{view}; stored as {form}, expected finite numbers"
                    + (" up to 65504; use teacher_cache_dtype fp32." if form == "fp16" else ". Check its weights.")
                )
            stored[name] = encoded.contiguous().cpu().numpy()
        for row, crop in enumerate(crops):
            record = np.zeros(self.record_bytes, np.uint8)
            for name, (offset, _, _) in self._slots.items():
                values = stored[name][row].reshape(-1).view(np.uint8)
                record[offset : offset + values.size] = values
            record[-TRAILER:].view("<u4")[0] = crop
            record[-4:].view("<u4")[0] = _checksum(record)
            yield record.tobytes()

    def _intact(self, record: NDArray[np.uint8]) -> bool:
        return int(record[-4:].view("<u4")[0]) == _checksum(record)

    def _map(self, view: int) -> NDArray[np.uint8]:
        if view not in self._maps:
            shape = (self.images, self.record_bytes)
            self._maps[view] = np.asarray(np.memmap(view_path(self.folder, view), np.uint8, "r", shape=shape))
        return self._maps[view]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}


class TaughtDataset(Dataset[dict[str, Any]]):
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


def view_path(folder: Path, view: int) -> Path:
    """The file of a view."""
    return folder / f"view-{view:03d}.bin"


def record_bytes(manifest: Mapping[str, Any]) -> int:
    """Size of a record that a manifest describes."""
    return _aligned(_layout(manifest)[1] + TRAILER, PAGE)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a cache was made from.

    Raises:
        CheckpointError: nothing there, or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: no teacher cache ({error}). Make it with scripts/cache_teacher.py."
        ) from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.get('format')}, expected {FORMAT}. Build it again elsewhere.")
    return manifest


def _layout(manifest: Mapping[str, Any]) -> tuple[dict[str, tuple[int, tuple[int, ...], str]], int]:
    """Task name -> (offset, (C, h, w), form) within a record, and the end of the last."""
    slots, end = {}, 0
    for name, task in manifest["tasks"].items():
        shape, form = (task["channels"], *manifest["grid"]), manifest["dtype"]
        if form == "uint8":
            form = "log_probabilities" if task["predicts_logits"] else "fp16"
        slots[name] = (end, shape, form)
        end = _aligned(end + int(np.prod(shape)) * STORED[form].itemsize, ALIGNMENT)
    return slots, end


def _aligned(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _checksum(record: NDArray[np.uint8]) -> int:
    """CRC-32 of all but the last four bytes; never 0, which stands for a record that was not written."""
    return zlib.crc32(record[:-4].data) or 1
