"""The frozen teacher: one multi-task model, or several of different families, seen as one.

It lives outside the student's model, so it is neither saved nor optimised. The student's normalised images are converted
to each teacher's own normalisation. It is run in its own precision, whatever the student's is.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F

from kdam_hf.configuration_kdam import STRIDE, KdamConfig
from kdam_hf.errors import KdamValueError
from kdam_hf.io import tensors_sha256
from kdam_hf.modeling_kdam import KdamOutput, KdamPreTrainedModel
from kdam_hf.tasks import Normals, Task, task_from_spec
from kdam_hf.teachers.base import ForeignTeacher
from kdam_hf.teachers.find import TeacherSource
from kdam_hf.teachers.normals import check_axes
from kdam_hf.teachers.teaching import Teaching


class FrozenTeacher(nn.Module):
    """Teachers in evaluation mode, without gradient.

    Args:
        models: one multi-task model, or several whose tasks are disjoint: KDAM models, or modules as `kdam_hf.teachers` has
            them, which may state `image_mean` and `image_std` of their images.
        student: configuration of the student; at least one task of it must be taught.
        bf16: hold and run the models in bfloat16 and channels-last, which pays where the device multiplies bfloat16 in
            hardware (1.8 times faster for a Swin-B teacher with AVX512-BF16). Modules of the user stay as they are.
        batch_size: images per forward pass, to bound the memory; a whole batch at once for None.
        teaching: plan for this student, a source for each model in order: which tasks it teaches, whose weights these are,
            and class maps; for None each teaches all that it
            predicts, in the student's classes, and is known by its tensors.

    Raises:
        KdamValueError: no task is taught, one is taught twice, or is of another kind or number of channels; or another number
            of models than the plan has.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        student: KdamConfig,
        bf16: bool = False,
        batch_size: int | None = None,
        teaching: Teaching | None = None,
    ) -> None:
        super().__init__()
        if teaching is None:
            teaching = Teaching([_in_memory(model) for model in models], _tasks(student))
        if len(models) != len(teaching.sources):
            raise KdamValueError(
                f"{len(models)} models for a plan of {len(teaching.sources)} teachers; give one for each."
            )
        self.sha256 = sorted(source.sha256 for source in teaching.sources)
        self.models = nn.ModuleList(models)
        self.bf16, self.batch_size, self.class_maps = bf16, batch_size, teaching.class_maps
        for model in models:
            if bf16 and isinstance(model, (KdamPreTrainedModel, ForeignTeacher)):  # which convert their images
                model.to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.chosen = [{task.name for task in source.tasks} for source in teaching.sources]
        taught: dict[str, Task] = {}
        for task in (task for source in teaching.sources for task in source.tasks):
            if task.name in taught:
                raise KdamValueError(f"task {task.name} is taught by two teachers; give one per task, or one for all.")
            taught[task.name] = task
        wanted = [task for task in student.tasks or [] if task["name"] in taught]
        if not wanted:
            raise KdamValueError(
                f"the teacher predicts {', '.join(taught)}, the student {', '.join(student.task_names)}: none of them."
            )
        alike = [task for task in wanted if task["name"] not in self.class_maps]
        check_tasks_agree([task.spec() for task in taught.values()], alike, "the teacher", "the student")
        self.task_names = [task["name"] for task in wanted]
        self.identity = teaching.identity
        for k, model in enumerate(models):  # from the student's normalisation to the teacher's
            own: Any = model.config if isinstance(model, KdamPreTrainedModel) else model
            mean, std = getattr(own, "image_mean", (0.0, 0.0, 0.0)), getattr(own, "image_std", (1.0, 1.0, 1.0))
            s_mean, s_std, t_mean, t_std = (
                torch.tensor(values, dtype=torch.float64)[:, None, None]
                for values in (student.image_mean, student.image_std, mean, std)
            )
            self.register_buffer(f"scale_{k}", (s_std / t_std).float())
            self.register_buffer(f"shift_{k}", ((s_mean - t_mean) / t_std).float())
        self.requires_grad_(False).eval()

    @property
    def facts(self) -> dict[str, Any]:
        """Whose predictions these are and how exact; as `TeacherCache.facts`."""
        stored = {"teacher_sha256": self.sha256, "teacher_bf16": self.bf16, "teacher_stored_as": "fp32"}
        return stored | {"teaching": self.identity}

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor, features: bool = False) -> KdamOutput:
        """Predictions for the student's batch.

        Args:
            pixel_values: (B, 3, H, W), normalised for the student.
            pixel_mask: (B, H, W) bool, False on padding.
            features: return the maps of the backbone too.

        Returns:
            `predictions`, task name -> (B, C, H/4, W/4) float32, in the student's task order, with one more channel where a
            class map leaves classes out; `hidden_states` if asked for.

        Raises:
            KdamValueError: features of several teachers.
        """
        if features and len(self.models) > 1:
            raise KdamValueError(f"features of {len(self.models)} teachers; this method takes those of one.")
        size = self.batch_size or len(pixel_values)
        with torch.inference_mode(), torch.autocast(pixel_values.device.type, enabled=False):
            parts = [
                self._predict(*part, features)
                for part in zip(pixel_values.split(size), pixel_mask.split(size), strict=True)
            ]
        # copied outside: the student's graph cannot hold a tensor that was made in inference mode
        hidden = [part[1] for part in parts if part[1] is not None]
        return KdamOutput(
            predictions={name: torch.cat([part[0][name] for part in parts]) for name in self.task_names},
            hidden_states=tuple(torch.cat(maps).float() for maps in zip(*hidden, strict=True)) if hidden else None,
        )

    def _predict(self, pixel_values: Tensor, pixel_mask: Tensor, features: bool) -> tuple[dict[str, Tensor], Any]:
        predictions: dict[str, Tensor] = {}
        hidden = None
        for k, model in enumerate(self.models):
            own = pixel_values * getattr(self, f"scale_{k}") + getattr(self, f"shift_{k}")
            if isinstance(model, KdamPreTrainedModel):
                own = own * pixel_mask[:, None]
                if self.bf16:
                    own = own.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
                output = model(own, pixel_mask, output_hidden_states=features)
                found = output.predictions
                hidden = output.hidden_states
            elif features and isinstance(model, ForeignTeacher):
                found, last = model.with_features(own)
                hidden = (last,)
            else:
                found = model(own)
            predictions |= {name: x for name, x in found.items() if name in self.task_names and name in self.chosen[k]}
        grid = [-(-side // STRIDE) for side in pixel_values.shape[-2:]]
        predictions |= {name: class_map(predictions[name]) for name, class_map in self.class_maps.items()}
        for name in self.task_names:
            x = predictions[name] = predictions[name].float()
            if list(x.shape[-2:]) != grid:
                predictions[name] = F.interpolate(x, grid, mode="bilinear", antialias=x.shape[-1] > grid[1])
        return predictions, hidden


def load_teacher(
    teaching: Teaching, student: KdamConfig, bf16: bool = False, batch_size: int | None = None
) -> FrozenTeacher:
    """The teachers of a plan for a student; `bf16` and `batch_size` as for `FrozenTeacher`.

    Raises:
        CheckpointError: weights or an image processor that are not there or not whole.
        KdamValueError: the teachers' tasks or classes do not fit the student's.
    """
    models = [source.load() for source in teaching.sources]
    for model in filter(_has_axes, models):
        with torch.inference_mode():
            PartialState().print(check_axes(lambda images, teacher=model: teacher(images)["normals"]))  # type: ignore[misc]
    return FrozenTeacher(models, student, bf16, batch_size, teaching)


def coarsest_channels(model: Any) -> int:
    """Channels of the coarsest map that a model hands out; 0 for a module that is no model of the library."""
    if isinstance(model, ForeignTeacher):
        with torch.inference_mode():
            return model.with_features(torch.zeros(1, 3, 64, 64))[1].shape[1]
    return int(model.encoder.channels[-1]) if isinstance(model, KdamPreTrainedModel) else 0


def _has_axes(model: Any) -> TypeGuard[ForeignTeacher]:
    """Whether normals of a foreign teacher are among what it predicts."""
    return isinstance(model, ForeignTeacher) and any(isinstance(task, Normals) for task in model.tasks)


def _in_memory(model: Any) -> TeacherSource:
    """A module that teaches all that it predicts."""
    tasks = _tasks(model.config) if isinstance(model, KdamPreTrainedModel) else tuple(model.tasks)
    facts = {"normal_axes": list(model.axes)} if _has_axes(model) else {}
    return TeacherSource(type(model).__name__, tasks, lambda: model, tensors_sha256(model), facts)


def _tasks(config: KdamConfig) -> tuple[Task, ...]:
    return tuple(task_from_spec(spec) for spec in config.tasks or [])


def check_tasks_agree(
    known: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], provider: str, consumer: str
) -> None:
    """Refuse task entries of `consumer` that `provider` does not know, or knows with another kind, channels or classes.

    Raises:
        KdamValueError: names both, and the task.
    """
    by_name = {task["name"]: task for task in known}
    for task in wanted:
        name = task["name"]
        if name not in by_name:
            raise KdamValueError(
                f"{consumer} has the task {name} but {provider} only knows {', '.join(by_name)}; "
                "choose --tasks among those, or train a model with this task."
            )
        for key in ("kind", "channels", "class_names"):
            if by_name[name][key] != task[key]:
                raise KdamValueError(
                    f"{name}: {provider} has {key} {by_name[name][key]}, {consumer} {task[key]}; "
                    "they must be the same; train both on the same classes in the same order."
                )
