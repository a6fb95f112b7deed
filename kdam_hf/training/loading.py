"""Data loaders that cannot hang, and whose failures name the sample.

Unusual here: each worker notes in shared memory which sample it reads, so that a worker that was killed or does not come
back can be told apart from the others by what it was doing.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from kdam_hf.errors import DataIntegrityError, DataWorkerError, KdamError, OutOfMemoryError
from kdam_hf.training.arguments import KdamTrainingArguments
from kdam_hf.training.signals import shield_worker

IDLE = -1
GENERATIONS = 4
WORKER_ADVICE = (
    "A worker that was killed had too little memory or shared memory (lower dataloader_num_workers); one that did not "
    "deliver waits for a disk or network (or raise dataloader_timeout). Then run the same command with "
    "--resume_from_checkpoint last."
)
MEMORY_ADVICE = (
    "Free the device and run the same command with --resume_from_checkpoint last: checkpoints are intact. Or lower "
    "per_device_train_batch_size, crop_height and crop_width, teacher_batch_size or per_device_eval_batch_size, or set "
    "precision bf16; another batch or crop is another objective and starts in a new output_dir."
)


class WatchedDataset(Dataset[Any]):
    """A dataset whose workers note what they read; an exception of a sample names the sample.

    Args:
        dataset: asked for by index or (epoch, index).
        workers: number of worker processes.
    """

    def __init__(self, dataset: Dataset, workers: int) -> None:
        self.dataset = dataset
        self.reading = torch.full((workers,), IDLE).share_memory_()
        # a resumed epoch has workers of its own, beside those of the later ones
        self.pids = torch.zeros(GENERATIONS, workers, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Any:
        """The item, read and noted.

        Raises:
            DataIntegrityError: naming the sample, for any exception that is not our own.
        """
        index, worker = key[1] if isinstance(key, tuple) else key, get_worker_info()
        if worker is not None:
            self.reading[worker.id] = index
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
                self.reading[worker.id] = IDLE

    def lost(self) -> bool:
        """Whether a worker is dead."""
        return any(pid and not lives for pid, lives in self._workers())

    def _workers(self) -> list[tuple[int, bool]]:
        """Number of the newest process of each worker, 0 for none yet, and whether it lives."""
        alive = {child.pid for child in multiprocessing.active_children()}
        generations = self.pids.T.tolist()  # numbers of processes begin anew at some time: the last is not the largest
        newest = [next((pid for pid in reversed(pids) if pid), 0) for pids in generations]
        return [(pid, pid in alive) for pid in newest]

    def busy(self) -> list[str]:
        """The samples that dead workers were reading; where none is dead, those being read now."""
        reading = [
            (index, lives)
            for index, (_, lives) in zip(self.reading.tolist(), self._workers(), strict=True)
            if index != IDLE
        ]
        dead = [index for index, lives in reading if not lives]
        return [sample_name(self.dataset, index) for index in dead or [index for index, _ in reading]]

    def kill_workers(self) -> None:
        """End the workers, whether they listen or hang; waits for them.

        Left to the garbage collector, idle workers end after a timeout of five seconds each.
        """
        mine = set(self.pids.flatten().tolist())
        children = [child for child in multiprocessing.active_children() if child.pid in mine]
        # torch's handler would raise for every worker that dies; Python keeps handlers to the main thread
        main = threading.current_thread() is threading.main_thread()
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
        for child in children:
            child.kill()
            child.join()
        if main:
            signal.signal(signal.SIGCHLD, handler)


def make_loader(watched: WatchedDataset, args: KdamTrainingArguments, **options: Any) -> DataLoader:
    """A DataLoader that gives up after `args.dataloader_timeout` seconds.

    Args:
        watched: the dataset.
        args: with the number of workers.
        options: of `DataLoader`.
    """
    workers = args.dataloader_num_workers
    if workers:
        options |= {
            "timeout": args.dataloader_timeout,
            "worker_init_fn": partial(_start_worker, os.getpid(), watched.pids),
            "prefetch_factor": args.dataloader_prefetch_factor,
            "multiprocessing_context": args.dataloader_multiprocessing_context,
        }
    # of its own, so that starting workers draws nothing from the random numbers of the training
    return DataLoader(watched, num_workers=workers, generator=torch.Generator(), **options)


@contextmanager
def explained_failures(where: Callable[[], str], watched: Mapping[str, WatchedDataset]) -> Iterator[None]:
    """Turn failures of data workers and of memory into errors that say what to do; leaves no worker behind.

    Args:
        where: what is going on, in words; asked when something fails.
        watched: the datasets that are being read by then.

    Raises:
        DataWorkerError: a worker died or did not deliver in time; names the samples that were read.
        OutOfMemoryError: the memory did not suffice.
    """
    try:
        yield
    except BaseException as error:
        busy = [name for dataset in watched.values() for name in dataset.busy()]
        text = str(error)
        # the connection breaks when a worker dies while it hands over what it has read
        explained = RuntimeError, MemoryError, ConnectionError, EOFError
        if isinstance(error, KdamError) or not isinstance(error, explained):
            raise
        lost = isinstance(error, (ConnectionError, EOFError)) and any(dataset.lost() for dataset in watched.values())
        if "DataLoader" in text or lost:
            said = text.splitlines()[0].rstrip(" .") if text else type(error).__name__
            raise DataWorkerError(
                f"{where()}: {said}. Reading: {', '.join(busy) or 'nothing'}. {WORKER_ADVICE}"
            ) from error
        if _is_out_of_memory(error):
            raise OutOfMemoryError(f"{where()}: {(text or 'MemoryError').splitlines()[0]} {MEMORY_ADVICE}") from error
        raise
    finally:
        for dataset in watched.values():
            dataset.kill_workers()


def sample_name(dataset: Any, index: int) -> str:
    """The id of a sample, found behind the layers of a dataset, and its index."""
    source = dataset
    while not hasattr(source, "ids") and hasattr(source, "dataset"):
        source = source.dataset
    ids = getattr(source, "ids", None)
    return f"sample {index}" if ids is None else f"sample {ids[index]!r} (index {index})"


def _start_worker(parent: int, pids: Tensor, worker: int) -> None:
    shield_worker(parent)
    pids[int((pids[:, worker] > 0).sum()), worker] = os.getpid()


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA's two wordings, the CPU allocator's, and Python's own."""
    text = str(error)
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "out of memory" in text
        or "can't allocate memory" in text
    )
