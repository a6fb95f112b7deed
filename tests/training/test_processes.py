"""Two processes with one image each are one process with two: the same weights after the same steps."""

import os

import pytest
import torch
from conftest_kit import Kit, without_batch_statistics
from safetensors.torch import load_file
from spawn_kit import spawn

METHODS = ("cs", "kl")


def train(rank, root):
    kit, world = Kit(root), int(os.environ.get("WORLD_SIZE", 1))
    for method in METHODS:
        name, size = f"{method}-{world}", 2 // world
        model = without_batch_statistics(kit.model(preset="tiny-convnext"))
        trainer = kit.distiller(
            method, name, model, temperature=4.0, beta=0.1, per_device_train_batch_size=size, learning_rate=1e-3
        )
        assert trainer.args.world_size == world
        trainer.train()
        trainer.save_model()
        if rank == 0:
            logs = [{k: v for k, v in line.items() if "loss" in k or "kd" in k} for line in trainer.state.log_history]
            torch.save(logs, root / name / "logs.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    spawn(train, 2, root)
    train(0, root)
    return root


@pytest.mark.reliability
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one_with_the_global_batch(runs, method):
    one, two = (load_file(runs / f"{method}-{n}" / "model.safetensors") for n in (1, 2))
    start = Kit(runs).model(preset="tiny-convnext").state_dict()
    moved, apart = (
        sum((b[k] - a[k]).double().square().sum() for k in one).sqrt() for a, b in ((start, one), (one, two))
    )
    assert moved > 1e-3
    assert apart < 1e-3 * moved
    logs = [torch.load(runs / f"{method}-{n}" / "logs.pt", weights_only=True) for n in (1, 2)]
    for a, b in zip(*logs, strict=True):
        for key in a.keys() & b.keys():
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-5), key
