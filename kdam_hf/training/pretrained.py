"""Loads weights and proves that they arrived.

The library no longer loads backbone weights for a composite model, and a key that does not fit leaves random weights
behind with no more than a warning. Here anything missing is an error.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from kdam_hf import KdamStudent, KdamTeacher
from kdam_hf.configuration_kdam import backbone_keys, refuse_kernels
from kdam_hf.errors import BackboneWeightsError, CheckpointError
from kdam_hf.io import file_sha256
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.weights_kdam import find_weights

# New layers of a backbone that no classification checkpoint has: norms on the feature maps it hands out.
FRESH = ("hidden_states_norms.",)


def read_backbone_config(name_or_path: str, out_indices: list[int]) -> dict[str, Any]:
    """The architecture of a published backbone, as a model's `backbone_config`.

    Args:
        name_or_path: hub id or local folder.
        out_indices: the four stages (pyramids) or layers (ViTs) to hand out.

    Raises:
        BackboneWeightsError: nothing there, or no backbone.
    """
    config = _backbone_config(name_or_path, out_indices)
    # classification heads are not kept, nor what an older library wrote and this one does not know
    kept = backbone_keys(type(config)) - {"id2label", "label2id", "architectures", "_name_or_path"}
    return {key: value for key, value in config.to_dict().items() if key in kept}


def load_backbone_weights(model: KdamPreTrainedModel, name_or_path: str) -> None:
    """Copy pretrained weights into the model's backbone.

    Args:
        model: a KDAM model whose backbone has the architecture of the weights.
        name_or_path: hub id or local folder with `model.safetensors`.

    Raises:
        BackboneWeightsError: another kind of backbone, or weights that are missing, of another shape or not finite; the
            message names them.
    """
    backbone = model.encoder.backbone
    config = _backbone_config(name_or_path, list(backbone.config.out_indices))
    if config.model_type != backbone.config.model_type:
        raise BackboneWeightsError(
            f"{name_or_path} holds a {config.model_type}, the model has a {backbone.config.model_type} backbone; "
            "choose the preset that fits."
        )
    try:
        find_weights(name_or_path)
        loaded, info = MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(
            name_or_path, config=config, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise BackboneWeightsError(f"{name_or_path}: the weights cannot be read: {first_line(error)}") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(FRESH))
    source, target = loaded.state_dict(), backbone.state_dict()
    absent = sorted(set(target) - set(source))
    reshaped = sorted(key for key in set(target) & set(source) if target[key].shape != source[key].shape)
    broken = sorted(key for key, value in source.items() if value.is_floating_point() and not value.isfinite().all())
    for problem, keys in (
        ("missing from the checkpoint", missing),
        ("unknown to the checkpoint's architecture", absent),
        ("of another shape", reshaped),
        ("not finite", broken),
    ):
        if keys:
            raise BackboneWeightsError(
                f"{name_or_path}: {len(keys)} of {len(target)} backbone weights are {problem}: {', '.join(keys[:5])}"
                f"{' ...' if len(keys) > 5 else ''}. The backbone would have been left untrained; "
                "choose the preset these weights belong to."
            )
    backbone.load_state_dict(source)
    wrong = [key for key, value in backbone.state_dict().items() if not torch.equal(value.cpu(), source[key])]
    if wrong:
        raise BackboneWeightsError(f"{name_or_path}: {', '.join(wrong[:5])} did not take the loaded value.")


def _backbone_config(name_or_path: str, out_indices: list[int]) -> Any:
    try:
        facts, _ = PreTrainedConfig.get_config_dict(name_or_path)
        refuse_kernels(facts, f"{name_or_path}: config.json")
        config = AutoConfig.from_pretrained(name_or_path, out_indices=out_indices, trust_remote_code=False)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise BackboneWeightsError(
            f"no backbone at {name_or_path!r}: {first_line(error)} "
            "Give the hub id or folder of a checkpoint with config.json and model.safetensors."
        ) from error
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise BackboneWeightsError(
            f"{name_or_path} is a {config.model_type}, which transformers offers no backbone of."
        )
    return config


def load_model(name_or_path: str) -> KdamPreTrainedModel:
    """A saved KDAM teacher or student with all of its weights; code of its repository is never run.

    Raises:
        CheckpointError: nothing there, another kind of model, a config that cannot be meant, no safetensors, or weights that
            are missing, left over, of another shape or not finite.
    """
    refuse_mistyped_folder(name_or_path)
    classes: dict[str, type[KdamPreTrainedModel]] = {c.config_class.model_type: c for c in (KdamTeacher, KdamStudent)}
    try:
        facts, _ = PreTrainedConfig.get_config_dict(name_or_path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"no model at {name_or_path!r}: {first_line(error)} "
            "Give a folder that train.py or distill.py wrote, or a hub id."
        ) from error
    kind = facts.get("model_type")
    if kind not in classes:
        raise CheckpointError(f"{name_or_path} is a {kind}; expected {' or '.join(classes)}.")
    try:
        config = classes[kind].config_class.from_dict(facts)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise CheckpointError(f"{name_or_path}: config.json cannot be used: {' '.join(str(error).split())}") from error
    try:
        return classes[kind].from_pretrained(name_or_path, config=config)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name_or_path}: the weights cannot be used: {first_line(error)}") from error


def weights_sha256(name_or_path: str) -> str:
    """SHA-256 of the file of weights that `load_model` reads, of a folder or hub id.

    Raises:
        CheckpointError: no weights there.
    """
    refuse_mistyped_folder(name_or_path)
    try:
        return file_sha256(find_weights(name_or_path))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"no model at {name_or_path!r}: {first_line(error)} "
            "Give a folder that train.py or distill.py wrote, or a hub id."
        ) from error


def refuse_mistyped_folder(name_or_path: str) -> None:
    """Before a name is looked for on the Hub.

    Raises:
        CheckpointError: it is no folder, but the folder that it would lie in is there.
    """
    path = Path(name_or_path)
    if path.exists() or path.parent == Path() or not path.parent.is_dir():
        return
    inside = sorted(entry.name for entry in path.parent.iterdir() if (entry / "config.json").exists())
    raise CheckpointError(
        f"no model at {name_or_path!r}: {path.parent} is a folder here that holds "
        f"{'the models ' + ', '.join(inside) if inside else 'no model'}. Give a folder that train.py or distill.py wrote, or a "
        "hub id."
    )


def first_line(error: Exception) -> str:
    """What an error says, without the advice that libraries add."""
    return (str(error) or type(error).__name__).splitlines()[0]
