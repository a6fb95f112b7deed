"""Semantic segmentation: logits per pixel, or queries that each have class probabilities and a mask.

Logits: SegFormer, DPT, UperNet, BEiT, Data2Vec, MobileNetV2, MobileViT, Sapiens2. Queries: Mask2Former, MaskFormer, OneFormer,
EoMT; the score of a class at a pixel is the sum over queries of class probability (without "no object") times mask probability
(Cheng, Schwing, Kirillov, NeurIPS 2021, section 3.4), the same sum that the families' semantic post-processing decides on.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from kdam_hf.errors import CheckpointError
from kdam_hf.teachers.base import ForeignTeacher
from kdam_hf.teachers.inputs import InputRule

SMALLEST = 1e-6


class SemanticTeacher(ForeignTeacher):
    """Class logits as they are."""

    # ours are registered there, too; they teach without a family
    heads = tuple(x for x in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES.values() if not x.startswith("Kdam"))

    def maps(self, output: Any) -> dict[str, Tensor]:
        return {"semseg": output.logits}


class MaskTeacher(ForeignTeacher):
    """Logarithms of the class scores."""

    heads: ClassVar[Sequence[str]] = ("Mask2FormerForUniversalSegmentation", "MaskFormerForInstanceSegmentation")

    def maps(self, output: Any) -> dict[str, Tensor]:
        classes = output.class_queries_logits.float().softmax(-1)[..., :-1]
        masks = output.masks_queries_logits.float().sigmoid()
        return {"semseg": torch.einsum("bqc,bqhw->bchw", classes, masks).clamp_min(SMALLEST).log()}


class EomtTeacher(MaskTeacher):
    """Sees the whole photo in its one square; its own processor cuts squares from it."""

    heads = ("EomtForUniversalSegmentation", "EomtDinov3ForUniversalSegmentation")

    def __init__(self, model: Any, rule: InputRule) -> None:
        super().__init__(model, rule)
        rule.fixed = (model.config.image_size,) * 2


class OneFormerTeacher(MaskTeacher):
    """With the text that asks for semantic segmentation."""

    heads = ("OneFormerForUniversalSegmentation",)

    def extra_inputs(self, batch: int) -> dict[str, Any]:
        if not hasattr(self, "_question"):
            config: Any = self.model.config
            tokenizer = AutoTokenizer.from_pretrained(config.name_or_path, revision=self.revision)
            length = {"max_length": config.task_seq_len, "padding": "max_length", "truncation": True}
            asked = tokenizer("the task is semantic", return_tensors="pt", **length)
            self._question = (asked["input_ids"] * asked["attention_mask"])[0]  # padding is 0 for this model
            if len(self._question.unique()) < 4:  # the library makes up an empty one
                raise CheckpointError(f"{config.name_or_path}: no tokenizer; OneFormer is asked for its task in words.")
        device = next(self.model.parameters()).device
        return {"task_inputs": self._question.to(device).expand(batch, -1)}
