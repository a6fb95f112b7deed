"""A replayed teacher is the same teacher: step for step, crop for crop, and after any interruption."""

import errno
import json
import os
import pickle
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataset_loaders import Collator, EpochSampler, TransformedDataset
from kdam_hf.distillation import DistillationCriterion
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.training import (
    DistillationArguments,
    DistillationTrainer,
    FrozenTeacher,
    TaughtDataset,
    TeacherCache,
    fill_cache,
    load_model,
    teacher_caching,
)
from kdam_hf.training.teacher_cache import decode, encode

VIEWS = 2


@pytest.fixture
def teacher(kit):
    """The folder of a saved teacher."""
    kit.model("teacher", seed=1).save_pretrained(kit.root / "teacher")
    return str(kit.root / "teacher")


def settings(kit, teachers, **kwargs):
    # one crop at a time: the last bit of a prediction depends on the size of the batch
    defaults = {"teacher_views": VIEWS, "teacher_precision": "fp32", "teacher_batch_size": 1}
    folders = [teachers] if isinstance(teachers, str) else teachers
    return DistillationArguments(**{"teacher": folders, "teacher_cache": str(kit.root / "cache"), **defaults, **kwargs})


def fill(kit, teachers, data=None, tasks=None, verify=False, args=None, **kwargs):
    data, tasks, args = data or kit.train_data(), tasks or kit.tasks, args or kit.args()
    return fill_cache(settings(kit, teachers, **kwargs), data, tasks, kit.model(tasks=tasks).config, args, verify)


def taught_online(kit, teacher, key):
    item = kit.train_data()[key]
    return {
        k: v[0] for k, v in online_teacher(kit, teacher)(item["pixel_values"][None], item["pixel_mask"][None]).items()
    }


class Rounded(FrozenTeacher):
    """A teacher whose predictions are as exact as a cache stores them."""

    def forward(self, *inputs):
        exact = super().forward(*inputs)
        return {name: decode(encode(exact[name], form), form) for name, form in self.forms.items()}


def online_teacher(kit, teacher, dtype="fp32"):
    rounded = Rounded([load_model(teacher)], kit.model().config, batch_size=1)
    logits = {"fp32": "fp32", "fp16": "fp16", "uint8": "log_probabilities"}[dtype]
    others = "fp16" if dtype == "uint8" else dtype
    rounded.forms = {task.name: logits if task.predicts_logits else others for task in kit.tasks}
    return rounded


def train(kit, name, online=None, cache=None, method="cs", resume=None, **args):
    """Losses and weights after a few epochs over two views."""
    model, data = kit.model(), kit.train_data()
    trainer = DistillationTrainer(
        model,
        kit.args(name, **{"max_steps": 10, "learning_rate": 1e-3, **args}),
        kit.tasks,
        data if cache is None else TaughtDataset(data, cache),
        teacher=online,
        criterion=DistillationCriterion(kit.tasks, method=method, beta=0.5),
        views=VIEWS,
    )
    trainer.train(resume_from_checkpoint=resume)
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, {k: v.clone() for k, v in trainer.model.state_dict().items()}


# ---- sameness -------------------------------------------------------------------------------------------------------


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


def test_the_number_of_workers_changes_nothing(kit, teacher):
    cache = fill(kit, teacher)
    assert identical(*(train(kit, "run", cache=cache, dataloader_num_workers=n, max_steps=5)[1] for n in (0, 2)))


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
        item = TaughtDataset(kit.train_data(), cache)[key]
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


# ---- storage --------------------------------------------------------------------------------------------------------


def test_eight_bits_keep_log_probabilities_within_half_a_step_down_to_the_clip(kit):
    logits = torch.randn(2, 7, 5, 6, generator=torch.Generator().manual_seed(0)) * 6
    expected = torch.log_softmax(logits.double(), 1).clamp_min(-16)
    stored = encode(logits, "log_probabilities")
    error = (decode(stored, "log_probabilities") - expected).abs().max()
    assert stored.dtype == torch.uint8
    assert error <= 16 / 255 / 2 + 1e-6


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


