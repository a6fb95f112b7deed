import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from kdam_hf.distillation import DistillationCriterion
from kdam_hf.errors import KdamValueError, NonFiniteLossError
from kdam_hf.training import DistillationTrainer, FrozenTeacher, MultiTaskTrainer
from kdam_hf.training.trainer import stride_mask


def distiller(kit, method="cs", name="run", beta=0.5, model=None, teacher=None, **args):
    model = model or kit.model()
    if teacher is None and method != "none":
        teacher = FrozenTeacher([kit.model("teacher", seed=1)], model.config)
    criterion = DistillationCriterion(kit.tasks, method=method, beta=beta)
    return DistillationTrainer(
        model,
        kit.args(name, **args),
        kit.tasks,
        kit.train_data(),
        kit.eval_data(),
        teacher=teacher,
        criterion=criterion,
    )


def weights(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def identical(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("method", ["kl", "dist", "cwd", "cs"])
def test_every_method_trains_and_logs_its_terms_by_name(kit, method):
    trainer = distiller(kit, method)
    before = weights(trainer)
    trainer.train()
    assert not identical(before, weights(trainer))
    line = trainer.state.log_history[0]
    supervised = {f"loss_{t.name}" for t in kit.tasks}
    assert supervised <= set(line)
    terms = {k for k in line if k.startswith("kd_")}
    assert terms
    assert line["loss"] == pytest.approx(sum(line[k] for k in supervised | terms), rel=1e-3)


def test_distillation_changes_the_student(kit):
    none, cs = distiller(kit, "none"), distiller(kit, "cs")
    none.train()
    cs.train()
    assert not identical(weights(none), weights(cs))


@pytest.mark.fault(14)
def test_the_teacher_is_neither_trained_nor_saved(kit):
    teacher = FrozenTeacher([kit.model("teacher", seed=1)], kit.model().config)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    trainer = distiller(kit, teacher=teacher)
    trainer.train()
    trainer.save_model()
    assert identical(before, teacher.state_dict())
    saved = load_file(kit.root / "run" / "model.safetensors")
    assert set(saved) == set(trainer.model.state_dict())


def test_a_method_and_a_teacher_go_together(kit):
    with pytest.raises(KdamValueError, match="no teacher"):
        DistillationTrainer(
            kit.model(),
            kit.args(),
            kit.tasks,
            kit.train_data(),
            criterion=DistillationCriterion(kit.tasks, method="cs"),
        )
    with pytest.raises(KdamValueError, match="a teacher"):
        distiller(kit, "none", teacher=FrozenTeacher([kit.model("teacher")], kit.model().config))


@pytest.mark.parametrize("method", ["cs", "kl"])
def test_a_criterion_may_match_some_of_the_tasks_and_none_that_the_trainer_does_not_have(kit, method):
    def distilling(tasks, **options):
        teacher = FrozenTeacher([kit.model("teacher", seed=1).eval()], kit.model().config)
        criterion = DistillationCriterion(tasks, method=method, **options)
        return DistillationTrainer(
            kit.model(), kit.args(), kit.tasks, kit.train_data(), teacher=teacher, criterion=criterion
        )

    some = distilling([task for task in kit.tasks if task.name in ("semseg", "depth")])
    some.train()
    assert any(key.startswith("kd_") for key in some.state.log_history[0])
    other = [replace(task, loss_weight=7.0) if task.name == "depth" else task for task in kit.tasks]
    with pytest.raises(KdamValueError, match="matches depth, which the trainer does not have with the same settings"):
        distilling(other)
    if method == "cs":
        with pytest.raises(KdamValueError, match="resolution 'full' matches all of"):
            distilling(kit.tasks[:1], resolution="full")


def test_evaluation_streams_flat_metrics_for_every_task(kit):
    trainer = distiller(kit, "none")
    metrics = trainer.evaluate()
    for key in ("semseg/miou", "human_parts/miou", "saliency/maxf", "depth/rmse", "normals/mean_angle", "edge/odsf"):
        assert math.isfinite(metrics[f"eval_{key}"])
    json.dumps(metrics)


def test_evaluation_does_not_depend_on_the_batch_size(kit):
    metrics = []
    for batch in (1, 3):
        trainer = distiller(kit, "none", per_device_eval_batch_size=batch)
        metrics.append({k: v for k, v in trainer.evaluate().items() if "/" in k})
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)


@pytest.mark.fault(10)
def test_a_non_finite_loss_stops_before_the_weights_and_names_the_samples(kit):
    trainer = distiller(kit, "none")
    with torch.no_grad():
        trainer.model.decoder.heads["depth"][1].bias.fill_(float("nan"))
    before = weights(trainer)
    with pytest.raises(
        NonFiniteLossError, match=r"step 0, sample 'train-\d+' \(index \d\), .*: loss_depth is not finite"
    ):
        trainer.train()
    after = weights(trainer)
    trained = [k for k, _ in trainer.model.named_parameters()]
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in trained)


