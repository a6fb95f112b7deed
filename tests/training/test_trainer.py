import math
import shutil
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from conftest_kit import without_batch_statistics
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from dataset_loaders import Collator
from kdam_hf.distillation import make_method
from kdam_hf.distillation.methods import Features
from kdam_hf.errors import KdamValueError, NonFiniteLossError
from kdam_hf.io import tensors_sha256
from kdam_hf.training import DistillationTrainer, MultiTaskTrainer
from kdam_hf.training.teacher import coarsest_channels

OFTEN = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


def losses(trainer):
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def trained(trainer):
    """Values of what is trained, without running statistics."""
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("method", ["kl", "dist", "cwd", "cs"])
def test_every_method_changes_the_student_and_logs_its_terms_by_name(kit, method):
    trainer = kit.distiller(method)
    before = tensors_sha256(trainer.model)
    trainer.train()
    assert tensors_sha256(trainer.model) != before
    line = trainer.state.log_history[0]
    supervised = {f"loss_{t.name}" for t in kit.tasks}
    terms = {k for k in line if k.startswith("kd_")}
    assert terms
    assert line["loss"] == pytest.approx(sum(line[k] for k in supervised | terms), rel=1e-3)


def test_logged_losses_are_means_over_the_steps_between_and_the_last_one_over_all(kit):
    single = losses(kit.distiller("none", max_steps=4))
    trainer = kit.distiller("none", max_steps=4, logging_steps=3)
    assert losses(trainer) == pytest.approx([sum(single[:3]) / 3], rel=1e-5)
    assert trainer.state.log_history[-1]["train_loss"] == pytest.approx(sum(single) / 4, rel=1e-5)


@pytest.mark.fault(14)
def test_the_teacher_is_neither_trained_nor_saved(kit):
    teacher = kit.frozen()
    before = tensors_sha256(teacher)
    trainer = kit.distiller(teacher=teacher)
    trainer.train()
    trainer.save_model()
    assert tensors_sha256(teacher) == before
    assert set(load_file(kit.root / "run" / "model.safetensors")) == set(trainer.model.state_dict())


@pytest.mark.fault(15, 31)
def test_what_does_not_go_together_is_refused(kit):
    other = [replace(task, loss_weight=7.0) if task.name == "depth" else task for task in kit.tasks]
    for refused in (
        {"method": "cs", "data": kit.train_data()},  # without a teacher
        {"method": "none", "teacher": kit.frozen()},
        {"matched": other},
        {"method": "none", "model": kit.model(), "tasks": kit.tasks[::-1]},
        {"method": "none", "per_device_train_batch_size": 9},
    ):
        with pytest.raises(KdamValueError):
            kit.distiller(**refused)


@pytest.mark.fault(10, 11)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_non_finite_loss_or_gradient_stops_before_the_weights_and_names_the_samples(kit, what):
    """A finite loss can have an infinite gradient; clipping would spread it over all weights."""
    trainer = kit.distiller("none")
    decoder = trainer.model.decoder
    if what == "loss":
        with torch.no_grad():
            decoder.heads["depth"][1].bias.fill_(float("nan"))
    else:
        decoder.project[0].weight.register_hook(lambda grad: grad * float("inf"))
    before = trained(trainer)
    with pytest.raises(NonFiniteLossError, match=r"step 0, sample 'train-\d+' \(index \d\), .*") as raised:
        trainer.train()
    assert ("loss_depth" if what == "loss" else "gradient") in str(raised.value)
    assert all(torch.equal(before[k].nan_to_num(), value.nan_to_num()) for k, value in trained(trainer).items())


def test_besides_its_data_and_losses_a_step_waits_for_the_device_once(kit, monkeypatch):
    """Counted where a tensor becomes a Python value."""
    trainer = kit.distiller(max_steps=4, logging_steps=100, max_grad_norm=1.0)
    waits, elsewhere = defaultdict(int), []

    def uncounted(work):
        def call(*args, **kwargs):
            elsewhere.append(work)
            result = work(*args, **kwargs)
            elsewhere.pop()
            return result

        return call

    def counted(read):
        def call(x):
            waits[trainer.state.global_step] += not elsewhere
            return read(x)

        return call

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
    for name in ("get_batch_samples", "training_step"):
        monkeypatch.setattr(trainer, name, uncounted(getattr(trainer, name)))
    trainer.train()
    assert (waits[1], waits[2]) == (1, 1)