@pytest.mark.parametrize(("value", "message"), [(7e4, r"up to 65504; use .* fp32"), (float("nan"), "finite")])
def test_what_fp16_cannot_hold_stops_with_task_and_sample(kit, teacher, value, message):
    model = load_model(teacher)
    with torch.no_grad():
        model.decoder.heads["edge"][1].bias.fill_(value)
    model.save_pretrained(kit.root / "large")
    with pytest.raises(KdamValueError, match=rf"edge: .* sample 0 in view 0.*{message}"):
        fill(kit, str(kit.root / "large"))


def test_the_files_have_the_size_that_was_announced(kit, teacher, capsys):
    cache = fill(kit, teacher)
    sizes = [path.stat().st_size for path in sorted(cache.folder.glob("view-*.bin"))]
    assert sizes == [cache.record_bytes * 8] * VIEWS
    assert f"2 views of 8 images, {cache.record_bytes / 1e6:.2f} MB each" in capsys.readouterr().out


# ---- refusals -------------------------------------------------------------------------------------------------------


def refused(kit, teacher, *words, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        fill(kit, teacher, **kwargs)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_cache_of_something_else_is_refused_with_the_differences(kit, teacher, monkeypatch):
    fill(kit, teacher)
    kit.model("teacher", seed=2).save_pretrained(kit.root / "other")
    refused(kit, str(kit.root / "other"), "teacher is ['")
    refused(kit, teacher, "views is 2 there and 3 here", teacher_views=3)
    refused(kit, teacher, "dtype is fp16 there and uint8 here", teacher_cache_dtype="uint8")
    refused(kit, teacher, "precision is fp32 there and bf16 here", teacher_precision="bf16")
    refused(
        kit,
        teacher,
        "augmentation.hflip is True there and False here",
        "augmentation.seed is 0 there and 5 here",
        "data.first_crop",
        data=kit.train_data(hflip=False, seed=5),
    )
    refused(kit, teacher, "tasks.edge is {'kind'", "there and nothing here", tasks=kit.tasks[:-1])
    kit.rooms = type(kit.rooms)("train", 7, 40, 56)
    refused(kit, teacher, "images is 8 there and 7 here")
    assert fill(kit, teacher, data=self_of(kit, 8), teacher_precision="auto").complete


def self_of(kit, count):
    return TransformedDataset(type(kit.rooms)("train", count, 40, 56), kit.train_data().transform)


def test_a_folder_of_other_things_and_a_missing_teacher_are_refused(kit, teacher):
    (kit.root / "cache").mkdir()
    (kit.root / "cache" / "notes.txt").write_text("mine")
    refused(kit, teacher, "no teacher cache")
    refused(kit, "nowhere", "no model at 'nowhere'")
    assert (kit.root / "cache" / "notes.txt").read_text() == "mine"
    with pytest.raises(KdamValueError, match="teacher_cache needs teacher_views"):
        settings(kit, teacher, teacher_views=None)


def test_another_crop_than_the_teacher_saw_stops_the_student(kit, teacher):
    cache = fill(kit, teacher)
    with pytest.raises(CheckpointError, match="in view 1 the teacher saw another crop of sample 2"):
        TaughtDataset(kit.train_data(photometric=False), cache)[1, 2]


def test_a_cache_and_a_method_go_together(kit, teacher):
    with pytest.raises(KdamValueError, match="method 'none' with a teacher"):
        train(kit, "none", cache=fill(kit, teacher), method="none")


def test_a_full_disk_is_found_before_anything_is_written(kit, teacher, monkeypatch):
    free = shutil.disk_usage(kit.root)._replace(free=1000)
    monkeypatch.setattr(teacher_caching.shutil, "disk_usage", lambda path: free)
    refused(kit, teacher, str(kit.root / "cache"), "needs", "0.00 MB are free")
    assert not (kit.root / "cache").exists()


def test_a_disk_that_fills_up_on_the_way_leaves_a_cache_to_go_on_with(kit, teacher, monkeypatch):
    pack = TeacherCache.pack

    def full(self, keys, *args):
        if keys[0] == (1, 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pack(self, keys, *args)

    monkeypatch.setattr(TeacherCache, "pack", full)
    with pytest.raises(OSError, match="No space"):
        fill(kit, teacher)
    monkeypatch.undo()
    assert fill(kit, teacher).complete


# ---- interruptions --------------------------------------------------------------------------------------------------


def content(cache):
    return {path.name: path.read_bytes() for path in sorted(cache.folder.glob("view-*.bin"))}


@pytest.fixture
def counted(monkeypatch):
    """Keys of the records that are made, in order."""
    made, pack = [], TeacherCache.pack
    monkeypatch.setattr(TeacherCache, "pack", lambda self, keys, *args: made.extend(keys) or pack(self, keys, *args))
    return made


def test_what_a_kill_left_is_completed_and_no_finished_record_is_made_again(kit, teacher, counted):
    whole = fill(kit, teacher)
    expected = content(whole)
    assert sorted(counted) == [(view, index) for view in range(VIEWS) for index in range(8)]
    # as a kill leaves it: unsealed, one record never begun, one half written, one with a flipped bit
    (whole.folder / "manifest.json").write_text(json.dumps(whole.manifest | {"complete": False}))
    size = whole.record_bytes
    with (whole.folder / "view-001.bin").open("r+b") as file:
        file.seek(3 * size)
        file.write(bytes(size))
        file.seek(5 * size + size // 2)
        file.write(bytes(size - size // 2))
        file.seek(6 * size)
        file.write(bytes([expected["view-001.bin"][6 * size] ^ 1]))
    counted.clear()
    again = fill(kit, teacher)
    assert counted == [(1, 3), (1, 5), (1, 6)]
    assert again.complete
    assert content(again) == expected


def test_a_complete_cache_is_used_without_loading_the_teacher(kit, teacher, counted, monkeypatch):
    fill(kit, teacher)
    counted.clear()
    monkeypatch.setattr(teacher_caching, "load_teacher", None)
    assert fill(kit, teacher).complete
    assert fill(kit, teacher, verify=True).complete
    assert counted == []


def test_a_damaged_record_is_named_and_made_again_on_request(kit, teacher, counted):
    cache = fill(kit, teacher)
    expected = content(cache)
    with (cache.folder / "view-000.bin").open("r+b") as file:
        file.seek(4 * cache.record_bytes + 7)
        file.write(bytes([expected["view-000.bin"][4 * cache.record_bytes + 7] ^ 16]))
    with pytest.raises(CheckpointError, match=r"view-000\.bin: the record of sample 4 is damaged"):
        TeacherCache(cache.folder).read(0, 4)
    counted.clear()
    assert content(fill(kit, teacher, verify=True)) == expected
    assert counted == [(0, 4)]


def test_a_truncated_file_is_refused(kit, teacher):
    cache = fill(kit, teacher)
    os.truncate(cache.folder / "view-001.bin", 100)
    refused(kit, teacher, "view-001.bin: 100 bytes")


def test_processes_share_the_work_and_make_no_record_twice(kit, teacher, counted, monkeypatch):
    """One after the other here; what each makes follows from its rank alone."""
    expected = content(fill(kit, teacher))
    shutil.rmtree(kit.root / "cache")
    counted.clear()
    args = kit.args()
    monkeypatch.setattr(type(args), "world_size", 3)
    monkeypatch.setattr(type(args), "process_index", property(lambda self: self.rank))
    monkeypatch.setattr(type(args), "main_process_first", lambda self, **kwargs: nullcontext())
    monkeypatch.setattr(TeacherCache, "absent", lambda self: 0)
    for args.rank in (0, 1, 2):
        cache = fill(kit, teacher, args=args, verify=True)
    assert sorted(counted) == [(view, index) for view in range(VIEWS) for index in range(8)]
    assert content(cache) == expected


def test_the_reader_goes_to_worker_processes_closed_and_opens_there(kit, teacher):
    data = TaughtDataset(kit.train_data(), fill(kit, teacher))
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
