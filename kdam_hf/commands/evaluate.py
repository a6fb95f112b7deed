"""Score a model, or maps on disk that any model predicted, on a split of a dataset.

    kdam evaluate --model outputs/demo/cs --rooms_height 144 --rooms_width 192 --output outputs/results.json
    kdam evaluate --model outputs/own --dataset folder --data_dir DIR --save_predictions MAPS --plots PLOTS
    kdam evaluate --predictions MAPS --dataset folder --data_dir DIR --protocol atrc
    kdam evaluate --model outputs/own --dataset folder --data_dir DIR --single_task semseg.json edge.json

Images are scored at their own size on their labelled pixels. What a file it replaces says of the training of the same
weights is kept. Maps on disk, protocols and definitions: docs/metrics.md. `--help all` lists every key.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset_loaders import Collator, DenseDataset, SubsetDataset, read_ids
from kdam_hf.errors import KdamValueError, UnknownTaskError
from kdam_hf.io import make_folder, refuse_unwritable, write_text
from kdam_hf.metrics import Metric, delta_m
from kdam_hf.tasks import Task, with_boundaries, with_options
from kdam_hf.training import SourceArguments, load_model, parse_recipe, write_results
from kdam_hf.training.arguments import available_cores, check_numbers, option
from kdam_hf.training.evaluation import predict_maps, seen_by
from kdam_hf.training.prediction_files import StoredPredictions, save_maps
from kdam_hf.training.recipes import Arguments
from kdam_hf.training.report import results_table
from kdam_hf.training.runs import OF_TRAINING, describe_data, describe_run
from kdam_hf.training.scoring import ImageMaps, count_maps, flat_values, make_metrics, single_task_references
from kdam_hf.training.sources import open_split

KEYS = "dataset data_dir columns streaming"


@dataclass
class EvaluationArguments:
    """What is scored, how, and where the numbers go."""

    model: str | None = option(None, "folder or hub id of a model")
    predictions: str | None = option(None, "folder of maps on disk to score in place of a model's")
    split: str = option("val", "split to score; val by default")
    ids: str | None = option(None, "file with the ids to score, one a line; the whole split by default")
    protocol: str = option("ours", "ours, or that of other code: atrc, invpt, mtl_pytorch")
    boundaries: str | None = option(None, "protocol of odsF: nyud, pascal, bsds, none; that of the dataset by default")
    single_task: list[str] | None = option(None, "results.json of single-task models, for delta_m")
    save_predictions: str | None = option(None, "new folder for the predicted maps")
    plots: str | None = option(None, "folder for figures")
    output: str = option("results.json", "file to write; its table gets the same name with .md")
    batch_size: int = option(4, "images per batch of the model")
    num_workers: int = option(0, "worker processes that read images")
    num_proc: int | None = option(None, "processes that count; all cores, half of them beside a model on the CPU")


def main(argv: Arguments = None) -> dict[str, float]:
    data, args, _ = parse_recipe((SourceArguments, EvaluationArguments), argv, __doc__)
    check_arguments(args)
    model = load_model(args.model) if args.model else None
    if model is not None:
        data.tasks = data.tasks or model.config.task_names
    try:
        source: DenseDataset = open_split(data, args.split)
    except UnknownTaskError as error:
        if model is None:
            raise
        names = ", ".join(model.config.task_names)
        raise KdamValueError(f"{args.model} predicts {names}: {error} Choose with --tasks what both have.") from error
    if args.ids:
        source = SubsetDataset(source, read_ids(Path(args.ids)))
    tasks = with_boundaries(with_options(source.tasks, data.task_options or ()), args.boundaries)
    metrics = make_metrics(tasks, args.protocol)

    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    num_proc = share_cores(args.num_proc, on_cpu=model is not None and device.type == "cpu")
    maps: Iterable[ImageMaps]
    if model is not None:
        dataset = seen_by(model.config, source, tasks)
        batches = DataLoader(dataset, args.batch_size, num_workers=args.num_workers, collate_fn=Collator(tasks))
        maps = predict_maps(model.to(device), batches, tasks, device)
        if args.save_predictions:
            maps = save_maps(maps, args.save_predictions, tasks, source.ids)
        meta = describe_run(model, dataset, args.model, data, tasks, args.protocol)
        meta |= facts_of_training(Path(args.output), meta["weights_sha256"])
    else:
        stored = StoredPredictions(args.predictions, source, tasks)
        reader = DataLoader(stored, batch_size=None, num_workers=args.num_workers)
        maps = tqdm(reader, desc="Scoring", unit="image", leave=False)
        meta = {"predictions": args.predictions, **describe_data(source, data, tasks, args.protocol)}
    meta |= {"ids": args.ids}
    references = single_task_references(args.single_task, tasks, meta) if args.single_task else {}
    count_maps(maps, metrics, num_proc)

    results = flat_values(metrics)
    if references:
        keys = {task.name: f"{task.name}/{task.primary_metric}" for task in tasks}
        gains = ((results[keys[t.name]], references[t.name][1], t.higher_is_better) for t in tasks)
        results["delta_m"] = delta_m(gains)
        meta["single_task"] = {name: path for name, (path, _) in references.items()}
    write_results(args.output, results, meta)
    table, table_file = results_table(results, meta, tasks), Path(args.output).with_suffix(".md")
    write_text(table_file, table)
    print("\n" + table)
    if args.plots:
        draw(metrics, results, tasks, args.plots, Path(args.model or args.predictions).name)
    written = (args.output, table_file, args.save_predictions, args.plots)
    print(f"Written: {', '.join(str(path) for path in written if path)}")
    return results


def check_arguments(args: EvaluationArguments) -> None:
    """Refuse what cannot be meant, before minutes of work."""
    check_numbers(args, {"at least 1": "batch_size num_proc", "at least 0": "num_workers"})
    if (args.model is None) == (args.predictions is None):
        given = f"model={args.model}, predictions={args.predictions}"
        raise KdamValueError(f"{given}; give --model FOLDER_OR_HUB_ID or --predictions DIR.")
    if args.predictions and args.save_predictions:
        raise KdamValueError("save_predictions goes with --model: the maps of --predictions are on disk already.")
    if Path(args.output).suffix != ".json":
        raise KdamValueError(f"output is {args.output}; expected a file name that ends in .json.")
    refuse_unwritable(args.output)
    if args.plots:
        make_folder(args.plots)
        try:
            import kdam_hf.plots  # noqa: F401
        except ModuleNotFoundError as error:
            raise KdamValueError(str(error)) from error


def facts_of_training(path: Path, weights_sha256: str | None) -> dict[str, Any]:
    """What the file that will be replaced says of the training of these weights; nothing if it is of others."""
    try:
        meta = json.loads(path.read_text("utf-8"))["meta"]
        facts = {key: meta[key] for key in OF_TRAINING if key in meta}
        same = weights_sha256 is not None and meta["weights_sha256"] == weights_sha256
    except (OSError, ValueError, LookupError, TypeError):  # no file yet, or no results of a model
        return {}
    return {"trained_on": meta.get("data"), **facts} if same and facts else {}


def share_cores(num_proc: int | None, on_cpu: bool) -> int:
    """How many processes count; a model on the CPU gets the cores that are left, or it would wait for its threads."""
    cores = available_cores()
    if num_proc is None:
        num_proc = min(cores, max(2, cores // 2)) if on_cpu else cores
    if on_cpu and num_proc > 1:
        torch.set_num_threads(max(1, cores - num_proc))
    return num_proc


def draw(
    metrics: Mapping[str, Metric], results: Mapping[str, float], tasks: Sequence[Task], folder: str, model: str
) -> None:
    """A PNG for each task that has a figure and a labelled pixel."""
    from kdam_hf.plots import save_png

    for task in tasks:
        labelled = not math.isnan(results[f"{task.name}/{task.primary_metric}"])
        figure = task.figure(metrics[task.name], model) if labelled else None
        if figure is not None:
            save_png(figure, Path(folder) / f"{task.name}.png")
