"""A replayed teacher is the same teacher: step for step and crop for crop."""

import pickle

import numpy as np
import pytest
import torch
from teacher_kit import VIEWS, fill, online_teacher, settings, taught_online
from torch.utils.data import DataLoader

from dataset_loaders import Collator, EpochSampler
from kdam_hf.distillation import DistillationCriterion
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.training import DistillationTrainer, CachedTeacherDataset, load_model
from kdam_hf.training.fingerprint import differences
from kdam_hf.training.teacher_cache import decode, encode


def train(kit, name, online=None, cache=None, method="cs", resume=None, **args):
    """Losses and weights after a few epochs over two views."""
    model, data = kit.model(), kit.train_data()
    trainer = DistillationTrainer(
        model,
        kit.args(name, **{"max_steps": 10, "learning_rate": 1e-3, **args}),
        kit.tasks,
        data if cache is None else CachedTeacherDataset(data, cache),
        teacher=online,
        criterion=DistillationCriterion(kit.tasks, method=method, beta=0.5),
        views=VIEWS,
    )
    trainer.train(resume_from_checkpoint=resume)
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, {k: v.clone() for k, v in trainer.model.state_dict().items()}


def identical(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "uint8"])
def test_replayed_training_equals_online_training_on_the_same_views_step_for_step(kit, teacher, dtype):
    """Bit for bit, once the online teacher is rounded as the cache rounds it.

    A student that just starts is chaotic: without the rounding, only the first steps are close.
    """
    losses, weights = train(kit, "online", online_teacher(kit, teacher, dtype))
    replayed = train(kit, "replayed", cache=fill(kit, teacher, teacher_cache_dtype=dtype))
    assert len(losses) == 10
    assert replayed[0] == losses
    assert identical(weights, replayed[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 1e-5), ("uint8", 1e-4)])
def test_what_storage_rounds_away_hardly_shows_in_the_loss(kit, teacher, dtype, tolerance):
    exact, rounded = (
        train(kit, name, online_teacher(kit, teacher, name), max_steps=1)[0][0] for name in ("fp32", dtype)
    )
    assert rounded == pytest.approx(exact, rel=tolerance)


def test_a_resumed_replay_ends_with_the_same_weights(kit, teacher):
    cache = fill(kit, teacher)
    whole = train(kit, "whole", cache=cache, save_strategy="steps", save_steps=6)[1]
    again = train(kit, "again", cache=cache, resume=str(kit.root / "whole" / "checkpoint-6"))[1]
    assert identical(whole, again)


def test_every_view_comes_back_after_as_many_epochs_in_an_order_of_its_own():
    sampler = EpochSampler(6, seed=3, views=2)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert [{view for view, _ in epoch} for epoch in epochs] == [{0}, {1}, {0}, {1}]
    assert epochs[0] != epochs[2]
    assert all(sorted(index for _, index in epoch) == list(range(6)) for epoch in epochs)
    with pytest.raises(KdamValueError, match="views 0"):
        EpochSampler(6, views=0)


def test_a_record_holds_what_the_teacher_predicts_on_that_very_crop(kit, teacher):
    cache = fill(kit, teacher)
    for key in ((0, 0), (1, 0), (1, 7)):
        item = CachedTeacherDataset(kit.train_data(), cache)[key]
        assert torch.equal(item["pixel_values"], kit.train_data()[key]["pixel_values"])
        for name, expected in taught_online(kit, teacher, key).items():
            assert item["teacher"][name].dtype == torch.float32
            torch.testing.assert_close(item["teacher"][name], expected, rtol=1e-3, atol=1e-3)


def test_single_task_teachers_are_cached_as_one_whatever_their_order(kit):
    tasks, folders = kit.tasks[3:5], []
    for k, task in enumerate(tasks):
        folders.append(str(kit.root / task.name))
        kit.model("teacher", seed=k, tasks=[task]).save_pretrained(folders[-1])
    first = fill(kit, folders, tasks=tasks)
    again = fill(kit, folders[::-1], tasks=tasks)
    assert first.manifest == again.manifest
    assert list(again.read(0, 0)[1]) == [task.name for task in tasks]


def test_eight_bits_keep_the_root_of_log_probabilities_within_half_a_step_down_to_the_clip():
    logits = torch.randn(2, 7, 5, 6, generator=torch.Generator().manual_seed(0)) * 30
    exact = torch.log_softmax(logits.double(), 1)
    stored = encode(logits, "log_probabilities")
    kept = decode(stored, "log_probabilities").double()
    assert stored.dtype == torch.uint8
    assert exact.min() < -64
    error = ((kept / -64).sqrt() - (exact.clamp_min(-64) / -64).sqrt()).abs().max()
    assert error <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("temperature", [1, 8])
