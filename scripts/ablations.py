"""`kdam distill` with methods that differ from `cs` in one choice: what that choice is worth.

    python scripts/ablations.py --method gaussian --config rooms_student --teacher outputs/teacher --output_dir outputs/gaussian

`gaussian` and `huber` give depth other bins, `direct` compares depth and normals without a distribution, and
`equal_columns` does not weigh columns by what the teacher has in them.
"""

from math import log1p

import torch
from torch import Tensor
from torch.nn import functional as F

from kdam_hf.commands.distill import main
from kdam_hf.distillation import DIVERGENCES
from kdam_hf.distillation.matching import intra_task
from kdam_hf.distillation.methods import Batch, CauchySchwarz
from kdam_hf.distillation.methods.base import aligned
from kdam_hf.tasks import Depth, Normals, Task
from kdam_hf.tasks.base import at_least_float32
from kdam_hf.training import run_command


class Huber(CauchySchwarz):
    """Depth as bins that are Gaussian within the width of one, Laplacian beyond."""

    name = "huber"

    @staticmethod
    def penalty(distance: Tensor) -> Tensor:
        """Minus the logit of a bin at this distance, in widths."""
        return F.huber_loss(distance, torch.zeros_like(distance), reduction="none")

    def rows(self, task: Task, prediction: Tensor, kept: Tensor) -> Tensor:
        if not isinstance(task, Depth):
            return super().rows(task, prediction, kept)
        u = at_least_float32(prediction).clamp_min(0).log1p().flatten()[kept]
        first, last = log1p(task.min), log1p(task.max)
        centres = torch.linspace(first, last, max(2, 1 + round((last - first) / task.softness)), device=u.device)
        return (-self.penalty((u[:, None] - centres) / task.softness) / self.temperature).log_softmax(1)


class Gaussian(Huber):
    """Depth as Gaussian bins; their divergence falls with 1 / T, so T makes up for it."""

    name = "gaussian"

    @staticmethod
    def penalty(distance: Tensor) -> Tensor:
        return distance.square() / 2

    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        found = super().compare(task, student, teacher, batch, kept)
        if isinstance(task, Depth):
            temperatures = {"inter_task": self.inter_temperature, "intra_task": self.temperature}
            found = {name: x / self.scale(1.0, temperatures[name]) for name, x in found.items()}
        return found


class Direct(CauchySchwarz):
    """Pixel by pixel: |difference of log(1 + metres)| over the width of a bin, and kappa (1 - cos) of normals."""

    name = "direct"

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        every, tasks = self.tasks, [task for task in self.tasks if isinstance(task, (Depth, Normals))]
        self.tasks = tuple(task for task in every if task not in tasks)
        found = super().terms(batch) if self.tasks else {}
        self.tasks = every
        teacher, kept = aligned(tasks, batch)
        for task in tasks:
            x, y = (at_least_float32(maps[task.name]) for maps in (batch.student, teacher))
            if isinstance(task, Normals):
                distance = task.kappa * (1 - F.cosine_similarity(x, y))
            else:
                distance = (x.clamp_min(0).log1p() - y.clamp_min(0).log1p()).abs() / task.softness
            mean = distance.flatten()[kept[task.name]].sum() / batch.pixels
            found[f"kd_direct_{task.name}"] = self.beta * task.kd_weight * mean
        return found


class EqualColumns(CauchySchwarz):
    """A column in which the teacher has nothing counts like any other."""

    name = "equal_columns"

    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        found = super().compare(task, student, teacher, batch, kept)
        if not self.intra:
            return found
        columns = intra_task(student, teacher, DIVERGENCES[self.divergence], torch.ones_like, batch.processes)
        return found | {"intra_task": columns}


if __name__ == "__main__":
    run_command(main)
