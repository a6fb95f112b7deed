"""Two processes with half of the images each are one process with all: the same weights after the same steps."""

import os

import pytest
import torch
from conftest_kit import Kit, without_batch_statistics, write_photos
from safetensors.torch import load_file
from spawn_kit import spawn

from dataset_loaders import MixedDataset, PhotosDataset

# global batch and options: cs on labels and photos, half of each; kl with what changes between steps
RUNS = {
    "cs": (4, {"max_steps": 2}),
    "kl": (2, {"weighting": "uncertainty", "freeze_backbone_steps": 1, "max_grad_norm": 1.0, "ema_decay": 0.5}),
}


def train(rank, root):
    kit, world = Kit(root), int(os.environ.get("WORLD_SIZE", 1))
    mixed = MixedDataset(kit.rooms, PhotosDataset(root / "photos", "train"), kit.tasks, 0.5)
    for method, (batch, options) in RUNS.items():
        name, size = f"{method}-{world}", batch // world
        model = without_batch_statistics(kit.model(preset="tiny-convnext"))
        data = kit.train_data(mixed, kit.tasks) if method == "cs" else None
        settings = {"temperature": 4.0, "beta": 0.1, "learning_rate": 1e-3, "teacher": kit.frozen(), "data": data}
        trainer = kit.distiller(method, name, model, per_device_train_batch_size=size, **settings, **options)
        assert trainer.args.world_size == world
        trainer.train()
        trainer.save_model()
        if rank == 0:
            logs = [{k: v for k, v in line.items() if "loss" in k or "kd" in k} for line in trainer.state.log_history]
            torch.save(logs, root / name / "logs.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    write_photos(root / "photos", *(f"{k}.png" for k in range(9)))
    spawn(train, 2, root)
    train(0, root)
    return root


@pytest.mark.reliability
@pytest.mark.parametrize("method", RUNS)
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
