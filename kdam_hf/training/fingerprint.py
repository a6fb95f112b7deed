"""What a run computes, as plain data read off the objects that compute it, and how two runs differ.

Unusual here: what counts is what a key came to, not whether it was typed. A default that is typed out is no difference; a
preset or a teacher that changed behind the same name is one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any

from torch.utils.data import Dataset

from dataset_loaders import MixedDataset, TrainTransform, TransformedDataset
from kdam_hf import io
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import DataArguments, DistillationArguments, KdamTrainingArguments, ModelArguments
from kdam_hf.training.loading import layers

# Keys that say where, how fast and how visibly a run is carried out, not what it computes.
INCIDENTAL = {
    *("output_dir", "cache_dir", "resume_from_checkpoint", "run_name", "project", "report_to", "debug"),
    *("disable_tqdm", "log_level", "log_level_replica", "log_on_each_node", "logging_first_step", "logging_steps"),
    "logging_nan_inf_filter",
    *("logging_strategy", "skip_memory_metrics", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    *("save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "save_only_model"),
    *("enable_jit_checkpoint", "restore_callback_states_from_checkpoint"),
    *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
    *("hub_revision", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps"),
    *("per_device_eval_batch_size", "do_train", "do_eval", "do_predict", "torch_empty_cache_steps"),
    *("dataloader_num_workers", "dataloader_timeout", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "local_rank", "ddp_timeout", "ddp_backend"),
    *("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters", "ddp_static_graph"),
    *("use_cpu", "cpu_threads", "channels_last", "full_determinism", "torch_compile", "torch_compile_backend"),
    *("torch_compile_mode", "activation_checkpointing", "gradient_checkpointing", "teacher_cache"),
    *("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "teacher_batch_size"),
    "balance_steps",
    "precision",  # what it came to on this device is bf16
}
# Of a configuration, what says who wrote it and with which version, and what repeats its tasks.
_AUTHORSHIP = ("transformers_version", "architectures", "_name_or_path", "dtype", "auto_map", "id2label", "label2id")


def describe_objective(
    args: KdamTrainingArguments, config: KdamConfig, tasks: Sequence[Task], dataset: Dataset | None = None
) -> dict[str, Any]:
    """What is optimised, as a flat dict of plain data.

    Args:
        args: training arguments, as they came out.
        config: of the model.
        tasks: with their weights and settings.
        dataset: the training data, seen through a transform.
    """
    model = json.loads(config.to_json_string(use_diff=False))
    facts = {key: value for key, value in args.to_dict().items() if key not in INCIDENTAL}
    facts["world_size"] = args.world_size
    facts["model"] = {key: value for key, value in model.items() if key not in _AUTHORSHIP}
    facts["tasks"] = {task.name: asdict(task) for task in tasks}
    facts["data"] = {}
    for layer in layers(dataset):
        if isinstance(layer, TransformedDataset) and isinstance(layer.transform, TrainTransform):
            source = layer.dataset
            facts["data"] = {
                "augmentation": layer.transform.settings,
                "name": source.name,
                "split": source.split,
                "images": len(source),
                "ids_sha256": source.digest,
            }
            if isinstance(source, MixedDataset):
                facts["data"]["unlabeled_share"] = source.share
    return io.flatten(facts)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key old -> new` for every key that is not incidental and differs; an absent key has its default.

    Args:
        old: of the earlier run.
        new: of this one.
    """
    # keys of a configuration come and go with versions of the library; what matters of them is a shape, which loading checks
    one_sided = {key for key in set(old) ^ set(new) if key.startswith("model.")}
    return io.differences(old, new, INCIDENTAL | one_sided, DEFAULTS)


def refuse_other_objective(old: Mapping[str, Any], new: Mapping[str, Any], where: Any) -> None:
    """Raise CheckpointError with the list of differences, if there are any."""
    different = differences(old, new)
    if different:
        raise CheckpointError(
            f"{where} belongs to a run with another objective: {'; '.join(different)}. Give its settings to continue it, "
            "or choose another output_dir."
        )


# without role, whose default depends on the script
DEFAULTS = {
    field.name: field.default if field.default_factory is MISSING else field.default_factory()
    for group in (ModelArguments, DataArguments, DistillationArguments, KdamTrainingArguments)
    for field in fields(group)
    if field.name != "role"
}
