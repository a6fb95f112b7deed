"""The task sets of the field, and tasks by their name.

Class names and loss weights: NYUD-v2 (40 classes of Gupta et al. 2013) and PASCAL-Context as used by ASTMT, MTI-Net,
ATRC and InvPT.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields, replace
from functools import partial
from math import inf
from typing import Any

from kdam_hf.errors import KdamValueError, UnknownTaskError, did_you_mean
from kdam_hf.tasks.base import KINDS, NAMED, Task
from kdam_hf.tasks.categorical import Categorical, HumanParts, Saliency
from kdam_hf.tasks.depth import Depth
from kdam_hf.tasks.edge import BOUNDARIES, Edge
from kdam_hf.tasks.normals import Normals

# fmt: off
NYUD_CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "blinds",
    "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refridgerator",
    "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
TASK_NAMES = NAMED.keys()
# The protocol under which papers report boundaries on a dataset.
_BOUNDARIES = {"nyud_v2": "nyud", "pascal_context": "pascal"}


def task_class(name: str) -> type[Task]:
    """The class of the task called `name`; KdamValueError for an unknown one."""
    if name not in NAMED:
        raise KdamValueError(f"unknown task {name!r}; {did_you_mean(name, TASK_NAMES)}")
    return NAMED[name]


def make_task(name: str, class_names: Sequence[str] = (), dataset: str | None = None) -> Task:
    """The task called `name` with the field's default settings, or those that `dataset` has of its own.

    Args:
        class_names: names in the order of the ids, for a task with classes of its own.

    Raises:
        KdamValueError: unknown name, or names for a task without classes.
    """
    cls = task_class(name)
    if class_names and "class_names" not in cls.label_kind.file_options:
        raise KdamValueError(f"{name} has no classes to name; leave class_names out.")
    arguments: dict[str, Any] = {"classes": tuple(class_names)} if class_names else {}
    return with_boundaries([cls(**arguments)], _BOUNDARIES.get(dataset or ""))[0]


def with_boundaries(tasks: Sequence[Task], protocol: str | None) -> tuple[Task, ...]:
    """Tasks whose boundaries are scored under `protocol`, see `Edge`; unchanged for None. KdamValueError for an unknown one."""
    if protocol and protocol not in BOUNDARIES:
        raise KdamValueError(f"boundaries {protocol!r} is not known: choose one of {', '.join(BOUNDARIES)}.")
    return tuple(replace(task, boundaries=protocol) if protocol and isinstance(task, Edge) else task for task in tasks)


def task_from_spec(spec: Mapping[str, Any]) -> Task:
    """The task that an entry of a published `config.tasks` describes, for rendering and scoring its predictions.

    Raises:
        KdamValueError: a kind this version does not know.
    """
    if spec["kind"] not in KINDS:
        raise KdamValueError(
            f"task {spec['name']!r} is of kind {spec['kind']!r}; this version knows {', '.join(KINDS)}."
        )
    kind = KINDS[spec["kind"]]
    known = {field.name for field in fields(kind)}
    arguments = {key: value for key, value in spec["settings"].items() if key in known}
    if spec["class_names"]:
        arguments["classes"] = tuple(spec["class_names"])
    return kind(name=spec["name"], **arguments)


def select_tasks(tasks: Sequence[Task], names: Sequence[str] | None) -> tuple[Task, ...]:
    """The tasks called `names`, in the order of `tasks`; all of them for None.

    Raises:
        UnknownTaskError: a name that is not among the tasks.
    """
    if names is None:
        return tuple(tasks)
    available = [task.name for task in tasks]
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        hint = did_you_mean("".join(unknown[:1]), available)
        raise UnknownTaskError(f"unknown task {', '.join(unknown) or '(none given)'} of this dataset; {hint}")
    return tuple(task for task in tasks if task.name in names)


def with_options(tasks: Sequence[Task], options: Sequence[str]) -> tuple[Task, ...]:
    """Tasks with some settings changed.

    Args:
        tasks: to change.
        options: `TASK.NAME=VALUE`, where NAME is a field of the task that is a number or says how it is read, e.g.
            `edge.positive_weight=0.8`, `edge.boundaries=none` or `semseg.class_weights=balanced`.

    Raises:
        KdamValueError: a task that is not among `tasks`, no such setting, or no such value, such as no finite number >= 0.
    """
    known, changes = {task.name: task for task in tasks}, {task.name: dict[str, Any]() for task in tasks}
    for option in options:
        where, _, text = option.partition("=")
        name, _, setting = where.partition(".")
        if name not in known:
            raise KdamValueError(f"task option {option!r}: no task {name!r}; {did_you_mean(name, known)}")
        readers = {field.name: reader for field in fields(known[name]) if (reader := _reader(field)) is not None}
        if setting not in readers:
            raise KdamValueError(f"task option {option!r}: no such setting; {did_you_mean(setting, readers)}")
        try:
            changes[name][setting] = readers[setting](text)
        except ValueError as error:
            raise KdamValueError(f"task option {option!r}: {error}") from error
    try:
        return tuple(replace(task, **changes[name]) if changes[name] else task for name, task in known.items())
    except ValueError as error:
        raise KdamValueError(f"task option {', '.join(map(repr, options))}: {error}") from error


def _reader(field: Field[Any]) -> Callable[[str], Any] | None:
    """Text -> value of a setting; None for a field that no option sets."""
    kind = type(field.default)
    return field.metadata.get("read") or (partial(_number, kind) if kind in (int, float) else None)


def _number(kind: type, text: str) -> Any:
    value = kind(text)
    if not 0 <= value < inf:  # nan is not
        raise ValueError(f"{text!r} is no finite number >= 0.")
    return value


NYUD_V2: tuple[Task, ...] = (Categorical(classes=NYUD_CLASSES), Depth(), Normals(), Edge(boundaries="nyud"))
PASCAL_CONTEXT: tuple[Task, ...] = (Categorical(classes=VOC_CLASSES), HumanParts(), Saliency(), Normals(), Edge())
