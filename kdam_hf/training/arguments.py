"""What a recipe may say, as dataclasses; the defaults are the training protocol of the field."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from transformers import TrainingArguments

from kdam_hf.distillation import METHODS
from kdam_hf.distillation.weighting import FIXED, WEIGHTINGS
from kdam_hf.errors import KdamValueError, did_you_mean
from kdam_hf.hub.upload import check_repo_id
from kdam_hf.training.inherited import refuse_arguments
from kdam_hf.training.signals import is_launched

PRECISIONS = ("auto", "bf16", "fp32")
CACHE_DTYPES = ("fp16", "fp32")
MAX_STEPS, BATCH, INF = 40_000, 8, float("inf")
NUMBERS = {
    "at least 1": """
        per_device_train_batch_size total_train_batch_size per_device_eval_batch_size gradient_accumulation_steps cpu_threads
        save_total_limit dataloader_prefetch_factor""",
    "at least 0": """
        weight_decay max_grad_norm warmup_steps dataloader_num_workers dataloader_timeout eval_delay seed
        data_seed adam_beta1 adam_beta2 freeze_backbone_steps ema_decay""",
    "above 0": "learning_rate num_train_epochs logging_steps eval_steps save_steps adam_epsilon backbone_lr_factor ddp_timeout",
}
# Others would publish optimizer state, which is a pickle.
HUB_STRATEGIES = ("end", "every_save")


def option(default: Any, text: str, **more: Any) -> Any:
    """A field of a dataclass of options, with its help; `more` is for argparse."""
    return field(default=default, metadata={"help": text, **more})


def required(text: str, **more: Any) -> Any:
    """One without a default."""
    return field(metadata={"help": text, **more})


@dataclass
class SourceArguments:
    """Which images."""

    dataset: str = option("", "nyud_v2, pascal_context, folder (where only data_dir is given), hub, or synthetic_rooms")
    data_dir: str | None = option(None, "root of the dataset on disk, what kdam prepare wrote, or a Hub id")
    layout: str | None = option(None, "form of the tree in data_dir; recognised by default")
    columns: list[str] | None = option(None, "hub: NAME=COLUMN, NAME image, a task or id; common names by default")
    streaming: bool = option(False, "hub and images: read Parquet where it lies, and store nothing")
    tasks: list[str] | None = option(None, "subset of the dataset's tasks; all of them by default")
    data_options: list[str] | None = option(None, "options of the dataset as NAME=VALUE, e.g. crop=none of nyud_v2")
    task_options: list[str] | None = option(None, "settings as TASK.NAME=VALUE, e.g. semseg.class_weights=balanced")
    cache_dir: str | None = option(None, "write each split once, decoded, to this folder and read it from there")
    rooms_train: int = option(2000, "synthetic_rooms: number of training scenes")
    rooms_val: int = option(200, "synthetic_rooms: number of validation scenes")
    rooms_height: int = option(240, "synthetic_rooms: image height, pixels")
    rooms_width: int = option(320, "synthetic_rooms: image width, pixels")
    rooms_seed: int = option(0, "synthetic_rooms: seed of the scenes")

    def __post_init__(self) -> None:
        """Own data where nothing else is said of a folder."""
        self.dataset = self.dataset or ("synthetic_rooms" if self.data_dir is None else "folder")


@dataclass
class DataArguments(SourceArguments):
    """Which images, and how they are augmented."""

    train_split: str = option("train", "split to train on")
    eval_split: str = option("val", "split to evaluate on")
    crop_height: int = option(448, "height of a training crop, pixels")
    crop_width: int = option(576, "width of a training crop, pixels")
    scale_min: float = option(0.5, "smallest random scale; depth is divided by the scale")
    scale_max: float = option(2.0, "largest random scale")
    hflip: bool = option(True, "mirror half of the crops")
    photometric: bool = option(True, "random brightness, contrast, saturation and hue")
    images: str | None = option(
        None, "kdam distill: photos without labels, in place of data: a folder, archive or hub id; see photos_student"
    )
    unlabeled: str | None = option(None, "kdam distill: photos without labels beside the data set, as of images")
    unlabeled_share: float = option(0.5, "share of the unlabelled photos in every batch")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; photos are a data set of their own."""
        check_numbers(self, {"at least 1": "crop_height crop_width", "above 0": "scale_min scale_max"})
        check_numbers(self, {"at least 0": "unlabeled_share"})
        if self.images is not None:
            if self.dataset or self.data_dir is not None or self.unlabeled is not None:
                raise KdamValueError(
                    "images are photos without labels, in place of dataset and data_dir; for both give those and unlabeled."
                )
            self.dataset, self.data_dir = "photos", self.images
        super().__post_init__()


