"""Per-pixel KL(teacher || student), mean over valid pixels and tasks (Hinton, Vinyals, Dean, 2015, arXiv:1503.02531)."""

from torch import Tensor

from kdam_hf.distillation.divergences import kullback_leibler
from kdam_hf.distillation.matching import inter_task
from kdam_hf.distillation.methods.base import LogitMethod, Maps, log_softmax
from kdam_hf.distributed import Processes


class KullbackLeibler(LogitMethod):
    """Knowledge distillation as it was introduced, at every pixel; arguments of `LogitMethod`."""

    name = "kl"

    def compare(
        self, student: Maps, teacher: Maps, image: Tensor, pixels: Tensor | float, processes: Processes
    ) -> dict[str, Tensor]:
        return {"kl": inter_task(log_softmax(student), log_softmax(teacher), kullback_leibler, "per_task", pixels)}
