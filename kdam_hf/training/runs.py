"""The two halves that every training script shares: build data and model, then train, save, score and report."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import set_seed

from dataset_loaders import DenseDataset, MixedDataset, PhotosDataset, TaughtDataset, TrainTransform, TransformedDataset
from kdam_hf import io
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.distributed import end_with_others
from kdam_hf.errors import CheckpointError, KdamValueError, UnknownTaskError, did_you_mean
from kdam_hf.hub.publication import check_licenses
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.modeling_kdam import KdamPreTrainedModel, KdamStudent, KdamTeacher
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.pretrained import TIMM_NAMES, find_backbone, load_backbone_weights, read_backbone_config, weights_sha256
from kdam_hf.tasks import Categorical, Task, with_options
from kdam_hf.tasks.categorical import BALANCED
from kdam_hf.teachers.teaching import Teaching, plan_teaching
from kdam_hf.training.arguments import (
    DataArguments,
    DistillationArguments,
    KdamTrainingArguments,
    ModelArguments,
    SourceArguments,
)
from kdam_hf.training.checkpointing import explained_disk_errors
from kdam_hf.training.evaluation import seen_by, taught_start
from kdam_hf.training.report import describe_model, hardware, results_table, write_results
from kdam_hf.training.resumable_trainer import data_seed
from kdam_hf.training.scoring import conditions
from kdam_hf.training.signals import follow_launcher
from kdam_hf.training.sources import SIZED, count_classes, open_split, typical_predictions, typical_size
from kdam_hf.training.teacher import FrozenTeacher
from kdam_hf.training.trainer import MultiTaskTrainer
from kdam_hf.weights_kdam import WEIGHTS

MODELS = {"teacher": KdamTeacher, "student": KdamStudent}
# what `execute` and its callers say of a training in `meta`, beyond the score; `trained_on` once it is scored on other data
OF_TRAINING = (
    *("train_images", "train_batch", "image_size", "seed", "steps", "world_size", "bf16", "recipe", "settings"),
    "trained_on",
    *("method", "teacher", "teacher_sha256", "teachers", "class_map", "distillation", "matching_batch"),
    *("latency_over_teacher", "held_out_photos"),
)


@dataclass
class Run:
    """What a trainer is built from; `held_out` are photos to score against the teacher, perhaps those of `eval_dataset`."""

    tasks: tuple[Task, ...]
    model: KdamPreTrainedModel
    train_dataset: TransformedDataset
    eval_dataset: TransformedDataset
    settings: dict[str, Any]
    teaching: Teaching
    held_out: TransformedDataset | None = None


def open_splits(
    data: DataArguments, distillation: DistillationArguments | None = None
) -> tuple[DenseDataset, DenseDataset, DenseDataset | None, Teaching]:
    """Training and evaluation split, held-out photos, and the teachers that `distillation` names, if it is given.

    All with the tasks of the student.

    Raises:
        KdamValueError: photos without a teacher, or as `open_split` and `plan_teaching` have it.
    """
    found = data if distillation is None else _labelled_tasks(data)
    train, val = (open_split(found, split) for split in (data.train_split, data.eval_split))
    teaching = Teaching((), train.tasks)
    if distillation is not None:
        options = {"class_map": distillation.class_map, "normal_axes": distillation.normal_axes}
        teaching = plan_teaching(distillation.teacher or (), train.tasks, data.tasks, **options)
    if not teaching.sources and (data.unlabeled or not teaching.tasks):
        raise KdamValueError(
            f"{data.unlabeled or train.name}: photos without labels need a teacher; give kdam distill --teacher."
        )
    if not teaching.sources:
        return train, val, None, teaching
    if data.unlabeled:
        side = min(typical_size(train))  # that of the photos with labels
        photos, held_out = (
            PhotosDataset(data.unlabeled, split, streaming=data.streaming, shorter_side=side)
            for split in ("train", "val")
        )
        mixed = MixedDataset(train, photos, teaching.tasks, data.unlabeled_share)
        return mixed, TaughtDataset(val, teaching.tasks), TaughtDataset(held_out, teaching.tasks), teaching
    train, val = (TaughtDataset(split, teaching.tasks) for split in (train, val))
    return train, val, None if val.labelled else val, teaching


def _labelled_tasks(data: DataArguments) -> DataArguments:
    """With only those of the tasks asked for that have labels: a teacher may know the others."""
    try:
        open_split(data, data.train_split)
    except UnknownTaskError:
        data, wanted = copy(data), data.tasks or ()
        data.tasks = None
        known = [task.name for task in open_split(data, data.train_split).tasks]
        data.tasks = [name for name in known if name in wanted] or None
    return data


def start_unlabelled(run: Run, teacher: Callable[[], FrozenTeacher], args: KdamTrainingArguments) -> None:
    """Let the untrained heads of tasks without labels predict what the teacher finds typical, unless a run is resumed."""
    labelled = run.train_dataset.dataset.labelled
    tasks = [task for task in run.tasks if task.name in run.teaching.taught and task.name not in labelled]
    if tasks and not (args.resume_from_checkpoint and io.list_checkpoints(Path(args.output_dir or ""))):
        run.model.start_at(taught_start(run.train_dataset, teacher().to(args.device), tasks, args.device))


def build_run(
    data: DataArguments,
    model: ModelArguments,
    args: KdamTrainingArguments,
    settings: dict[str, Any],
    distillation: DistillationArguments | None = None,
) -> Run:
    """Open both splits and build the model, seeded by `args.seed`.

    Args:
        settings: the keys that recipe and command line set; kept in `recipe.json` for readers.
        distillation: names the teachers; none for None.

    Raises:
        KdamValueError: unknown role or preset, no output_dir or that of a teacher, class weights of a task without labels, or
            a teacher's licence that is not accepted, where the student is pushed.
        CheckpointError: output_dir holds a model or checkpoints, and the run is not to be resumed.
    """
    if not args.output_dir:
        raise KdamValueError("output_dir is not given: a folder for the model, its checkpoints and results.json.")
    if model.role not in MODELS:
        raise KdamValueError(f"role is {model.role!r}; {did_you_mean(model.role, MODELS)}")
    settings = {key: x for key, x in settings.items() if key != "hub_token"}  # a secret, and these are published
    follow_launcher()
    end_with_others()
    _claim(Path(args.output_dir), args)
    with args.main_process_first(local=False, desc="opening the data"):
        train, val, held_out, teaching = open_splits(data, distillation)
    if args.process_index == 0:
        print(*[train.origin or train.name, *train.notes, *teaching.notes], sep="\n  ")
    if any(Path(source.name).resolve() == Path(args.output_dir).resolve() for source in teaching.sources):
        raise KdamValueError(f"output_dir {args.output_dir} is the folder of a teacher; choose another one.")
    teachers = teaching.facts()["teachers"]
    if args.push_to_hub and not args.accept_teacher_license:
        check_licenses(teachers)
    known = {"world_size": args.world_size} | ({"teachers": teachers} if teachers else {})
    _keep(Path(args.output_dir), settings | known, args)
    tasks, config, crops = training_crops(train, data, model, args)
    tasks = tuple(_with_class_weights(task, train, args) for task in tasks)
    if args.process_index == 0:
        median = f"the median of {min(len(train), SIZED)} of {len(train)} training images"
        shown = min(1.0, data.crop_height * data.crop_width / prod(config.image_size or ()))
        print(f"image_size {config.image_size}, {median}; a crop at scale 1 shows {shown:.0%} of it")
    set_seed(args.seed)
    built = MODELS[model.role](config)
    built.start_at(typical_predictions(train, tasks))
    if (weights := _weights(model)) is not None:
        load_backbone_weights(built, weights)
    photos = None if held_out is None else seen_by(config, held_out, tasks)
    return Run(tasks, built, crops, seen_by(config, val, tasks), settings, teaching, photos)


def _with_class_weights(task: Task, train: DenseDataset, args: KdamTrainingArguments) -> Task:
    """The task with weights in place of "balanced", from labels that all processes count together."""
    if not isinstance(task, Categorical) or not task.class_weights:
        return task
    if task.name not in train.labelled:
        raise KdamValueError(f"{task.name}.class_weights: {train.name} has no such labels to weigh; leave it out.")
    if task.class_weights != BALANCED:
        return task
    if train.runs is not None:
        raise KdamValueError(
            f"{task.name}.class_weights: a stream is not read to its end to count its classes; give numbers, or leave "
            "streaming out."
        )
    shares = gather_object([count_classes(train, task, args.process_index, args.world_size)])
    weights = task.balanced_weights(torch.stack([share.cpu() for share in shares]).sum(0))
    if args.process_index == 0:
        print(f"{task.name}.class_weights:", ", ".join(map("{} {:g}".format, task.classes, weights)))
    return replace(task, class_weights=weights)


def training_crops(
    train: DenseDataset, data: DataArguments, model: ModelArguments, args: KdamTrainingArguments
) -> tuple[tuple[Task, ...], KdamConfig, TransformedDataset]:
    """The tasks, the configuration of the model, and the training split as the model sees it, augmented.

    Raises:
        KdamValueError: an unknown preset or task option.
        BackboneWeightsError: `backbone_weights` name no backbone.
        DataIntegrityError: the first image or its labels cannot be read.
    """
    tasks = with_options(train.tasks, data.task_options or ())
    config = _config(model, tasks, typical_size(train))
    size, scale, seed = (data.crop_height, data.crop_width), (data.scale_min, data.scale_max), data_seed(args)
    mean, std = config.image_mean or [], config.image_std or []
    augment = TrainTransform(tasks, size, mean, std, scale, data.hflip, data.photometric, seed=seed)
    return tasks, config, TransformedDataset(train, augment)


def execute(trainer: MultiTaskTrainer, run: Run, data: DataArguments, **facts: Any) -> dict[str, float]:
    """Train (or resume), save model and image processor, score the held-out split, write results.json, publish if asked.

    Interrupted anywhere, it does what is left when called again: results.json is written last.

    Args:
        facts: more entries for `meta` of results.json.

    Returns:
        The flat metrics.

    Raises:
        CheckpointError, DataWorkerError, OutOfMemoryError, SystemExit: as `ResumableTrainer.train` has them.
        NonFiniteLossError: a loss or gradient is not finite.
        HubError: the model could not be published; it is complete on disk.
    """
    args = trainer.args
    output, main = Path(args.output_dir or ""), args.process_index == 0
    if main:
        print(f"{type(run.model).__name__}: {len(run.train_dataset)} training images")
    with io.exclusive(output / ".lock", str(output), 60) if main else nullcontext():
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        trainer.save_model(args.output_dir)
        if main:
            KdamImageProcessor.from_model_config(run.model.config).save_pretrained(output)
        # what loading it would give: without wrappers, in float32; other nodes may not see the folder
        saved = type(run.model)(run.model.config)
        saved.load_state_dict(run.model.state_dict())
        saved.to(run.model.device).eval()
        metrics: dict[str, float] = {}
        with trainer.explained_failures():
            for dataset in (run.eval_dataset if run.eval_dataset.dataset.labelled else None, run.held_out):
                if dataset is not None:
                    scores = trainer.score(saved, trainer.get_eval_dataloader(dataset))
                    metrics |= {key: value for key, value in scores.items() if key not in metrics}
        if main:
            meta = {
                **describe_run(saved, run.eval_dataset, str(output), data, run.tasks),
                "train_images": len(run.train_dataset),
                "train_batch": trainer.get_total_train_batch_size(args),
                **({} if run.held_out is None else {"held_out_photos": len(run.held_out)}),
                "image_size": run.model.config.image_size,
                "seed": args.seed,
                "steps": trainer.state.global_step,
                "world_size": args.world_size,
                "bf16": args.bf16,
                **facts,
                "recipe": run.settings,
            }
            # all others that had an effect, typed or not; config.json has those of the model
            found = trainer.describe().items()
            meta["settings"] = {key: x for key, x in found if key not in meta and not key.startswith("model.")}
            write_results(output / "results.json", metrics, meta)
            print("\n" + results_table(metrics, meta, run.tasks))
            print(f"Model and results.json written to {output}. See it: kdam predict --model {output} --images PHOTO")
            if args.push_to_hub:
                print(f"Published: {trainer.push_to_hub()}")
    return metrics


def describe_run(
    model: KdamPreTrainedModel,
    dataset: TransformedDataset,
    name: str,
    data: SourceArguments,
    tasks: Sequence[Task],
    protocol: str = "ours",
) -> dict[str, Any]:
    """Facts every results.json states: which model on which images, where and when."""
    height, width = dataset[0]["pixel_values"].shape[-2:]
    return {
        "model": name,
        "weights_sha256": weights_sha256(name),
        "kind": type(model).__name__,
        **describe_data(dataset.dataset, data, tasks, protocol),
        **describe_model(model, height, width),
    }


def describe_data(
    dataset: DenseDataset, data: SourceArguments, tasks: Sequence[Task], protocol: str = "ours"
) -> dict[str, Any]:
    """Facts every results.json states of the images and of how they were scored, where and when."""
    return {
        "data": dataset.name,
        "notes": list(dataset.notes),
        "data_dir": data.data_dir,
        "split": dataset.split,
        "images": len(dataset),
        "ids_sha256": dataset.digest,
        **conditions(tasks, protocol),
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _claim(output: Path, args: KdamTrainingArguments) -> None:
    """Refuse to mix with an earlier run."""
    if args.resume_from_checkpoint is None and (io.list_checkpoints(output) or (output / WEIGHTS).exists()):
        raise CheckpointError(
            f"{output} holds a model or checkpoints of an earlier run; continue it with --resume_from_checkpoint last, "
            "remove the folder, or choose another output_dir."
        )


def _keep(output: Path, settings: dict[str, Any], args: KdamTrainingArguments) -> None:
    """What was typed when this run began, and who teaches, for those who read a checkpoint."""
    record = output / "recipe.json"
    if args.process_index == 0 and not (io.list_checkpoints(output) and record.exists()):
        with explained_disk_errors(output):
            io.write_json(record, settings)


def _config(model: ModelArguments, tasks: tuple[Task, ...], image_size: tuple[int, int]) -> KdamConfig:
    head = model.head if model.role == "student" else None
    given = {"image_size": list(image_size), "decoder_channels": model.decoder_channels, "head": head}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    backbone, weights = find_backbone(model.preset), _weights(model)
    if model.preset in PRESETS and weights is not None and backbone.config["model_type"] not in TIMM_NAMES:
        overrides["backbone_config"] = read_backbone_config(weights, backbone.config["out_indices"])
    return make_config(model.role, backbone, tasks, **overrides)  # type: ignore[arg-type]


def _weights(model: ModelArguments) -> str | None:
    """Where the backbone's weights come from; None for nowhere."""
    chosen = model.backbone_weights or ("none" if model.preset in PRESETS else "preset")
    if chosen != "preset":
        return None if chosen == "none" else chosen
    if (name := find_backbone(model.preset).weights) is None:
        raise KdamValueError(f"preset {model.preset} has no public weights; give a hub id or folder, or leave it out.")
    return name
