"""Run the teacher once over the fixed crops that distill.py will replay.

    accelerate launch scripts/cache_teacher.py --config scripts/recipes/rooms_student.yaml --teacher outputs/teacher \
        --teacher_cache outputs/cache/teacher --teacher_views 4

Takes the recipe and keys of distill.py, which does the same by itself on first use. The disk space it takes is printed
before anything is written; several processes share the work; run again after an interruption, it goes on. On a complete
cache it checks every record and makes damaged ones again.
"""

from functools import partial

from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import (
    DataArguments,
    DistillationArguments,
    KdamTrainingArguments,
    StudentArguments,
    fill_cache,
    parse_recipe,
    run_command,
)
from kdam_hf.training.runs import open_splits, training_crops


def main(argv: list[str] | None = None) -> None:
    groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
    data, model, distillation, args, _ = parse_recipe(groups, argv, __doc__)
    plan = partial(
        plan_teaching,
        distillation.teacher or (),
        wanted=data.tasks,
        class_map=distillation.class_map,
        normal_axes=distillation.normal_axes,
    )
    with args.main_process_first(local=False, desc="opening the data"):
        splits = open_splits(data, plan)
    _, config, crops = training_crops(splits.train, data, model, args)
    cache = fill_cache(distillation, splits.teaching, crops, config, args, verify=True)
    if args.process_index == 0:
        print(f"teacher cache {cache.folder}: complete, {cache.views} views of {cache.images} images")


if __name__ == "__main__":
    run_command(main)
