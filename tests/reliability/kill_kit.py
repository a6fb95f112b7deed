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


def kill_run(root, kills, seed):
    """Resume the newest checkpoint and kill, `kills` times, at moments drawn over the time of a whole training.

    An attempt that ends before is a finished training, and the next one starts anew. Returns what they came to.
    """
    start = time.monotonic()
    hashes = [wait(fork(lambda: train(root / "reference")), root / "reference")]
    seconds, moments = time.monotonic() - start, random.Random(seed)
    killed_at, sealed, resumes, trial = [], [], 0, 0
    while len(killed_at) < kills:
        output = root / f"trial-{trial}"
        had = bool(list_checkpoints(output))
        resumes += had
        pid, deadline = fork(lambda output=output: train(output)), time.monotonic() + moments.uniform(0, seconds)
        while (
            not (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
            and time.monotonic() < deadline
        ):
            count = len(list_checkpoints(output))
            had = had or count > 0
            sealed += [count] * had
            time.sleep(0.002)
        if ended:
            hashes.append(wait(pid, output))
            shutil.rmtree(output)
            trial += 1
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = newest_sealed(output)  # raises when there are checkpoints, but none verifies
        assert found or not had, f"{output}: a kill left no checkpoint"
        killed_at.append(found[1]["step"] if found else 0)
    hashes.append(wait(fork(lambda: train(output)), output))
    return {
        "kills": len(killed_at),
        "resumes": resumes,
        "kills_before_the_first_checkpoint": killed_at.count(0),
        "finished_trainings": len(hashes),
        "distinct_final_hashes": len(set(hashes)),
        "minimum_sealed": min(sealed, default=1),
        "looks": len(sealed),
        "seconds_uninterrupted": round(seconds, 2),
    }
