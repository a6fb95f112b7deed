"""Rows 6, 8 and 9 with two processes that share a global batch."""

import os
import signal

import pytest
from fault_kit import outcome
from spawn_kit import spawn
from test_exact_resume import trainer_in
from transformers import TrainerCallback

from kdam_hf.errors import CheckpointError
from kdam_hf.training.checkpointing import newest_sealed, verify

pytestmark = pytest.mark.reliability
SHARED = {"preset": "tiny-convnext", "distilled": True, "per_device_train_batch_size": 1}


class TellOne(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if args.process_index == 1 and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def work(rank, root):
    """Train, resume after step 3, and stop a third training after a signal to one process; report to `root`."""
    outcomes = []
    for resume in (None, str(root / "run" / "checkpoint-3")):
        trainer = trainer_in(root, **SHARED)
        trainer.train(resume_from_checkpoint=resume)
        outcomes.append(outcome(trainer))
    (root / f"{'exact' if outcomes[0] == outcomes[1] else 'differs'}-{rank}").touch()
    told = trainer_in(root / "told", **SHARED, save_strategy="no")
    told.add_callback(TellOne())
    try:
        told.train()
    except SystemExit as stopped:
        (root / f"stopped-{rank}-after-{told.state.global_step}-with-{stopped.code}").touch()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    spawn(work, 2, root)
    return root


@pytest.mark.fault(6)
def test_two_processes_go_on_exactly(root):
    assert sorted(path.name for path in root.glob("*-[01]")) == ["exact-0", "exact-1"]


@pytest.mark.fault(4)
def test_a_checkpoint_holds_the_state_of_every_process(root):
    files = set(verify(root / "run" / "checkpoint-3")["files"])
    assert {"rng_state_0.pth", "rng_state_1.pth", "running_sums_0.json", "running_sums_1.json"} <= files


@pytest.mark.fault(8)
def test_two_processes_do_not_become_one_unnoticed(root):
    with pytest.raises(CheckpointError, match="world_size 2 -> 1"):
        trainer_in(root, **SHARED).train(resume_from_checkpoint="last")


@pytest.mark.fault(9)
def test_all_processes_stop_after_the_same_step_when_one_is_told(root):
    stopped = sorted(path.name for path in root.glob("stopped-*"))
    assert stopped == ["stopped-0-after-3-with-143", "stopped-1-after-3-with-143"]
    assert newest_sealed(root / "told" / "run")[1]["step"] == 3