@pytest.mark.fault(15, 31)
def test_too_few_images_and_foreign_tasks_are_refused(kit):
    with pytest.raises(KdamValueError, match="8 training images are fewer than one batch of 9"):
        MultiTaskTrainer(kit.model(), kit.args(per_device_train_batch_size=9), kit.tasks, kit.train_data())
    with pytest.raises(KdamValueError, match="must agree in order"):
        MultiTaskTrainer(kit.model(), kit.args(), kit.tasks[::-1], kit.train_data())


@pytest.mark.fault(17)
def test_cells_with_padding_are_left_out_of_the_match():
    mask = torch.ones(1, 10, 9, dtype=torch.bool)
    mask[:, 6:] = False
    assert stride_mask(mask)[0].tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_bf16_trains(kit):
    trainer = distiller(kit, "cs", precision="bf16")
    trainer.train()
    assert all(math.isfinite(line["loss"]) for line in trainer.state.log_history if "loss" in line)


def test_every_loss_term_reaches_tensorboard(kit, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(kit.root / "tb"))
    trainer = distiller(kit, "cs", report_to=["tensorboard"])
    trainer.train()
    events = EventAccumulator(str(kit.root / "tb"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss_depth", "train/kd_inter_task", "train/kd_intra_task"} <= tags


def test_compiled_models_give_the_same_losses(kit):
    """Backend "eager" runs the whole capture without the minutes of code generation."""
    losses = []
    for compile_it in (False, True):
        trainer = distiller(
            kit, "cs", torch_compile=compile_it, **({"torch_compile_backend": "eager"} if compile_it else {})
        )
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.fault(11)
@pytest.mark.parametrize("precision", [{"fp16": True}, {"bf16": True}, {"precision": "fp16"}])
def test_there_is_no_half_precision_whose_overflows_would_have_to_be_skipped(kit, precision):
    with pytest.raises(KdamValueError, match="expected precision: auto, bf16 or fp32"):
        kit.args(**precision)


@pytest.mark.fault(10, 11)
def test_a_non_finite_gradient_stops_before_the_weights(kit):
    """A finite loss can have an infinite gradient; clipping would spread it over all weights."""
    trainer = distiller(kit, "none")
    parameter = trainer.model.decoder.project[0].weight
    parameter.register_hook(lambda grad: grad * float("inf"))
    before = weights(trainer)
    with pytest.raises(
        NonFiniteLossError, match=r"step 0, sample 'train-\d+' \(index \d\), .*: the gradient is not finite"
    ):
        trainer.train()
    trained = [k for k, _ in trainer.model.named_parameters()]
    assert all(torch.equal(before[k], weights(trainer)[k]) for k in trained)


def test_accumulating_batches_that_the_match_couples_warns_and_names_the_batch(kit):
    with pytest.warns(UserWarning, match=r"each of the 2 accumulated batches of 2 by itself"):
        trainer = distiller(kit, gradient_accumulation_steps=2)
    assert trainer.matching_batch == 2


@pytest.mark.parametrize("method", ["cs", "kl"])
def test_full_resolution_is_for_cs_and_trains(kit, method):
    def build():
        criterion = DistillationCriterion(kit.tasks, method=method, resolution="full")
        model = kit.model()
        teacher = FrozenTeacher([kit.model("teacher", seed=1)], model.config)
        return DistillationTrainer(model, kit.args(), kit.tasks, kit.train_data(), teacher=teacher, criterion=criterion)

    if method == "kl":
        with pytest.raises(KdamValueError, match=r"'full' with method 'kl'.*full for cs alone"):
            build()
        return
    trainer = build()
    trainer.train()
    assert {"kd_inter_task", "kd_intra_task"} <= set(trainer.state.log_history[0])


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_model_trained_in_either_memory_layout_saves_and_loads(kit, channels_last):
    trainer = distiller(kit, "none", channels_last=channels_last)
    trainer.train()
    trainer.save_model()
    saved = load_file(kit.root / "run" / "model.safetensors")
    assert all(torch.equal(saved[k], v) for k, v in trainer.model.state_dict().items())
