"""Multi-task dense prediction and knowledge distillation (KDAM) for the Hugging Face ecosystem.

Importing the package makes its models known to `AutoConfig`, `AutoModel`, `AutoImageProcessor` and `pipeline`; they look a
model up by its class, so torch and the model code are loaded, and nothing beyond them: `Trainer`, `datasets`, `evaluate`,
other pipelines, tasks, metrics and training are imported where they are used.
"""

import importlib.metadata

import torch

try:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel
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
from transformers.pipelines import PIPELINE_REGISTRY

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
]

for _config, _model in ((KdamTeacherConfig, KdamTeacher), (KdamStudentConfig, KdamStudent)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    # The processor needs neither PIL's nor torchvision's own pipeline, so it serves both backend names.
    AutoImageProcessor.register(
        _config, image_processor_classes={"pil": KdamImageProcessor, "torchvision": KdamImageProcessor}, exist_ok=True
    )

PIPELINE_REGISTRY.register_pipeline(TASK, MultiTaskDensePredictionPipeline, pt_model=AutoModel, type="image")
