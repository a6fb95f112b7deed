"""See what a teacher says of a photo, before anything is trained.

    kdam teacher depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf photo.jpg

Prints its tasks, classes, units, axes, the size it works at, its licence and the milliseconds it takes, and writes a contact
sheet. Normals are put to the test on synthetic rooms, whose walls and floors have known directions.
"""

import sys
import time
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import torch

from dataset_loaders.reading import PHOTO_SUFFIXES
from kdam_hf import KdamStudentConfig
from kdam_hf.commands.predict import find_photos
from kdam_hf.errors import KdamValueError
from kdam_hf.io import make_folder
from kdam_hf.photos_kdam import open_photo
from kdam_hf.readout_kdam import Numbers, as_map
from kdam_hf.tasks import Task
from kdam_hf.teachers.base import ForeignTeacher
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import FrozenTeacher, load_teacher, parse_recipe
from kdam_hf.training.arguments import option, required
from kdam_hf.visualization import contact_sheet, legend_picture, shrunk

SHOWN = 12


@dataclass
class TeachArguments:
    """Which teacher, and what it looks at."""

    teacher: str = required("folder, hub id or FILE.py:NAME, as of kdam distill; or the first word")
    images: list[str] = required("photos, folders or patterns, of which the first 12 are shown; or the words after it")
    class_map: str | None = option(None, "YAML file for semseg, as of kdam distill")
    normal_axes: str | None = option(None, "where the channels of normals point, e.g. right,down,front")
    output: str = option("outputs/teacher.png", "the contact sheet")


def main(argv: list[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if names := list(takewhile(lambda text: not text.startswith("-"), arguments)):
        arguments[: len(names)] = ["--teacher", names[0], *(["--images", *names[1:]] if names[1:] else [])]
    args, _ = parse_recipe((TeachArguments,), arguments, __doc__)
    output = Path(args.output)
    if output.suffix.lower() not in PHOTO_SUFFIXES:
        raise KdamValueError(f"output {output}; expected a picture, such as {output.with_suffix('.png')}.")
    try:
        photos = [(name, np.array(open_photo(place))) for name, place in islice(find_photos(args.images), SHOWN)]
    except ValueError as error:
        raise KdamValueError(str(error)) from error
    teaching = plan_teaching([args.teacher], (), class_map=args.class_map, normal_axes=args.normal_axes)
    (source,), tasks = teaching.sources, teaching.tasks
    as_it_is = KdamStudentConfig(tasks=[task.spec() for task in tasks], image_mean=[0.0] * 3, image_std=[1.0] * 3)
    teacher = load_teacher(teaching, as_it_is)
    print(source.name, *(f"  {key}: {value}" for key, value in source.facts.items()), sep="\n")
    print(*(f"  {in_words(task)}" for task in tasks), *(f"  {note}" for note in teaching.notes), sep="\n")
    rows = [row(name, photo, tasks, teacher) for name, photo in photos]
    legends = [legend_picture(task.reader.legend(), *rows[0][0].shape[:2]) for task in tasks]
    titles = ["photo", *(task.name for task in tasks)]
    sheet = contact_sheet([*rows, [None, *legends]], [*(name for name, _ in photos), "legend"], titles)
    make_folder(output.parent)
    where = f"{output}, in place of what was there" if output.exists() else output
    sheet.save(output)
    print(f"written to {where}")


def in_words(task: Task) -> str:
    """A task, the unit of its values, and its first classes."""
    if not task.class_names:
        return f"{task.name}: {task.reader.words}{f', {task.unit}' if task.reader.words == Numbers.words else ''}"
    more = " ..." if task.class_names[SHOWN:] else ""
    return f"{task.name}: {len(task.class_names)} classes: {', '.join(task.class_names[:SHOWN])}{more}"


def row(name: str, photo: np.ndarray, tasks: tuple[Task, ...], teacher: FrozenTeacher) -> list[np.ndarray]:
    """The photo and a picture of each task; prints sizes, the milliseconds, and the range of numbers."""
    pixels = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    begin = time.perf_counter()
    maps = teacher(pixels, torch.ones(1, *photo.shape[:2], dtype=torch.bool)).predictions
    milliseconds = 1000 * (time.perf_counter() - begin)
    model = teacher.models[0]
    size = model.rule.measured(photo.shape[:2])[0] if isinstance(model, ForeignTeacher) else photo.shape[:2]
    print(f"{name}: {photo.shape[0]}x{photo.shape[1]} pixels, seen at {size[0]}x{size[1]}; {milliseconds:.0f} ms")
    read = {task: as_map(task.reader.decode(maps[task.name], photo.shape[:2])[0]) for task in tasks}
    for task, values in read.items():
        if values.ndim == 2 and values.dtype.kind == "f":
            print(f"  {task.name}: {values.min():.4g} to {values.max():.4g} {task.unit}".rstrip())
    return [shrunk(picture) for picture in (photo, *(task.reader.colours(values) for task, values in read.items()))]
