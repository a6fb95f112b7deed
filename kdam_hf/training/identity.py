"""What a run computes, as plain data read off the objects that compute it, and how two runs differ.

Unusual here: what counts is what a key came to, not whether it was typed. A default that is typed out is no difference; a
preset or a teacher that changed behind the same name is one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any

import torch
from torch import nn

from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError
from kdam_hf.tasks import Task
from kdam_hf.training.arguments import DataArguments, DistillationArguments, KdamTrainingArguments, ModelArguments

# Keys that say where, how fast and how visibly a run is carried out, not what it computes.
INCIDENTAL = {
    *("output_dir", "cache_dir", "resume_from_checkpoint", "run_name", "project", "report_to", "debug"),
    *("disable_tqdm", "log_level", "log_level_replica", "log_on_each_node", "logging_first_step", "logging_steps"),
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
    "precision",  # what it came to on this device is bf16
}
# Of a configuration, what says who wrote it and with which version.
_AUTHORSHIP = ("transformers_version", "architectures", "_name_or_path", "dtype", "auto_map")


def describe_objective(
    args: KdamTrainingArguments, config: KdamConfig, tasks: Sequence[Task], dataset: Any = None
) -> dict[str, Any]:
    """What is optimised, as a flat dict of plain data.

    Args:
        args: training arguments, as they came out.
        config: of the model.
        tasks: with their weights and settings.
        dataset: the training data, seen through a transform.
    """
    facts = {key: value for key, value in args.to_dict().items() if key not in INCIDENTAL}
    model = json.loads(config.to_json_string(use_diff=False))
    facts["world_size"] = args.world_size
    facts["model"] = {key: value for key, value in model.items() if key not in _AUTHORSHIP}
    facts["tasks"] = {task.name: asdict(task) for task in tasks}
    facts["data"] = _describe_data(dataset)
    return dict(_flat(json.loads(json.dumps(facts, default=str))))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key old -> new` for every key that is not incidental and differs; an absent key has its default.

    Args:
        old: flat, of the earlier run.
        new: flat, of this one.
    """
    found = []
    for key in sorted((set(old) | set(new)) - INCIDENTAL):
        if key.startswith("model.") and not (key in old and key in new):
            continue  # of another version of the library; what matters of it is a shape, which loading checks
        before, after = (_plain(side.get(key, DEFAULTS.get(key))) for side in (old, new))
        if before != after:
            found.append(f"{key} {before!s:.60} -> {after!s:.60}")
    return found


def refuse_other_objective(old: Mapping[str, Any], new: Mapping[str, Any], where: Any) -> None:
    """Raise CheckpointError with the list of differences, if there are any."""
    different = differences(old, new)
    if different:
        raise CheckpointError(
            f"{where} belongs to a run with another objective: {'; '.join(different)}. Give its settings to continue it, "
            "or choose another output_dir."
        )


def tensors_hash(module: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _describe_data(dataset: Any) -> dict[str, Any]:
    """Of the layers of a dataset from the outside in, down to the one that knows the ids of its samples."""
    facts: dict[str, Any] = {}
    while dataset is not None:
        if hasattr(dataset, "transform"):
            facts["augmentation"] = dataset.transform.settings
        if hasattr(dataset, "ids"):
            ids = hashlib.sha256("\n".join(dataset.ids).encode()).hexdigest()
            return facts | {"name": dataset.name, "split": dataset.split, "images": len(dataset), "ids_sha256": ids}
        dataset = getattr(dataset, "dataset", None)
    return facts


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> Any:
    """As JSON has it; an absent list is as good as an empty one."""
    return json.loads(json.dumps(value, default=str)) or None if isinstance(value, (list, tuple)) else value


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


# without role, whose default depends on the script
DEFAULTS = {
    field.name: _default(field)
    for group in (ModelArguments, DataArguments, DistillationArguments, KdamTrainingArguments)
    for field in fields(group)
    if field.name != "role"
}
