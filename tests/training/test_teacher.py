import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.presets import PRESETS
from kdam_hf.tasks import make_task
from kdam_hf.training import FrozenTeacher


@pytest.mark.fault(15)
def test_images_are_converted_to_the_teachers_normalisation(kit):
    student = kit.model().config
    teacher = kit.model("teacher", image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.2, 0.1]).eval()
    photo = torch.rand(2, 3, 32, 32)
    mask = torch.ones(2, 32, 32, dtype=torch.bool)
    mask[:, :, 24:] = False

    def normalised(mean, std):
        mean, std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        return (photo - mean) / std * mask[:, None]

    direct = teacher(normalised([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]), mask).predictions
    taught = FrozenTeacher([teacher], student)(normalised([0.5] * 3, [0.25] * 3), mask)
    for name, value in direct.items():
        torch.testing.assert_close(taught[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.fault(14)
def test_the_teacher_stays_frozen_whatever_is_asked(kit):
    teacher = FrozenTeacher([kit.model("teacher")], kit.model().config)
    teacher.train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    values = teacher(torch.zeros(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool))
    assert not any(v.requires_grad for v in values.values())


def test_single_task_teachers_together_teach_what_each_predicts(kit):
    student = kit.model().config
    singles = []
    for k, task in enumerate(kit.tasks):
        model = kit.model("teacher", seed=k, tasks=[task])
        singles.append(model.eval())
    taught = FrozenTeacher(singles[::-1], student)(torch.ones(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool))
    assert list(taught) == student.task_names
    for single, task in zip(singles, kit.tasks, strict=True):
        assert torch.equal(
            taught[task.name],
            single(torch.ones(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)).predictions[task.name],
        )


@pytest.mark.fault(15)
def test_tasks_and_channels_must_agree(kit):
    student = kit.model().config
    with pytest.raises(KdamValueError, match="has the task human_parts but the teacher only knows semseg"):
        FrozenTeacher([kit.model("teacher", tasks=[kit.tasks[0]])], student)
    classes = kit.tasks[0].class_names
    swapped = [make_task("semseg", (classes[1], classes[0], *classes[2:])), *kit.tasks[1:]]
    with pytest.raises(KdamValueError, match="class_names"):
        FrozenTeacher([kit.model("teacher", tasks=swapped)], student)
    with pytest.raises(KdamValueError, match="taught by two"):
        FrozenTeacher([kit.model("teacher"), kit.model("teacher")], student)
    other = [make_task("semseg", "ab"), *kit.tasks[1:]]
    with pytest.raises(KdamValueError, match="the teacher has channels 2, the student"):
        FrozenTeacher([kit.model("teacher", tasks=other)], student)


def test_a_student_learns_from_predictions_made_in_inference_mode(kit):
    taught = FrozenTeacher([kit.model("teacher", seed=1)], kit.model().config)(
        torch.ones(2, 3, 32, 48), torch.ones(2, 32, 48, dtype=torch.bool)
    )
    for value in taught.values():
        student = torch.ones_like(value, requires_grad=True)
        (student * value).exp().sum().backward()
        assert not value.is_inference()
        assert student.grad.isfinite().all()


def test_neither_its_own_batch_size_nor_the_students_precision_changes_what_is_taught(kit):
    images, mask = torch.randn(3, 3, 32, 48), torch.ones(3, 32, 48, dtype=torch.bool)
    mask[1, :, 40:] = False
    whole, single = (
        FrozenTeacher([kit.model("teacher", seed=1)], kit.model().config, batch_size=size) for size in (None, 1)
    )
    expected = whole(images, mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(value, expected[name]) for name, value in whole(images, mask).items())
    for name, value in single(images, mask).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("tiny-")])
def test_a_teacher_in_bf16_says_the_same_in_float32(kit, preset):
    images, mask = torch.randn(2, 3, 32, 48), torch.ones(2, 32, 48, dtype=torch.bool)
    exact, fast = (
        FrozenTeacher([kit.model("teacher", preset, seed=1)], kit.model().config, bf16=bf16)(images, mask)
        for bf16 in (False, True)
    )
    for name, value in fast.items():
        assert value.dtype == torch.float32
        error = (value - exact[name]).square().mean().sqrt() / exact[name].square().mean().sqrt()
        assert error < 0.05, name
