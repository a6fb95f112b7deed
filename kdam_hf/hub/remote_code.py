"""The code that travels with a published model, and the entries of its JSON files that point to it.

With them `AutoModel.from_pretrained(id, trust_remote_code=True)` works where this package is not installed.
"""

from pathlib import Path
from typing import Any

from kdam_hf import KdamImageProcessor, KdamStudent, KdamTeacher
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.pipeline_kdam import TASK, MultiTaskDensePredictionPipeline

HERE = Path(__file__).parents[1]
MODELS: dict[str, type[KdamPreTrainedModel]] = {cls.config_class.model_type: cls for cls in (KdamTeacher, KdamStudent)}


def code_files() -> dict[str, Path]:
    """Name in the repository -> file of the installed package."""
    return {path.name: path for path in sorted(HERE.glob("*_kdam.py"))}


def with_model_code(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with the classes that load it, and the pipeline that runs it."""
    model = MODELS[config["model_type"]]
    return config | {
        "auto_map": {"AutoConfig": _reference(model.config_class), "AutoModel": _reference(model)},
        "custom_pipelines": {
            TASK: {"impl": _reference(MultiTaskDensePredictionPipeline), "pt": ["AutoModel"], "type": "image"}
        },
    }


def with_processor_code(config: dict[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json with the class that loads it."""
    return config | {"auto_map": {"AutoImageProcessor": _reference(KdamImageProcessor)}}


def _reference(cls: type) -> str:
    """`kdam_hf.modeling_kdam.KdamStudent` as `modeling_kdam.KdamStudent`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
