"""What the page shows of one photo: every model's predictions, its size and its time."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kdam_hf.demo.wording import Wording, wording
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.photos_kdam import open_photo
from kdam_hf.pipeline_kdam import MultiTaskDensePredictionPipeline
from kdam_hf.training import load_model
from kdam_hf.training.teacher import check_tasks_agree

LARGEST = 768
ROUNDS, SECONDS = 9, 3.0


@dataclass(frozen=True)
class Exhibit:
    """One model's view of a photo.

    Args:
        role: Student or Teacher.
        name: folder name or hub id.
        parameters: how many.
        milliseconds: median time of one forward pass.
        results: what the pipeline returned for the photo, with pictures.
    """

    role: str
    name: str
    parameters: int
    milliseconds: float
    results: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Visit:
    """A photo and what each model makes of it.

    Args:
        photo: upright RGB, no side over 768 pixels.
        tasks: of the student, then those only the teacher has.
        exhibits: student first.
        speedup: median over interleaved rounds of teacher time / student time; None without a teacher.
    """

    photo: Image.Image
    tasks: Sequence[Wording]
    exhibits: Sequence[Exhibit]
    speedup: float | None


class Exhibition:
    """Student and perhaps teacher, ready to look at photos.

    Args:
        student: folder or hub id of a model, a teacher as well as a student.
        teacher: another one to compare it with.

    Raises:
        CheckpointError: no complete model there.
        KdamValueError: a task that both have is of another kind, number of channels or classes.
    """

    def __init__(self, student: str, teacher: str | None = None) -> None:
        places = {"Student": student, "Teacher": teacher} if teacher else {"Model": student}
        self.names = {role: Path(place).name if Path(place).is_dir() else place for role, place in places.items()}
        self.pipes = {role: _pipe(load_model(place)) for role, place in places.items()}
        _check_shared_tasks(*(pipe.model.config.tasks for pipe in self.pipes.values()))
        specs = {spec["name"]: spec for pipe in reversed(self.pipes.values()) for spec in pipe.model.config.tasks}
        order = [spec["name"] for pipe in self.pipes.values() for spec in pipe.model.config.tasks]
        self.tasks = [wording(specs[name]) for name in dict.fromkeys(order)]

    def visit(self, photo: str | Path | Image.Image) -> Visit:
        """Predict all tasks of a photo with every model, then time one forward pass of each.

        Raises:
            ValueError: no readable photo, or one too large; see `open_photo`.
        """
        image = open_photo(photo)
        image.thumbnail((LARGEST, LARGEST))
        results = {role: pipe(image) for role, pipe in self.pipes.items()}
        inputs = [pipe.image_processor(image)["pixel_values"].to(pipe.device) for pipe in self.pipes.values()]
        seconds = interleaved_seconds([pipe.model for pipe in self.pipes.values()], inputs)
        exhibits = [
            Exhibit(
                role=role,
                name=self.names[role],
                parameters=pipe.model.num_parameters(),
                milliseconds=1000 * statistics.median(times),
                results=results[role],
            )
            for (role, pipe), times in zip(self.pipes.items(), zip(*seconds, strict=True), strict=True)
        ]
        speedup = statistics.median(teacher / student for student, teacher in seconds) if len(exhibits) == 2 else None
        return Visit(image, self.tasks, exhibits, speedup)


def _check_shared_tasks(student: Sequence[dict[str, Any]], teacher: Sequence[dict[str, Any]] = ()) -> None:
    """One legend and one list of names is shown for both, so what they share must mean the same."""
    names = {spec["name"] for spec in teacher}
    check_tasks_agree(teacher, [spec for spec in student if spec["name"] in names], "the teacher", "the student")


def _pipe(model: KdamPreTrainedModel) -> MultiTaskDensePredictionPipeline:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = KdamImageProcessor.from_model_config(model.config)
    return MultiTaskDensePredictionPipeline(model, image_processor=processor, device=device, return_pictures=True)


@torch.inference_mode()
def interleaved_seconds(models: Sequence[KdamPreTrainedModel], inputs: Sequence[Tensor]) -> list[list[float]]:
    """Seconds of one forward pass of each model, in rounds of all of them: other load then hits them alike.

    At least three rounds, and no more after three seconds. The models have run on inputs of these sizes before.
    """
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) < 3 or (len(rounds) < ROUNDS and time.perf_counter() - begin < SECONDS):
        rounds.append([_seconds(model, pixels) for model, pixels in zip(models, inputs, strict=True)])
    return rounds


def _seconds(model: KdamPreTrainedModel, pixels: Tensor) -> float:
    if pixels.is_cuda:
        torch.cuda.synchronize(pixels.device)
    start = time.perf_counter()
    model(pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize(pixels.device)
    return time.perf_counter() - start