def test_compiled_models_give_the_same_losses(kit):
    """Backend "eager" runs the whole capture without the minutes of code generation."""
    few = {"max_steps": 2, "tasks": kit.tasks[:2]}
    plain = losses(kit.distiller("none", **few))
    compiled = losses(kit.distiller("none", **few, torch_compile=True, torch_compile_backend="eager"))
    assert compiled == pytest.approx(plain, rel=1e-4)


def unevenly_labelled(inputs):
    """Of sample k only the first 4 k rows; the fourth one is half padding."""
    for place, index in enumerate(inputs["index"].tolist()):
        inputs["labels"]["semseg"][place, 4 * index :] = 255
        inputs["labels"]["human_parts"][place, 4 * index :] = 255
        inputs["labels"]["normals"][place, ..., 4 * index :, :] = 0
        inputs["pixel_mask"][place, 16 if index == 4 else 32 :] = False
    return inputs


def gradients_of_terms(kit, method, batch, accumulated):
    """Per term of a step over 8 unevenly labelled images: its value, and its gradient for all weights, in float64."""
    weights = {"semseg": (1.0, 0.25, 3.0), "human_parts": (0.5, 2.0)}
    tasks = [
        replace(t, class_weights=(w * t.channels)[: t.channels]) if (w := weights.get(t.name)) else t for t in kit.tasks
    ]
    model = without_batch_statistics(kit.model(tasks=tasks)).double()
    model.register_forward_pre_hook(lambda _, x: tuple(y.double() if y.is_floating_point() else y for y in x))
    settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
    trainer = kit.distiller(method, f"{method}-{batch}", model, tasks=tasks, **settings)
    trainer.model.train()
    found = []
    trainer.objective.total = lambda terms, share: found.append(terms) or torch.zeros(())
    loader = map(unevenly_labelled, trainer.get_train_dataloader())
    batches, whole = trainer.get_batch_samples(loader, accumulated, trainer.args.device)
    for inputs in batches:
        trainer.compute_loss(trainer.model, inputs, num_items_in_batch=whole)
    parameters, ends = list(model.parameters()), {}
    for terms in found:
        for name, term in terms.items():
            gradient = torch.autograd.grad(
                term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            values = torch.cat([term.detach()[None], *(g.flatten() for g in gradient)])
            ends[name] = ends.get(name, 0) + values
    return ends


@pytest.mark.fault(33)
@pytest.mark.parametrize("method", ["cs", "kl"])
def test_four_accumulated_batches_of_two_are_one_batch_of_eight_for_every_term_of_pixels(kit, method):
    one, four = (gradients_of_terms(kit, method, batch, 8 // batch) for batch in (8, 2))
    assert one.keys() == four.keys()
    for name, values in one.items():
        assert values[0] > 0
        if name.startswith("kd_intra_task"):  # columns are those of each batch
            assert four[name][0].item() != pytest.approx(values[0].item(), rel=1e-5), name
            continue
        assert four[name][0].item() == pytest.approx(values[0].item(), rel=1e-5), name
        assert (four[name] - one[name]).norm() < 1e-5 * one[name][1:].norm(), name


def test_parameters_of_a_method_have_the_gradient_of_the_large_batch_too(kit):
    found = []
    for batch, accumulated in ((8, 1), (2, 4)):
        model, teacher = without_batch_statistics(kit.model()), kit.frozen()
        channels = [coarsest_channels(one) for one in (model, teacher.models[0])]
        method = Features(kit.tasks, 0.5, *channels, beside=make_method("kl", kit.tasks))
        torch.nn.init.constant_(method.projector.weight, 0.1)
        args = kit.args(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated)
        data = kit.train_data()
        trainer = DistillationTrainer(model.train(), args, kit.tasks, data, teacher=teacher, method=method)
        batches, whole = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), accumulated, args.device)
        for inputs in batches:
            trainer.compute_loss(model, inputs, num_items_in_batch=whole).backward()
        trainer.on_pre_optimizer_step(None, None, None)
        found.append(method.projector.weight.grad)
    assert found[0].norm() > 0
    assert (found[1] - found[0]).norm() < 1e-4 * found[0].norm()


@pytest.mark.parametrize(
    ("given", "rises"),
    [
        ({"metric_for_best_model": "depth/rmse"}, False),
        ({"metric_for_best_model": "eval_semseg/miou"}, True),
        ({"metric_for_best_model": "depth/abs_rel", "greater_is_better": False}, False),
        ({"metric_for_best_model": "depth/abs_rel"}, None),
        ({"metric_for_best_model": "depth/rmse", "greater_is_better": True}, None),
        ({"metric_for_best_model": "depth/rmsee"}, None),
        ({"load_best_model_at_end": True}, None),
        ({"save_strategy": "best"}, None),
    ],
)
def test_the_task_knows_whether_the_metric_that_decides_rises_and_there_must_be_one(kit, given, rises):
    args = kit.args(**(OFTEN | {"lr_scheduler_type": "reduce_lr_on_plateau"} | given))
    make = partial(MultiTaskTrainer, kit.model(), args, kit.tasks, kit.train_data())
    if rises is None:
        with pytest.raises(KdamValueError, match="metric_for_best_model"):
            make(kit.eval_data())
    else:
        assert make(kit.eval_data()).args.greater_is_better is rises
        assert args.lr_scheduler_kwargs == {"mode": "max" if rises else "min"}


def test_a_metric_of_agreement_decides_for_a_task_that_is_not_labelled(kit):
    data = kit.eval_data()
    data.dataset.__class__ = type("Some", (type(data.dataset),), {"labelled": {"semseg"}})
    for name, known in (("agreement/depth/rmse", True), ("depth/rmse", False), ("semseg/miou", True)):
        args = kit.args(**OFTEN, metric_for_best_model=name)
        if known:
            MultiTaskTrainer(kit.model(), args, kit.tasks, kit.train_data(), data)
        else:
            with pytest.raises(KdamValueError, match="agreement/depth/rmse"):
                MultiTaskTrainer(kit.model(), args, kit.tasks, kit.train_data(), data)


@pytest.mark.parametrize(
    "given",
    [
        {"optim": "sgd", "optim_args": "momentm=0.95"},
        {"optim": "adamw_torch", "optim_args": "foo=1"},
        {"optim": "adamw_torch", "optim_args": "eps=0.1"},
        {"optim": "adamw_bnb_8bit"},
        {"lr_scheduler_type": "cosine_with_min_lr"},
        {"lr_scheduler_kwargs": {"power": 1.0, "lr_top": 1.0}},
        {"gradient_checkpointing": True},
        {"optim": "adamw_torch", "optim_args": "eps=abc"},
        {"report_to": "wandb"},
    ],
    ids=str,
)
def test_a_setting_that_would_not_arrive_or_cannot_be_met_is_refused_and_named(kit, given):
    with pytest.raises(KdamValueError):
        kit.distiller("none", max_steps=1, **given).train()


@pytest.mark.parametrize(
    ("optim", "given"),
    [
        *(("sgd", "momentum=0.9,nesterov=true"), ("sgd", None), ("adafactor", None), ("adamw_torch_fused", None)),
        *(("rmsprop", "alpha=0.9,centered=yes"), ("adagrad", None), ("adamw_torch", None)),
    ],
)
def test_arguments_that_arrive_are_taken(kit, optim, given):
    kit.distiller("none", max_steps=1, optim=optim, optim_args=given).train()


def test_the_best_of_falling_errors_is_kept_and_early_stopping_needs_a_metric(kit, monkeypatch):
    monkeypatch.setattr(MultiTaskTrainer, "evaluation_loop", lambda self, loader, *_, **__: scored(self, loader))

    def scored(trainer, loader):
        rmse = [3.0, 2.0, 4.0][trainer.state.global_step - 1]
        return EvalLoopOutput(None, None, {"eval_depth/rmse": rmse}, len(loader.dataset))

    given = OFTEN | {"metric_for_best_model": "depth/rmse", "load_best_model_at_end": True, "ema_decay": 0.5}
    trainer = kit.distiller("none", **given)
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (2, 2.0)
    best = load_file(kit.root / "run" / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(best[key], value) for key, value in trainer.evaluated_model().state_dict().items())
    (kit.root / "run").rename(kit.root / "moved")
    for lost in ((), ("checkpoint-3",)):  # a finished run, and one that takes its last step again
        for name in lost:
            shutil.rmtree(kit.root / "moved" / name)
        moved = kit.distiller("none", "moved", **given)
        moved.train(resume_from_checkpoint="last")
        assert moved.state.best_model_checkpoint == str(kit.root / "moved" / "checkpoint-2")
        assert all(torch.equal(best[key], value) for key, value in moved.evaluated_model().state_dict().items())
    trainer = kit.distiller("none", "other", **OFTEN)
    trainer.add_callback(EarlyStoppingCallback(1))
    with pytest.raises(KdamValueError, match="depth/rmse"):
        trainer.train()


def test_several_named_eval_sets_are_scored_each_and_none_is_an_error(kit):
    trainer = kit.distiller("none")
    trainer.eval_dataset = {"near": trainer.eval_dataset}
    metrics = trainer.evaluate()
    for key in ("semseg/miou", "human_parts/miou", "saliency/maxf", "depth/rmse", "normals/mean_angle", "edge/odsf"):
        assert math.isfinite(metrics[f"eval_near_{key}"])
    trainer.eval_dataset = None
    with pytest.raises(KdamValueError, match="eval_dataset"):
        trainer.evaluate()


@pytest.mark.parametrize("preset", ["tiny-swin", "tiny-pvt-v2"])
def test_weights_of_convolutions_and_linear_layers_are_decayed_and_nothing_else(kit, preset):
    trainer = kit.distiller("none", model=kit.model(preset=preset))
    layers = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    expected = {id(m.weight) for m in trainer.model.modules() if isinstance(m, layers)}
    decayed = [group for group in trainer.create_optimizer().param_groups if group["weight_decay"]]
    assert {id(p) for group in decayed for p in group["params"]} == expected
    other = {name for name, p in trainer.model.named_parameters() if id(p) not in expected and p.ndim > 1}
    assert all("position" in name for name in other)
    assert bool(other) == (preset == "tiny-swin")


def test_the_backbone_learns_slower(kit):
    trainer = kit.distiller(method="none", weight_decay=0.1, learning_rate=0.02, backbone_lr_factor=0.25)
    groups = trainer.create_optimizer().param_groups
    found = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(trainer.model.parameters()))
    backbone = {*trainer.model.encoder.backbone.parameters()}
    for parameter in trainer.model.parameters():
        assert found[parameter] == (0.02 * (0.25 if parameter in backbone else 1), 0.1 if parameter.ndim > 1 else 0.0)


