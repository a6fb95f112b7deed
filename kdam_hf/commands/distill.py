"""Distil frozen teachers into a student: on photos without labels, on data with labels, or on both.

    kdam distill --images photos/ --teacher DEPTH_MODEL SEGMENTATION_MODEL --output_dir outputs/student
    kdam distill --config rooms_student --teacher outputs/teacher --method cs --output_dir outputs/student
    kdam distill --config own_data_student --data_dir DIR --teacher outputs/teacher --output_dir outputs/student \\
        --teacher_views 4 --teacher_cache outputs/cache --num_processes 2

With --num_processes N it runs under `accelerate launch`, one process for each GPU. `--help all` lists every key.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from kdam_hf.api import Trained
from kdam_hf.distillation import METHODS, Method, make_method
from kdam_hf.distillation.methods import Features
from kdam_hf.errors import KdamValueError
from kdam_hf.modeling_kdam import SIZE_DIVISOR
from kdam_hf.training import CachedTeacherDataset, DistillationTrainer, FrozenTeacher, Run, fill_cache, load_teacher
from kdam_hf.training.arguments import (
    DataArguments,
    DistillationArguments,
    KdamTrainingArguments,
    StudentArguments,
    use_bf16,
)
from kdam_hf.training.balance import BalanceProbe
from kdam_hf.training.recipes import Arguments, parse_recipe
from kdam_hf.training.runs import build_run, execute, start_unlabelled
from kdam_hf.training.teacher import coarsest_channels

GROUPS = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
OF_PHOTOS = dict.fromkeys(("images", "unlabeled"), "photos_student")
KEYS = """
    teacher images data_dir dataset columns streaming unlabeled output_dir config method preset backbone_weights class_map
    crop_height crop_width max_steps teacher_views teacher_cache temperature beta kd_weight inter intra
    resume_from_checkpoint"""


def method_of(distillation: DistillationArguments, run: Run, loaded: Callable[[], FrozenTeacher]) -> Method | None:
    """The method, and beside it the term of features if it has a weight."""
    settings, name = asdict(distillation), distillation.method
    if name == "none" and distillation.features:
        raise KdamValueError("method none has no teacher for features; choose method features, or leave it out.")
    alone = name != "none" and METHODS[name].needs_features
    if not (alone or distillation.features):
        return make_method(name, run.tasks, **settings)
    if distillation.teacher_cache:
        raise KdamValueError(
            "features are not stored; leave teacher_cache out, so that the teacher runs beside the student."
        )
    crops: Any = run.train_dataset.transform
    height, width = crops.size
    if height % SIZE_DIVISOR or width % SIZE_DIVISOR:
        raise KdamValueError(
            f"crop_height {height}, crop_width {width}: features of padding would be matched; give multiples of {SIZE_DIVISOR}."
        )
    beside = None if alone else make_method(name, run.tasks, **settings)
    student, teacher = (coarsest_channels(model) for model in (run.model, loaded().models[0]))
    return Features(run.tasks, distillation.beta if alone else distillation.features, student, teacher, beside)


def main(argv: Arguments = None) -> Trained:
    data, model, distillation, args, settings = parse_recipe(GROUPS, argv, __doc__, OF_PHOTOS)
    if distillation.method != "none" and not distillation.teacher:
        raise KdamValueError(
            f"method {distillation.method} needs a teacher: give --teacher FOLDER_OR_HUB_ID, or --method none."
        )
    weights = [text.replace("=", ".kd_weight=") for text in distillation.kd_weight or ()]
    data.task_options = [*(data.task_options or ()), *weights]
    run = build_run(data, model, args, settings, None if distillation.method == "none" else distillation)
    train_dataset: Any = run.train_dataset
    teacher, facts = None, {"method": distillation.method}
    bf16 = use_bf16(distillation.teacher_precision, args.use_cpu)
    loaded = cache(lambda: load_teacher(run.teaching, run.model.config, bf16, distillation.teacher_batch_size))
    if (method := method_of(distillation, run, loaded)) is not None:
        start_unlabelled(run, loaded, args)
        if distillation.teacher_cache:
            stored = fill_cache(distillation, run.teaching, run.train_dataset, run.model.config, args)
            train_dataset = CachedTeacherDataset(run.train_dataset, stored)
        else:
            teacher = loaded()
        match = method.settings() | {"teacher_views": distillation.teacher_views}
        facts |= {**run.teaching.facts(), "distillation": match}
    views, examiner = distillation.teacher_views, None if method is None else loaded
    of_run = (run.model, args, run.tasks, train_dataset, run.eval_dataset)
    trainer = DistillationTrainer(*of_run, teacher=teacher, method=method, views=views, examiner=examiner)
    steps = distillation.balance_steps
    of_terms = (run.model.encoder, trainer.objective)
    probe = None if steps is None else BalanceProbe(*of_terms, steps, args.gradient_accumulation_steps)
    output = Path(args.output_dir or "")
    try:
        metrics = execute(trainer, run, data, **facts, matching_batch=trainer.get_total_train_batch_size(args))
        stopped = None
    except SystemExit as told:  # after a checkpoint of its last step
        stopped = told
    if probe is not None and args.process_index == 0:
        probe.save(output / "balance.json", trainer.resumed_from is not None)
    if stopped is not None:
        raise stopped
    if probe is not None and args.process_index == 0:
        print("\n" + probe.report())
    return Trained(output, metrics)
