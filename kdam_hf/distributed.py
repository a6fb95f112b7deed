"""Sums and means over the processes of a run, so that losses are those of the global batch.

DistributedDataParallel averages gradients over processes. A masked mean is therefore exact over the global batch when each
process divides its local sum by the *average* count (`mean`), and a statistic that couples pixels of all processes when it
is built from `sum`, which carries gradient.
"""

import os
import sys
import threading
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Processes:
    """The processes that share one global batch.

    Args:
        size: number of processes; 1 makes every method the identity and needs no process group.
    """

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def mean(self, x: Tensor) -> Tensor:
        """Average over processes, without gradient; any shape."""
        return self._reduced(x, dist.ReduceOp.SUM) / self.size if self.size > 1 else x.detach()

    def max(self, x: Tensor) -> Tensor:
        """Element-wise maximum over processes, without gradient; any shape."""
        return self._reduced(x, dist.ReduceOp.MAX) if self.size > 1 else x.detach()

    def sum(self, x: Tensor) -> Tensor:
        """Element-wise sum over processes, any shape; differentiable if all processes make the same of it.

        The gradient of a statistic of the whole batch is the same on every process, so none is exchanged.
        """
        return self._reduced(x, dist.ReduceOp.SUM) + self.size * (x - x.detach()) if self.size > 1 else x

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, on every process; plain data or CPU tensors, whatever the device of the run."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the buffers of the first, such as running statistics of batch norms: those that are saved."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    @staticmethod
    def _reduced(x: Tensor, op: dist.ReduceOp.RedOpType) -> Tensor:
        with torch.no_grad():
            y = x.detach().clone()
            dist.all_reduce(y, op=op)
        return y


LOCAL = Processes()
_FAILED = "kdam/failed"
_left = threading.Event()


def end_with_others() -> None:
    """From now on this process ends when another one of its group has failed; it would wait for that until NCCL's timeout."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        _left.clear()
        threading.Thread(target=_watch, args=[_store().clone()], daemon=True).start()


def tell_others(what: str) -> None:
    """Say to the group of processes, if this one is in any, that it has failed."""
    _left.set()
    if dist.is_initialized():
        _store().set(_FAILED, f"process {dist.get_rank()}: {what}")
        time.sleep(2 if dist.get_world_size() > 1 else 0)  # the store may end with this process


def _watch(store: dist.Store) -> None:
    try:
        while not store.check([_FAILED]):
            if _left.wait(0.5):
                return
        print(f"ended, since another process failed ({store.get(_FAILED).decode()})", file=sys.stderr, flush=True)
    except RuntimeError:  # the store is gone: the group ends as it was told
        return
    os._exit(1)


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def leave_group() -> None:
    """Leave the group of processes, if this one is in any.

    A moment late: threads of gloo that still finish the last collective have aborted processes that left at once
    ("terminate called without an active exception", torch 2.13).
    """
    _left.set()
    if dist.is_initialized():
        time.sleep(0.5)
        dist.destroy_process_group()
