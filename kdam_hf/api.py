"""The commands as functions: keyword arguments are the keys of the command, checked as they are on the command line.

`predict` has arguments of its own, and `--num_processes` is of the command line. Errors are those of the command.

student = distill(images="photos/", teacher=["DEPTH_MODEL", "SEGMENTATION_MODEL"], output_dir="outputs/student")
maps = predict(student, "photo.jpg")
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdam_hf.errors import KdamValueError
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.pipeline_kdam import MultiTaskDensePredictionPipeline

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from PIL import Image

    Photos = str | Path | int | Image.Image | Sequence[str | Path | int | Image.Image]


@dataclass(frozen=True)
class Trained:
    """What a training left in a folder; as the value of a key, such as `teacher` or `model`, it stands for that folder.

    Args:
        folder: with model, image processor, recipe.json and results.json.
        metrics: the flat scores on the evaluation split, or of the agreement with the teacher.
    """

    folder: Path
    metrics: Mapping[str, float]

    def __fspath__(self) -> str:
        return str(self.folder)

    __str__ = __fspath__

    @cached_property
    def model(self) -> KdamPreTrainedModel:
        """In float32 on the CPU, ready to predict."""
        from kdam_hf.pretrained import load_model

        return load_model(str(self.folder))

    @cached_property
    def processor(self) -> KdamImageProcessor:
        """Prepares photos, and reads the model's predictions."""
        return KdamImageProcessor.from_pretrained(self.folder)

    def save(self, folder: str | Path) -> None:
        """Copy everything but checkpoints, runs/ and hidden files to a folder."""
        kept = shutil.ignore_patterns("checkpoint-*", "runs", ".*")
        shutil.copytree(self.folder, folder, ignore=kept, dirs_exist_ok=True)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish as `kdam publish` does, with its options.

        Returns:
            Address of the commit.

        Raises:
            HubError: it could not be published.
        """
        from kdam_hf.commands import publish

        return publish.main({"model": self.folder, "repo_id": repo_id, **options})


def _run(name: str, data: "DatasetDict | Dataset | str | Path | None", keys: dict[str, Any]) -> Any:
    """A command with these keys, and with data in memory in place of a folder."""
    from dataset_loaders.rows import in_memory

    command = import_module(f"kdam_hf.commands.{name}")
    if data is None:
        return command.main(keys)
    if {"data_dir", "images"} & keys.keys():
        raise KdamValueError("data is given, and data_dir or images too; leave those out.")
    if isinstance(data, (str, Path)):
        name = "folder" if (Path(data) / "dataset.json").is_file() else "hub"
        return command.main({"dataset": name, "data_dir": data, **keys})
    with in_memory(data) as held:
        return command.main({"dataset": "hub", "data_dir": held, **keys})


def train(data: "DatasetDict | Dataset | str | Path | None" = None, **keys: Any) -> Trained:
    """Train on data with labels: `kdam train`.

    Args:
        data: a `datasets.DatasetDict`, or a `Dataset`, whose split is called train and can be shared out (`train_split`,
            `eval_split`), with columns as of `--dataset hub`; a folder of own data or of Parquet; or a hub id.
        keys: of the command, such as `config`, `data_dir`, `columns`, `output_dir`, `max_steps`.
    """
    return _run("train", data, keys)


def distill(data: "DatasetDict | Dataset | str | Path | None" = None, **keys: Any) -> Trained:
    """Distil teachers into a student: `kdam distill`.

    Args:
        data: with labels, as of `train`.
        keys: of the command, such as `images` or `data_dir`, `teacher`, `output_dir`, `max_steps`.
    """
    return _run("distill", data, keys)


def evaluate(data: "DatasetDict | Dataset | str | Path | None" = None, **keys: Any) -> Mapping[str, float]:
    """Score a model, or maps on disk: `kdam evaluate`.

    Args:
        data: as of `train`; `split` is `val` by default.
        keys: of the command, such as `model`, `dataset`, `data_dir`, `output`.

    Returns:
        The flat scores. They are written to `output` too, results.json in the working directory by default, and as .md beside
        it; what is there is replaced.
    """
    return _run("evaluate", data, keys)


def predict(
    model: "Trained | KdamPreTrainedModel | str | Path",
    images: "Photos",
    batch_size: int = 1,
    max_frames: int | None = None,
) -> Any:
    """Maps of photos, at their own size.

    Args:
        model: what a training returned, a model, or a folder or hub id of one.
        images: a PIL image, a uint8 array, a path, a URL, a folder of photos, a pattern, a video, the number of a camera, or a
            list of them.
        batch_size: photos per forward pass, as far as they have one size.
        max_frames: of each video or camera; all by default.

    Returns:
        For one photo, task name -> values: class ids int64 (H, W), probabilities float32 (H, W), metres float32 (H, W), or
        unit vectors float32 (H, W, 3), x right, y up, z towards the camera; other numbers float32 (H, W) or (H, W, C). For
        all else one dict per photo or frame.

    Raises:
        CheckpointError: no usable model there.
        ValueError: no readable photo.
    """
    from kdam_hf.commands import predict as command
    from kdam_hf.pretrained import load_model
    from kdam_hf.video import is_video

    several = list(images) if isinstance(images, (list, tuple)) else [images]
    places = list(command.find_photos(several))
    model = model.model if isinstance(model, Trained) else model
    loaded = model if isinstance(model, KdamPreTrainedModel) else load_model(str(model))
    photos, pipeline = command.open_photos(places, max_frames), MultiTaskDensePredictionPipeline.of_model(loaded)
    found = command.predict(pipeline, photos, batch_size)
    maps = [{task: result["values"] for task, result in each.items()} for _, _, each in found]
    one = not isinstance(images, (list, tuple)) and places[0][1] is images and not is_video(images)
    return maps[0] if one else maps
