"""Rows 29 and 30: workers that die, raise or hang, and memory that does not suffice."""

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest
import torch
from conftest_kit import Kit, Made

from kdam_hf.errors import DataIntegrityError, DataWorkerError, OutOfMemoryError
from kdam_hf.training import MultiTaskTrainer
from kdam_hf.training.checkpointing import newest_sealed

BAD, NAME = 5, "'train-0000005'"


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def hanging():
    time.sleep(600)


def raising():
    raise KeyError("no such band")


def trainer_with(root, fault, **options):
    """On rooms of which one does something bad when a worker reads it."""
    kit = Kit(root)
    rooms, readers = kit.rooms, [partial(kit.rooms.__getitem__, k) for k in range(8)]
    readers[BAD] = lambda: fault() or rooms[BAD]
    kit.rooms = Made(*readers, ids=rooms.ids, tasks=kit.tasks)
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4} | options
    return MultiTaskTrainer(kit.model(), kit.args(**options), kit.tasks, kit.train_data(), kit.train_data())


def living_children():
    return [child for child in multiprocessing.active_children() if child.is_alive()]


@pytest.mark.reliability
@pytest.mark.parametrize(("fault", "message"), [(killed, None), (hanging, "timed out")], ids=["killed", "hanging"])
@pytest.mark.fault(29)
def test_a_worker_that_dies_or_hangs_names_its_sample_and_leaves_nobody(tmp_path, fault, message):
    trainer = trainer_with(tmp_path, fault, dataloader_num_workers=1, dataloader_timeout=2.0)
    start = time.monotonic()
    for run in (trainer.train, trainer.evaluate):
        with pytest.raises(DataWorkerError, match=message) as raised:
            run()
        assert f"Reading: sample {NAME} (index {BAD})" in str(raised.value)
        assert not living_children()
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.reliability)])
@pytest.mark.fault(29)
def test_an_exception_of_a_sample_names_the_sample_and_workers_have_a_timeout_by_default(tmp_path, workers):
    trainer = trainer_with(tmp_path, raising, dataloader_num_workers=workers)
    assert trainer.get_train_dataloader().timeout == trainer.get_eval_dataloader().timeout == 600 * workers
    with pytest.raises(DataIntegrityError, match=rf"sample {NAME} \(index {BAD}\) could not be read \(KeyError"):
        trainer.train()
    assert not living_children()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
        RuntimeError("something else"),
    ],
    ids=["allocator", "driver", "cpu", "python", "other"],
)
@pytest.mark.fault(30)
def test_out_of_memory_says_batch_size_and_remedy_and_costs_no_checkpoint(tmp_path, error):
    saved = str(error) == "CUDA error: out of memory"  # saving once is enough
    trainer = trainer_with(tmp_path, lambda: None, max_steps=2, seed=0, save_strategy="steps" if saved else "no")
    step = trainer.training_step

    def exhausted(model, inputs, *args):
        if trainer.state.global_step == 1:
            raise error
        return step(model, inputs, *args)

    trainer.training_step = exhausted
    other = str(error) == "something else"
    says = "something else" if other else "step 1, 2 images of 32x48 pixels.*per_device_train_batch_size"
    with pytest.raises(RuntimeError if other else OutOfMemoryError, match=says) as raised:
        trainer.train()
    assert (raised.value is error) == other
    assert not saved or newest_sealed(tmp_path / "run")[1]["step"] == 1
