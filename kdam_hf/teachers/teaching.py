"""Who teaches what: the student's tasks from its labels and its teachers, and how classes are brought together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdam_hf.errors import KdamValueError, did_you_mean
from kdam_hf.tasks import TASK_NAMES, Categorical, Depth, RelativeDepth, Task
from kdam_hf.teachers.class_map import ClassMap, equal_names, from_names, read_class_map
from kdam_hf.teachers.find import TeacherSource, find_teachers


@dataclass(frozen=True)
class Teaching:
    """Teachers that were found, and what a student learns from them.

    Args:
        sources: the teachers; no two have a task in common.
        tasks: of the student, in canonical order; `kd_weight` is 0 for those that are learnt from labels only.
        class_maps: by task, where the classes of teacher and student differ.
        notes: what a user should know, in sentences.
    """

    sources: Sequence[TeacherSource]
    tasks: tuple[Task, ...]
    class_maps: Mapping[str, ClassMap] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def taught(self) -> dict[str, Task]:
        """The teachers' tasks that the student has, as the teachers have them."""
        wanted = {task.name for task in self.tasks}
        return {task.name: task for source in self.sources for task in source.tasks if task.name in wanted}

    def facts(self) -> dict[str, Any]:
        """For results.json: names, weights, revisions, licences, class maps."""
        named = {name: found.to_dict(self.taught[name].class_names) for name, found in self.class_maps.items()}
        return {
            "teacher": [source.name for source in self.sources],
            "teacher_sha256": [source.sha256 for source in self.sources],
            "teachers": [{"tasks": [task.name for task in s.tasks], **s.facts} for s in self.sources],
            "class_map": named,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What predictions depend on beyond the set of weights: who teaches each task, by the SHA-256 of its weights; class
        maps by indices; axes of normals, where they are stated."""
        taught = {task.name: source for source in self.sources for task in source.tasks if task.name in self.taught}
        axes = (source.facts["normal_axes"] for source in taught.values() if "normal_axes" in source.facts)
        return {
            "taught_by": {name: source.sha256 for name, source in taught.items()},
            "class_map": {
                name: {c: list(members) for c, members in found.sources.items()}
                for name, found in self.class_maps.items()
            },
            "normal_axes": next(axes, None),
        }


def plan_teaching(
    teachers: Sequence[str],
    labelled: Sequence[Task],
    wanted: Sequence[str] | None = None,
    class_map: str | None = None,
    normal_axes: str | None = None,
) -> Teaching:
    """Find the teachers and bring them together with the labels.

    Args:
        teachers, normal_axes: as of `find_teacher`.
        labelled: the tasks of the data set, none for photos.
        wanted: names of the student's tasks; all that are labelled or taught for None.
        class_map: a file as of `read_class_map`, for `semseg`.

    Raises:
        CheckpointError, KdamValueError: as `find_teachers` has them; a task that nobody teaches, or classes that do not fit.
    """
    sources = find_teachers(teachers, normal_axes)
    taught = {task.name: task for source in sources for task in source.tasks}
    own = {task.name: task for task in labelled}
    relative = [name for name, task in taught.items() if isinstance(task, RelativeDepth)]
    metric = [name for name, task in own.items() if isinstance(task, Depth)]
    if relative and metric and (wanted is None or {*relative, *metric} <= {*wanted}):
        raise KdamValueError(
            "the labels' depth is in metres, the teacher's is relative (inverse depth without scale and shift) and teaches no "
            "metres: choose --tasks without one of depth and relative_depth, or give a metric teacher."
        )
    unknown = [name for name in wanted or () if name not in own and name not in taught]
    if unknown:
        hint = did_you_mean(unknown[0], [name for name in TASK_NAMES if name in own or name in taught])
        raise KdamValueError(f"task {', '.join(unknown)} has neither labels nor a teacher; {hint}")
    names = [name for name in TASK_NAMES if (name in own or name in taught) and (wanted is None or name in wanted)]
    if sources and not any(name in taught for name in names):
        raise KdamValueError(f"the teachers predict {', '.join(taught)}; the student has {', '.join(names)} alone.")
    mapped = [name for name, task in taught.items() if class_map is not None and type(task) is Categorical]
    if class_map is not None and not mapped:
        raise KdamValueError(f"class_map {class_map} is for semantic classes, which no teacher predicts; leave it out.")
    tasks, maps, notes = [], {}, []
    for name in names:
        task = own.get(name) or taught[name]
        if name in taught:
            theirs, ours = taught[name].class_names, own[name].class_names if name in own else None
            if name in mapped:
                where = f"class_map {Path(class_map or '').name}"
                maps[name] = from_names(read_class_map(class_map or ""), theirs, ours, where)
            elif isinstance(taught[name], Categorical) and ours is not None and ours != theirs:
                maps[name] = equal_names(theirs, ours)
            if name in maps:
                task, said = _with_classes(task, maps[name], theirs, name in own)
                notes += said
            if own and name not in own:
                notes.append(f"{name}: learnt from the teacher only; the data set has no labels of it")
        elif sources:
            task = replace(task, kd_weight=0.0)
            notes.append(f"{name}: learnt from labels only; no teacher predicts it")
        tasks.append(task)
    return Teaching(sources, tuple(tasks), maps, tuple(notes))


def _with_classes(task: Task, found: ClassMap, theirs: Sequence[str], has_labels: bool) -> tuple[Task, list[str]]:
    """The student's task with its classes, of which some may be learnt from labels only; and what to say of it."""
    alone = [label for label, members in found.sources.items() if not members]
    if alone and not has_labels:
        raise KdamValueError(f"{task.name}: no teacher class and no label for {', '.join(alone)}; map or remove them.")
    if len(found.sources) - len(alone) < 2:
        known = ", ".join(label for label, members in found.sources.items() if members)
        raise KdamValueError(
            f"{task.name}: the teacher knows only {known} of the classes, and a match needs two; map more by --class_map, such "
            "as `other: rest`, or take other tasks of that teacher alone, as in --teacher depth=NAME."
        )
    notes = [f"{task.name}: {', '.join(alone)} learnt from labels only; no teacher class"] if alone else []
    if found.unclaimed:
        some = ", ".join(theirs[k] for k in found.unclaimed[:8])
        notes.append(f"{task.name}: {len(found.unclaimed)} classes of the teacher are ignored, such as {some}")
    partly = found.taught if alone else ()
    return replace(task, classes=tuple(found.sources), taught=partly), notes  # type: ignore[call-arg]
