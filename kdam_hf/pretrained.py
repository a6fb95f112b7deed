"""Loads weights and proves that they arrived.

The library no longer loads backbone weights for a composite model, and a key that does not fit leaves random weights
behind with no more than a warning. Here anything missing is an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

from kdam_hf import KdamStudent, KdamTeacher
from kdam_hf.configuration_kdam import KdamConfig, backbone_keys, refuse_kernels
from kdam_hf.errors import BackboneWeightsError, CheckpointError, KdamError, KdamValueError
from kdam_hf.io import file_sha256, lines_sha256
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.presets import PRESETS, Backbone
from kdam_hf.weights_kdam import find_weights, refuse_incomplete, refuse_non_finite

# New layers of a backbone that no classification checkpoint has: norms on the feature maps it hands out.
FRESH = "hidden_states_norms."
# Backbones whose published weights have timm's names and no config of the library.
TIMM_NAMES = ("efficientnet_lite", "timm_backbone")
# What EfficientNet-Lite has beyond its stages.
CLASSIFIER = ("conv_head.", "bn2.", "classifier.")
_REMEDY = "Give a folder that kdam train or kdam distill wrote, or a hub id."
_OF_THE_LIBRARY = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError),
    *(SafetensorError, StrictDataclassError),
)


@contextmanager
def explained(kind: type[KdamError], what: str, remedy: str = "") -> Iterator[None]:
    """Turn what the library raises into a `kind`: what failed, the library's words in one line, and what to do."""
    try:
        yield
    except KdamError:
        raise
    except _OF_THE_LIBRARY as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{what}: {words} {remedy}".rstrip()) from error


def find_backbone(preset: str) -> Backbone:
    """The preset of this name, or the backbone that a hub id or folder holds, also of a KDAM model, or `timm/NAME`.

    Raises:
        KdamValueError: no such preset, or timm is not installed.
        BackboneWeightsError: nothing there, or no backbone.
    """
    if preset in PRESETS:
        return PRESETS[preset]
    if preset.startswith("timm/"):
        return _timm_backbone(preset)
    if "/" not in preset and not Path(preset).is_dir():
        known = ", ".join(PRESETS)
        raise KdamValueError(f"unknown preset {preset!r}; expected one of {known}, a hub id or folder, or timm/NAME.")
    facts = _kdam_facts(preset)
    with suppress(OSError):  # many backbones come without
        facts = facts or BaseImageProcessor.get_image_processor_dict(preset)[0]
    fields = {key: list(facts[key]) for key in ("image_mean", "image_std") if facts.get(key)}
    return Backbone(read_backbone_config(preset, None), preset, fields=fields)


def _timm_backbone(preset: str) -> Backbone:
    name = preset.removeprefix("timm/")
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit is a RuntimeError
        needed = f"{preset} needs timm and the torchvision that fits torch {torch.__version__} ({error})"
        raise KdamValueError(f"{needed}: pip install 'kdam-hf[timm]', or choose another preset.") from error
    if not timm.is_model(name):
        raise KdamValueError(f"{preset}: timm {timm.__version__} has no model {name!r}; see timm.list_models().")
    facts = timm.get_pretrained_cfg(name)
    config = {"model_type": "timm_backbone", "backbone": name, "features_only": True, "out_indices": [-4, -3, -2, -1]}
    statistics = {"image_mean": list(facts.mean), "image_std": list(facts.std)}
    return Backbone(config, facts.hf_hub_id or preset, fields=statistics)


def read_backbone_config(name_or_path: str, out_indices: list[int] | None) -> dict[str, Any]:
    """The architecture of a published backbone, as a model's `backbone_config`.

    Args:
        name_or_path: hub id or local folder.
        out_indices: the four stages (pyramids) or layers (ViTs) to hand out; None for the last four stages, or the quarters of
            more layers. A KDAM model hands out its own.

    Raises:
        BackboneWeightsError: nothing there, or no backbone.
    """
    config = _backbone_config(name_or_path, out_indices)
    # classification heads are not kept, nor what an older library wrote and this one does not know
    kept = backbone_keys(type(config)) - {"id2label", "label2id", "architectures", "_name_or_path"}
    return {key: value for key, value in config.to_dict().items() if key in kept}


def load_backbone_weights(model: KdamPreTrainedModel, name_or_path: str) -> None:
    """Copy pretrained weights, of a hub id or folder with `model.safetensors`, into the model's backbone.

    Those of a KDAM model are its backbone's.

    Raises:
        BackboneWeightsError: another kind of backbone, or weights that are missing, of another shape or not finite; the
            message names them.
        CheckpointError: a KDAM model that is not whole.
    """
    backbone: Any = model.encoder.backbone
    failed = f"{name_or_path}: the backbone's weights cannot be loaded, and it would be left untrained"
    remedy = "Choose the preset these weights belong to, or --backbone_weights none."
    ours = _kdam_facts(name_or_path)
    if backbone.config.model_type in TIMM_NAMES and not ours:
        with explained(BackboneWeightsError, failed, remedy):
            _load_timm(backbone, name_or_path)
        return
    config = _backbone_config(name_or_path, getattr(backbone.config, "out_indices", None))
    if config.model_type != backbone.config.model_type:
        both = f"{name_or_path} holds a {config.model_type}, the model has a {backbone.config.model_type} backbone"
        raise BackboneWeightsError(f"{both}; choose the preset that fits.")
    known = MODEL_FOR_BACKBONE_MAPPING.get(type(config), None)
    with explained(BackboneWeightsError, failed, remedy):
        if ours:
            backbone.load_state_dict(load_model(name_or_path).encoder.backbone.state_dict())
            return
        find_weights(name_or_path)
        loaded, info = (known or AutoModel).from_pretrained(
            name_or_path, config=config, use_safetensors=True, output_loading_info=True
        )
        missing = [key for key in info["missing_keys"] if not key.startswith(FRESH)]
        # what is left over is the classification head
        refuse_incomplete(name_or_path, info | {"missing_keys": missing, "unexpected_keys": []})
        refuse_non_finite(name_or_path, loaded.state_dict())
        (backbone if known else backbone.model).load_state_dict(loaded.state_dict())


