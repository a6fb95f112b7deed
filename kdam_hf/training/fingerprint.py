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
from kdam_hf.training import inherited
from kdam_hf.training.arguments import DataArguments, DistillationArguments, KdamTrainingArguments, ModelArguments
from kdam_hf.training.loading import layers

# Keys that say where, how fast and how visibly a run is carried out, not what it computes.
INCIDENTAL = {
    *inherited.ARGUMENTS[inherited.INCIDENTAL].split(),
    *("cache_dir", "cpu_threads", "accept_teacher_license", "channels_last", "teacher_cache", "teacher_batch_size"),
    *("balance_steps", "dataloader_timeout"),
    # what these came to is bf16, max_steps or epochs, and per_device_train_batch_size
    *("precision", "num_train_epochs", "total_train_batch_size"),
    # refused, and once in checkpoints
    *("logging_nan_inf_filter", "enable_jit_checkpoint", "do_predict", "hub_revision", "debug"),
}
# What decides over weights where a metric does.
_SELECTION = ("eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps")
# Of a configuration, what says who wrote it and with which version, and what repeats its tasks.
_AUTHORSHIP = ("transformers_version", "architectures", "_name_or_path", "dtype", "auto_map", "id2label", "label2id")


def describe_objective(
    args: KdamTrainingArguments, config: KdamConfig, tasks: Sequence[Task], dataset: Dataset | None = None
) -> dict[str, Any]:
    """What is optimised, as a flat dict of plain data; `dataset` is the training data, seen through a transform."""
    model = json.loads(config.to_json_string(use_diff=False))
    settings = args.to_dict()
    facts = {key: value for key, value in settings.items() if key not in INCIDENTAL}
    if args.max_steps < 0:
        facts["epochs"] = args.num_train_epochs
    if args.metric_for_best_model is not None:
        facts["selection"] = {key: settings[key] for key in _SELECTION}
    facts["world_size"] = args.world_size
    facts["model"] = {key: value for key, value in model.items() if key not in _AUTHORSHIP}
    facts["tasks"] = {task.name: asdict(task) for task in tasks}
    facts["data"] = {}
    for layer in layers(dataset):
        if isinstance(layer, TransformedDataset) and isinstance(layer.transform, TrainTransform):
            source = layer.dataset
            facts["data"] = {"augmentation": layer.transform.settings, "name": source.name, "split": source.split}
            facts["data"] |= {"images": len(source), "ids_sha256": source.digest}
            runs = [source.runs]
            if isinstance(source, MixedDataset):
                facts["data"]["unlabeled_share"], runs = source.share, list(source.both_runs)
            if any(runs):  # they decide over the order
                facts["data"]["runs_sha256"] = io.lines_sha256(map(str, runs))
    return io.flatten(facts)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key old -> new` for every key that is not incidental and differs; an absent key has its default."""
    # keys of a configuration come and go with versions of the library; what matters of them is a shape, which loading checks
    one_sided = {key for key in set(old) ^ set(new) if key.startswith("model.")}
    return io.differences(old, new, INCIDENTAL | one_sided, DEFAULTS | {"distillation.method": "none"})


def refuse_other_objective(old: Mapping[str, Any], new: Mapping[str, Any], where: Any) -> None:
    """Raise CheckpointError with the list of differences, if there are any."""
    if different := differences(old, new):
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
