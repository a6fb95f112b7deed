"""Training on the Hugging Face `Trainer`: supervised multi-task training and distillation.

`build_run` and `execute` are the two halves of a script; `MultiTaskTrainer`, also called `DistillationTrainer`, trains
teachers, baselines, and students of a `FrozenTeacher`, whose predictions `fill_cache` stores to be replayed.
"""

from kdam_hf.pretrained import load_backbone_weights, load_model
from kdam_hf.training.arguments import (
    DataArguments,
    DistillationArguments,
    KdamTrainingArguments,
    ModelArguments,
    SourceArguments,
    StudentArguments,
)
from kdam_hf.training.evaluation import evaluate_model
from kdam_hf.training.recipes import parse_recipe, run_command
from kdam_hf.training.report import describe_model, write_results
from kdam_hf.training.runs import Run, build_run, execute
from kdam_hf.training.teacher import FrozenTeacher, load_teacher
from kdam_hf.training.teacher_cache import CachedTeacherDataset, TeacherCache, fill_cache
from kdam_hf.training.trainer import DistillationTrainer, MultiTaskTrainer

__all__ = [
    "CachedTeacherDataset",
    "DataArguments",
    "DistillationArguments",
    "DistillationTrainer",
    "FrozenTeacher",
    "KdamTrainingArguments",
    "ModelArguments",
    "MultiTaskTrainer",
    "Run",
    "SourceArguments",
    "StudentArguments",
    "TeacherCache",
    "build_run",
    "describe_model",
    "evaluate_model",
    "execute",
    "fill_cache",
    "load_backbone_weights",
    "load_model",
    "load_teacher",
    "parse_recipe",
    "run_command",
    "write_results",
]
