import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import make_task
from kdam_hf.training import FrozenTeacher


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