@pytest.mark.parametrize("scale", [3, 12])
def test_eight_bits_move_a_softened_distribution_little_however_sure_the_teacher_is(temperature, scale):
    logits = torch.randn(1, 40, 30, 30, generator=torch.Generator().manual_seed(0)) * scale
    kept = decode(encode(logits, "log_probabilities"), "log_probabilities")
    p, q = ((x / temperature).softmax(1) for x in (logits, kept))
    assert (p - q).norm() / p.norm() < 0.02


def test_eight_bits_halve_class_logits_and_leave_other_tasks_in_fp16(kit, teacher):
    cache = fill(kit, teacher, teacher_cache_dtype="uint8")
    taught, expected = cache.read(1, 3)[1], taught_online(kit, teacher, (1, 3))
    for task in kit.tasks:
        if task.predicts_logits:
            p, q = (x[task.name].softmax(0) for x in (taught, expected))
            assert (p - q).abs().max() < 0.02
        else:
            torch.testing.assert_close(taught[task.name], expected[task.name], rtol=1e-3, atol=1e-3)
    with pytest.raises(KdamValueError, match="cwd compares raw logits"):
        settings(kit, teacher, teacher_cache_dtype="uint8", method="cwd")


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [(7e4, "fp16", r"up to \d.*up to 65504; use .* fp32"), (3e38, "fp32", r"up to inf.*Check its weights")],
)
def test_what_cannot_be_stored_stops_with_task_and_sample(kit, teacher, value, dtype, message):
    model = load_model(teacher)
    with torch.no_grad():
        model.decoder.heads["edge"][1].bias.fill_(value)
        model.decoder.heads["edge"][1].weight.fill_(value)  # finite, but sums of the largest are not
    model.save_pretrained(kit.root / "large")
    with pytest.raises(KdamValueError, match=rf"edge: the teacher predicts {message}") as caught:
        fill(kit, str(kit.root / "large"), teacher_cache_dtype=dtype)
    assert "for sample 0 in view 0" in str(caught.value)


def test_the_files_have_the_size_that_was_announced(kit, teacher, capsys):
    cache = fill(kit, teacher)
    sizes = [path.stat().st_size for path in sorted(cache.folder.glob("view-*.bin"))]
    assert sizes == [cache.record_bytes * 8] * VIEWS
    assert f"2 views of 8 images, {cache.record_bytes / 1e6:.2f} MB each" in capsys.readouterr().out


def test_another_crop_than_the_teacher_saw_stops_the_student(kit, teacher):
    cache = fill(kit, teacher)
    with pytest.raises(CheckpointError, match="in view 1 the teacher saw another crop of sample 2"):
        CachedTeacherDataset(kit.train_data(photometric=False), cache)[1, 2]


def test_a_cache_and_a_method_go_together(kit, teacher):
    with pytest.raises(KdamValueError, match="method 'none' with a teacher"):
        train(kit, "none", cache=fill(kit, teacher), method="none")


def test_a_trainer_is_refused_more_views_than_the_cache_holds_or_a_second_teacher(kit, teacher):
    cache = fill(kit, teacher, teacher_views=1)
    with pytest.raises(KdamValueError, match=r"views=2, but .* holds 1 views"):
        train(kit, "run", cache=cache)
    with pytest.raises(KdamValueError, match="a teacher and a dataset with the predictions of one"):
        train(kit, "run", cache=cache, online=online_teacher(kit, teacher, "fp32"))
    with pytest.raises(KdamValueError, match="1 views, asked for view 1"):
        cache.read(1, 0)


def test_a_replay_is_another_objective_when_the_teacher_ran_in_another_precision(kit, teacher):
    said = []
    for name, precision in (("a", "fp32"), ("b", "bf16")):
        cache = fill(kit, teacher, teacher_cache=str(kit.root / name), teacher_precision=precision)
        criterion = DistillationCriterion(kit.tasks, method="cs", beta=0.5)
        data = CachedTeacherDataset(kit.train_data(), cache)
        said.append(
            DistillationTrainer(
                kit.model(), kit.args("run"), kit.tasks, data, criterion=criterion, views=VIEWS
            ).describe()
        )
    assert differences(*said) == ["distillation.teacher_bf16 False -> True"]


def test_the_reader_goes_to_worker_processes_closed_and_opens_there(kit, teacher):
    data = CachedTeacherDataset(kit.train_data(), fill(kit, teacher))
    data[0, 0]
    assert pickle.loads(pickle.dumps(data)).cache._maps == {}
    loader = DataLoader(
        data,
        batch_size=4,
        sampler=[(1, k) for k in range(8)],
        num_workers=2,
        collate_fn=Collator(kit.tasks),
    )
    batches = list(loader)
    for k in range(8):
        for name, value in data[1, k]["teacher"].items():
            assert np.array_equal(batches[k // 4]["teacher"][name][k % 4], value)
