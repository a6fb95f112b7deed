"""What becomes of arguments: those of the library, of the launcher and of the devices; and what is used of `Trainer`."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from kdam_hf.errors import KdamValueError
from kdam_hf.training import DataArguments, KdamTrainingArguments, ModelArguments, MultiTaskTrainer
from kdam_hf.training.arguments import NUMBERS, DistillationArguments
from kdam_hf.training.inherited import ARGUMENTS, ENVIRONMENT, METHODS, PARAMETERS, refused

TRAINING_MD = Path(__file__).parents[2] / "docs" / "training.md"


def make(**given):
    return KdamTrainingArguments(**{"output_dir": "unused", "use_cpu": True, "cpu_threads": 1, **given})


# as the library documents it, or without effect on the weights and scores that come out
USED_ARGUMENTS = """
    per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps
    optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules gradient_accumulation_steps
    max_grad_norm tf32 bf16 fp16 load_best_model_at_end metric_for_best_model greater_is_better seed data_seed
    dataloader_drop_last"""
USED_PARAMETERS = "model args train_dataset eval_dataset processing_class callbacks"
USED_METHODS = """
    add_callback pop_callback remove_callback train training_step compute_loss loss_is_scaled_for_ga evaluate
    evaluation_loop get_train_dataloader get_eval_dataloader get_test_dataloader get_batch_samples create_optimizer
    create_optimizer_and_scheduler create_scheduler get_decay_parameter_names get_optimizer_cls_and_kwargs
    get_optimizer_group get_learning_rates get_num_trainable_parameters set_initial_training_values
    get_total_train_batch_size num_examples log log_metrics metrics_format save_metrics save_state save_model init_hf_repo
    push_to_hub is_local_process_zero is_world_process_zero create_accelerator_and_postprocess
    compute_loss_context_manager autocast_smart_context_manager end floating_point_ops store_flos get_cp_size get_sp_size
    get_tp_size"""


@pytest.mark.parametrize(
    ("table", "used", "offered"),
    [
        (ARGUMENTS, USED_ARGUMENTS, {field.name for field in fields(TrainingArguments)}),
        (PARAMETERS, USED_PARAMETERS, set(inspect.signature(Trainer.__init__).parameters) - {"self"}),
        (METHODS, USED_METHODS, {name for name in dir(Trainer) if not name.startswith("_")}),
    ],
    ids=["arguments", "parameters", "methods"],
)
def test_everything_the_library_offers_is_known_to_be_used_without_effect_or_refused(table, used, offered):
    named = [name for group in [used, *table.values()] for name in group.split()]
    assert sorted(named) == sorted(offered)


def test_whatever_is_refused_is_refused_at_once_and_stands_in_the_documents(kit, monkeypatch):
    def refuses(name, call, *args, **kwargs):
        with pytest.raises(KdamValueError, match=name):
            call(*args, **kwargs)

    defaults = {field.name: field.default for field in fields(KdamTrainingArguments)}
    for name, _ in refused(ARGUMENTS):
        refuses(name, make, **{name: False if defaults[name] is True else "given"})
    for name, _ in refused(PARAMETERS):
        refuses(name, MultiTaskTrainer, None, kit.args(), kit.tasks, **{name: len})
    trainer = kit.distiller("none")
    for name, _ in refused(METHODS):
        refuses(name, getattr(trainer, name), kit.eval_data())
    for name in ENVIRONMENT:
        with monkeypatch.context() as patch:
            patch.setenv(name, "TRUE")
            refuses(name, make)
    text = TRAINING_MD.read_text()
    for table in (ARGUMENTS, PARAMETERS, METHODS):
        for name, reason in refused(table):
            assert f"`{name}`" in text, name
            assert reason in text, name


def test_numbers_that_cannot_be_meant_are_refused():
    below = {"at least 1": 0, "at least 0": -1, "above 0": 0.0}
    for expected, names in NUMBERS.items():
        for name in names.split():
            for value in (below[expected], float("nan"), float("inf")):
                with pytest.raises(KdamValueError, match=name):
                    make(**{name: value})
    for kind, given, named in (
        (make, {"max_steps": 0}, "max_steps"),
        (make, {"max_steps": -1}, "max_steps"),
        (make, {"max_steps": 3, "num_train_epochs": 2}, "max_steps"),
        (make, {"ema_decay": 1.0}, "ema_decay"),
        (make, {"seed": 2**32}, "seed"),
        (make, {"data_seed": 2**40}, "data_seed"),
        (make, {"eval_strategy": "sometimes"}, "sometimes"),
        (make, {"weighting": "uncertainti"}, "uncertainti"),
        (ModelArguments, {"decoder_channels": -4}, "decoder_channels"),
        (DataArguments, {"crop_height": 0}, "crop_height"),
        (DataArguments, {"scale_max": float("inf")}, "scale_max"),
        (DataArguments, {"scale_min": float("nan")}, "scale_min"),
    ):
        with pytest.raises(KdamValueError, match=named):
            kind(**given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"method": "kl", "inter": "off", "temperature": 4.0}, "inter"),
        ({"method": "dist", "scale_by_temperature": False}, "scale_by_temperature"),
        ({"method": "features", "features": 0.5}, "features"),
        ({"method": "kl", "temperature": 4.0, "inter": "concat", "features": 0.5}, None),
        ({"method": "none", "inter": "off"}, None),
    ],
)
def test_options_of_another_method_are_told_to_change_nothing(given, told, recwarn):
    DistillationArguments(**given)
    assert [str(warning.message).partition(" ")[0] for warning in recwarn] == ([told] if told else [])


def test_the_newest_checkpoint_is_asked_for_in_the_words_of_the_library_too():
    asked = {True: "last", "true": "last", False: None, "False": None, None: None, "a/checkpoint-3": "a/checkpoint-3"}
    assert {given: make(resume_from_checkpoint=given).resume_from_checkpoint for given in asked} == asked


def test_threads_are_those_a_process_may_use_unless_a_number_was_given(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    try:
        make(cpu_threads=None)
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        make(cpu_threads=None)
        assert torch.get_num_threads() == 2
        for key, value in (("OMP_NUM_THREADS", "4,2"), ("TORCHELASTIC_RUN_ID", "a launcher, which sets 1 unasked")):
            monkeypatch.setenv(key, value)
            make(cpu_threads=None)
            assert torch.get_num_threads() == 3
            monkeypatch.setenv("OMP_NUM_THREADS", "1")
    finally:
        torch.set_num_threads(before)


def test_epochs_count_where_they_are_given_and_steps_elsewhere():
    assert (make(num_train_epochs=2).max_steps, make(num_train_epochs=2).num_train_epochs) == (-1, 2)
    assert make(num_train_epochs=2, max_steps=-1).max_steps == -1
    assert (make().max_steps, make(max_steps=7).max_steps) == (40_000, 7)


@pytest.mark.parametrize(
    ("given", "processes", "each"),
    [
        ({}, 4, 8),
        ({"per_device_train_batch_size": 3}, 4, 3),
        ({"total_train_batch_size": 8}, 1, 8),
        ({"total_train_batch_size": 8}, 8, 1),
        ({"total_train_batch_size": 8, "gradient_accumulation_steps": 2}, 2, 2),
        ({"total_train_batch_size": 8, "per_device_train_batch_size": 4}, 2, 4),
        ({"total_train_batch_size": 8, "per_device_train_batch_size": 8}, 2, None),
        ({"total_train_batch_size": 8}, 3, None),
        ({"total_train_batch_size": 8, "gradient_accumulation_steps": 3}, 1, None),
    ],
)
def test_a_total_batch_is_shared_out_among_processes_and_accumulated_batches(monkeypatch, given, processes, each):
    monkeypatch.setattr(KdamTrainingArguments, "world_size", processes)
    if each is None:
        with pytest.raises(KdamValueError, match="total_train_batch_size"):
            make(**given)
    else:
        assert make(**given).per_device_train_batch_size == each


@pytest.mark.parametrize(
    ("precision", "launcher", "ran"),
    [
        *(("fp32", None, "no"), ("fp32", "no", "no"), ("bf16", "no", "bf16"), ("bf16", "bf16", "bf16")),
        *(("auto", "bf16", "bf16"), ("fp32", "bf16", None), ("bf16", "fp16", None), ("auto", "fp16", None)),
        ("auto", "fp8", None),
    ],
)
def test_the_precision_that_was_asked_for_is_recorded_and_runs_or_is_refused(monkeypatch, precision, launcher, ran):
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    if ran is None:
        with pytest.raises(KdamValueError, match=launcher):
            make(precision=precision)
    else:
        args = make(precision=precision)
        assert (args.mixed_precision, args.bf16) == (ran, ran == "bf16")


def test_one_process_uses_one_gpu_though_it_sees_several(tmp_path, monkeypatch):
    monkeypatch.setattr(KdamTrainingArguments, "_n_gpu", 2, raising=False)
    monkeypatch.setattr(KdamTrainingArguments, "_setup_devices", torch.device("cpu"))
    with pytest.warns(UserWarning, match="accelerate launch"):
        args = KdamTrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=4)
    assert args.n_gpu == 1
    assert args.train_batch_size == 4


def test_full_determinism_is_refused_where_gradients_are_not_deterministic(tmp_path, monkeypatch):
    monkeypatch.setattr(KdamTrainingArguments, "_n_gpu", 1, raising=False)
    monkeypatch.setattr(KdamTrainingArguments, "_setup_devices", torch.device("cuda"))
    with pytest.raises(KdamValueError, match="full_determinism"):
        KdamTrainingArguments(output_dir=str(tmp_path), full_determinism=True)


@pytest.mark.parametrize("trainer", [Trainer, MultiTaskTrainer])
def test_every_internal_has_the_signature_that_is_relied_upon(trainer):
    assert [*inspect.signature(trainer._save_checkpoint).parameters] == ["self", "model", "trial"]
    assert [*inspect.signature(trainer.save_model).parameters] == ["self", "output_dir", "_internal_call"]


def test_no_other_private_member_of_the_trainer_is_overridden_or_hidden_by_one_of_ours():
    kinds = MultiTaskTrainer.__mro__
    ours = {name for kind in kinds[: kinds.index(Trainer)] for name in vars(kind)}
    theirs = {name for name in dir(Trainer) if name.startswith("_") and not name.startswith("__")}
    assert ours & theirs == {"_save_checkpoint"}
