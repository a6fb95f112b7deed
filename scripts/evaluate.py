"""Score a model on a split of a dataset.

    python scripts/evaluate.py --model outputs/demo/cs --rooms_height 144 --rooms_width 192 --output results.json
    python scripts/evaluate.py --model outputs/own --dataset folder --data_dir DIR --split val --output results.json

Images are scored at their own size on their labelled pixels. Writes a flat results.json and prints it.
"""

from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader

from dataset_loaders import Collator, EvalTransform, TransformedDataset
from kdam_hf.training import SourceArguments, evaluate_model, load_model, parse_recipe, run_command, write_results
from kdam_hf.training.runs import describe_run, open_split
from kdam_hf.training.teacher import check_tasks_agree


@dataclass
class EvaluationArguments:
    """Which model and split, and where the numbers go."""

    model: str = field(metadata={"help": "folder or hub id"})
    split: str = field(default="val", metadata={"help": "split to score"})
    output: str = field(default="results.json", metadata={"help": "file to write"})
    batch_size: int = field(default=4, metadata={"help": "images per batch"})
    num_workers: int = field(default=0, metadata={"help": "worker processes that read images"})


def main(argv: list[str] | None = None) -> None:
    data, args, _ = parse_recipe((SourceArguments, EvaluationArguments), argv, __doc__)
    model = load_model(args.model)
    data.tasks = data.tasks or model.config.task_names
    source = open_split(data, args.split)
    check_tasks_agree(model.config.tasks, [task.spec() for task in source.tasks], "the model", "the data")
    dataset = TransformedDataset(source, EvalTransform(source.tasks, model.config.image_mean, model.config.image_std))
    batches = DataLoader(dataset, args.batch_size, num_workers=args.num_workers, collate_fn=Collator(source.tasks))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    metrics = evaluate_model(model.to(device), batches, source.tasks, device)
    write_results(args.output, metrics, describe_run(model, dataset, args.model, data, args.split))
    for name, value in metrics.items():
        print(f"{name:28} {value:10.4f}")
    print(f"{len(dataset)} images; written to {args.output}")


if __name__ == "__main__":
    run_command(main)
