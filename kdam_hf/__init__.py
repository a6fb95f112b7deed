"""Multi-task dense prediction and knowledge distillation (KDAM) for the Hugging Face ecosystem.

Importing the package makes its models known to `AutoConfig`, `AutoModel`, `AutoImageProcessor` and `pipeline`; they look a
model up by its class, so torch and the model code are loaded, and nothing beyond them: `Trainer`, `datasets`, `evaluate`,
other pipelines, tasks, metrics and training are imported where they are used.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel
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
