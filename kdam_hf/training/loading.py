"""Data loaders that cannot hang, and whose failures name the sample.

Unusual here: each worker notes in shared memory which sample it reads, so that a worker that was killed or does not come
back can be told apart from the others by what it was doing.
"""

import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from dataset_loaders import TransformedDataset
from kdam_hf.errors import DataIntegrityError, DataWorkerError, KdamError, KdamValueError, OutOfMemoryError
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.signals import no_worker_left, shield_worker, worker_context

IDLE = -1
DYING_S = 5
SPAWN_S = 60
WORKER_ADVICE = (
    "A worker that exited has printed why above; one that was killed had too little memory or shared memory (lower "
    "dataloader_num_workers); one that did not deliver waits for a disk or network (or raise dataloader_timeout). Then run the "
    "same command with --resume_from_checkpoint last."
)
BATCH_NORM_ADVICE = (
    "A batch norm needs several values per channel: raise per_device_train_batch_size, or crop_height or crop_width above 32, "
    "or set dataloader_drop_last: true if it was the last, smaller batch of an epoch."
)
MEMORY_ADVICE = (
    "Free the device and run the same command with --resume_from_checkpoint last. Or lower per_device_train_batch_size, "
    "crop_height and crop_width, teacher_batch_size or per_device_eval_batch_size, or set precision bf16; another batch or "
    "crop is another objective and starts in a new output_dir."
)


class Layer(Dataset[Any]):
    """A dataset around another one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)


class WatchedDataset(Layer):
    """A dataset whose workers note what they read; an exception of a sample names the sample.

    Args:
        dataset: asked for by index or (epoch, index).
        workers: number of worker processes.
    """

    def __init__(self, dataset: Any, workers: int) -> None:
        super().__init__(dataset)
        # per worker the process that read last, 0 for none, and the index it reads now
        self._reading = torch.tensor([[0, IDLE]] * workers).share_memory_() if workers else torch.empty(0, 2)

    def __getitem__(self, key: Any) -> Any:
        """The item, read and noted.

        Raises:
            DataIntegrityError: naming the sample, for any exception that is not our own.
        """
        index, worker = key[1] if isinstance(key, tuple) else key, get_worker_info()
        if worker is not None:
            self._reading[worker.id] = torch.tensor([os.getpid(), index])
        try:
            return self.dataset[key]
        except (KdamError, MemoryError):
            raise
        except Exception as error:
            raise DataIntegrityError(
                f"{sample_name(self.dataset, index)} could not be read ({type(error).__name__}: {error})."
            ) from error
        finally:
            if worker is not None:
                self._reading[worker.id, 1] = IDLE

    def lost(self) -> bool:
        """Whether a worker is dead, or ends within `DYING_S` seconds: its parent may see the broken connection first."""
        pids = {pid for pid in self._reading[:, 0].tolist() if pid}
        children = [child for child in multiprocessing.active_children() if child.pid in pids]
        try:
            return len(children) < len(pids) or bool(wait([child.sentinel for child in children], DYING_S))
        except RuntimeError:  # of torch's handler, at the death of a worker
            return True

    def busy(self) -> list[str]:
        """The samples that dead workers were reading; where none is dead, those being read now."""
        alive = {child.pid for child in multiprocessing.active_children()}
        reading = [(pid, index) for pid, index in self._reading.tolist() if index != IDLE]
        dead = [index for pid, index in reading if pid not in alive]
        return [sample_name(self.dataset, index) for index in dead or [index for _, index in reading]]


def make_loader(watched: WatchedDataset, args: KdamTrainingArguments, **options: Any) -> DataLoader:
    """A DataLoader that gives up after `args.dataloader_timeout` seconds, and `SPAWN_S` more where workers import first."""
    if workers := args.dataloader_num_workers:
        context = worker_context(args.dataloader_multiprocessing_context)
        options |= {
            "timeout": args.dataloader_timeout + (SPAWN_S if context.get_start_method() == "spawn" else 0),
            "worker_init_fn": partial(shield_worker, os.getpid()),
            "prefetch_factor": args.dataloader_prefetch_factor,
            "multiprocessing_context": context,
        }
    # of its own, so that starting workers draws nothing from the random numbers of the training
    return DataLoader(watched, num_workers=workers, generator=torch.Generator(), **options)


@contextmanager
def explained_failures(where: Callable[[], str], watched: Mapping[str, WatchedDataset]) -> Iterator[None]:
    """Turn failures of data workers and of memory into errors that say `where()` and what to do; leaves no worker behind.

    Raises:
        DataWorkerError: a worker died or did not deliver in time; names the samples of `watched` that were being read.
        KdamValueError: batch norms cannot be trained with so small a batch.
        OutOfMemoryError: the memory did not suffice.
    """
    with no_worker_left():
        try:
            yield
        except KdamError:
            raise
        # the connection breaks when a worker dies while it hands over what it has read
        except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
            first, *_ = str(error).splitlines() or [type(error).__name__]
            broken = isinstance(error, (ConnectionError, EOFError)) and any(data.lost() for data in watched.values())
            if "DataLoader" in str(error) or broken:
                busy = ", ".join(name for data in watched.values() for name in data.busy())
                raise DataWorkerError(
                    f"{where()}: {first.rstrip(' .')}. Reading: {busy or 'nothing'}. {WORKER_ADVICE}"
                ) from error
            # CUDA's two wordings, the CPU allocator's, and Python's own
            if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or re.search(
                "out of memory|can't allocate memory", str(error)
            ):
                raise OutOfMemoryError(f"{where()}: {first} {MEMORY_ADVICE}") from error
            raise
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise KdamValueError(f"{where()}: {error}. {BATCH_NORM_ADVICE}") from error
            raise


def layers(dataset: Any) -> Iterator[Any]:
    """A dataset and those that it wraps, from the outside in; the last one holds the samples."""
    yield dataset
    while isinstance(dataset, (Layer, TransformedDataset)):
        dataset = dataset.dataset
        yield dataset


def sample_name(dataset: Any, index: int) -> str:
    """The id of a sample, found behind the layers of a dataset, and its index."""
    *_, source = layers(dataset)
    return f"sample {source.ids[index]!r} (index {index})"
