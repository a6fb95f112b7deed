"""Processes that work for a training are forked with SIGTERM blocked; nothing else of the process is changed."""

import ast
import multiprocessing
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdam_hf.errors import DataWorkerError
from kdam_hf.training.loading import WatchedDataset, explained_failures
from kdam_hf.training.signals import no_worker_left, worker_context

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


# what changes a process for all of its code
PROCESS_WIDE = """
    register_at_fork signal atexit set_start_method set_sharing_strategy set_num_threads set_num_interop_threads
    setlocale filterwarnings simplefilter captureWarnings basicConfig setLevel addHandler set_verbosity
    set_verbosity_error use manual_seed set_default_dtype setrecursionlimit"""


def called_at_import(node):
    """Calls outside of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from [child] if isinstance(child, ast.Call) else []
            yield from called_at_import(child)


def test_no_import_changes_what_holds_for_the_whole_process():
    sources = [path for room in ("kdam_hf", "dataset_loaders") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 50
    for path in sources:
        text = path.read_text("utf-8")
        assert "register_at_fork" not in text
        calls = [ast.unparse(call.func) for call in called_at_import(ast.parse(text))]
        assert not [call for call in calls if call.split(".")[-1] in PROCESS_WIDE.split()], path


@pytest.mark.parametrize(("default", "expected"), [("fork", "fork"), ("spawn", "spawn"), ("forkserver", "spawn")])
def test_workers_are_children_of_their_training_whatever_the_default_of_python(default, expected, monkeypatch):
    context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context(method or default))
    for workers in (worker_context(), worker_context(default)):
        assert workers.get_start_method() == workers.Process._start_method == expected
