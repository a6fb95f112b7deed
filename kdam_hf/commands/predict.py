"""Run a model on photos.

    kdam predict --model outputs/demo/cs --images a.jpg b.png --output_dir outputs/predictions
    kdam predict --model org/kdam-student --images photos/

    --model            folder or hub id
    --images           photos, or folders of them
    --output_dir       folder to write to

Writes, per photo and task, a picture (PNG) and the raw array (.npy: class ids, metres, unit vectors, probabilities), and
one contact_sheet.png with a legend. Maps have the photo's own size.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dataset_loaders import read_image
from dataset_loaders.reading import PHOTO_SUFFIXES
from kdam_hf import KdamImageProcessor, MultiTaskDensePredictionPipeline
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.readout_kdam import readout_of
from kdam_hf.training import load_model, parse_recipe
from kdam_hf.visualization import contact_sheet, legend_picture, shrunk


@dataclass
class PredictionArguments:
    """Which model and photos, and where the maps go."""

    model: str = field(metadata={"help": "folder or hub id"})
    images: list[str] = field(metadata={"help": "photos, or folders of them"})
    output_dir: str = field(default="outputs/predictions", metadata={"help": "folder to write to"})


def main(argv: list[str] | None = None) -> None:
    args, _ = parse_recipe((PredictionArguments,), argv, __doc__)
    given = [Path(text) for text in args.images]
    paths = [path for one in given for path in (photos_in(one) if one.is_dir() else [one])]
    names = [path.stem for path in paths]
    if len(set(names)) != len(names):
        raise KdamValueError("two photos have the same file name, which names the outputs; predict them apart.")
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DataIntegrityError(f"{', '.join(missing)}: no such photo; give existing JPEG or PNG files.")
    pipe = photo_pipeline(load_model(args.model), return_pictures=True)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, path in zip(names, tqdm(paths, desc="Predicting", unit="photo"), strict=True):
        photo = read_image(path)
        rows.append([shrunk(photo)])
        for task_name, result in pipe(photo).items():
            np.save(output / f"{name}_{task_name}.npy", result["values"])
            result["picture"].save(output / f"{name}_{task_name}.png")
            rows[-1].append(shrunk(np.array(result["picture"])))
    legends = [legend_picture(readout_of(task).legend(), *rows[0][0].shape[:2]) for task in pipe.image_processor.tasks]
    sheet = contact_sheet([*rows, [None, *legends]], [*names, "legend"], ["photo", *pipe.model.config.task_names])
    sheet.save(output / "contact_sheet.png")
    print(f"{len(names)} photos, {len(legends)} tasks; written to {output}")


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder, by name."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if not found:
        raise DataIntegrityError(f"{folder}: no photo there; expected {', '.join(PHOTO_SUFFIXES)} files.")
    return found


def photo_pipeline(model: KdamPreTrainedModel, **settings: Any) -> MultiTaskDensePredictionPipeline:
    """The pipeline of a model, on the GPU if there is one."""
    processor = KdamImageProcessor.from_model_config(model.config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MultiTaskDensePredictionPipeline(model.eval(), image_processor=processor, device=device, **settings)