def test_a_plain_trainer_of_the_library_trains_and_evaluates_a_model_on_its_labels(kit):
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    ours = {"prediction_loss_only": True, "remove_unused_columns": False, "per_device_train_batch_size": 2}
    steps = {"max_steps": 2, "gradient_accumulation_steps": 2, "learning_rate": 0.01}
    args = TrainingArguments(str(kit.root), **steps, **quiet, **ours)
    model = kit.model()
    before = tensors_sha256(model)
    trainer = Trainer(model, args, Collator(kit.tasks), kit.train_data(), kit.eval_data())
    trainer.train()
    assert tensors_sha256(model) != before
    assert all(0 < line["loss"] < 100 for line in trainer.state.log_history if "loss" in line)
    assert 0 < trainer.evaluate()["eval_loss"] < 100


def test_a_batch_norm_that_sees_one_value_is_refused_before_the_first_step(kit):
    trainer = kit.distiller("none", data=kit.train_data(crop=(32, 32)), per_device_train_batch_size=1)
    with pytest.raises(KdamValueError, match="per_device_train_batch_size"):
        trainer.train()
    assert trainer.state.global_step == 0


class Watch(TrainerCallback):
    """The model as it was before the first step, and after each."""

    def __init__(self):
        self.states = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.states.append({key: value.clone() for key, value in model.state_dict().items()})

    on_step_end = on_train_begin


