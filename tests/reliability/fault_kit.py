"""What the tests of interruptions share: tiny trainings, damage to their files, faults at the k-th file operation, kills."""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from contextlib import redirect_stdout
from errno import ENOSPC
from pathlib import Path

import torch
import transformers.modeling_utils
from conftest_kit import Kit
from transformers.utils.logging import disable_progress_bar

from kdam_hf.io import lines_sha256, list_checkpoints, tensors_sha256, write_text
from kdam_hf.training.checkpointing import newest_sealed

ROOT = Path(__file__).parents[2]
STEPS = 12
WRITES = {"open", "os.mkdir", "os.rename", "fsync", "torch.save", "safetensors"}
REMOVALS = {"os.remove", "os.rmdir"}
disable_progress_bar()


def trainer_in(root, name="run", method="none", **options):
    """A training of three steps with a checkpoint after each."""
    return Kit(root).distiller(method, name, **({"save_strategy": "steps", "save_steps": 1} | options))


def build(output, preset="tiny-swin", method="none", **options):
    """A training with everything that draws random numbers: augmentation and dropout; checkpoints lie between log lines."""
    model = Kit(output.parent).model(preset=preset, dropout=0.3)
    defaults = {"max_steps": STEPS, "optim": "adamw_torch", "learning_rate": 1e-3, "logging_steps": 5}
    return trainer_in(output.parent, output.name, method, model=model, **(defaults | {"save_total_limit": 2} | options))


def outcome(trainer):
    """A hash of the weights, and the log without its times."""
    return tensors_sha256(trainer.model), [
        {key: value for key, value in line.items() if "runtime" not in key and "per_second" not in key}
        for line in trainer.state.log_history
    ]


def train(output, **options):
    """Train, or go on, and leave a hash of the weights and of every logged loss."""
    trainer = build(output, **options)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        trainer.train(resume_from_checkpoint="last")
    write_text(output / "final", lines_sha256([json.dumps(outcome(trainer), sort_keys=True)]))


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


def in_child(work):
    """Exit status of `work` done in a forked child; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


DAMAGES = {"flipped": flip_a_bit, "truncated": cut, "empty": empty, "missing": Path.unlink}


def killed(path=None):
    """The end of the process, after half of what it was writing."""
    if path is not None:
        os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full(path=None):
    if path is not None:
        os.truncate(path, os.path.getsize(path) // 2)
    raise OSError(ENOSPC, os.strerror(ENOSPC), str(path or ""))


def fault_at(k, fault, operations=WRITES | REMOVALS, lasting=False):
    """From now on, the k-th file operation of this process (counted from 1) meets a fault; only for a forked child.

    Operations of Python code are seen by an audit hook, which cannot be taken off again; those of torch and safetensors,
    written in other languages, are counted twice: before they start and when half of the file is there.
    """
    count = 0

    def tick(operation, path=None):
        nonlocal count
        if operation in operations:
            count += 1
            if count == k or (lasting and count > k):
                fault(path)

    def hook(event, arguments):
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            if not (set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)):
                return
        tick(event)

    def counted(operation, function, place):
        def call(*args, **kwargs):
            tick(operation)
            result = function(*args, **kwargs)
            tick(operation, args[place])
            return result

        return call

    fsync = os.fsync
    os.fsync = lambda descriptor: (tick("fsync"), fsync(descriptor))
    torch.save = counted("torch.save", torch.save, 1)
    save_file = transformers.modeling_utils.safe_save_file
    transformers.modeling_utils.safe_save_file = counted("safetensors", save_file, 1)
    sys.addaudithook(hook)


def copy_tree(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def kill_run(root, kills, seed):
    """Resume the newest checkpoint and kill, `kills` times, at moments drawn over the time of a whole training.

    An attempt that ends before is a finished training, and the next one starts anew. Returns what they came to.
    """
    start = time.monotonic()
    hashes = [wait(fork(lambda: train(root / "reference")), root / "reference")]
    seconds, moments, killed_at, sealed = time.monotonic() - start, random.Random(seed), [], []
    resumes = 0
    while len(killed_at) < kills:
        output = root / f"trial-{len(hashes)}"
        had = bool(list_checkpoints(output))
        resumes += had
        pid, deadline = fork(lambda output=output: train(output)), time.monotonic() + moments.uniform(0, seconds)
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
            count = len(list_checkpoints(output))
            had = had or count > 0
            sealed += [count] * had
            time.sleep(0.002)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            hashes.append(wait(pid, output))
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
    }
