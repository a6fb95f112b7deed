"""How the page speaks of a task: title, explanation, legend, and how a value is read under the pointer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdam_hf.colours_kdam import RGB
from kdam_hf.tasks import task_from_spec

TITLES = {
    "semseg": ("Semantic segmentation", "what each pixel shows"),
    "human_parts": ("Human parts", "which part of a person"),
    "saliency": ("Saliency", "what catches the eye"),
    "depth": ("Depth", "distance along the optical axis"),
    "normals": ("Surface normals", "which way each surface faces"),
    "edge": ("Boundaries", "where one object ends"),
}


@dataclass(frozen=True)
class Reading:
    """A map of numbers that the browser reads under the pointer.

    Args:
        scale: numbers are sent as round(scale * value), 16 bits.
        factor: what the number is multiplied with for showing, after the scale is undone.
        digits: after the point.
        unit: written behind the number.
        names: of the numbers, if they are class ids.
        vector: three components are read from the colours of the picture itself.
    """

    scale: float = 1
    factor: float = 1
    digits: int = 0
    unit: str = ""
    names: Sequence[str] = ()
    vector: bool = False


@dataclass(frozen=True)
class Wording:
    """What the page says of a task.

    Args:
        name: key in the results of the pipeline.
        title: heading.
        explanation: half a line.
        legend: (text, colour); of classes, of stops of a colour scale, or of directions.
        reading: how a value is shown.
    """

    name: str
    title: str
    explanation: str
    legend: Sequence[tuple[str, RGB]]
    reading: Reading


def wording(spec: Mapping[str, Any]) -> Wording:
    """What the page says of the task that a model's config describes."""
    task = task_from_spec(spec)
    readings = {
        "argmax": Reading(names=task.class_names),
        "foreground": Reading(scale=1000, factor=100, unit="%"),
        "sigmoid": Reading(scale=1000, factor=100, unit="%"),
        "none": Reading(scale=100, digits=2, unit=task.unit),
        "unit": Reading(vector=True),
    }
    title, explanation = TITLES.get(task.name, (task.name.replace("_", " ").capitalize(), ""))
    return Wording(task.name, title, explanation, task.legend(), readings[task.readout])
