"""Train a multi-task teacher, a baseline or a single-task model on data with labels.

    kdam train --config rooms_teacher --output_dir outputs/teacher
    kdam train --config own_data_teacher --data_dir DIR --output_dir outputs/own
    kdam train --config own_data_teacher --data_dir DIR --tasks depth --num_processes 2 --output_dir outputs/depth

    --config           recipe: a YAML file, or a name that `kdam recipes` prints
    --output_dir       where model, image processor, checkpoints, recipe.json and results.json go
    --dataset          folder (your own data), nyud_v2, pascal_context, hub, or synthetic_rooms
    --data_dir         root of the data, or what `kdam prepare` wrote
    --columns, --streaming   of hub: which column is the image, and which holds labels; read Parquet where it lies
    --tasks            subset of its tasks
    --preset           backbone: a name of kdam_hf/presets.py, a hub id or folder, or timm/NAME
    --backbone_weights hub id or folder of its pretrained weights; preset for the preset's own; none
    --max_steps        optimizer steps
    --per_device_train_batch_size, --learning_rate, --crop_height, --crop_width
    --resume_from_checkpoint last   goes on where an earlier run was interrupted

With --num_processes N it runs under `accelerate launch`, one process for each GPU. `--help all` lists every key.
"""

from pathlib import Path

from kdam_hf.api import Trained
from kdam_hf.training import MultiTaskTrainer, build_run, execute, parse_recipe
from kdam_hf.training.arguments import DataArguments, KdamTrainingArguments, ModelArguments
from kdam_hf.training.recipes import Arguments


def main(argv: Arguments = None) -> Trained:
    data, model, args, settings = parse_recipe((DataArguments, ModelArguments, KdamTrainingArguments), argv, __doc__)
    run = build_run(data, model, args, settings)
    trainer = MultiTaskTrainer(run.model, args, run.tasks, run.train_dataset, run.eval_dataset)
    return Trained(Path(args.output_dir), execute(trainer, run, data))
