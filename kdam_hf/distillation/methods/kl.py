"""Per-pixel KL(teacher || student), mean over valid pixels (Hinton, Vinyals, Dean, 2015, arXiv:1503.02531)."""

from torch import Tensor

from kdam_hf.distillation.divergences import kullback_leibler
from kdam_hf.distillation.matching import inter_task
from kdam_hf.distillation.methods.base import Batch, LogitMethod
from kdam_hf.tasks import Task


class KullbackLeibler(LogitMethod):
    """Knowledge distillation as it was introduced, at every pixel; arguments of `LogitMethod`."""

    name = "kl"

    def compare(self, task: Task, student: Tensor, teacher: Tensor, batch: Batch, kept: Tensor) -> dict[str, Tensor]:
        return {"kl": inter_task(student.log_softmax(1), teacher.log_softmax(1), kullback_leibler, batch.pixels)}
