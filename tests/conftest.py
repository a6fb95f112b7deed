"""Settings every test shares: no network, few threads, quiet libraries."""

import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from kdam_hf.tasks import NYUD_V2, Task, make_task

pytest_plugins = ["conftest_kit"]  # tiny rooms, models and arguments
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_datasets(tmp_path_factory):
    """`datasets` copies every Parquet file it opens; the copies of the tests go with their folders."""
    folder = tmp_path_factory.mktemp("datasets")
    os.environ["HF_DATASETS_CACHE"] = str(folder)
    if "datasets" in sys.modules:  # it read the variable when it was imported
        sys.modules["datasets"].config.HF_DATASETS_CACHE = Path(folder)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """`tree("A")` is (root, truth) of a layout, four training images and three of val; alone in its parent folder."""
    import trees

    @cache
    def get(layout):
        root = tmp_path_factory.mktemp(layout) / "tree"
        return root, trees.write_tree(layout, root, 4, 3)

    return get


@pytest.fixture
def all_tasks() -> tuple[Task, ...]:
    """One task of every kind, with few classes."""
    return (
        make_task("semseg", ["wall", "floor", "chair", "lamp", "person"]),
        make_task("human_parts"),
        make_task("saliency"),
        *NYUD_V2[1:],
    )