def watched(kit, **args):
    trainer, watch = kit.distiller("none", max_steps=4, **args), Watch()
    trainer.add_callback(watch)
    trainer.train()
    return trainer, watch.states


def test_a_frozen_backbone_keeps_its_weights_and_statistics_until_its_step(kit):
    trainer, states = watched(kit, freeze_backbone_steps=2, backbone_lr_factor=0.5)
    changed = [{key for key in a if not torch.equal(a[key], b[key])} for a, b in pairwise(states)]
    learns = [{key.startswith("encoder.backbone") for key in keys} for keys in changed]
    assert learns == [{False}, {False}, {True, False}, {True, False}]
    rates = {group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates == {0.005, 0.01}


def test_the_average_is_scored_and_saved_and_a_checkpoint_keeps_what_is_trained_too(kit):
    options = {"ema_decay": 0.75, "save_strategy": "steps", "save_steps": 4}
    trainer, (_, average, *states) = watched(kit, model=kit.model(preset="tiny-swin"), **options)
    for state in states:
        average = {key: 0.75 * value.double() + 0.25 * state[key] for key, value in average.items()}
    trainer.save_model()
    saved, sealed, trained = (
        load_file(kit.root / "run" / name)
        for name in ("model.safetensors", "checkpoint-4/model.safetensors", "checkpoint-4/trained.safetensors")
    )
    for key, value in trainer.evaluated_model().state_dict().items():
        assert torch.equal(saved[key], value)
        assert torch.equal(sealed[key], value)
        assert torch.equal(trained[key], states[-1][key])
        if value.is_floating_point():
            torch.testing.assert_close(value, average[key].float(), rtol=1e-5, atol=1e-6)
        else:  # an index has no mean
            assert torch.equal(value, states[-1][key])


def test_a_step_of_accumulated_batches_weighs_frees_and_averages_as_one_of_the_whole_batch(kit):
    found = []
    for batch in (4, 2, 1):
        model = without_batch_statistics(kit.model(seed=3))
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 4 // batch, "max_steps": 3}
        settings |= {"weighting": "uncertainty", "ema_decay": 0.9, "freeze_backbone_steps": 1}
        trainer = kit.distiller("none", f"of-{batch}", model=model, optim="sgd", **settings)
        trainer.train()
        found.append((trainer.average.module.state_dict(), trainer.objective.weighting.log_variances))
    for state, variances in found[1:]:
        torch.testing.assert_close(variances, found[0][1], rtol=1e-4, atol=1e-6)
        for name, value in state.items():
            torch.testing.assert_close(value, found[0][0][name], rtol=1e-3, atol=1e-5)


def test_a_weighting_by_name_is_learned_without_decay_logged_and_not_named_twice(kit):
    trainer = kit.distiller("none", weighting="uncertainty", weight_decay=0.1)
    trainer.train()
    variances = trainer.objective.weighting.log_variances
    (group,) = (g for g in trainer.optimizer.param_groups if g["params"][0] is variances)
    assert group["weight_decay"] == 0
    first, *_, last = [line["weight_depth"] for line in trainer.state.log_history if "weight_depth" in line]
    assert first != last
    assert last == pytest.approx(torch.exp(-variances[3]).item())
    with pytest.raises(KdamValueError, match="uncertainty"):
        MultiTaskTrainer(kit.model(), trainer.args, kit.tasks, kit.train_data(), weighting=lambda terms: terms)
