"""Train a multi-task teacher, a baseline or a single-task model.

    accelerate launch scripts/train.py --config scripts/recipes/rooms_teacher.yaml --output_dir outputs/teacher
    accelerate launch scripts/train.py --config scripts/recipes/rooms_teacher.yaml --tasks depth --output_dir outputs/depth
    accelerate launch scripts/train.py --config scripts/recipes/own_data_teacher.yaml --data_dir DIR --output_dir outputs/own

Writes the model, its image processor, recipe.json and results.json to output_dir. `--help` lists every key.
"""

from kdam_hf.training import (
    DataArguments,
    KdamTrainingArguments,
    ModelArguments,
    MultiTaskTrainer,
    build_run,
    execute,
    parse_recipe,
    run_command,
)


def main(argv: list[str] | None = None) -> None:
    data, model, args, settings = parse_recipe((DataArguments, ModelArguments, KdamTrainingArguments), argv, __doc__)
    run = build_run(data, model, args, settings)
    trainer = MultiTaskTrainer(run.model, args, run.tasks, run.train_dataset, run.eval_dataset)
    execute(trainer, run, data)


if __name__ == "__main__":
    run_command(main)
