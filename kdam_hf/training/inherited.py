"""What of the library's `TrainingArguments` and `Trainer` is refused, or has no effect on what comes out; all else is used.

A test fails when the installed library offers something else; `docs/training.md` has what is refused as a table.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from kdam_hf.errors import KdamValueError

Class = TypeVar("Class", bound=type)
INCIDENTAL = "incidental"
"""Without effect on the weights and scores that come out, hence free to change on resume."""

# group, or why it is refused and what to do -> names
ARGUMENTS = {
    INCIDENTAL: """
        output_dir resume_from_checkpoint run_name project report_to disable_tqdm log_level log_level_replica
        log_on_each_node logging_first_step logging_steps logging_strategy skip_memory_metrics trackio_space_id
        trackio_bucket_id trackio_static_space_id save_strategy save_steps save_total_limit save_on_each_node save_only_model
        restore_callback_states_from_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy
        hub_always_push eval_strategy eval_steps eval_delay eval_on_start eval_accumulation_steps
        eval_do_concat_batches eval_use_gather_object per_device_eval_batch_size do_train do_eval torch_empty_cache_steps
        dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
        dataloader_multiprocessing_context local_rank ddp_timeout ddp_backend ddp_bucket_cap_mb ddp_broadcast_buffers
        ddp_find_unused_parameters ddp_static_graph use_cpu full_determinism torch_compile torch_compile_backend
        torch_compile_mode activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
        gradient_checkpointing_kwargs""",
    "no loss here smooths its labels; leave it out": "label_smoothing_factor",
    "evaluation runs in the precision of the training (averages in float32), the final score in float32; leave it out": """
        bf16_full_eval fp16_full_eval""",
    "another batch is another objective; set total_train_batch_size, and gradient_accumulation_steps where memory is short":
        "auto_find_batch_size",
    "models that fit one device are trained, by DDP on several: accelerate launch --num_processes N": """
        fsdp fsdp_config deepspeed parallelism_config""",
    "it would change the batch or its order without a trace; the keys of a recipe say both": """
        accelerator_config dataloader_in_order train_sampling_strategy length_column_name""",
    "it belongs to language models": """
        use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha include_num_input_tokens_seen""",
    "losses are those of the global batch, always": "average_tokens_across_devices",
    "a loss that is not finite ends the training": "logging_nan_inf_filter",
    "batches are dicts of our own, with the labels of the tasks": "remove_unused_columns label_names",
    "evaluation gives the metrics of the tasks and nothing else": """
        prediction_loss_only include_for_metrics batch_eval_metrics""",
    "a resumed training goes on in the data where it stopped": "ignore_data_skip",
    "a push goes to the main branch; name a state by a tag with kdam publish --revision": "hub_revision",
    "a loss or gradient that is not finite ends the training and names its samples": "debug",
    "SIGTERM and SIGINT save a checkpoint already": "enable_jit_checkpoint",
    "use kdam predict": "do_predict",
}  # fmt: skip
PARAMETERS = {
    "batches are made by dataset_loaders.Collator": "data_collator",
    "build the model and give it; a search starts one training per setting, in an output_dir of its own": "model_init",
    "give a method, or a weighting of its terms": "compute_loss_func",
    "a task brings its metric (Task.metric)": "compute_metrics preprocess_logits_for_metrics",
    "name it by optim, optim_args and lr_scheduler_type, which checkpoints record, or override create_optimizer": """
        optimizers optimizer_cls_and_kwargs""",
}
METHODS = {
    "maps of a split do not fit into memory: evaluate(dataset, metric_key_prefix='test') scores it, kdam predict writes "
    "maps of photos, kdam evaluate --save_predictions those of a split": "predict prediction_step",
    "start one training per setting, in an output_dir of its own": "hyperparameter_search call_model_init",
    "push_to_hub and kdam publish write a card with scores": "create_model_card",
}
# what a launcher leaves -> what it may be, and what to do instead
ENVIRONMENT = {
    **{
        f"ACCELERATE_USE_{name}": ("false", "use accelerate launch --num_processes N (DDP)")
        for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
    },
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "set gradient_accumulation_steps"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "set torch_compile: true, torch_compile_backend and torch_compile_mode"),
}


def refused(table: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Every name that is refused, and why."""
    for reason, listed in table.items():
        if reason != INCIDENTAL:
            yield from ((name, reason) for name in listed.split())


def refuse_arguments(args: Any) -> None:
    """Raise KdamValueError if an argument that is refused is not at its default, or a launcher asks for what is not done."""
    defaults = {field.name: field.default for field in fields(args)}
    for name, reason in refused(ARGUMENTS):
        value = getattr(args, name)
        if value != defaults[name] and (value or defaults[name] is True):
            raise KdamValueError(f"{name} is {value!r}, which is not offered: {reason}.")
    for name, (expected, remedy) in ENVIRONMENT.items():
        value = os.environ.get(name, expected)
        if value.lower() not in (expected, "0" if expected == "false" else expected):
            raise KdamValueError(f"{name} is {value!r} in the environment, which is not offered: {remedy}.")


def refuse_parameters(given: Mapping[str, Any]) -> None:
    """Raise KdamValueError if a parameter of `Trainer` that is refused was given."""
    for name, reason in refused(PARAMETERS):
        if given.get(name) not in (None, (None, None)):
            raise KdamValueError(f"{name} was given, which is not offered: {reason}.")


def refuse_methods(trainer: Class) -> Class:
    """Class decorator: methods of `Trainer` that are refused raise KdamValueError."""

    def refuse(name: str, reason: str, *args: Any, **kwargs: Any) -> Any:
        raise KdamValueError(f"{name} is not offered: {reason}.")

    for name, reason in refused(METHODS):
        setattr(trainer, name, staticmethod(partial(refuse, name, reason)))
    return trainer
