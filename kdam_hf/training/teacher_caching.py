"""Runs the frozen teacher once over fixed crops and writes a `TeacherCache`; goes on where an interrupted run stopped.

Every process takes the records whose number leaves its rank when divided by the number of processes, and writes those
whose checksum is not there. So none is written twice, whatever was killed before and with however many processes.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset_loaders import Collator, TransformedDataset
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import DistillationArguments, KdamTrainingArguments, use_bf16
from kdam_hf.training.checkpointing import existing
from kdam_hf.training.loading import WatchedDataset, explained_failures, make_loader
from kdam_hf.training.report import write_json
from kdam_hf.training.teacher import FrozenTeacher, load_teacher
from kdam_hf.training.teacher_cache import (
    MANIFEST,
    TeacherCache,
    crop_checksum,
    read_manifest,
    record_bytes,
    view_path,
)
from kdam_hf.training.teacher_manifest import describe, refuse_other


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
    folder, main = Path(distillation.teacher_cache or ""), args.process_index == 0
    wanted = describe(distillation, dataset, tasks)
    with _exclusive(folder, main):
        with args.main_process_first(local=False, desc="preparing the teacher cache"):
            if main:
                start(folder, wanted, "bf16" if use_bf16(distillation.teacher_precision, args.use_cpu) else "fp32")
        cache = TeacherCache(folder)
        refuse_other(cache.manifest, wanted, folder)
        if cache.complete and not verify:
            return cache
        share = [(k // cache.images, k % cache.images) for k in range(cache.views * cache.images)]
        share = share[args.process_index :: args.world_size]
        hidden = not main or args.disable_tqdm
        missing = [key for key in tqdm(share, "checking the teacher cache", disable=hidden) if not cache.holds(*key)]
        if missing:
            teacher = load_teacher(distillation, student, cache.manifest["precision"] == "bf16").to(args.device)
            batch_size = distillation.teacher_batch_size or args.per_device_train_batch_size
            watched = WatchedDataset(dataset, args.dataloader_num_workers)
            loader = make_loader(
                watched,
                args,
                batch_sampler=[missing[k : k + batch_size] for k in range(0, len(missing), batch_size)],
                collate_fn=Collator(tasks),
                pin_memory=args.dataloader_pin_memory,
            )
            failures = explained_failures(lambda: f"filling the teacher cache {folder}", {"crops": watched})
            with (
                failures,
                tqdm(total=len(share), initial=len(share) - len(missing), unit="crop", disable=hidden) as bar,
            ):
                bar.set_description("running the teacher")
                _write(cache, loader, teacher, args, bar)
        PartialState().wait_for_everyone()
        if main:
            if cache.absent():
                raise CheckpointError(f"{folder}: {cache.absent()} records were not written; run again.")
            write_json(folder / MANIFEST, cache.manifest | {"complete": True})
        PartialState().wait_for_everyone()
    return TeacherCache(folder)


def start(folder: Path, wanted: Mapping[str, Any], precision: str) -> None:
    """Make the folder with empty files, after printing what it will take; an interrupted one is taken as it is.

    Args:
        folder: absent, empty, or a cache.
        wanted: as `describe` has it.
        precision: of the teacher that will fill a new one.

    Raises:
        CheckpointError: the folder holds something else, or the disk is too small.
    """
    if folder.exists() and any(folder.iterdir()):
        found = read_manifest(folder)
        refuse_other(found, wanted, folder)
        if found["complete"]:
            return
    size = record_bytes(wanted) * wanted["images"]
    paths = [view_path(folder, view) for view in range(wanted["views"])]
    needed = sum(max(0, size - (path.stat().st_blocks * 512 if path.exists() else 0)) for path in paths)
    free = shutil.disk_usage(existing(folder)).free
    print(
        f"teacher cache {folder}: {wanted['views']} views of {wanted['images']} images, {_size(record_bytes(wanted))} each "
        f"({wanted['dtype']}): {_size(needed)} to write, {_size(free)} free",
        flush=True,
    )
    if needed > free:
        raise CheckpointError(_no_space(folder, needed, free))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        write_json(folder / MANIFEST, {**wanted, "precision": precision})
    for path in paths:
        with path.open("ab") as file:
            file.truncate(size)


def _write(
    cache: TeacherCache, loader: DataLoader, teacher: FrozenTeacher, args: KdamTrainingArguments, bar: tqdm
) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(view_path(cache.folder, v).open("r+b", buffering=0)) for v in range(cache.views)]
        for keys, batch in zip(loader.batch_sampler, loader, strict=True):  # type: ignore[arg-type]
            inputs = (batch[name].to(args.device, non_blocking=True) for name in ("pixel_values", "pixel_mask"))
            crops = [crop_checksum(crop) for crop in batch["pixel_values"]]
            records = cache.pack(keys, teacher(*inputs).predictions, crops)
            try:
                for (view, index), record in zip(keys, records, strict=True):
                    files[view].seek(index * cache.record_bytes)
                    if files[view].write(record) != len(record):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                needed, free = cache.record_bytes * cache.absent(), shutil.disk_usage(cache.folder).free
                raise CheckpointError(f"{_no_space(cache.folder, needed, free)} ({error})") from error
            bar.update(len(keys))
        for file in files:
            os.fsync(file.fileno())


@contextmanager
def _exclusive(folder: Path, main: bool) -> Iterator[None]:
    """One run at a time writes a cache; the next waits for it."""
    if not main:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"teacher cache {folder}: another run writes it; waiting", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _no_space(folder: Path, needed: int, free: int) -> str:
    return (
        f"{folder}: the teacher cache needs {_size(needed)} more, {_size(free)} are free; nothing was removed. "
        "Free the space, give another teacher_cache, or lower teacher_views."
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
