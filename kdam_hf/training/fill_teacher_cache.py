"""Runs the frozen teacher once over fixed crops and writes a `TeacherCache`; goes on where an interrupted run stopped.

Every process takes the records whose number leaves its rank when divided by the number of processes, and writes those
whose checksum is not there. So none is written twice, whatever was killed before and with however many processes.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm

from dataset_loaders import Collator, TrainTransform, TransformedDataset
from kdam_hf import io
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.modeling_kdam import STRIDE
from kdam_hf.teachers.teaching import Teaching
from kdam_hf.training.arguments import DistillationArguments, KdamTrainingArguments, use_bf16
from kdam_hf.training.checkpointing import existing, explained_disk_errors
from kdam_hf.training.loading import WatchedDataset, explained_failures, make_loader
from kdam_hf.training.teacher import FrozenTeacher, load_teacher
from kdam_hf.training.teacher_cache import (
    FORMAT,
    MANIFEST,
    RECORDS,
    Key,
    TeacherCache,
    crop_checksum,
    read_manifest,
    record_dtype,
)


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
            if cache.absent():
                raise CheckpointError(f"{folder}: {cache.absent()} records were not written; run again.")
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
    return {
        "format": FORMAT,
        "views": distillation.teacher_views,
        "images": len(dataset),
        "dtype": distillation.teacher_cache_dtype,
        "precision": "bf16" if use_bf16(distillation.teacher_precision, args.use_cpu) else "fp32",
        "teacher": sorted(source.sha256 for source in teaching.sources),
        "teaching": teaching.identity,
        "data": {"name": source.name, "split": source.split, "ids_sha256": source.digest}
        | {"first_crop": crop_checksum(dataset[0, 0]["pixel_values"])},
        "augmentation": transform.settings,
        "tasks": {
            name: {"kind": spec["kind"], "class_names": spec["class_names"], "channels": teaching.channels(name)}
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
        os.fsync(file.fileno())


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
