"""Tiny models with three tasks, whose weights are random."""

import torch

from kdam_hf import KdamStudent, KdamTeacher
from kdam_hf.presets import make_config
from kdam_hf.tasks import make_task

TASKS = (make_task("semseg", ["wall", "floor", "lamp"]), make_task("depth"), make_task("normals"))
CLASSES = {"student": KdamStudent, "teacher": KdamTeacher}


def tiny(role, preset, **options):
    torch.manual_seed(0)
    return CLASSES[role](make_config(role, preset, TASKS, **options)).eval()