@dataclass
class ModelArguments:
    """Which model."""

    role: str = option("teacher", "teacher (strong decoder) or student (light decoder)")
    preset: str = option(
        "swin-tiny",
        "backbone, also --student: a name of kdam_hf/presets.py, a hub id or folder, also of a KDAM model, or timm/NAME",
        aliases=["--student"],
    )
    backbone_weights: str | None = option(
        None,
        "hub id or folder of its weights, preset for the preset's own, or none, which a name of kdam_hf/presets.py has",
    )
    decoder_channels: int | None = option(None, "width of the decoder; the preset's by default")
    head: str | None = option(None, "heads of a student: conv, or separable for small devices; the preset's by default")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_numbers(self, {"at least 1": "decoder_channels"})


@dataclass
class StudentArguments(ModelArguments):
    """Which student."""

    role: str = option("student", "student (light decoder), or teacher to distil into the strong one")


@dataclass
class DistillationArguments:
    """How the teacher is matched."""

    teacher: list[str] | None = option(
        None,
        "folders or hub ids of teachers, each perhaps as TASK=ID or ID@REVISION, or FILE.py:NAME of your own module",
    )
    class_map: str | None = option(
        None, "YAML file for semseg: student class: [teacher classes], ignore, or rest; equal names by default"
    )
    normal_axes: str | None = option(None, "axes of a teacher's normals, e.g. right,down,front; its own by default")
    teacher_precision: str = option("auto", "of the teacher: auto (bf16 where the device is fast at it), bf16 or fp32")
    teacher_batch_size: int | None = option(None, "crops per pass of the teacher; the student's batch by default")
    teacher_views: int | None = option(None, "fixed crops per image, taken in turn; new ones in every epoch by default")
    teacher_cache: str | None = option(
        None, "folder for what the teacher says of the teacher_views crops: run once, replayed"
    )
    teacher_cache_dtype: str = option("fp16", "of the cache: fp16 or fp32")
    method: str = option("cs", "cs (KDAM), kl, dist, cwd, features, or none for the same student without a teacher")
    temperature: float = option(
        2.0, "temperature of both distributions; for cs, of the columns of the intra-task match"
    )
    beta: float = option(1.0, "weight of the distillation loss")
    inter: str = option("concat", "inter-task match: concat (one row of all tasks), per_task or off")
    inter_temperature: float = option(1.0, "cs: temperature of the rows of the inter-task match")
    intra: bool = option(True, "intra-task match")
    divergence: str = option("cauchy_schwarz", "of both matches of cs; a function of kdam_hf.distillation.divergences")
    kd_weight: list[str] | None = option(None, "weights in the match: TASK=NUMBER, e.g. depth=0.5; 0 leaves it out")
    features: float = option(0.0, "weight of a second term: the coarsest map against that of one online teacher")
    balance_steps: int | None = option(None, "steps between measurements of the terms' gradients, for balance.json")
    scale_by_temperature: bool = option(True, "multiply by T^2 (normals: T), so that gradients do not shrink with T")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_choice("method", self.method, ("none", *METHODS))
        _check_choice("teacher_precision", self.teacher_precision, PRECISIONS)
        _check_choice("teacher_cache_dtype", self.teacher_cache_dtype, CACHE_DTYPES)
        check_numbers(self, {"at least 1": "teacher_batch_size teacher_views balance_steps", "at least 0": "features"})
        if (method := METHODS.get(self.method)) is not None:
            of_any = {key for known in METHODS.values() for key in known.options()}
            unused = of_any - {*method.options()} | (
                {"features"} if method.needs_features else set()
            )  # its weight is beta
            for key in fields(self):
                if key.name in unused and getattr(self, key.name) != key.default:
                    warnings.warn(f"{key.name} changes nothing: method {self.method} has no such option.", stacklevel=3)
        for text in self.kd_weight or ():
            if text.count("=") != 1 or "." in text.partition("=")[0]:
                raise KdamValueError(f"kd_weight {text!r}; expected TASK=NUMBER, such as edge=0.")
        if self.teacher_cache is not None and self.teacher_views is None:
            raise KdamValueError("teacher_cache needs teacher_views: how many fixed crops of each image it holds.")


