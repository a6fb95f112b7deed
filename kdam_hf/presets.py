"""Backbones by name: their architecture, and the public weights that fit it.

A preset is a `backbone_config` as plain data. `tiny-*` presets are for tests and demonstrations and have no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError

from kdam_hf.configuration_kdam import KdamConfig, KdamStudentConfig, KdamTeacherConfig
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Task

PYRAMID = {"out_indices": [1, 2, 3, 4]}


@dataclass(frozen=True)
class Backbone:
    """A backbone architecture.

    Args:
        config: `backbone_config` of the model, with its `model_type`.
        weights: hub id or folder of public ImageNet (or self-supervised) weights of exactly this architecture.
        decoder_channels: (teacher, student) decoder widths that suit it.
        head: of a student, see `KdamStudentConfig`.
        fields: further fields of the model that suit it, such as the statistics its weights were trained with.
    """

    config: dict[str, Any]
    weights: str | None = None
    decoder_channels: tuple[int, int] = (128, 128)
    head: str = "conv"
    fields: dict[str, Any] = field(default_factory=dict)


def _swin(
    embed_dim: int, depths: list[int], heads: list[int], window: int, version: str = "", drop_path: float = 0.1
) -> dict[str, Any]:
    sizes = {"embed_dim": embed_dim, "depths": depths, "num_heads": heads, "window_size": window}
    return {"model_type": f"swin{version}", "drop_path_rate": drop_path, **sizes, **PYRAMID}


def _convnext(hidden_sizes: list[int], depths: list[int], version: str = "") -> dict[str, Any]:
    return {"model_type": f"convnext{version}", "hidden_sizes": hidden_sizes, "depths": depths, **PYRAMID}


def _resnet(layer: str, hidden_sizes: list[int], depths: list[int]) -> dict[str, Any]:
    sizes = {"embedding_size": min(64, hidden_sizes[0]), "hidden_sizes": hidden_sizes, "depths": depths}
    return {"model_type": "resnet", "layer_type": layer, **sizes, **PYRAMID}


def _pvt(hidden_sizes: list[int], depths: list[int]) -> dict[str, Any]:
    return {"model_type": "pvt_v2", "hidden_sizes": hidden_sizes, "depths": depths, "out_indices": [0, 1, 2, 3]}


def _dino(version: str, hidden: int, heads: int, layers: int, patch: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers, "patch_size": patch}
    quarters = [layers * k // 4 for k in (1, 2, 3, 4)]
    v3 = {"intermediate_size": 4 * hidden, "num_register_tokens": 4} if version == "v3_vit" else {}
    return {"model_type": f"dino{version}", "out_indices": quarters, "apply_layernorm": True, **sizes, **v3}


def _lite(width: float, depth: float) -> dict[str, Any]:
    return {"model_type": "efficientnet_lite", "width_coefficient": width, "depth_coefficient": depth, **PYRAMID}


TINY = (16, 16)
LITE = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PRESETS = {
    "swin-tiny": Backbone(_swin(96, [2, 2, 6, 2], [3, 6, 12, 24], 7), "microsoft/swin-tiny-patch4-window7-224"),
    "swin-small": Backbone(_swin(96, [2, 2, 18, 2], [3, 6, 12, 24], 7), "microsoft/swin-small-patch4-window7-224"),
    "swin-base": Backbone(
        _swin(128, [2, 2, 18, 2], [4, 8, 16, 32], 12), "microsoft/swin-base-patch4-window12-384-in22k"
    ),
    "swin-large": Backbone(
        _swin(192, [2, 2, 18, 2], [6, 12, 24, 48], 12), "microsoft/swin-large-patch4-window12-384-in22k"
    ),
    "swinv2-tiny": Backbone(
        _swin(96, [2, 2, 6, 2], [3, 6, 12, 24], 8, "v2"), "microsoft/swinv2-tiny-patch4-window8-256"
    ),
    "convnext-tiny": Backbone(_convnext([96, 192, 384, 768], [3, 3, 9, 3]), "facebook/convnext-tiny-224"),
    "convnext-base": Backbone(_convnext([128, 256, 512, 1024], [3, 3, 27, 3]), "facebook/convnext-base-224-22k"),
    "convnext-large": Backbone(_convnext([192, 384, 768, 1536], [3, 3, 27, 3]), "facebook/convnext-large-224-22k"),
    "convnextv2-atto": Backbone(
        _convnext([40, 80, 160, 320], [2, 2, 6, 2], "v2"), "facebook/convnextv2-atto-1k-224", (96, 64)
    ),
    "convnextv2-tiny": Backbone(_convnext([96, 192, 384, 768], [3, 3, 9, 3], "v2"), "facebook/convnextv2-tiny-22k-224"),
    "resnet18": Backbone(_resnet("basic", [64, 128, 256, 512], [2, 2, 2, 2]), "microsoft/resnet-18"),
    "resnet34": Backbone(_resnet("basic", [64, 128, 256, 512], [3, 4, 6, 3]), "microsoft/resnet-34"),
    "resnet50": Backbone(_resnet("bottleneck", [256, 512, 1024, 2048], [3, 4, 6, 3]), "microsoft/resnet-50"),
    "efficientnet-lite0": Backbone(_lite(1.0, 1.0), "timm/tf_efficientnet_lite0.in1k", (96, 64), "separable", LITE),
    "efficientnet-lite1": Backbone(_lite(1.0, 1.1), "timm/tf_efficientnet_lite1.in1k", (96, 64), "separable", LITE),
    "efficientnet-lite2": Backbone(_lite(1.1, 1.2), "timm/tf_efficientnet_lite2.in1k", (96, 64), "separable", LITE),
    "pvt-v2-b0": Backbone(_pvt([32, 64, 160, 256], [2, 2, 2, 2]), "OpenGVLab/pvt_v2_b0", (96, 64)),
    "dinov2-small": Backbone(_dino("v2", 384, 6, 12, 14), "facebook/dinov2-small"),
    "dinov2-base": Backbone(_dino("v2", 768, 12, 12, 14), "facebook/dinov2-base"),
    "dinov3-small": Backbone(_dino("v3_vit", 384, 6, 12, 16), "facebook/dinov3-vits16-pretrain-lvd1689m"),
    "slim-resnet": Backbone(_resnet("basic", [24, 48, 96, 192], [1, 2, 2, 1]), None, (64, 64)),
    # for tests and demonstrations
    "tiny-swin": Backbone(_swin(16, [1, 1, 1, 1], [1, 2, 2, 4], 4, drop_path=0.0), None, TINY),
    "tiny-swinv2": Backbone(_swin(16, [1, 1, 1, 1], [1, 2, 2, 4], 8, "v2"), None, TINY),
    "tiny-convnext": Backbone(_convnext([16, 24, 32, 48], [1, 1, 1, 1]), None, TINY),
    "tiny-convnextv2": Backbone(_convnext([16, 24, 32, 48], [1, 1, 1, 1], "v2"), None, TINY),
    "tiny-resnet": Backbone(_resnet("basic", [16, 24, 32, 48], [1, 1, 1, 1]), None, TINY),
    "tiny-efficientnet-lite": Backbone(_lite(0.25, 0.3), None, TINY, "separable", LITE),
    "tiny-pvt-v2": Backbone(_pvt([16, 32, 40, 64], [1, 1, 1, 1]), None, TINY),
    "tiny-dinov2": Backbone(_dino("v2", 48, 2, 4, 14), None, TINY),
    "tiny-dinov3": Backbone(_dino("v3_vit", 48, 2, 4, 16), None, TINY),
    "demo-large": Backbone(_resnet("basic", [48, 96, 192, 320], [2, 2, 3, 2]), None, (64, 48)),
    "demo-small": Backbone(_resnet("basic", [12, 24, 48, 96], [1, 1, 1, 1]), None, (32, 16)),
}


def make_config(
    role: Literal["teacher", "student"],
    preset: str | Backbone,
    tasks: Sequence[Task],
    backbone_config: dict[str, Any] | None = None,
    **overrides: Any,
) -> KdamConfig:
    """Configuration of a model on a named backbone.

    Args:
        role, tasks: teacher (strong decoder) or student (light one), of these tasks in the order of the heads.
        preset: a key of `PRESETS`, or a backbone of `pretrained.find_backbone`.
        backbone_config: replaces the preset's, as when it was read from a checkpoint of another size.
        overrides: fields of `KdamTeacherConfig` / `KdamStudentConfig`.

    Raises:
        KdamValueError: unknown preset, or fields that do not fit together.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise KdamValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}.")
    backbone = PRESETS[preset] if isinstance(preset, str) else preset
    width = backbone.decoder_channels[role == "student"]
    fields: dict[str, Any] = {"decoder_channels": width, **backbone.fields}
    fields |= {"backbone_config": backbone_config or dict(backbone.config), "tasks": [task.spec() for task in tasks]}
    try:
        if role == "teacher":
            return KdamTeacherConfig(**(fields | overrides))
        return KdamStudentConfig(**(fields | {"head_channels": max(16, width // 2), "head": backbone.head} | overrides))
    except (ValueError, StrictDataclassError) as error:
        reason = str(error).split("ValueError: ")[-1]
        raise KdamValueError(f"no {role} with this backbone can be made: {reason}") from error
