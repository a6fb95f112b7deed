"""Distil a frozen teacher into a student.

    accelerate launch scripts/distill.py --config scripts/recipes/rooms_student.yaml --teacher outputs/teacher --method cs \
        --output_dir outputs/student

`--teacher` takes a folder or hub id of one multi-task teacher, or of one single-task teacher per task; `--method` one of
cs (KDAM), kl, dist, cwd, and none for the same student without a teacher. Writes what train.py writes.
"""

from kdam_hf.distillation import DistillationCriterion
from kdam_hf.errors import KdamValueError
from kdam_hf.training import (
    DataArguments,
    DistillationArguments,
    DistillationTrainer,
    FrozenTeacher,
    KdamTrainingArguments,
    StudentArguments,
    finish,
    load_model,
    parse_recipe,
    prepare,
    run_command,
)
from kdam_hf.training.runs import weights_hash


def main(argv: list[str] | None = None) -> None:
    groups = (DataArguments, StudentArguments, DistillationArguments, KdamTrainingArguments)
    data, model, distillation, args, settings = parse_recipe(groups, argv, __doc__)
    if distillation.method != "none" and not distillation.teacher:
        raise KdamValueError(
            f"method {distillation.method} needs a teacher: give --teacher FOLDER_OR_HUB_ID, or --method none."
        )
    run = prepare(data, model, args, settings)
    criterion = DistillationCriterion(
        run.tasks,
        method=distillation.method,
        temperature=distillation.temperature,
        beta=distillation.beta,
        inter=distillation.inter,
        intra=distillation.intra,
        resolution=distillation.kd_resolution,
        scale_by_temperature_squared=distillation.scale_by_temperature_squared,
    )
    teacher, facts = None, {"method": distillation.method}
    if distillation.method != "none":
        teacher = FrozenTeacher([load_model(name) for name in distillation.teacher], run.model.config)
        facts |= {
            "teacher": distillation.teacher,
            "teacher_sha256": [weights_hash(name) for name in distillation.teacher],
        }
    trainer = DistillationTrainer(
        run.model, args, run.tasks, run.train_dataset, run.eval_dataset, teacher=teacher, criterion=criterion
    )
    finish(trainer, run, data, **facts)


if __name__ == "__main__":
    run_command(main)
