"""Semantic segmentation with logits per pixel: SegFormer, DPT, UperNet, BEiT, Data2Vec, MobileNetV2, MobileViT, Sapiens2."""

from typing import Any

from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from kdam_hf.tasks import Task
from kdam_hf.teachers.base import ForeignTeacher, classes_of


class SemanticTeacher(ForeignTeacher):
    """Class logits as they are."""

    heads = tuple(MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.values())

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        return classes_of(config)

    def maps(self, output: Any) -> dict[str, Tensor]:
        return {"semseg": output.logits}
