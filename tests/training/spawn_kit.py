"""Several processes on one machine that share a global batch, for tests."""

import os
import socket

import torch
import torch.multiprocessing as mp

from kdam_hf.distributed import leave_group


def spawn(work, world, root):
    """Run `work(rank, root)`, a function of a module, in `world` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # forked, since this process has imported everything
    mp.start_processes(_start, (work, world, port, root), world, start_method="fork")


def _start(rank, work, world, port, root):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    work(rank, root)
    leave_group()
