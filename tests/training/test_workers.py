"""Processes that work for a training are forked with SIGTERM blocked; nothing else of the process is changed."""

import multiprocessing
import signal
from pathlib import Path

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


def test_no_source_installs_a_hook_for_every_fork_of_the_process():
    sources = [path for room in ("kdam_hf", "dataset_loaders") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 50
    assert not [path for path in sources if "register_at_fork" in path.read_text("utf-8")]
