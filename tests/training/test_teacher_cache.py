"""A replayed teacher is the same teacher: step for step and crop for crop."""

import pickle

import numpy as np
import pytest
import torch
from teacher_kit import VIEWS, fill, online_teacher
from torch.utils.data import DataLoader

from dataset_loaders import Collator
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.io import tensors_sha256
from kdam_hf.training import CachedTeacherDataset, load_model
from kdam_hf.training.fingerprint import differences


def distiller(kit, name="run", online=None, cache=None, method="cs", **args):
    data = kit.train_data() if cache is None else CachedTeacherDataset(kit.train_data(), cache)
    settings = {"max_steps": 10, "learning_rate": 1e-3, "beta": 0.5, "views": VIEWS} | args
    return kit.distiller(method, name, teacher=online, data=data, **settings)


def outcome(trainer, resume=None):
    """Losses and weights after a few epochs over two views."""
    trainer.train(resume_from_checkpoint=resume)
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], tensors_sha256(trainer.model)


def test_replayed_training_equals_online_training_on_the_same_views_step_for_step(kit, teacher):
    """Bit for bit, once the online teacher is rounded as the cache rounds it; a student that just starts is chaotic."""
    online = outcome(distiller(kit, "online", online_teacher(kit, teacher, "fp16")))
    assert len(online[0]) == 10
    assert outcome(distiller(kit, "replayed", cache=fill(kit, teacher))) == online


@pytest.mark.fault(8)
def test_an_online_run_and_an_exact_replay_of_it_continue_each_other(kit, teacher):
    cache, ends = fill(kit, teacher, teacher_cache_dtype="fp32"), []
    kinds = [{"online": online_teacher(kit, teacher)}, {"cache": cache}]
    for first, second in (kinds, kinds[::-1]):
        name = next(iter(first))
        ends.append(outcome(distiller(kit, name, max_steps=6, save_strategy="steps", save_steps=3, **first)))
        ends.append(outcome(distiller(kit, "b", max_steps=6, **second), resume=str(kit.root / name / "checkpoint-3")))
    assert ends == [ends[0]] * 4


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"teacher_cache_dtype": "fp16"}, ["distillation.teacher_stored_as fp32 -> fp16"]),
        ({"teacher_precision": "bf16"}, ["distillation.teacher_bf16 False -> True"]),
    ],
)
def test_a_replay_of_other_numbers_is_another_objective(kit, teacher, stored, expected):
    online = distiller(kit, online=online_teacher(kit, teacher))
    replay = distiller(kit, cache=fill(kit, teacher, **{"teacher_cache_dtype": "fp32", **stored}))
    assert differences(online.describe(), replay.describe()) == expected


def test_single_task_teachers_are_cached_as_one_whatever_their_order(kit):
    tasks = kit.tasks[3:5]
    folders = [kit.saved(task.name, "teacher", seed=k, tasks=[task]) for k, task in enumerate(tasks)]
    first, again = fill(kit, folders, tasks=tasks), fill(kit, folders[::-1], tasks=tasks)
    assert first.manifest == again.manifest
    assert list(again.read(0, 0)[1]) == [task.name for task in tasks]


@pytest.mark.fault(13)
@pytest.mark.parametrize(("value", "dtype", "limit"), [(7e4, "fp16", "65504"), (3e38, "fp32", "inf")])
def test_what_cannot_be_stored_stops_with_task_and_sample(kit, teacher, value, dtype, limit):
    model = load_model(teacher)
    with torch.no_grad():
        model.decoder.heads["edge"][1].bias.fill_(value)
        model.decoder.heads["edge"][1].weight.fill_(value)  # finite, but sums of the largest are not
    model.save_pretrained(kit.root / "large")
    with pytest.raises(KdamValueError, match=rf"edge: .* sample 0 in view 0; stored as {dtype}") as caught:
        fill(kit, str(kit.root / "large"), teacher_cache_dtype=dtype)
    assert limit in str(caught.value)


def test_another_crop_than_the_teacher_saw_stops_the_student(kit, teacher):
    data = CachedTeacherDataset(kit.train_data(photometric=False), fill(kit, teacher))
    with pytest.raises(CheckpointError, match=r"view 1 .* sample 2"):
        data[1, 2]


def test_a_cache_goes_with_a_method_with_as_many_views_and_without_a_second_teacher(kit, teacher):
    cache = fill(kit, teacher, teacher_views=1)
    second = online_teacher(kit, teacher)
    for refused, said in (
        ({"method": "none", "views": 1}, "method none"),
        ({}, "views=2"),
        ({"online": second}, "one of"),
    ):
        with pytest.raises(KdamValueError, match=said):
            distiller(kit, cache=cache, **refused)
    with pytest.raises(KdamValueError, match="1 views, asked for view 1"):
        cache.read(1, 0)


def test_the_reader_goes_to_worker_processes_as_its_place_and_opens_there(kit, teacher):
    data = CachedTeacherDataset(kit.train_data(), fill(kit, teacher))
    assert len(pickle.dumps(data.cache)) < 1000
    loader = DataLoader(data, 8, sampler=[(1, k) for k in range(8)], num_workers=2, collate_fn=Collator(kit.tasks))
    (batch,) = loader
    for k in range(8):
        for name, value in data[1, k]["teacher"].items():
            assert np.array_equal(batch["teacher"][name][k], value)
