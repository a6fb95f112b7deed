"""Write a model as an ONNX file that runs without this package, and check that it computes the same.

    kdam export --model outputs/student --output_dir outputs/onnx
    kdam export --model outputs/student --decode --output_dir outputs/onnx
    kdam export --model outputs/student --int8 --dataset folder --data_dir DIR --output_dir outputs/onnx
    kdam export --model outputs/teacher --height 448 --width 576 --output_dir outputs/onnx

The folder gets onnx/model.onnx, onnx/model_quantized.onnx in eight bits, config.json and preprocessor_config.json, as
optimum and transformers.js lay them out, and kdam.json, which says how to feed and read them. Nothing is left there unless
every check passes. `kdam onnx` runs the result on photos; docs/export.md has the details. `--help all` lists every key.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.utils.data import DataLoader

from dataset_loaders import Collator
from kdam_hf.errors import ExportError, KdamValueError
from kdam_hf.export import (
    TOLERANCE,
    OnnxModel,
    checked_shapes,
    choose_size,
    describe,
    largest_differences,
    missing_packages,
    quantize,
    save_onnx,
)
from kdam_hf.hub.redact import redact, redact_config
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.io import make_folder, write_json
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.tasks import with_options
from kdam_hf.training import SourceArguments, evaluate_model, load_model, parse_recipe
from kdam_hf.training.arguments import check_numbers, option, required
from kdam_hf.training.evaluation import seen_by
from kdam_hf.training.report import versions
from kdam_hf.training.runs import describe_data
from kdam_hf.training.sources import open_split

CODE = ("auto_map", "custom_pipelines")  # keys of a config that name files of a repository


@dataclass
class ExportArguments:
    """Which model, in which form, and where it goes."""

    model: str = required("folder or hub id")
    output_dir: str = required("new or empty folder to write to", aliases=["--output"])
    height: int | None = option(None, "fix the height of images, pixels; open by default")
    width: int | None = option(None, "fix the width of images, pixels; open by default")
    decode: bool = option(
        False, "class ids, metres, unit vectors and probabilities as outputs, at the size of the input"
    )
    int8: bool = option(False, "a form in eight bits too, calibrated and scored on --dataset and --data_dir")
    calibration_images: int = option(32, "images of the training split for --int8")
    train_split: str = option("train", "split to calibrate on")
    eval_split: str = option("val", "split to score on")


def main(argv: list[str] | None = None) -> None:
    data, args, settings = parse_recipe((SourceArguments, ExportArguments), argv, __doc__)
    check_arguments(args, has_data=bool({"dataset", "data_dir"} & set(settings)))
    output = Path(args.output_dir)
    model = load_model(args.model).float().eval()
    size = choose_size(model, (args.height, args.width) if args.height else None)
    print(f"Exporting {args.model} for images of {f'{size[0]}x{size[1]} pixels' if size else 'any size'}.", flush=True)
    make_folder(output.parent)
    with TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
        file = Path(folder) / "onnx" / "model.onnx"
        file.parent.mkdir()
        save_onnx(model, size, file, decode=args.decode and not args.int8)  # decisions cannot be scored
        int8 = {"int8": make_int8(model, data, args, file)} if args.int8 else {}
        exported, shapes = OnnxModel(file), checked_shapes(size, model.config.image_size)
        decoding = KdamImageProcessor(tasks=model.config.tasks) if args.decode else None
        differences = largest_differences(model, exported, shapes, processor=decoding)
        facts = {"format": "onnx", "file": f"onnx/{file.name}", "bytes": file.stat().st_size, "model": args.model}
        facts |= describe(model, exported) | int8
        facts["check"] = {"tolerance": TOLERANCE, "shapes": shapes, "largest_difference": differences}
        KdamImageProcessor.from_model_config(model.config).save_pretrained(folder)
        config = {key: value for key, value in model.config.to_diff_dict().items() if key not in CODE}
        write_json(Path(folder) / "config.json", redact_config(config))
        # without the places of this machine; in tasks nothing is one, though names of classes may look like it
        portable = redact(facts) | {"tasks": facts["tasks"], "versions": versions()}
        write_json(Path(folder) / "kdam.json", portable)
        output.mkdir(exist_ok=True)
        for path in Path(folder).iterdir():
            shutil.move(path, output / path.name)
    print(summary(facts))
    print(f"Written to {output}")


def check_arguments(args: ExportArguments, has_data: bool) -> None:
    """Refuse what cannot be meant or done, before the model is loaded."""
    sides = args.height, args.width
    if sides != (None, None) and not (args.height or 0) > 0 < (args.width or 0):
        raise KdamValueError(f"height and width are {sides}; expected both, in pixels, for one size, or neither.")
    if args.int8 and not has_data:
        raise KdamValueError("int8 is calibrated and scored on images: give --dataset folder --data_dir DIR.")
    check_numbers(args, {"at least 1": "calibration_images"})
    if missing_packages():
        raise KdamValueError(f"ONNX needs {', '.join(missing_packages())}: pip install 'kdam-hf[export]'")
    output = Path(args.output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise KdamValueError(f"{output} is not an empty folder; remove it, or choose another output_dir.")


def make_int8(model: KdamPreTrainedModel, data: SourceArguments, args: ExportArguments, file: Path) -> dict[str, Any]:
    """Quantise the file, score both forms on the evaluation split, decode both if asked for, and return the facts."""
    data.tasks = data.tasks or model.config.task_names
    train, held_out = (open_split(data, split) for split in (args.train_split, args.eval_split))
    tasks = with_options(train.tasks, data.task_options or ())
    seen = seen_by(model.config, train, tasks)
    count = min(args.calibration_images, len(seen))
    print(f"Calibrating on {count} of {len(seen)} images of {train.name} {args.train_split}.", flush=True)
    target = file.with_name("model_quantized.onnx")
    images = [seen[k * len(seen) // count]["pixel_values"] for k in range(count)]
    quantize(file, target, images)
    batches = DataLoader(seen_by(model.config, held_out, tasks), 1, collate_fn=Collator(tasks))
    forms: dict[str, Any] = {"fp32": OnnxModel(file), "int8": OnnxModel(target)}
    scores = {form: evaluate_model(exported, batches, tasks) for form, exported in forms.items()}
    if args.decode:
        save_onnx(model, forms["fp32"].size, file, decode=True)
        quantize(file, target, images)
        whole, eight = (OnnxModel(path)(images[0][None]).predictions for path in (file, target))
        for name, values in eight.items():  # its scores are those of the graph without decisions
            if values.dtype != whole[name].dtype or values.shape != whole[name].shape or not values.isfinite().all():
                raise ExportError(f"{target.name}: {name} is {values.dtype} {tuple(values.shape)}, or not finite.")
    primary = {f"{t.name}/{t.primary_metric}": "↑" if t.higher_is_better else "↓" for t in tasks}
    facts = {"file": f"onnx/{target.name}", "bytes": target.stat().st_size, "calibration_images": count}
    facts |= {"calibration_split": args.train_split, "scores": scores, "primary_metrics": primary}
    return facts | {"scored_on": describe_data(held_out, data, tasks)}


def summary(facts: dict[str, Any]) -> str:
    """What was written and found, for the terminal."""
    shares = ", ".join(f"{name} {share:.1e}" for name, share in facts["check"]["largest_difference"].items())
    lines = [
        f"{facts['file']}: {facts['bytes'] / 1e6:.2f} MB, input {facts['input']['shape']}",
        f"Largest differences to PyTorch, as shares of the largest value, at most {TOLERANCE:g}: {shares}",
    ]
    if int8 := facts.get("int8"):
        where = "{images} images of {data} {split}".format(**int8["scored_on"])
        lines.append(f"{int8['file']}: {int8['bytes'] / 1e6:.2f} MB. On {where}:")
        for key, arrow in int8["primary_metrics"].items():
            before, after = (int8["scores"][form][key] for form in ("fp32", "int8"))
            lines.append(f"  {key} {arrow}: fp32 {before:.3f}, int8 {after:.3f}, change {after - before:+.3f}")
    return "\n".join(lines)
