"""Configurations of KDAM teachers and students.

What a published model needs of its tasks travels here as plain data, so that these flat `*_kdam.py` files load alone from
the Hub. Tasks are a list, never a dict: config JSON is written with sorted keys, and their order fixes the order of heads.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
TASK_KEYS = {"name", "kind", "channels", "activation", "readout", "class_names"}


class KdamConfig(PreTrainedConfig):
    """What teacher and student have in common.

    Args:
        backbone_config: config (or its dict) of any backbone that `AutoBackbone` offers with maps of shape (B, C, h, w).
        tasks: one dict per task, in the order of the heads, with the keys `name`, `kind`, `channels`, `activation`,
            `readout` and `class_names` (see `kdam_hf.tasks.Task.spec`).
        image_mean: RGB mean the backbone was trained with, in [0, 1].
        image_std: RGB standard deviation, in [0, 1].
        image_size: [height, width] in pixels the model was trained at, or None if unknown; a hint for image processing.
        initializer_range: standard deviation of new linear and convolution weights without a better rule.
    """

    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="resnet",
            init_kwargs={
                "layer_type": "basic",
                "hidden_sizes": [64, 128, 256, 512],
                "depths": [2, 2, 2, 2],
                "out_indices": [1, 2, 3, 4],
            },
        )
    }

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    tasks: list[dict[str, Any]] | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    image_size: list[int] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the ImageNet statistics and no task at all."""
        self.tasks = [] if self.tasks is None else self.tasks
        self.image_mean = IMAGENET_MEAN if self.image_mean is None else self.image_mean
        self.image_std = IMAGENET_STD if self.image_std is None else self.image_std
        super().__post_init__(**kwargs)

    def validate_tasks(self) -> None:
        """Every task entry is complete and names are unique."""
        for task in self.tasks or []:
            if set(task) != TASK_KEYS:
                raise ValueError(f"task entry has keys {sorted(task)}; expected {sorted(TASK_KEYS)} (see Task.spec()).")
        names = self.task_names
        if len(set(names)) != len(names):
            raise ValueError(f"tasks {names} are not unique.")

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
        attention_grid: each task's keys and values are pooled to `attention_grid`^2 tokens, whatever the image size, so
            memory grows linearly with the number of pixels.
    """

    model_type = "kdam_teacher"

    decoder_channels: int = 128
    attention_layers: int = 2
    attention_heads: int = 4
    attention_grid: int = 8

    def validate_attention(self) -> None:
        """Heads divide channels."""
        if self.decoder_channels % self.attention_heads:
            raise ValueError(
                f"decoder_channels={self.decoder_channels} is not a multiple of attention_heads={self.attention_heads}."
            )


@strict
class KdamStudentConfig(KdamConfig):
    """Configuration of `KdamStudent`.

    Args:
        decoder_channels: width of the shared map at stride 4.
        head_channels: width of each task's head.
    """

    model_type = "kdam_student"

    decoder_channels: int = 128
    head_channels: int = 64
