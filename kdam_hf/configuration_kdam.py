"""Configurations of KDAM teachers and students.

What a published model needs of its tasks travels here as plain data, so that these flat `*_kdam.py` files load alone from
the Hub. Tasks are a list, never a dict: config JSON is written with sorted keys, and their order fixes the order of heads.
A key that is not known is an error, also one of the backbone: the library would keep it, and some of its own name code.
"""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .efficientnet_lite_kdam import EfficientNetLiteConfig  # noqa: F401  known to AutoConfig and AutoBackbone from here on

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
TASK_KEYS = {
    **{"name": str, "kind": str, "channels": int, "activation": str, "readout": str, "class_names": list},
    "settings": dict,
}
ACTIVATION_NAMES = ("none", "positive", "unit")
"""How a head's raw output becomes a prediction, see `modeling_kdam`."""
HEAD_NAMES = ("conv", "separable")
RESNET18 = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2] * 4, "out_indices": [1, 2, 3, 4]}
# What the library writes to config.json or sets while it loads, whatever its version; use_cache is set by Trainer.
# fmt: off
LIBRARY_KEYS = {
    "_commit_hash", "_name_or_path", "architectures", "attn_implementation", "auto_map", "chunk_size_feed_forward",
    "custom_pipelines", "dtype", "experts_implementation", "id2label", "is_encoder_decoder", "label2id", "model_type",
    "name_or_path", "num_labels", "output_attentions", "output_hidden_states", "problem_type", "return_dict", "torch_dtype",
    "transformers_version", "use_cache",
}
# fmt: on
# A backbone is never code of a repository; that of timm writes the names of its stages.
BACKBONE_LIBRARY_KEYS = LIBRARY_KEYS - {"auto_map", "custom_pipelines"} | {"stage_names"}
STRIDE = 4
"""A prediction has one value per STRIDE x STRIDE pixels."""
IGNORE_INDEX = 255
"""Label of pixels that do not count, in class maps and masks of the whole project."""
DTYPES = ("None", "float64", "float32", "float16", "bfloat16")


def backbone_keys(config_class: type[PreTrainedConfig]) -> set[str]:
    """Keys that `backbone_config` may have for a class of the library."""
    return {*config_class().to_dict(), *config_class.attribute_map, *BACKBONE_LIBRARY_KEYS}


def refuse_unknown(given: Iterable[str], known: set[str], where: str) -> None:
    """Raise ValueError with the keys that are not known."""
    if unknown := sorted(set(given) - known):
        remedy = "Correct them, or use the versions of kdam-hf and transformers that wrote the file."
        expected = ", ".join(sorted(known - LIBRARY_KEYS))
        raise ValueError(f"{where} has unknown keys {', '.join(unknown)}; expected some of {expected}. {remedy}")


def refuse_kernels(config: dict[str, Any], where: str) -> None:
    """Raise ValueError when a config asks for an implementation that lies in a repository: that is code."""
    for key in ("attn_implementation", "experts_implementation"):
        if "/" in str(config.get(key)):
            remedy = "If you trust it, load the model without and call model.set_attn_implementation."
            raise ValueError(
                f"{where}: {key} {config[key]!r} is code of a repository; expected sdpa or eager. {remedy}"
            )


