"""Distil a frozen teacher into a student.

    accelerate launch scripts/distill.py --images photos/ --teacher DEPTH_MODEL SEGMENTATION_MODEL --output_dir outputs/student
    accelerate launch scripts/distill.py --config scripts/recipes/rooms_student.yaml --teacher outputs/teacher --method cs \
        --output_dir outputs/student

`--teacher` takes folders or hub ids of models that predict dense tasks, one for all tasks or several of different families
(docs/teachers.md); `--images` photos without labels, `--unlabeled` photos beside a data set with labels; `--method` one of
cs (KDAM), kl, dist, cwd, and none for the same student without a teacher. With `--teacher_cache DIR --teacher_views K` the
teacher is run once over K fixed crops of each image and replayed from DIR. Writes what train.py writes.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from kdam_hf.distillation import METHODS, Method, make_method
from kdam_hf.distillation.methods import Features
from kdam_hf.errors import KdamValueError
from kdam_hf.io import write_json
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import (
    CachedTeacherDataset,
    DataArguments,
    DistillationArguments,
    DistillationTrainer,
    FrozenTeacher,
    KdamTrainingArguments,
    Run,
    StudentArguments,
    build_run,
    execute,
    fill_cache,
    load_teacher,
    parse_recipe,
    run_command,
)
from kdam_hf.training.arguments import use_bf16
from kdam_hf.training.balance import BalanceProbe
from kdam_hf.training.runs import start_unlabelled
from kdam_hf.training.teacher import coarsest_channels

PHOTOS = Path(__file__).with_name("recipes") / "photos_student.yaml"


def method_of(distillation: DistillationArguments, run: Run, loaded: Callable[[], FrozenTeacher]) -> Method | None:
    """The method, and beside it the term of features if it has a weight."""
    settings = asdict(distillation)
    alone = distillation.method != "none" and METHODS[distillation.method].needs_features
    if distillation.method == "none" or not (alone or distillation.features):
        return make_method(distillation.method, run.tasks, **settings)
    if distillation.teacher_cache:
        raise KdamValueError(
            "features are not stored; leave teacher_cache out, so that the teacher runs beside the student."
        )
    beside = None if alone else make_method(distillation.method, run.tasks, **settings)
    channels = [coarsest_channels(model) for model in (run.model, loaded().models[0])]
    return Features(run.tasks, distillation.beta if alone else distillation.features, *channels, beside=beside)


def main(argv: list[str] | None = None) -> None:
    groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
    data, model, distillation, args, settings = parse_recipe(
        groups, argv, __doc__, {"images": PHOTOS, "unlabeled": PHOTOS}
    )
    if distillation.method != "none" and not distillation.teacher:
        raise KdamValueError(
            f"method {distillation.method} needs a teacher: give --teacher FOLDER_OR_HUB_ID, or --method none."
        )
    data.task_options = [*(data.task_options or ()), *distillation.weight_options]
    plan = None
    if distillation.method != "none":
        plan = partial(
            plan_teaching,
            distillation.teacher or (),
            wanted=data.tasks,
            class_map=distillation.class_map,
            normal_axes=distillation.normal_axes,
        )
    run = build_run(data, model, args, settings, plan)
    teacher, train_dataset, facts = None, run.train_dataset, {"method": distillation.method}
    bf16 = use_bf16(distillation.teacher_precision, args.use_cpu)
    loaded = cache(lambda: load_teacher(run.teaching, run.model.config, bf16, distillation.teacher_batch_size))
    method = method_of(distillation, run, loaded)
    if method is not None:
        start_unlabelled(run, loaded, args)
        if distillation.teacher_cache:
            stored = fill_cache(distillation, run.teaching, run.train_dataset, run.model.config, args)
            train_dataset = CachedTeacherDataset(run.train_dataset, stored)
        else:
            teacher = loaded()
        settings_of_match = method.settings() | {"teacher_views": distillation.teacher_views}
        facts |= {**run.teaching.facts(), "distillation": settings_of_match}
    steps = distillation.balance_steps
    probe = None if steps is None else BalanceProbe(run.model.encoder, steps)
    trainer = DistillationTrainer(
        run.model,
        args,
        run.tasks,
        train_dataset,
        run.eval_dataset,
        teacher=teacher,
        method=method,
        weighting=probe,
        views=distillation.teacher_views,
        examiner=loaded,
    )
    execute(trainer, run, data, **facts, matching_batch=trainer.matching_batch)
    if probe is not None and args.process_index == 0:
        write_json(Path(args.output_dir or "") / "balance.json", probe.ratios())
        print("\n" + probe.report())


if __name__ == "__main__":
    run_command(main)
