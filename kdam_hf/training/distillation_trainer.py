"""The trainer of a student: a method's terms beside the supervised ones, with a teacher that runs or is replayed."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kdam_hf.distillation import Method
from kdam_hf.errors import KdamValueError
from kdam_hf.modeling_kdam import KdamOutput, KdamPreTrainedModel
from kdam_hf.tasks import Task
from kdam_hf.training.evaluation import PREFIX, is_unlabelled, taught_batches
from kdam_hf.training.teacher import FrozenTeacher
from kdam_hf.training.teacher_cache import CachedTeacherDataset
from kdam_hf.training.trainer import Batch, MultiTaskTrainer


class DistillationTrainer(MultiTaskTrainer):
    """Adds the terms of a method, which compares the student with a frozen teacher.

    Args:
        teacher: the frozen teacher; None for a `CachedTeacherDataset`, or to train the same student without one.
        method: how the student learns from it; None goes with no teacher.
        views: fixed crops per image, taken in turn; new ones in every epoch for None.
        examiner: makes the teacher that photos without labels are scored against, where it is not online.
        kwargs: of `MultiTaskTrainer`.

    Raises:
        KdamValueError: a method without a teacher, a teacher without a method, or two teachers; more views than are stored; a
            method of tasks that this trainer does not have.
    """

    def __init__(
        self,
        *args: Any,
        teacher: FrozenTeacher | None = None,
        method: Method | None = None,
        views: int | None = None,
        examiner: Callable[[], FrozenTeacher] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, method=method, **kwargs)  # type: ignore[misc]
        known: Any = None if teacher is None else teacher.task_names
        if isinstance(self.train_dataset, CachedTeacherDataset):
            _check_replay(self.train_dataset, teacher, views, method)
            known = self.train_dataset.cache.manifest["tasks"]
        if (known is None) != (method is None):
            raise KdamValueError(
                f"{'no' if known is None else 'a'} teacher with method {'none' if method is None else method.name}; "
                "give a teacher for a method, and none for method none."
            )
        untaught = [task.name for task in (() if method is None else method.tasks) if task.name not in (known or ())]
        if untaught:
            raise KdamValueError(
                f"the method matches {', '.join(untaught)}, which no teacher predicts, only {', '.join(known or ())}; give a "
                "teacher of it, or kd_weight 0."
            )
        self.views, self._examiner = views, examiner
        self.teacher = teacher.to(self.args.device) if teacher is not None else None

    def describe(self) -> dict[str, Any]:
        """With the method and who teaches, known by weights, not by name."""
        method = self.objective.method
        match = {} if method is None else method.settings()
        facts = super().describe() | {
            "distillation.method": "none" if method is None else method.name,
            "distillation.views": self.views,
        }
        if self.teacher is not None:
            match |= self.teacher.facts
        elif isinstance(self.train_dataset, CachedTeacherDataset):
            match |= self.train_dataset.cache.facts
        return facts | {f"distillation.{name}": value for name, value in match.items()}

    def score(
        self, model: KdamPreTrainedModel, batches: Iterable[dict[str, Any]], tasks: Sequence[Task] | None = None
    ) -> dict[str, float]:
        """`task/metric` against labels; of photos, and of tasks that nothing here labels, `agreement/task/metric` instead."""
        unlabelled = is_unlabelled(getattr(batches, "dataset", None))
        found = {} if unlabelled else super().score(model, batches, tasks)
        labelled = {key.split("/")[0] for key, value in found.items() if not math.isnan(value)}
        if self.teacher is None and self._examiner is None:
            if unlabelled:
                raise KdamValueError("photos without labels are scored against a teacher; there is none.")
            return found
        if labelled >= {task.name for task in self.tasks}:
            return found
        teacher = self.teacher or self._examiner().to(self.args.device)  # type: ignore[misc]
        taught = [task for task in self.tasks if task.name in teacher.task_names and task.name not in labelled]
        if not taught:
            return found
        agreed = super().score(model, taught_batches(batches, teacher, taught, self.args.device), taught)
        alone = {task.name for task in taught}
        found = {key: value for key, value in found.items() if key.split("/")[0] not in alone}
        return found | {f"{PREFIX}{name}": value for name, value in agreed.items()}

    def _teacher_outputs(self, inputs: Batch) -> KdamOutput | None:
        """Predictions (B, C, h, w) float32, replayed with the batch or made now."""
        method = self.objective.method
        if method is None or method.beta == 0:
            return None
        if "teacher" in inputs or self.teacher is None:
            return KdamOutput(predictions=inputs["teacher"])
        return self.teacher(inputs["pixel_values"], inputs["pixel_mask"], features=method.needs_features)


def _check_replay(
    dataset: CachedTeacherDataset, teacher: FrozenTeacher | None, views: int | None, method: Method | None
) -> None:
    stored = dataset.cache.views
    if method is not None and method.needs_features:
        raise KdamValueError(
            f"method {method.name} compares features, but {dataset.cache.folder} holds predictions; run the teacher online."
        )
    if teacher is not None:
        raise KdamValueError("a teacher and a dataset with the predictions of one; give one of them.")
    if views is None or views > stored:
        raise KdamValueError(
            f"views={views}, but {dataset.cache.folder} holds {stored} views of each image; give views of 1 to {stored}."
        )
