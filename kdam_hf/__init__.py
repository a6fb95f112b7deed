"""Multi-task dense prediction and knowledge distillation (KDAM) for the Hugging Face ecosystem.

Importing the package makes its models known to `AutoConfig`, `AutoModel`, `AutoImageProcessor` and `pipeline`; they look a
model up by its class, so torch and the model code are loaded, and nothing beyond them: `Trainer`, `datasets`, `evaluate`,
other pipelines, tasks, metrics and training are imported where they are used.
"""

import importlib.metadata
from typing import Any

import torch

try:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForDepthEstimation,
        AutoModelForSemanticSegmentation,
    )
except ImportError as error:  # nothing of the library can be imported beside a torchvision for another torch
    try:
        import torchvision  # noqa: F401
    except RuntimeError as reason:
        found = importlib.metadata.version("torchvision")
        raise ImportError(
            f"torchvision {found} does not fit torch {torch.__version__} ({reason}), and transformers cannot be imported "
            "beside it: pip uninstall torchvision (kdam-hf does not need it), or install the version for this torch."
        ) from error
    except ImportError:
        pass
    raise
from transformers.loss.loss_utils import LOSS_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from kdam_hf.api import Trained, distill, evaluate, predict, train
from kdam_hf.configuration_kdam import KdamStudentConfig, KdamTeacherConfig
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.modeling_kdam import KdamOutput, KdamStudent, KdamTeacher
from kdam_hf.pipeline_kdam import TASK, MultiTaskDensePredictionPipeline

__version__ = "0.1.0"
__all__ = [
    "KdamImageProcessor",
    "KdamOutput",
    "KdamStudent",
    "KdamStudentConfig",
    "KdamTeacher",
    "KdamTeacherConfig",
    "MultiTaskDensePredictionPipeline",
    "Trained",
    "distill",
    "evaluate",
    "predict",
    "train",
]


def _supervised_loss(*args: Any) -> torch.Tensor:
    from kdam_hf.objective import supervised_loss

    return supervised_loss(*args)


for _config, _model in ((KdamTeacherConfig, KdamTeacher), (KdamStudentConfig, KdamStudent)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto in (AutoModel, AutoModelForDepthEstimation, AutoModelForSemanticSegmentation):
        _auto.register(_config, _model, exist_ok=True)
    # the pipeline of segmentation looks into this one, and says of what is not in it that it is not supported
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[_config.model_type] = _model.__name__
    LOSS_MAPPING[_model.__name__] = _supervised_loss
    # The processor needs neither PIL's nor torchvision's own pipeline, so it serves both backend names.
    AutoImageProcessor.register(
        _config, image_processor_classes={"pil": KdamImageProcessor, "torchvision": KdamImageProcessor}, exist_ok=True
    )

PIPELINE_REGISTRY.register_pipeline(TASK, MultiTaskDensePredictionPipeline, pt_model=AutoModel, type="image")
