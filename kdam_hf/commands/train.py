"""Train a multi-task teacher, a baseline or a single-task model on data with labels.

    kdam train --config rooms_teacher --output_dir outputs/teacher
    kdam train --config own_data_teacher --data_dir DIR --output_dir outputs/own
    kdam train --config own_data_teacher --data_dir DIR --tasks depth --num_processes 2 --output_dir outputs/depth

With --num_processes N it runs under `accelerate launch`, one process for each GPU. `--help all` lists every key.
"""

from pathlib import Path

from kdam_hf.api import Trained
from kdam_hf.training import MultiTaskTrainer, build_run, execute, parse_recipe
from kdam_hf.training.arguments import DataArguments, KdamTrainingArguments, ModelArguments
from kdam_hf.training.recipes import Arguments

KEYS = """
    config output_dir dataset data_dir columns streaming tasks preset backbone_weights max_steps per_device_train_batch_size
    learning_rate crop_height crop_width resume_from_checkpoint"""


def main(argv: Arguments = None) -> Trained:
    data, model, args, settings = parse_recipe((DataArguments, ModelArguments, KdamTrainingArguments), argv, __doc__)
    run = build_run(data, model, args, settings)
    trainer = MultiTaskTrainer(run.model, args, run.tasks, run.train_dataset, run.eval_dataset)
    return Trained(Path(args.output_dir), execute(trainer, run, data))
