"""Two processes with one image each are one process with two: the same weights after the same steps."""

import os

import pytest
import torch
from conftest_kit import Kit
from safetensors.torch import load_file
from spawn_kit import spawn

from kdam_hf.distillation import DistillationCriterion
from kdam_hf.training import DistillationTrainer, FrozenTeacher

RESOLUTIONS = ("stride4", "full")


def train(rank, root):
    for resolution in RESOLUTIONS:
        train_at(resolution, rank, Kit(root))


def train_at(resolution, rank, kit):
    model = kit.model(preset="tiny-convnext")
    for module in model.modules():  # statistics of a batch of one are another model, with any number of processes
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train = lambda mode=True, m=module: torch.nn.Module.train(m, False)
    world = int(os.environ.get("WORLD_SIZE", 1))
    name = f"{resolution}-{world}"
    args = kit.args(name, per_device_train_batch_size=2 // world, max_steps=2, learning_rate=1e-3)
    assert args.world_size == world
    teacher = FrozenTeacher([kit.model("teacher", seed=1).eval()], model.config)
    criterion = DistillationCriterion(kit.tasks, temperature=4.0, beta=0.1, resolution=resolution)
    trainer = DistillationTrainer(model, args, kit.tasks, kit.train_data(), teacher=teacher, criterion=criterion)
    trainer.train()
    trainer.save_model()
    if rank == 0:
        logs = [{k: v for k, v in line.items() if "loss" in k or "kd" in k} for line in trainer.state.log_history]
        torch.save(logs, kit.root / name / "logs.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    spawn(train, 2, root)
    train(0, root)
    return root


@pytest.mark.reliability
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_two_processes_equal_one_with_the_global_batch(runs, resolution):
    one, two = (load_file(runs / f"{resolution}-{n}" / "model.safetensors") for n in (1, 2))
    start = Kit(runs).model(preset="tiny-convnext").state_dict()
    moved, apart = (
        sum((b[k] - a[k]).double().square().sum() for k in one).sqrt() for a, b in ((start, one), (one, two))
    )
    assert moved > 1e-3
    assert apart < 1e-3 * moved
    logs = [torch.load(runs / f"{resolution}-{n}" / "logs.pt") for n in (1, 2)]
    for a, b in zip(*logs, strict=True):
        for key in a.keys() & b.keys() - {"train_loss"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
