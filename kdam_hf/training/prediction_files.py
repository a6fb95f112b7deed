"""Predictions on disk: one folder per task, one file per image, in the layout of your own labels.

Whoever wrote them, they are scored as a model's own are; a map that a task stores comes back as it was, within the
precision of its file.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dataset_loaders import DenseDataset, check_id, check_sample, read_array
from dataset_loaders.files import list_folder
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import make_folder
from kdam_hf.readout_kdam import as_map
from kdam_hf.tasks import Task
from kdam_hf.training.scoring import ImageMaps

SUFFIXES = (".png", ".npy")


def save_maps(
    maps: Iterable[ImageMaps], folder: str | Path, tasks: Sequence[Task], ids: Sequence[str]
) -> Iterator[ImageMaps]:
    """Write every prediction of `tasks` to `folder`/TASK/ID and pass it on; `ids` are those of the images, by index.

    Raises:
        KdamValueError: the folder holds something: labels, or predictions of another model that would be mixed up.
        DataIntegrityError: an id that could leave the folder.
    """
    for sample_id in ids:
        check_id(sample_id)
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise KdamValueError(f"{root}: exists and is not an empty folder; choose another one for predictions.")
    for task in tasks:
        make_folder(root / task.name)
    return (_save(one, root, tasks, ids[one.index]) for one in maps)


def _save(maps: ImageMaps, root: Path, tasks: Sequence[Task], name: str) -> ImageMaps:
    for task in tasks:
        stored = task.reader.to_file(as_map(maps.predictions[task.name]))
        path = root / task.name / (name + task.reader.suffix)
        np.save(path, stored) if path.suffix == ".npy" else Image.fromarray(stored).save(path)
    return maps


class StoredPredictions(Dataset[ImageMaps]):
    """Predictions beside the labels of a split: in `folder` one folder per task, and in it a `.png` or `.npy` per image id.

    Raises:
        DataIntegrityError: a folder or file is missing, or an id has two files; names it.
    """

    def __init__(self, folder: str | Path, dataset: DenseDataset, tasks: Sequence[Task]) -> None:
        self._dataset, self._tasks, self._ids = dataset, tuple(tasks), tuple(dataset.ids)
        holds = f"a {' or '.join(SUFFIXES)} per image; leave the task out with --tasks"
        self._folders = {task.name: list_folder(Path(folder) / task.name, SUFFIXES, holds) for task in tasks}
        for found in self._folders.values():
            missing = [sample_id for sample_id in self._ids if sample_id not in found.files]
            if missing:
                raise DataIntegrityError(
                    f"{found.path}: no prediction for {len(missing)} of {len(self._ids)} images of {dataset.name} "
                    f"{dataset.split}; expected e.g. {found.path / missing[0]}{' or '.join(SUFFIXES)}. Add them, or score "
                    "only some images with --ids."
                )

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> ImageMaps:
        """Predictions and labels of one image.

        Raises:
            DataIntegrityError: a file is unreadable, of another type, or of another size than the image; names it.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends a loop
        sample = check_sample(self._dataset[index], self._tasks)
        height, width = sample["image"].shape[:2]
        predictions, labels, sources = {}, {}, {}
        for task in self._tasks:
            path = self._folders[task.name][self._ids[index]]
            array = read_array(path)
            try:
                prediction = task.reader.from_file(array)
            except ValueError as error:
                raise DataIntegrityError(f"{path}: {task.name}: {error}") from error
            if prediction.shape[-2:] != (height, width):
                found = "x".join(map(str, prediction.shape[-2:]))
                raise DataIntegrityError(
                    f"{path}: {found} pixels, the image {height}x{width}; expected one size (height x width). Resize the "
                    "prediction before it is rounded, never the label."
                )
            label = sample["labels"].get(task.name)
            predictions[task.name], sources[task.name] = prediction, str(path)
            labels[task.name] = task.label.to_tensor(task.label.unlabelled(height, width) if label is None else label)
        return ImageMaps(index, predictions, labels, sources)
