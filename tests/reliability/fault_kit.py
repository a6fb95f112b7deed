"""What the tests of interruptions share: a tiny training, damage to its files, and faults at the k-th file operation."""

import os
import shutil
import signal
import sys
from errno import ENOSPC
from pathlib import Path

import torch
import transformers.modeling_utils
from kill_kit import fork, untimed

ROOT = Path(__file__).parents[2]
__all__ = ["DAMAGES", "WRITES", "copy_tree", "disk_full", "fault_at", "fork", "in_child", "killed", "untimed"]

WRITES = {"open", "os.mkdir", "os.rename", "fsync", "torch.save", "safetensors"}
REMOVALS = {"os.remove", "os.rmdir"}


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


DAMAGES = {"flipped": flip_a_bit, "truncated": cut, "empty": empty, "missing": Path.unlink}


def in_child(work):
    """Exit status of `work` done in a forked child; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])


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
