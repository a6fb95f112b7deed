"""The frozen teacher: one multi-task model, or one single-task model per task, seen as one.

It lives outside the student's model, so it is neither saved nor optimised. The student's normalised images are converted
to each teacher's own normalisation. It is run in its own precision, whatever the student's is.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import KdamValueError
from kdam_hf.io import tensors_sha256
from kdam_hf.modeling_kdam import KdamOutput
from kdam_hf.training.arguments import DistillationArguments
from kdam_hf.training.pretrained import load_model, weights_sha256

Family = TypeVar("Family", bound=Callable[[str], nn.Module])
FAMILIES: dict[str, Callable[[str], nn.Module]] = {}
"""Loaders of models that are not our own, by the `model_type` of their config."""


class FrozenTeacher(nn.Module):
    """Teachers in evaluation mode, without gradient.

    Args:
        models: one multi-task model, or several whose tasks are disjoint.
        student: configuration of the student; every task of it must be taught, with the same kind and channels.
        bf16: hold and run the models in bfloat16 and channels-last, which pays where the device multiplies bfloat16 in
            hardware (1.8 times faster for a Swin-B teacher with AVX512-BF16).
        batch_size: images per forward pass, to bound the memory; a whole batch at once for None.
        sha256: of each model's file of weights; of its tensors where it was not loaded from a file.

    Raises:
        KdamValueError: a task is missing, taught twice, or of another kind or number of channels.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        student: KdamConfig,
        bf16: bool = False,
        batch_size: int | None = None,
        sha256: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.sha256 = sorted(sha256 or map(tensors_sha256, models))
        self.models = nn.ModuleList(models)
        self.bf16, self.batch_size = bf16, batch_size
        if bf16:
            self.models.to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.task_names = student.task_names
        _check(models, student)
        for k, model in enumerate(models):
            config: Any = model.config
            scale, shift = _renormalisation(student, config)
            self.register_buffer(f"scale_{k}", scale)
            self.register_buffer(f"shift_{k}", shift)
        self.requires_grad_(False).eval()

    @property
    def facts(self) -> dict[str, Any]:
        """Whose predictions these are and how exact; as `TeacherCache.facts`."""
        return {"teacher_sha256": self.sha256, "teacher_bf16": self.bf16, "teacher_stored_as": "fp32"}

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
            `predictions`, task name -> (B, C, h, w) float32, in the student's task order; `hidden_states` if asked for.

        Raises:
            KdamValueError: features of several teachers.
        """
        if features and len(self.models) > 1:
            raise KdamValueError(
                f"features of {len(self.models)} teachers; this method takes those of one multi-task teacher."
            )
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
            own = own * pixel_mask[:, None]
            if self.bf16:
                own = own.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
            output = model(own, pixel_mask, output_hidden_states=features)
            predictions |= output.predictions
            hidden = output.hidden_states
        return predictions, hidden


def teacher_family(model_type: str) -> Callable[[Family], Family]:
    """Make a family of models usable as teachers, by the `model_type` of their config.

    What is decorated takes a folder or hub id and returns a module with a `config` that has `tasks` (see `Task.spec`),
    `image_mean` and `image_std`, and a forward as of `KdamTeacher`.
    """

    def add(family: Family) -> Family:
        FAMILIES[model_type] = family
        return family

    return add


def load_teacher_model(name: str) -> nn.Module:
    """A model of any known family, of a folder or hub id.

    Raises:
        CheckpointError: not there, not whole, or of a family that is not known; as `load_model` has it.
    """
    with suppress(OSError, ValueError):  # `load_model` says what is wrong
        family = FAMILIES.get(PreTrainedConfig.get_config_dict(name)[0].get("model_type", ""))
        if family is not None:
            return family(name)
    return load_model(name)


def load_teacher(distillation: DistillationArguments, student: KdamConfig, bf16: bool) -> FrozenTeacher:
    """The teacher that the arguments name.

    Args:
        distillation: its folders or hub ids, and its batch size.
        student: configuration of the student.
        bf16: as for `FrozenTeacher`.

    Raises:
        CheckpointError: a model that is not there or not whole; as `load_model` has it.
        KdamValueError: the teachers' tasks or classes do not fit the student's.
    """
    names = distillation.teacher or ()
    models, sha256 = [load_teacher_model(name) for name in names], [weights_sha256(name) for name in names]
    return FrozenTeacher(models, student, bf16, distillation.teacher_batch_size, sha256)


def _renormalisation(student: KdamConfig, teacher: KdamConfig) -> tuple[Tensor, Tensor]:
    """Scale and shift (3, 1, 1) from the student's to the teacher's normalisation."""
    s_mean, s_std, t_mean, t_std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None]
        for v in (student.image_mean, student.image_std, teacher.image_mean, teacher.image_std)
    )
    return (s_std / t_std).float(), ((s_mean - t_mean) / t_std).float()


def _check(models: Sequence[nn.Module], student: KdamConfig) -> None:
    taught: dict[str, dict[str, Any]] = {}
    for model in models:
        config: Any = model.config
        for task in config.tasks or []:
            if task["name"] in taught:
                raise KdamValueError(
                    f"task {task['name']} is taught by two teachers; give one teacher per task, or one for all."
                )
            taught[task["name"]] = task
    check_tasks_agree(list(taught.values()), student.tasks or [], "the teacher", "the student")


def check_tasks_agree(
    known: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], provider: str, consumer: str
) -> None:
    """Refuse tasks that mean different things on both sides.

    Args:
        known: task entries of the model that predicts.
        wanted: task entries of what it is held against.
        provider: whose tasks are known, for the message.
        consumer: whose tasks are wanted, for the message.

    Raises:
        KdamValueError: a wanted task is not known, or of another kind, number of channels or classes.
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
