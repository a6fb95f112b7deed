"""Settings every test shares: no network, few threads, quiet libraries."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from kdam_hf.tasks import NYUD_V2, Task, make_task

torch.set_num_threads(1)


@pytest.fixture
def all_tasks() -> tuple[Task, ...]:
    """One task of every kind, with few classes."""
    return (
        make_task("semseg", ["wall", "floor", "chair", "lamp", "person"]),
        make_task("human_parts"),
        make_task("saliency"),
        *NYUD_V2[1:],
    )
