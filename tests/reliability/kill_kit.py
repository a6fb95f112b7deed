"""A short training with everything that draws random numbers, forked, killed at random moments and resumed."""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field

from conftest_kit import Kit
from transformers.utils.logging import disable_progress_bar

from kdam_hf.io import lines_sha256, tensors_sha256, write_text
from kdam_hf.training import MultiTaskTrainer
from kdam_hf.training.checkpointing import list_checkpoints, newest_sealed

STEPS = 12
disable_progress_bar()


def build(output, **options):
    """A training of a tiny Swin student with dropout on augmented rooms; checkpoints lie between log lines."""
    kit = Kit(output.parent)
    defaults = {"max_steps": STEPS, "optim": "adamw_torch", "learning_rate": 1e-3, "logging_steps": 5}
    defaults |= {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    model = kit.model(preset="tiny-swin", dropout=0.1)
    return MultiTaskTrainer(model, kit.args(output.name, **(defaults | options)), kit.tasks, kit.train_data())


def train(output, **options):
    """Train, or go on, and leave a hash of the weights and of every logged loss."""
    trainer = build(output, **options)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        trainer.train(resume_from_checkpoint="last")
    write_text(
        output / "final", lines_sha256([tensors_sha256(trainer.model), json.dumps(untimed(trainer), sort_keys=True)])
    )


def untimed(trainer):
    """The log without its times."""
    return [
        {key: value for key, value in line.items() if "runtime" not in key and "per_second" not in key}
        for line in trainer.state.log_history
    ]


def fork(work):
    """Start `work` in a copy of this process; its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        traceback.print_exc()
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
    os._exit(0)


def wait(pid, output):
    """The hash that a training left, which must not fail."""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, output
    return (output / "final").read_text()


@dataclass
class Tally:
    """What many kills came to."""

    seconds: float
    hashes: list
    kills: int = 0
    resumes: int = 0
    killed_at_steps: list = field(default_factory=list)
    sealed: list = field(default_factory=list)

    def summary(self):
        return {
            "kills": self.kills,
            "resumes": self.resumes,
            "kills_before_the_first_checkpoint": self.killed_at_steps.count(0),
            "finished_trainings": len(self.hashes),
            "distinct_final_hashes": len(set(self.hashes)),
            "minimum_sealed": min(self.sealed),
            "looks": len(self.sealed),
            "seconds_uninterrupted": round(self.seconds, 2),
        }


def kill_run(root, kills, seed):
    """Resume the newest checkpoint and kill, `kills` times, at moments drawn over the time of a whole training.

    An attempt that ends before is a finished training, and the next one starts anew.
    """
    start = time.monotonic()
    reference = wait(fork(lambda: train(root / "reference")), root / "reference")
    tally, moments, trial = Tally(time.monotonic() - start, [reference]), random.Random(seed), 0
    while tally.kills < kills:
        output = root / f"trial-{trial}"
        tally.resumes += bool(list_checkpoints(output))
        if attempt(output, moments.uniform(0, tally.seconds), tally):
            shutil.rmtree(output)
            trial += 1
    tally.hashes.append(wait(fork(lambda: train(output)), output))
    return tally


def attempt(output, seconds, tally):
    """One attempt at a training that is killed after `seconds`; whether it finished before."""
    had = bool(list_checkpoints(output))
    pid, deadline = fork(lambda: train(output)), time.monotonic() + seconds
    while time.monotonic() < deadline:
        count = len(list_checkpoints(output))
        if had or count:
            had = True
            tally.sealed.append(count)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            tally.hashes.append(wait(pid, output))
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    tally.kills += 1
    found = newest_sealed(output)  # raises when there are checkpoints, but none verifies
    assert found or not had, f"{output}: a kill left no checkpoint"
    tally.killed_at_steps.append(found[1]["step"] if found else 0)
    return False
