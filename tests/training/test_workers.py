"""Processes that work for a training are forked with SIGTERM blocked; nothing else of the process is changed."""

import multiprocessing
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdam_hf.errors import DataWorkerError
from kdam_hf.training.loading import WatchedDataset, explained_failures
from kdam_hf.training.workers import no_worker_left, worker_context

ROOT = Path(__file__).parents[2]


def masked(queue):
    queue.put(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_a_worker_starts_with_sigterm_blocked_and_its_parent_keeps_its_mask():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    workers = worker_context("fork")
    queue = workers.SimpleQueue()
    for process in (
        workers.Process(target=masked, args=(queue,)),
        multiprocessing.Process(target=masked, args=(queue,)),
    ):
        process.start()
        process.join()
    assert [queue.get(), queue.get()] == [True, False]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_workers_that_hang_are_ended_and_other_processes_are_not():
    context = multiprocessing.get_context("fork")
    before, other = (kind.Process(target=signal.pause) for kind in (worker_context("fork"), context))
    before.start()
    with no_worker_left():
        inside = worker_context("fork").Process(target=signal.pause)
        inside.start()
        other.start()
    assert (before.is_alive(), inside.is_alive(), other.is_alive()) == (True, False, True)
    for process in (before, other):
        process.kill()
        process.join()


def test_a_connection_that_breaks_before_the_death_of_its_worker_is_known_names_the_sample():
    worker = worker_context("fork").Process(target=signal.pause)
    worker.start()
    data = WatchedDataset(SimpleNamespace(ids=["a", "b"]), workers=1)
    data._reading[0] = torch.tensor([worker.pid, 1])
    death = threading.Timer(0.3, worker.kill)
    death.start()
    with pytest.raises(DataWorkerError, match="'b'"), explained_failures(lambda: "reading", {"train": data}):
        raise ConnectionResetError(104, "Connection reset by peer")
    death.join()


def test_no_source_installs_a_hook_for_every_fork_of_the_process():
    sources = [path for room in ("kdam_hf", "dataset_loaders") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 50
    assert not [path for path in sources if "register_at_fork" in path.read_text("utf-8")]
