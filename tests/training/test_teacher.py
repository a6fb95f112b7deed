from dataclasses import replace

import families_kit
import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.io import file_sha256, tensors_sha256
from kdam_hf.tasks import make_task
from kdam_hf.teachers import find_teacher
from kdam_hf.teachers.teaching import Teaching, plan_teaching
from kdam_hf.training import FrozenTeacher, load_teacher


def ones(count=1, height=32, width=32):
    return torch.ones(count, 3, height, width), torch.ones(count, height, width, dtype=torch.bool)


@pytest.mark.fault(15)
def test_images_are_converted_to_the_teachers_normalisation(kit):
    teacher = kit.model("teacher", image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.2, 0.1]).eval()
    photo, mask = torch.rand(2, 3, 32, 32), torch.ones(2, 32, 32, dtype=torch.bool)
    mask[:, :, 24:] = False

    def normalised(mean, std):
        mean, std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        return (photo - mean) / std * mask[:, None]

    direct = teacher(normalised([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]), mask).predictions
    frozen = FrozenTeacher([teacher], kit.model().config)(normalised([0.5] * 3, [0.25] * 3), mask)
    for name, value in direct.items():
        torch.testing.assert_close(frozen.predictions[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.fault(14)
def test_the_teacher_stays_frozen_whatever_is_asked_and_a_student_learns_from_it(kit):
    teacher = kit.frozen().train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    for value in teacher(*ones(2)).predictions.values():
        assert not value.requires_grad
        assert not value.is_inference()
        student = torch.ones_like(value, requires_grad=True)
        (student * value).exp().sum().backward()
        assert student.grad.isfinite().all()


def test_a_module_of_the_user_is_known_by_its_code_and_name_too(tmp_path):
    own = tmp_path / "own.py"
    text = "import torch\nfrom kdam_hf.tasks import Depth\nclass T(torch.nn.Module):\n    tasks = (Depth(),)\n    scale = {}\n"
    known = set()
    for scale in (1, 50, 1):
        own.write_text(text.format(scale))
        known.add(find_teacher(f"{own}:T").sha256)
    assert len(known) == 2
    own.write_text(own.read_text() + "class U(T):\n    scale = {2}\n")
    assert find_teacher(f"{own}:T").sha256 != find_teacher(f"{own}:U").sha256


def test_a_module_of_the_user_keeps_its_own_precision(kit):
    class Own(torch.nn.Module):
        tasks = (make_task("depth"),)

        def __init__(self):
            super().__init__()
            self.head = torch.nn.Conv2d(3, 1, 1)

        def forward(self, pixel_values):
            return {"depth": self.head(pixel_values)}

    own = Own()
    found = FrozenTeacher([own], kit.model().config, bf16=True)(*ones(2, 32, 48)).predictions["depth"]
    assert found.shape == (2, 1, 8, 12)
    assert own.head.weight.dtype == torch.float32


@pytest.mark.fault(15)
def test_tasks_channels_and_classes_must_agree(kit):
    classes = kit.tasks[0].class_names
    swapped = make_task("semseg", (classes[1], classes[0], *classes[2:]))
    for tasks, word in (
        ([[swapped, *kit.tasks[1:]]], "class_names"),
        ([[make_task("semseg", "ab"), *kit.tasks[1:]]], "channels 2"),
        ([kit.tasks, kit.tasks], "two"),
    ):
        with pytest.raises(KdamValueError, match=word):
            FrozenTeacher([kit.model("teacher", tasks=one) for one in tasks], kit.model().config)
    with pytest.raises(KdamValueError, match="1 models"):
        FrozenTeacher([kit.model("teacher")], kit.model().config, teaching=Teaching((), kit.tasks))


def test_of_two_models_that_predict_everything_each_teaches_what_it_was_chosen_for(kit):
    one, two = (kit.saved(f"{seed}", "teacher", seed=seed) for seed in (1, 2))
    first, *rest = (task.name for task in kit.tasks)
    given = [f"{first}={two}", *(f"{name}={one}" for name in rest)]
    own = tuple(replace(task, loss_weight=3.0) for task in kit.tasks)
    assert plan_teaching(given, own).tasks == own, "settings are those of the labels' tasks"
    taught = load_teacher(plan_teaching(given, kit.tasks), kit.model().config)(*ones()).predictions
    for seed, names in ((2, [first]), (1, rest)):
        alone = FrozenTeacher([kit.model("teacher", seed=seed)], kit.model().config)(*ones()).predictions
        for name in names:
            torch.testing.assert_close(taught[name], alone[name], rtol=1e-5, atol=1e-5)


def test_a_task_that_no_teacher_predicts_is_not_matched(kit):
    partial = FrozenTeacher([kit.model("teacher", tasks=kit.tasks[:1])], kit.model().config)
    assert partial.task_names == [kit.tasks[0].name]
    with pytest.raises(KdamValueError, match=kit.tasks[1].name):
        kit.distiller(teacher=partial)
    labels_only = [replace(task, kd_weight=0.0) for task in kit.tasks[1:]]
    trainer = kit.distiller(teacher=partial, tasks=(kit.tasks[0], *labels_only), max_steps=1)
    trainer.train()
    assert {name for name in trainer.state.log_history[0] if name.startswith("kd_intra")} == {"kd_intra_task_semseg"}


def test_neither_its_own_batch_size_nor_the_students_precision_changes_what_is_taught(kit):
    images, mask = torch.randn(3, 3, 32, 48), torch.ones(3, 32, 48, dtype=torch.bool)
    mask[1, :, 40:] = False
    expected = kit.frozen()(images, mask).predictions
    with torch.autocast("cpu", torch.bfloat16):
        whole = kit.frozen()(images, mask).predictions
    single = kit.frozen(batch_size=1)(images, mask).predictions
    for name, value in expected.items():
        assert torch.equal(whole[name], value)
        torch.testing.assert_close(single[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", ["tiny-resnet", "tiny-swin"])
def test_a_teacher_in_bf16_says_the_same_in_float32(kit, preset):
    images, mask = torch.randn(2, 3, 32, 48), torch.ones(2, 32, 48, dtype=torch.bool)
    exact, fast = (
        FrozenTeacher([kit.model("teacher", preset, seed=1)], kit.model().config, bf16=bf16)(images, mask).predictions
        for bf16 in (False, True)
    )
    for name, value in fast.items():
        assert value.dtype == torch.float32
        error = (value - exact[name]).square().mean().sqrt() / exact[name].square().mean().sqrt()
        assert error < 0.05, name


def test_a_teacher_is_known_by_its_file_and_only_without_one_by_its_tensors(kit, teacher):
    loaded = load_teacher(plan_teaching([teacher], kit.tasks), kit.model().config, bf16=True)
    assert loaded.facts["teacher_sha256"] == [file_sha256(f"{teacher}/model.safetensors")]
    model = kit.model("teacher", seed=1)
    expected = [tensors_sha256(model)]
    assert FrozenTeacher([model], kit.model().config, bf16=True).facts["teacher_sha256"] == expected


def test_a_teacher_answers_on_the_students_grid_whatever_the_size_of_its_images(kit):
    images, mask = torch.randn(1, 3, 33, 50), torch.ones(1, 33, 50, dtype=torch.bool)
    student = kit.model().eval()(images, mask).predictions
    for name, value in kit.frozen()(images, mask).predictions.items():
        assert value.shape[-2:] == student[name].shape[-2:] == (9, 13)


def test_a_replay_knows_a_teacher_whose_task_is_not_asked_for_as_the_online_run_does(kit):
    given = [kit.saved("one", "teacher", tasks=kit.tasks[:1]), str(families_kit.save("normals", kit.root / "tips"))]
    student = kit.model(tasks=kit.tasks[:1])
    planned = plan_teaching(given, kit.tasks[:1], [kit.tasks[0].name])
    assert load_teacher(planned, student.config).identity == planned.identity
