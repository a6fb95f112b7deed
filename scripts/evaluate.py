"""Score a model on a split of a dataset.

    python scripts/evaluate.py --model outputs/demo/cs --dataset synthetic_rooms --split val --output results.json
    python scripts/evaluate.py --model outputs/own --dataset folder --data_dir DIR --split val --output results.json

Images are scored at their own size on their labelled pixels. Writes a flat results.json and prints it.
"""

from dataclasses import dataclass, field

import torch
from torch.utils.data import DataLoader

from dataset_loaders import Collator, EvalTransform, TransformedDataset
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Task
from kdam_hf.training import (
    DataArguments,
    describe_model,
    evaluate_model,
    load_model,
    parse_recipe,
    run_command,
    write_results,
)
from kdam_hf.training.report import hardware
from kdam_hf.training.runs import open_split


@dataclass
class EvaluationArguments:
    """Which model and split, and where the numbers go."""

    model: str = field(metadata={"help": "folder or hub id"})
    split: str = field(default="val", metadata={"help": "split to score"})
    output: str = field(default="results.json", metadata={"help": "file to write"})
    batch_size: int = field(default=4, metadata={"help": "images per batch"})
    num_workers: int = field(default=0, metadata={"help": "worker processes that read images"})


def main(argv: list[str] | None = None) -> None:
    data, args, _ = parse_recipe((DataArguments, EvaluationArguments), argv, __doc__)
    model = load_model(args.model)
    data.tasks = data.tasks or model.config.task_names
    dataset = open_split(data, args.split)
    agree(model.config, dataset.tasks)
    transform = EvalTransform(dataset.tasks, model.config.image_mean, model.config.image_std)
    batches = DataLoader(
        TransformedDataset(dataset, transform),
        args.batch_size,
        num_workers=args.num_workers,
        collate_fn=Collator(dataset.tasks),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    metrics = evaluate_model(model.to(device), batches, dataset.tasks, device)
    height, width = transform(dataset[0], 0, 0)["pixel_values"].shape[-2:]
    meta = {
        "model": args.model,
        "kind": type(model).__name__,
        "data": data.dataset,
        "split": args.split,
        "images": len(dataset),
    }
    meta |= {"hardware": hardware(), "seed": data.rooms_seed, **describe_model(model, height, width)}
    write_results(args.output, metrics, meta)
    for name, value in metrics.items():
        print(f"{name:28} {value:10.4f}")
    print(f"{len(dataset)} images; written to {args.output}")


def agree(config: KdamConfig, tasks: tuple[Task, ...]) -> None:
    """Refuse labels that mean something else than the model's predictions."""
    specs = {spec["name"]: spec for spec in config.tasks or []}
    for task in tasks:
        spec = specs.get(task.name)
        if spec is None:
            raise KdamValueError(f"the model does not predict {task.name}; it knows {', '.join(specs)}.")
        if spec["channels"] != task.channels:
            raise KdamValueError(
                f"{task.name}: the model has {spec['channels']} channels, the data {task.channels}; "
                "score it on data with the same classes."
            )


if __name__ == "__main__":
    run_command(main)
