"""Rows 1, 2 and 5: killed, or out of disk, at every file operation of a save and of the rotation after it."""

import json
import os
import resource
import signal

import pytest
from fault_kit import WRITES, copy_tree, disk_full, fault_at, in_child, kill_run, killed, outcome, trainer_in

from kdam_hf.errors import CheckpointError
from kdam_hf.io import list_checkpoints
from kdam_hf.training.checkpointing import clean, newest_sealed, verify

FULL = 77


class Fork:
    """Replaces the save of step 2 by copies of it in forked children, each with another fault and its own folder."""

    def __init__(self, trainer, root):
        self.trainer, self.root, self.save = trainer, root, trainer._save_checkpoint
        trainer._save_checkpoint = self

    def __call__(self, model, trial):
        if self.trainer.state.global_step == 2:
            self.every_fault(lambda: self.save(model, trial))
        self.save(model, trial)

    def every_fault(self, save):
        # a full disk stays full, so that every second operation of a save is enough
        for kind, code, stride in (("killed", -signal.SIGKILL, 1), ("full", FULL, 2)):
            status, k = code, 0
            while status == code:
                k += stride
                folder = copy_tree(self.root / "run", self.root / kind / str(k))
                status = in_child(lambda folder=folder, kind=kind, k=k: self.faulty(save, folder, kind, k))
            assert status == 0, f"{kind} at operation {k}"
            assert k > 20, "the operations of a save were not seen"
        for size in (1_000, 100_000):
            folder = copy_tree(self.root / "run", self.root / "limited" / str(size))
            assert in_child(lambda folder=folder, size=size: self.limited(save, folder, size)) == FULL

    def faulty(self, save, folder, kind, k):
        self.trainer.args.output_dir = str(folder)
        if kind == "killed":
            fault_at(k, killed)
            save()
            return
        fault_at(k, disk_full, WRITES, lasting=True)
        expect_disk_full(save)

    def limited(self, save, folder, size):
        """No file may be larger, which real writes of torch and safetensors meet half way."""
        self.trainer.args.output_dir = str(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        expect_disk_full(save)


def expect_disk_full(save):
    """End with FULL after a CheckpointError that says so, with another code after any other, with 0 after none."""
    try:
        save()
    except CheckpointError as error:
        text = str(error)
        written = ".saving/checkpoint-2" in text and "bytes are free" in text
        os._exit(FULL if written or "checkpoint-1: could not be deleted" in text else 1)


@pytest.fixture(scope="module")
def saves(tmp_path_factory):
    root = tmp_path_factory.mktemp("saves")
    trainer = trainer_in(root, save_total_limit=1)
    Fork(trainer, root)
    trainer.train()
    return root, outcome(trainer)


def steps(folder):
    return [verify(path)["step"] for path in list_checkpoints(folder)]


@pytest.mark.reliability
@pytest.mark.fault(1, 2)
def test_killed_at_any_file_operation_of_a_save_a_run_ends_as_if_nothing_had_happened(saves):
    root, expected = saves
    first = {}  # of each state that a kill may leave, since a training takes longer than a look
    for folder in sorted((root / "killed").iterdir(), key=lambda path: int(path.name)):
        first.setdefault(tuple(steps(folder)), folder)
    for folder in first.values():
        resumed = trainer_in(root, folder.relative_to(root), save_total_limit=1)
        resumed.train(resume_from_checkpoint="last")
        assert outcome(resumed) == expected, folder
        assert [path.name for path in folder.glob("*checkpoint-*")] == ["checkpoint-3"]
    # before the seal, between seal and rotation, after the rotation
    assert set(first) == {(1,), (2, 1), (2,)}


@pytest.mark.reliability
@pytest.mark.fault(5)
def test_a_full_disk_is_named_and_costs_no_earlier_checkpoint(saves):
    root, _ = saves
    *full, _ = sorted((root / "full").iterdir(), key=lambda path: int(path.name))  # the last met no fault any more
    for folder in [*(root / "limited").iterdir(), *full]:
        assert 1 in steps(folder) or steps(folder) == [2], folder
        assert not list(folder.glob(".saving/*")), folder


@pytest.mark.reliability
@pytest.mark.fault(1, 2)
def test_random_kills_change_nothing(tmp_path):
    """`KILLS=200 python -m pytest -s -k random_kills tests/reliability` is the long form, and prints what it came to."""
    found = kill_run(tmp_path, kills=int(os.environ.get("KILLS", "2")), seed=int(os.environ.get("KILLS_SEED", "1")))
    print(json.dumps(found))
    assert found["distinct_final_hashes"] == 1
    assert found["minimum_sealed"] >= 1


@pytest.mark.fault(1)
def test_a_replaced_checkpoint_is_put_back_when_its_successor_did_not_come(saves, tmp_path):
    folder = copy_tree(saves[0] / "run", tmp_path / "run")
    os.rename(folder / "checkpoint-3", folder / ".checkpoint-3.replaced")
    assert newest_sealed(folder) is None
    clean(folder)
    assert newest_sealed(folder)[0] == folder / "checkpoint-3"


def test_what_a_killed_save_left_is_removed(tmp_path):
    for name in (".model.x1y2", ".saving/checkpoint-3", ".checkpoint-1.discarded"):
        (tmp_path / name).mkdir(parents=True)
    clean(tmp_path)
    assert not any(tmp_path.iterdir())