@dataclass
class KdamTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the protocol of the field: 40k steps of 8 crops, SGD 0.9, poly 0.9, weight decay 5e-4."""

    output_dir: str | None = option(None, "where the model, its checkpoints and results.json go")
    max_steps: int = option(MAX_STEPS, "optimizer steps")
    num_train_epochs: float = option(None, "passes over the training data, in place of max_steps")
    total_train_batch_size: int | None = option(
        None, "crops per optimizer step, of all processes and accumulated batches; 8 for one process by default"
    )
    per_device_train_batch_size: int = option(None, "crops per process and batch, in place of the total; 8 by default")
    per_device_eval_batch_size: int = option(4, "images per process and evaluation step")
    learning_rate: float = option(1e-3, "initial learning rate")
    backbone_lr_factor: float = option(1.0, "the backbone's rate over that of the rest; below 1 keeps its features")
    freeze_backbone_steps: int = option(0, "first steps in which the backbone learns nothing, nor its batch norms")
    weighting: str = option("fixed", "of tasks: fixed (the given loss weights), uncertainty or dwa")
    ema_decay: float = option(0.0, "decay per step of an average of the weights, which is scored and saved, e.g. 0.999")
    weight_decay: float = option(5e-4, "weight decay, of the weights of convolutions and linear layers alone")
    optim: str = option("sgd", "optimizer, as named by transformers")
    optim_args: str | None = option(None, "optimizer arguments; momentum=0.9 by default for sgd")
    lr_scheduler_type: str = option("polynomial", "learning rate schedule, as named by transformers")
    lr_scheduler_kwargs: dict[str, Any] | str | None = option(None, "power 0.9 down to 0 by default for polynomial")
    max_grad_norm: float = option(0.0, "larger gradients are scaled down to this norm; 0, as the protocol, leaves them")
    sync_batch_norm: bool = option(False, "with several GPUs: batch norms over the crops of all of them")
    cpu_threads: int | None = option(None, "threads per process on the CPU; a share of the cores by default")
    precision: str = option("auto", "auto (bf16 where the device is fast at it), bf16 or fp32")
    channels_last: bool = option(True, "keep images and convolutions channels-last, which most devices prefer")
    logging_steps: float = option(50, "steps between log lines")
    save_steps: float = option(1000, "steps between checkpoints")
    save_total_limit: int | None = option(2, "checkpoints kept")
    resume_from_checkpoint: str | None = option(
        None, "go on from a checkpoint, or from 'last', the newest in output_dir if there is one"
    )
    logging_nan_inf_filter: bool = option(False, "kept off: a loss that is not finite ends the training")
    remove_unused_columns: bool = option(False, "kept off: batches are dicts of our own")
    dataloader_drop_last: bool = option(True, "leave out the last, smaller batch of an epoch")
    dataloader_num_workers: int = option(0, "worker processes that load data, and count in evaluation on a GPU")
    dataloader_timeout: float = option(600.0, "seconds to wait for a batch of the workers before it is an error")
    push_to_hub: bool = option(False, "publish the model in hub_model_id as kdam publish does")
    hub_model_id: str | None = option(None, "org/name of the repository on the Hub; created if need be")
    accept_teacher_license: bool = option(
        False, "of push_to_hub: one limits use, or has terms of its own, and you read them"
    )
    hub_strategy: str = option("end", "publish at the end, or at every_save: with every checkpoint, too")

    def __post_init__(self) -> None:
        """Refuse what is not offered or cannot be meant, and fill in what depends on other fields.

        Raises:
            KdamValueError: with what was given and what to do instead.
        """
        # as of `Trainer.train`, whose True is the newest
        spoken = {"true": "last", "false": None}
        self.resume_from_checkpoint = spoken.get(str(self.resume_from_checkpoint).lower(), self.resume_from_checkpoint)
        refuse_arguments(self)
        check_numbers(self, NUMBERS)
        if max(self.seed, self.data_seed or 0) >= 2**32:
            raise KdamValueError(f"seed is {self.seed}, data_seed {self.data_seed}; expected numbers below 2**32.")
        _check_choice("weighting", self.weighting, (FIXED, *WEIGHTINGS))
        if self.ema_decay >= 1:
            raise KdamValueError(f"ema_decay is {self.ema_decay}; expected a number below 1, such as 0.999, or 0.")
        if self.optim == "sgd" and self.optim_args is None:
            self.optim_args = "momentum=0.9"
        if self.lr_scheduler_type == "polynomial" and self.lr_scheduler_kwargs is None:
            self.lr_scheduler_kwargs = {"power": 0.9, "lr_end": 0.0}
        base: Any = self
        if self.precision not in PRECISIONS or base.bf16 or base.fp16:
            raise KdamValueError(
                f"precision={self.precision!r}, bf16={base.bf16}, fp16={base.fp16}; "
                "expected precision: auto, bf16 or fp32, and neither bf16 nor fp16."
            )
        _check_choice("hub_strategy", str(getattr(base.hub_strategy, "value", base.hub_strategy)), HUB_STRATEGIES)
        if base.push_to_hub:
            check_repo_id(base.hub_model_id or "")
        self._choose_steps()
        # of `accelerate launch --cpu`
        self.use_cpu = base.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        self.bf16 = self._choose_bf16()
        self.dataloader_persistent_workers = base.dataloader_persistent_workers or self.dataloader_num_workers > 0
        self.dataloader_pin_memory = torch.cuda.is_available() and not self.use_cpu
        output_dir, greater_is_better = self.output_dir, base.greater_is_better
        try:
            super().__post_init__()
        except ValueError as error:
            raise KdamValueError(str(error)) from error
        self.output_dir = output_dir  # which `TrainingArguments` makes up
        self.greater_is_better = greater_is_better  # the trainer asks the task
        self.mixed_precision = "bf16" if self.bf16 else "no"
        if self.n_gpu > 1:
            warnings.warn(
                f"{self.n_gpu} GPUs are visible to one process, which uses one of them: DataParallel would change the batch. "
                "Start one process per GPU: accelerate launch --num_processes N ...",
                stacklevel=2,
            )
            self._n_gpu = 1
        self._share_out_batch()
        if self.full_determinism and self.device.type == "cuda":
            raise KdamValueError(
                "full_determinism on CUDA: bilinear upsampling, 2-D cross-entropy and adaptive pooling have no deterministic "
                "gradient there; leave it out (seeds still fix data and weights), or train with use_cpu: true."
            )
        if self.device.type == "cpu":
            # `accelerate launch` leaves one thread per process unless told otherwise
            local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            told = "" if is_launched() else os.environ.get("OMP_NUM_THREADS", "")
            threads = int(told) if told.isdecimal() else 0
            torch.set_num_threads(self.cpu_threads or threads or max(1, available_cores() // local))

    def _choose_steps(self) -> None:
        if self.num_train_epochs is not None and self.max_steps not in (MAX_STEPS, -1):
            raise KdamValueError(
                f"max_steps {self.max_steps} and num_train_epochs {self.num_train_epochs}; give one of them."
            )
        if self.num_train_epochs is not None:
            self.max_steps = -1
            return
        check_numbers(self, {"at least 1": "max_steps"})
        self.num_train_epochs = 0.0

    def _choose_bf16(self) -> bool:
        """What precision comes to; a launcher that says "no" may not have been asked, any other word is held against it."""
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
        wanted = launched if self.precision == "auto" else {"fp32": "no"}.get(self.precision, self.precision)
        if launched not in ("no", wanted) or launched not in ("no", "bf16"):
            raise KdamValueError(
                f"precision is {self.precision}, but the launcher says {launched} (accelerate launch --mixed_precision, "
                "ACCELERATE_MIXED_PRECISION or the configuration of accelerate); give --mixed_precision no, and precision: "
                "bf16 or fp32."
            )
        return launched == "bf16" or use_bf16(self.precision, self.use_cpu)

    def _share_out_batch(self) -> None:
        total, each = self.total_train_batch_size, self.per_device_train_batch_size
        if total is None:
            self.per_device_train_batch_size = each or BATCH
            return
        parts = self.world_size * self.gradient_accumulation_steps
        if total % parts or each not in (None, total // parts):
            raise KdamValueError(
                f"total_train_batch_size is {total}, per_device_train_batch_size {each}, for {self.world_size} processes that "
                f"accumulate {self.gradient_accumulation_steps} batches; give a multiple of {parts}, and only the total."
            )
        self.per_device_train_batch_size = total // parts

    @property
    def counting_processes(self) -> int:
        """Processes that count in evaluation; on the CPU the model would have to share its cores with them."""
        return 1 if self.device.type == "cpu" else max(1, self.dataloader_num_workers)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise KdamValueError(f"{name} is {value!r}; {did_you_mean(value, choices)}")


def check_numbers(args: Any, bounds: Mapping[str, str]) -> None:
    """Refuse numbers that cannot be meant, NaN and infinity included; None is left out.

    Args:
        args: with fields.
        bounds: "at least 1", "at least 0" or "above 0" -> names of fields, separated by spaces.
    """
    for expected, names in bounds.items():
        least = int(expected[-1])
        for name in names.split():
            value = getattr(args, name)
            enough = value is None or value > least or (value == least and expected[:5] != "above")
            if not enough or value == INF:
                raise KdamValueError(f"{name} is {value}; expected a finite number, {expected}.")


def available_cores() -> int:
    """Cores that this process may use, of which a scheduler or container may have left it some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_bf16(precision: str, use_cpu: bool = False) -> bool:
    """Whether `auto`, `bf16` or `fp32` means bfloat16 on this device."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(use_cpu))


def fast_bf16(use_cpu: bool = False) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware: CUDA since Ampere, CPUs with AMX or AVX512-BF16."""
    if torch.cuda.is_available() and not use_cpu:
        return torch.cuda.get_device_capability() >= (8, 0)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
