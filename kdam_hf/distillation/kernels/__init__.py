"""The dense objective at full resolution: supervised losses and the CS match, straight from stride-4 predictions.

`dense_loss` is the one function, `match_loss` its half for maps as they are; their backends give the same value and
gradient. `reference` builds full-resolution maps and lets autograd work (any dtype, any device: the oracle). `banded`
holds a few rows at a time and writes the gradient down in closed form; `compiled` and `triton` are the same with the match
in kernels of numba and Triton.
"""

from kdam_hf.distillation.kernels.dispatch import BACKENDS, dense_loss, match_loss
from kdam_hf.distillation.kernels.objective import DenseLoss, DenseTask, Match

__all__ = ["BACKENDS", "DenseLoss", "DenseTask", "Match", "dense_loss", "match_loss"]
