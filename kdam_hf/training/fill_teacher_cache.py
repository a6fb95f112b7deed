"""Runs the frozen teacher once over fixed crops and writes a `TeacherCache`; goes on where an interrupted run stopped.

Every process takes the records whose number leaves its rank when divided by the number of processes, and writes those
whose checksum is not there. So none is written twice, whatever was killed before and with however many processes.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from dataset_loaders import Collator, TransformedDataset
from kdam_hf import io
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.image_processing_kdam import STRIDE
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import DistillationArguments, KdamTrainingArguments, use_bf16
from kdam_hf.training.checkpointing import existing
from kdam_hf.training.loading import WatchedDataset, explained_failures, make_loader
from kdam_hf.training.pretrained import weights_sha256
from kdam_hf.training.teacher import load_teacher
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
    dataset: TransformedDataset,
    tasks: Sequence[Task],
    student: KdamConfig,
    args: KdamTrainingArguments,
    verify: bool = False,
) -> TeacherCache:
    """The complete cache in `distillation.teacher_cache`; what is missing of it is made, by all processes together.

    The teacher is loaded only by a process that has something to make.

    Args:
        distillation: the teacher, and where and how its predictions are stored.
        dataset: the crops, asked for by (view, index).
        tasks: of the student.
        student: its configuration.
        args: where it runs, with how many loading processes and which batch size.
        verify: check every record of a complete cache too, and make damaged ones again.

    Raises:
        CheckpointError: the folder belongs to something else, with the list of differences; or too little disk space.
        KdamValueError: no teacher, cache folder or number of views; or predictions that cannot be stored.
        DataWorkerError, OutOfMemoryError: as `explained_failures` has them.
    """
    wanted = _describe(distillation, dataset, tasks, args)
    folder, main = Path(distillation.teacher_cache or ""), args.process_index == 0
    lock = io.exclusive(folder.parent / f".{folder.name}.lock", f"teacher cache {folder}")
    with lock if main else nullcontext():
        any_precision = distillation.teacher_precision == "auto"
        with args.main_process_first(local=False, desc="preparing the teacher cache"):
            if main:
                _start(folder, wanted, any_precision)
        cache = TeacherCache(folder)
        _refuse_other(cache.manifest, wanted, folder, any_precision)
        if cache.complete and not verify:
            return cache
        share = [(k // cache.images, k % cache.images) for k in range(cache.views * cache.images)]
        share = share[args.process_index :: args.world_size]
        hidden = not main or args.disable_tqdm
        missing = [key for key in tqdm(share, "checking the teacher cache", disable=hidden) if not cache.holds(*key)]
        if missing:
            _make(cache, missing, distillation, dataset, tasks, student, args)
        PartialState().wait_for_everyone()
        if main:
            if cache.absent():
                raise CheckpointError(f"{folder}: {cache.absent()} records were not written; run again.")
            io.write_json(folder / MANIFEST, cache.manifest | {"complete": True})
        PartialState().wait_for_everyone()
    return TeacherCache(folder)


def _describe(
    distillation: DistillationArguments, dataset: TransformedDataset, tasks: Sequence[Task], args: KdamTrainingArguments
) -> dict[str, Any]:
    """What a cache depends on, as plain data."""
    transform, source = dataset.transform, dataset.dataset
    if not (distillation.teacher and distillation.teacher_cache and distillation.teacher_views):
        raise KdamValueError(
            f"teacher={distillation.teacher}, teacher_cache={distillation.teacher_cache}, "
            f"teacher_views={distillation.teacher_views}; a teacher cache needs all three."
        )
    specs = {task.name: task.spec() for task in tasks}
    return {
        "format": FORMAT,
        "views": distillation.teacher_views,
        "images": len(dataset),
        "dtype": distillation.teacher_cache_dtype,
        "precision": "bf16" if use_bf16(distillation.teacher_precision, args.use_cpu) else "fp32",
        "teacher": sorted(weights_sha256(name) for name in distillation.teacher),
        "data": {
            "name": source.name,
            "split": source.split,
            "ids_sha256": source.digest,
            "first_crop": crop_checksum(dataset[0, 0]["pixel_values"]),
        },
        "augmentation": transform.settings,
        "tasks": {
            name: {key: spec[key] for key in ("kind", "channels", "class_names")} for name, spec in specs.items()
        },
        "grid": [-(-side // STRIDE) for side in transform.size],
        "complete": False,
    }


def _refuse_other(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path, any_precision: bool) -> None:
    """Raise CheckpointError with the list of differences, if any."""
    different = io.differences(found, wanted, ("complete", "precision") if any_precision else ("complete",))
    if different:
        raise CheckpointError(
            f"{folder} was made from another teacher, data or augmentation: {'; '.join(different)}. "
            "Use its settings, give another teacher_cache, or remove the folder."
        )


def _start(folder: Path, wanted: Mapping[str, Any], any_precision: bool) -> None:
    """Make the folder with an empty file, after printing what it will take; an interrupted one is taken as it is.

    Raises:
        CheckpointError: the folder holds something else, or the disk is too small.
    """
    if folder.exists() and any(folder.iterdir()):
        found = read_manifest(folder)
        _refuse_other(found, wanted, folder, any_precision)
        if found["complete"]:
            return
    record, path = record_dtype(wanted).itemsize, folder / RECORDS
    size = record * wanted["images"] * wanted["views"]
    needed = max(0, size - (path.stat().st_blocks * 512 if path.exists() else 0))
    free = shutil.disk_usage(existing(folder)).free
    print(
        f"teacher cache {folder}: {wanted['views']} views of {wanted['images']} images, {_size(record)} each "
        f"({wanted['dtype']}): {_size(needed)} to write, {_size(free)} free",
        flush=True,
    )
    if needed > free:
        raise CheckpointError(_no_space(folder, needed, free))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        io.write_json(folder / MANIFEST, wanted)
    with path.open("ab") as file:
        file.truncate(size)


def _make(
    cache: TeacherCache,
    missing: Sequence[Key],
    distillation: DistillationArguments,
    dataset: TransformedDataset,
    tasks: Sequence[Task],
    student: KdamConfig,
    args: KdamTrainingArguments,
) -> None:
    """Run the teacher on the missing crops and write their records."""
    teacher = load_teacher(distillation, student, cache.manifest["precision"] == "bf16").to(args.device)
    size = distillation.teacher_batch_size or args.per_device_train_batch_size
    batches = [missing[k : k + size] for k in range(0, len(missing), size)]
    watched = WatchedDataset(dataset, args.dataloader_num_workers)
    loader = make_loader(
        watched, args, batch_sampler=batches, collate_fn=Collator(tasks), pin_memory=args.dataloader_pin_memory
    )
    bar = tqdm(loader, "running the teacher", unit="batch", disable=args.process_index > 0 or args.disable_tqdm)
    failures = explained_failures(lambda: f"filling the teacher cache {cache.folder}", {"crops": watched})
    with failures, bar, (cache.folder / RECORDS).open("r+b") as file:
        for keys, batch in zip(batches, bar, strict=True):
            inputs = (batch[name].to(args.device, non_blocking=True) for name in ("pixel_values", "pixel_mask"))
            crops = [crop_checksum(crop) for crop in batch["pixel_values"]]
            records = cache.pack(keys, teacher(*inputs).predictions, crops)
            try:
                for (view, index), record in zip(keys, records, strict=True):
                    # not through the map: a full disk would kill the process instead of raising
                    file.seek((view * cache.images + index) * cache.dtype.itemsize)
                    file.write(record.tobytes())
                file.flush()
            except OSError as error:
                needed, free = cache.dtype.itemsize * cache.absent(), shutil.disk_usage(cache.folder).free
                raise CheckpointError(f"{_no_space(cache.folder, needed, free)} ({error})") from error
        os.fsync(file.fileno())


def _no_space(folder: Path, needed: int, free: int) -> str:
    return (
        f"{folder}: the teacher cache needs {_size(needed)} more, {_size(free)} are free; nothing was removed. "
        "Free the space, give another teacher_cache, or lower teacher_views."
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
