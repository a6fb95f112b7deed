"""What a teacher must be, and what the families of the Hub share.

A teacher is any module with `tasks`, the `Task`s that it predicts, and a forward from images (B, 3, H, W), RGB in [0, 1],
to task name -> map (B, C, h, w) of any size, in the form of the student's own predictions: class logits or
log-probabilities, metres, unit vectors (x right, y up, z towards the camera).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import Categorical, Task
from kdam_hf.teachers.inputs import InputRule

OTHER_TOKENS = 8
"""At most so many tokens of a transformer are no patches: one or two of class, and its registers."""
FAMILIES: dict[str, type["ForeignTeacher"]] = {}
"""The family of every head that can teach, by the name of its class in transformers."""


class ForeignTeacher(nn.Module, ABC):
    """A model of the library with its own image processor; a subclass is a family, and says how its outputs are read.

    Args:
        model: of one of the `heads`, in evaluation mode.
        rule: what its image processor does to a photo.
    """

    heads: ClassVar[Sequence[str]]
    """Class names of the models of this family."""
    axes: tuple[str, ...] = ("right", "up", "camera")
    """Where the channels of its normals point to, see `normals.AXES`."""
    revision: str | None = None
    """Of its repository on the Hub; the main branch for None."""

    def __init__(self, model: nn.Module, rule: InputRule) -> None:
        super().__init__()
        self.model, self.rule = model, rule
        self.tasks = self.tasks_of(model.config)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        FAMILIES.update(dict.fromkeys(cls.heads, cls))

    @classmethod
    def tasks_of(cls, config: Any) -> tuple[Task, ...]:
        """The tasks that a model of this config predicts; here `semseg` over the classes of the config.

        Raises:
            KdamValueError: this model cannot teach; says why.
        """
        return classes_of(config)

    @abstractmethod
    def maps(self, output: Any) -> dict[str, Tensor]:
        """Task name -> map (B, C, h, w) from what the model returned."""

    def extra_inputs(self, batch: int) -> dict[str, Any]:
        """What the model is given beside images."""
        return {}

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Predictions for RGB images in [0, 1], (B, 3, H, W), at the size the model works at."""
        return self._read(self._run(pixel_values)[0])

    def with_features(self, pixel_values: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Predictions, and the last map (B, C, h, w) of the model's encoder; of a transformer its patch tokens.

        Raises:
            KdamValueError: the model hands out none.
        """
        output, size = self._run(pixel_values, output_hidden_states=True)
        last = (output.get("encoder_hidden_states") or output.get("hidden_states") or (None,))[-1]
        config = getattr(self.model.config, "backbone_config", None) or self.model.config
        patch = getattr(config, "patch_size", None)
        if isinstance(last, Tensor) and last.ndim == 3 and isinstance(patch, int):
            height, width = (side // patch for side in size)
            before = last.shape[1] - height * width  # tokens of class, registers and queries
            if 0 <= before <= OTHER_TOKENS + getattr(self.model.config, "num_queries", 0):
                last = last[:, before:].mT.unflatten(2, (height, width))
        if not isinstance(last, Tensor) or last.ndim != 4:
            raise KdamValueError(f"{type(self.model).__name__} hands out no map of an encoder; leave features out.")
        return self._read(output), last

    def _run(self, pixel_values: Tensor, **asked: Any) -> tuple[Any, torch.Size]:
        """What the model returns, and the size (h, w) of the images it was given."""
        inputs = self.rule(pixel_values.float()).to(next(self.model.parameters()).dtype)
        return self.model(pixel_values=inputs, **self.extra_inputs(len(inputs)), **asked), inputs.shape[-2:]

    def _read(self, output: Any) -> dict[str, Tensor]:
        return {name: values.float() for name, values in self.maps(output).items()}


def classes_of(config: Any) -> tuple[Task, ...]:
    """The `semseg` task over the classes of a config."""
    names = [str(config.id2label.get(k, f"class {k}")) for k in range(config.num_labels)]
    return (Categorical(classes=tuple(names)),)
