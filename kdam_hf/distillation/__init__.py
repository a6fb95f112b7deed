"""Distillation: how a student learns from one frozen multi-task teacher.

1. Each task turns its prediction into a distribution per pixel (its own rule, in `kdam_hf.tasks`).
2. `divergences` compare two distributions; `cauchy_schwarz` is the paper's replacement of KL.
3. `matching` says what is compared: all tasks of one pixel (inter-task), one class over all pixels (intra-task).
4. `methods` turn predictions of student and teacher into named loss terms: cs (KDAM), and kl, dist, cwd.
5. `dense` computes supervised losses at full resolution without full-resolution maps.

A new divergence is one function with `@divergence`, a new method one subclass of `Method` with a `name`.
"""

from kdam_hf.distillation.divergences import DIVERGENCES, cauchy_schwarz, divergence
from kdam_hf.distillation.methods import METHODS, Batch, LogitMethod, Method, make_method

__all__ = ["DIVERGENCES", "METHODS", "Batch", "LogitMethod", "Method", "cauchy_schwarz", "divergence", "make_method"]
