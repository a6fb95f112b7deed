"""The teacher's predictions on fixed crops, stored once and read beside the crops.

`records.bin` holds a record of equal size per (view, index), and `manifest.json` what they were made from. A record ends
with its own checksum, so that a half-written one is told from a finished one without a journal, and with a checksum of
the crop: a student that sees another crop than the teacher saw is stopped.

Every process makes the records whose number leaves its rank when divided by the number of processes, and of those the ones
whose checksum is not there. So none is written twice, whatever was killed before and with however many processes.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dataset_loaders import Collator, TrainTransform, TransformedDataset
from kdam_hf import io
from kdam_hf.configuration_kdam import STRIDE, KdamConfig
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.teachers.teaching import Teaching
from kdam_hf.training.arguments import DistillationArguments, KdamTrainingArguments, use_bf16
from kdam_hf.training.checkpointing import existing, explained_disk_errors
from kdam_hf.training.loading import Layer, WatchedDataset, explained_failures, make_loader
from kdam_hf.training.teacher import FrozenTeacher, load_teacher

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
    """A folder of records (views, images), as `fill_cache` made it, mapped into memory; pickled as its place.

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
        self.records = np.memmap(path, self.dtype, "r", shape=(self.views, self.images))

    def __reduce__(self) -> Any:
        return TeacherCache, (self.folder,)

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
            raise KdamValueError(f"{self.folder} holds {self.views} views, asked for view {view}; ask for fewer.")
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


class CachedTeacherDataset(Layer):
    """Crops together with what the teacher predicts on them: `teacher`, task name -> (C, h, w) float32.

    Args:
        dataset: the crops, asked for by (view, index).
        cache: made from the same crops.
    """

    def __init__(self, dataset: TransformedDataset, cache: TeacherCache) -> None:
        super().__init__(dataset)
        self.cache = cache

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


def fill_cache(
    distillation: DistillationArguments,
    teaching: Teaching,
    dataset: TransformedDataset,
    student: KdamConfig,
    args: KdamTrainingArguments,
    verify: bool = False,
) -> TeacherCache:
    """The complete cache in `distillation.teacher_cache`; what is missing of it is made, by all processes together.

    The teacher is loaded only by a process that has something to make.

    Args:
        dataset: the crops, asked for by (view, index).
        student: its configuration.
        verify: check every record of a complete cache too, and make damaged ones again.

    Raises:
        CheckpointError: the folder belongs to something else, with the list of differences; or too little disk space.
        KdamValueError: no teacher, cache folder or number of views; or predictions that cannot be stored.
        DataWorkerError, OutOfMemoryError: as `explained_failures` has them.
    """
    wanted = _describe(distillation, teaching, dataset, args)
    ignored = ("complete", "precision") if distillation.teacher_precision == "auto" else ("complete",)
    folder, main = Path(distillation.teacher_cache or ""), args.process_index == 0
    if folder.is_file():
        raise KdamValueError(f"teacher_cache {folder}: a file is there; expected a folder.")
    lock = io.exclusive(folder.parent / f".{folder.name}.lock", f"teacher cache {folder}")
    with lock if main else nullcontext():
        with args.main_process_first(local=False, desc="preparing the teacher cache"):
            if main and (not folder.exists() or not any(folder.iterdir())):
                _make(folder, wanted)
        if different := io.differences(read_manifest(folder), wanted, ignored):
            raise CheckpointError(
                f"{folder} was made from another teacher, data or augmentation: {'; '.join(different)}. "
                "Use its settings, give another teacher_cache, or remove the folder."
            )
        cache = TeacherCache(folder)
        if cache.complete and not verify:
            return cache
        share = [*product(range(cache.views), range(cache.images))][args.process_index :: args.world_size]
        quiet = not main or args.disable_tqdm
        missing = [key for key in tqdm(share, "checking the teacher cache", disable=quiet) if not cache.holds(*key)]
        if missing:
            bf16, size = cache.manifest["precision"] == "bf16", distillation.teacher_batch_size
            teacher = load_teacher(teaching, student, bf16, size).to(args.device)
            size = size or args.per_device_train_batch_size
            batches = [missing[k : k + size] for k in range(0, len(missing), size)]
            watched = WatchedDataset(dataset, args.dataloader_num_workers)
            loader = make_loader(watched, args, batch_sampler=batches, collate_fn=Collator(teaching.tasks))
            with explained_failures(lambda: f"filling the teacher cache {folder}", {"crops": watched}):
                bar = tqdm(loader, "running the teacher", unit=" crops", unit_scale=size, disable=quiet)
                _write(cache, batches, bar, teacher, args.device)
        PartialState().wait_for_everyone()
        if main:
            io.write_json(folder / MANIFEST, cache.manifest | {"complete": True})
        PartialState().wait_for_everyone()
    return TeacherCache(folder)


