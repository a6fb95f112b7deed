"""Distil a frozen teacher into a student.

    accelerate launch scripts/distill.py --images photos/ --teacher DEPTH_MODEL SEGMENTATION_MODEL --output_dir outputs/student
    accelerate launch scripts/distill.py --config scripts/recipes/rooms_student.yaml --teacher outputs/teacher --method cs \
        --output_dir outputs/student

`--teacher` takes folders or hub ids of models that predict dense tasks, one for all tasks or several of different families
(docs/teachers.md); `--images` photos without labels, `--unlabeled` photos beside a data set with labels; `--method` one of
cs (KDAM), kl, dist, cwd, and none for the same student without a teacher. With `--teacher_cache DIR --teacher_views K` the
teacher is run once over K fixed crops of each image and replayed from DIR. Writes what train.py writes.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from kdam_hf.distillation import make_method
from kdam_hf.errors import KdamValueError
from kdam_hf.io import write_json
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import (
    CachedTeacherDataset,
    DataArguments,
    DistillationArguments,
    DistillationTrainer,
    KdamTrainingArguments,
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

PHOTOS = Path(__file__).with_name("recipes") / "photos_student.yaml"


def main(argv: list[str] | None = None) -> None:
    groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
    data, model, distillation, args, settings = parse_recipe(groups, argv, __doc__, {"images": PHOTOS})
    if distillation.method != "none" and not distillation.teacher:
        raise KdamValueError(
            f"method {distillation.method} needs a teacher: give --teacher FOLDER_OR_HUB_ID, or --method none."
        )
    data.task_options = [*(data.task_options or ()), *distillation.weight_options]
    plan = None
    if distillation.method != "none":
        plan = partial(plan_teaching, distillation.teacher or (), wanted=data.tasks, class_map=distillation.class_map)
    run = build_run(data, model, args, settings, plan)
    method = make_method(distillation.method, run.tasks, **asdict(distillation))
    teacher, train_dataset, facts = None, run.train_dataset, {"method": distillation.method}
    bf16 = use_bf16(distillation.teacher_precision, args.use_cpu)
    loaded = partial(load_teacher, run.teaching, run.model.config, bf16, distillation.teacher_batch_size)
    if method is not None:
        if distillation.teacher_cache:
            cache = fill_cache(distillation, run.teaching, run.train_dataset, run.model.config, args)
            train_dataset = CachedTeacherDataset(run.train_dataset, cache)
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