def is_kdam(facts: Any) -> bool:
    """Whether the content of a config.json, which may be damaged, is that of a KDAM model."""
    return isinstance(facts, dict) and str(facts.get("model_type")).startswith("kdam_")


def _kdam_facts(name_or_path: str) -> dict[str, Any]:
    """The config.json of a KDAM model as plain data; nothing of anything else."""
    with suppress(OSError):  # weights in timm's names have no config of the library
        facts, _ = PreTrainedConfig.get_config_dict(name_or_path)
        return facts if is_kdam(facts) else {}
    return {}


def _load_timm(backbone: Any, name_or_path: str) -> None:
    """Weights in timm's names, which come with no config of the library; what is left over must be the classifier."""
    state = {key: value for path in find_weights(name_or_path) for key, value in load_file(path).items()}
    refuse_non_finite(name_or_path, state)
    if backbone.config.model_type == "timm_backbone":
        found = backbone._backbone.load_state_dict(state, strict=False)
        if found.missing_keys:
            raise ValueError(f"missing keys {', '.join(found.missing_keys[:5])}; expected all of the backbone's.")
    else:
        backbone.load_state_dict({key: value for key, value in state.items() if not key.startswith(CLASSIFIER)})


def _backbone_config(name_or_path: str, out_indices: list[int] | None) -> Any:
    remedy = "Give the hub id or folder of a config.json and model.safetensors, or --backbone_weights none."
    with explained(BackboneWeightsError, f"no backbone at {name_or_path!r}", remedy):
        facts, _ = PreTrainedConfig.get_config_dict(name_or_path)
        refuse_kernels(facts, f"{name_or_path}: config.json")
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    if isinstance(config, KdamConfig):
        return config.backbone_config
    if type(config) in MODEL_FOR_BACKBONE_MAPPING:
        last = len(config.stage_names) - 1
        quarters = [last * k // 4 for k in (1, 2, 3, 4)]
        indices = out_indices or (quarters if last > 4 else [*range(last - 3, last + 1)])
        config.set_output_features_output_indices(out_features=None, out_indices=indices)
    elif type(config) not in MODEL_MAPPING or not getattr(config, "num_channels", None):
        raise BackboneWeightsError(f"{name_or_path} is a {config.model_type}; transformers offers no backbone of it.")
    return config


def load_model(name_or_path: str, revision: str | None = None) -> KdamPreTrainedModel:
    """A saved KDAM teacher or student with all of its weights; code of its repository is never run.

    Args:
        name_or_path: a folder, or a hub id.
        revision: of a hub id: a branch, tag or commit; the main branch for None.

    Raises:
        CheckpointError: nothing there, another kind of model, a config that cannot be meant, no safetensors, or weights that
            are missing, left over, of another shape or not finite.
    """
    classes: dict[str, type[KdamPreTrainedModel]] = {c.config_class.model_type: c for c in (KdamTeacher, KdamStudent)}
    with _named(name_or_path):
        facts, _ = PreTrainedConfig.get_config_dict(name_or_path, revision=revision)
        kind = facts.get("model_type")
        if kind not in classes:
            found = f"is a {kind}" if kind else "holds no config.json with a model_type, so no finished model"
            raise CheckpointError(f"{name_or_path} {found}; expected {' or '.join(classes)}.")
        if (Path(name_or_path) / "kdam.json").is_file():
            raise CheckpointError(f"{name_or_path} holds an ONNX file: kdam onnx --model {name_or_path} ... runs it.")
        config = classes[kind].config_class.from_dict(facts)
        return classes[kind].from_pretrained(name_or_path, config=config, revision=revision or "main")


def weights_sha256(name_or_path: str, revision: str | None = None) -> str:
    """SHA-256 of the file of weights that `load_model` reads, of a folder or hub id; of the hashes of its shards.

    Raises:
        CheckpointError: no weights there.
    """
    with _named(name_or_path):
        hashes = [file_sha256(path) for path in find_weights(name_or_path, revision=revision)]
        return hashes[0] if len(hashes) == 1 else lines_sha256(hashes)


@contextmanager
def _named(name_or_path: str) -> Iterator[None]:
    """Refuse a mistyped folder before it is looked for on the Hub, and say which model an error is about."""
    path = Path(name_or_path)
    if not path.exists() and path.parent != Path() and path.parent.is_dir():
        inside = sorted(entry.name for entry in path.parent.iterdir() if (entry / "config.json").exists())
        if (
            inside or path.is_absolute() or name_or_path.count("/") > 1
        ):  # else a hub id beside a folder of its owner's name
            what = f"{path.parent} is a folder here that holds the models {', '.join(inside) or 'none'}"
            raise CheckpointError(f"no model at {name_or_path!r}: {what}. {_REMEDY}")
    with explained(CheckpointError, f"no model at {name_or_path!r}", _REMEDY):
        yield