def _describe(
    distillation: DistillationArguments, teaching: Teaching, dataset: TransformedDataset, args: KdamTrainingArguments
) -> dict[str, Any]:
    """What a cache depends on, as plain data."""
    transform, source = dataset.transform, dataset.dataset
    if not (teaching.sources and distillation.teacher_cache and distillation.teacher_views):
        raise KdamValueError(
            f"teacher={distillation.teacher}, teacher_cache={distillation.teacher_cache}, "
            f"teacher_views={distillation.teacher_views}; a teacher cache needs all three."
        )
    if not isinstance(transform, TrainTransform):
        raise KdamValueError(f"{type(transform).__name__}: expected TrainTransform, whose crops have one size.")
    specs = {task.name: task.spec() for task in teaching.tasks if task.name in teaching.taught}
    more = {name for name, found in teaching.class_maps.items() if found.unclaimed}  # a channel for what is left out
    return {
        "format": FORMAT,
        "views": distillation.teacher_views,
        "images": len(dataset),
        "dtype": distillation.teacher_cache_dtype,
        "precision": "bf16" if use_bf16(distillation.teacher_precision, args.use_cpu) else "fp32",
        "teacher": sorted(source.sha256 for source in teaching.sources),
        "teacher_settings": sorted(source.settings_sha256 for source in teaching.sources),
        "teaching": teaching.identity,
        "data": {"name": source.name, "split": source.split, "ids_sha256": source.digest}
        | {"first_crop": crop_checksum(dataset[0, 0]["pixel_values"])},
        "augmentation": transform.settings,
        "tasks": {
            name: {key: spec[key] for key in ("kind", "class_names")} | {"channels": spec["channels"] + (name in more)}
            for name, spec in specs.items()
        },
        "grid": [-(-side // STRIDE) for side in transform.size],
        "complete": False,
    }


def _make(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Print what a new cache will take, refuse it where the disk is too small, and make it, of records that hold nothing."""
    size, free = record_dtype(wanted).itemsize, shutil.disk_usage(existing(folder)).free
    needed = size * wanted["images"] * wanted["views"]
    print(
        f"teacher cache {folder}: {wanted['views']} views of {wanted['images']} images, {_size(size)} each "
        f"({wanted['dtype']}): {_size(needed)} to write, {_size(free)} free",
        flush=True,
    )
    if needed > free:
        raise CheckpointError(
            f"{folder}: the teacher cache needs {_size(needed)}, {_size(free)} are free; nothing was removed. Free the space, "
            "give another teacher_cache, or lower teacher_views."
        )
    with io.replacing(folder) as partial:
        io.write_json(partial / MANIFEST, wanted)
        (partial / RECORDS).touch()
        os.truncate(partial / RECORDS, needed)


def _write(
    cache: TeacherCache, batches: list[list[Key]], loader: Iterable[Any], teacher: FrozenTeacher, device: torch.device
) -> None:
    """Run the teacher on the crops of `loader` and write their records."""
    with (cache.folder / RECORDS).open("r+b") as file:
        for keys, batch in zip(batches, loader, strict=True):
            inputs = (batch[name].to(device, non_blocking=True) for name in ("pixel_values", "pixel_mask"))
            crops = [crop_checksum(crop) for crop in batch["pixel_values"]]
            records = cache.pack(keys, teacher(*inputs).predictions, crops)
            with explained_disk_errors(cache.folder):
                for (view, index), record in zip(keys, records, strict=True):
                    # not through the map: a full disk would kill the process instead of raising
                    file.seek((view * cache.images + index) * cache.dtype.itemsize)
                    file.write(record.tobytes())
                file.flush()
        with explained_disk_errors(cache.folder):
            os.fsync(file.fileno())


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _checksum(record: NDArray[Any]) -> int:
    """CRC-32 of all but the last four bytes; never 0, which stands for a record that was not written."""
    return zlib.crc32(record.view(np.uint8)[:-4].data) or 1