class KdamConfig(PreTrainedConfig):
    """What teacher and student have in common.

    Args:
        backbone_config: config (or its dict) of any backbone that `AutoBackbone` offers with maps of shape (B, C, h, w).
        tasks: one dict per task, in the order of the heads, with the keys `name`, `kind`, `channels`, `activation`,
            `readout`, `class_names` and perhaps `settings` (see `kdam_hf.tasks.Task.spec`).
        image_mean: RGB mean the backbone was trained with, in [0, 1].
        image_std: RGB standard deviation, in [0, 1].
        image_size: [height, width] in pixels the model was trained at, or None if unknown; a hint for image processing.
        initializer_range: standard deviation of new linear and convolution weights without a better rule.
    """

    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet", init_kwargs=RESNET18)
    }

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    tasks: list[dict[str, Any]] | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    image_size: list[int] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse unknown keys; fill in the ImageNet statistics and no task at all."""
        refuse_unknown(kwargs, LIBRARY_KEYS | {field.name for field in fields(self)}, self.model_type)
        refuse_kernels(kwargs, self.model_type)
        for dtype in (self.dtype, kwargs.get("torch_dtype")):
            if str(dtype).removeprefix("torch.") not in DTYPES:
                raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")
        self.tasks = [] if self.tasks is None else self.tasks
        self.image_mean = IMAGENET_MEAN if self.image_mean is None else self.image_mean
        self.image_std = IMAGENET_STD if self.image_std is None else self.image_std
        backbone = self.backbone_config  # the library makes a config of it, and keeps what it does not know
        backbone = backbone.to_dict() if isinstance(backbone, PreTrainedConfig) else backbone
        # which the library's own pipelines call classes, see `KdamImageProcessor.post_process_semantic_segmentation`
        names = next((task["class_names"] for task in self.tasks if task.get("class_names")), None)
        if names:
            self.id2label, self.label2id = dict(enumerate(names)), {name: k for k, name in enumerate(names)}
        super().__post_init__(**kwargs)
        if backbone is not None:
            refuse_unknown(backbone, backbone_keys(type(self.backbone_config)), "backbone_config")
            refuse_kernels(backbone, "backbone_config")

    def validate_normalisation(self) -> None:
        """Three finite means and three positive standard deviations."""
        for name, values in (("image_mean", self.image_mean or []), ("image_std", self.image_std or [])):
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "image_std" and min(values) <= 0):
                raise ValueError(f"{name}={values}; expected three finite numbers, positive for image_std.")

    def validate_tasks(self) -> None:
        """Every task entry is complete and of the right types, names are unique and could be part of a file name."""
        for task in self.tasks or []:
            if set(task) != set(TASK_KEYS):
                raise ValueError(f"task entry has keys {sorted(task)}; expected those of Task.spec(): {[*TASK_KEYS]}.")
            for key, value in task.items():
                if type(value) is not TASK_KEYS[key]:
                    raise ValueError(f"task {task['name']!r}: {key} is {value!r}; expected {TASK_KEYS[key].__name__}.")
            what = f"task {task['name']!r}"
            if task["activation"] not in ACTIVATION_NAMES:
                raise ValueError(f"{what}: activation {task['activation']!r}; expected {', '.join(ACTIVATION_NAMES)}.")
            if not task["name"].isidentifier() or task["channels"] < 1:
                raise ValueError(f"{what} of {task['channels']} channels; expected letters, digits, _, and at least 1.")
        if len(set(self.task_names)) != len(self.task_names):
            raise ValueError(f"tasks {self.task_names} are not unique.")

    @property
    def task_names(self) -> list[str]:
        """Names in the order of the heads."""
        return [task["name"] for task in self.tasks or []]


@strict
class KdamTeacherConfig(KdamConfig):
    """Configuration of `KdamTeacher`.

    Args:
        decoder_channels: width of the decoder.
        attention_layers: number of cross-task attention blocks at the coarse stride.
        attention_heads: heads per block; divides `decoder_channels`.
        attention_grid: each task's keys and values are pooled to `attention_grid`^2 tokens, whatever the image size.
    """

    model_type = "kdam_teacher"

    decoder_channels: int = 128
    attention_layers: int = 2
    attention_heads: int = 4
    attention_grid: int = 8

    def validate_attention(self) -> None:
        """Heads divide channels."""
        if self.decoder_channels % self.attention_heads:
            given = f"decoder_channels={self.decoder_channels}"
            raise ValueError(f"{given} is not a multiple of attention_heads={self.attention_heads}.")


@strict
class KdamStudentConfig(KdamConfig):
    """Configuration of `KdamStudent`.

    Args:
        decoder_channels: width of the shared map at stride 4.
        head_channels: width of each task's head.
        head: "conv" for 3x3 convolutions in the heads, "separable" for depthwise ones, which suit small devices.
    """

    model_type = "kdam_student"

    decoder_channels: int = 128
    head_channels: int = 64
    head: str = "conv"

    def validate_head(self) -> None:
        """A known kind of head."""
        if self.head not in HEAD_NAMES:
            raise ValueError(f"head is {self.head!r}; expected one of {', '.join(HEAD_NAMES)}.")
