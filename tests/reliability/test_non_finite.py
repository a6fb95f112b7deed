"""NaN and infinity in images, teachers and evaluation: a stop with names, never a number that looks fine."""

import pytest
import torch
from teacher_kit import VIEWS, fill
from torch.utils.data import DataLoader

from dataset_loaders import Collator
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.training import FrozenTeacher, MultiTaskTrainer, evaluate_model
from kdam_hf.training.teacher_cache import CachedTeacherDataset

BAD = 5
FP16_OVERFLOW = float(torch.tensor(70000.0).half())


def poisoned(data, maps, value):
    """`data`, of which one value of the `maps` of one item is another."""
    kind = type(data)

    def read(self, key):
        item = kind.__getitem__(self, key)
        if item["index"] == BAD:
            maps(item)[0, 2, 3] = value
        return item

    data.__class__ = type("Poisoned", (kind,), {"__getitem__": read})
    return data


def photo_of(item):
    return item["pixel_values"]


def state(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.fault(10)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_photo_that_is_not_finite_stops_before_the_model_and_is_named_alone(kit, value):
    photos = poisoned(kit.train_data(), photo_of, value)
    # the whole set in one step, so that it is the first that fails
    trainer = MultiTaskTrainer(kit.model(), kit.args(per_device_train_batch_size=8), kit.tasks, photos)
    before = state(trainer)
    with pytest.raises(DataIntegrityError, match=rf"sample 'train-\d+{BAD}' \(index {BAD}\): pixel_values"):
        trainer.train()
    assert all(torch.equal(before[name], value) for name, value in state(trainer).items()), "buffers too"


@pytest.mark.fault(12)
@pytest.mark.parametrize("bad_photo", [True, False], ids=["photo", "weights"])
def test_evaluation_raises_and_never_leaves_a_batch_out_of_the_mean(kit, bad_photo):
    model, photos = kit.model(), kit.eval_data(kit.rooms)
    if bad_photo:
        poisoned(photos, photo_of, float("nan"))
    else:
        with torch.no_grad():
            model.decoder.heads["depth"][1].bias.fill_(float("nan"))
    batches = DataLoader(photos, 2, collate_fn=Collator(kit.tasks))
    error = DataIntegrityError if bad_photo else KdamValueError
    with pytest.raises(error, match=rf"index {BAD}" if bad_photo else r"samples \[\d, \d\]"):
        evaluate_model(model, batches, kit.tasks, progress=False)
    trainer = MultiTaskTrainer(model, kit.args(), kit.tasks, kit.train_data(), photos)
    with pytest.raises(error):
        trainer.evaluate()


def distil(kit, dataset, teacher=None):
    views = VIEWS if teacher is None else None
    trainer = kit.distiller(teacher=teacher, data=dataset, views=views, per_device_train_batch_size=8)
    before = state(trainer)
    message = rf"^step 0, .*sample 'train-\d+{BAD}'.*teacher's prediction is not finite for depth"
    with pytest.raises(KdamValueError, match=message):
        trainer.train()
    trained = [name for name, _ in trainer.model.named_parameters()]
    assert all(torch.equal(before[name], state(trainer)[name]) for name in trained)


@pytest.mark.fault(13)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), FP16_OVERFLOW])
def test_a_teacher_that_is_not_finite_stops_with_step_task_and_samples(kit, value):
    model = kit.model("teacher", seed=1)
    with torch.no_grad():
        model.decoder.heads["depth"][1].bias.fill_(value)
    distil(kit, kit.train_data(), FrozenTeacher([model], kit.model().config))


@pytest.mark.fault(13)
def test_a_replayed_teacher_is_checked_as_a_running_one(kit, teacher):
    replay = CachedTeacherDataset(kit.train_data(), fill(kit, teacher))
    distil(kit, poisoned(replay, lambda item: item["teacher"]["depth"], float("inf")))


@pytest.mark.fault(11, 13)
def test_half_precision_of_small_range_is_not_offered(kit):
    for precision in ({"fp16": True}, {"bf16": True}, {"precision": "fp16"}):
        with pytest.raises(KdamValueError, match="auto, bf16 or fp32"):
            kit.args(**precision)
    with pytest.raises(KdamValueError, match="teacher_precision is 'fp16'"):
        fill(kit, "unused", teacher_precision="fp16")
