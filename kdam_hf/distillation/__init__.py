"""Distillation: how a student learns from one frozen multi-task teacher.

1. Each task turns its prediction into a distribution per pixel (its own rule, in `kdam_hf.tasks`).
2. `cauchy_schwarz` compares two distributions in log space; it is the paper's replacement of KL.
3. `matching` says what is compared: all tasks of one pixel (inter-task), one class over all pixels (intra-task).
4. `baselines` holds the published opponents on the same inputs: kl, dist, cwd.
5. `kernels` computes the CS match fast, and supervised losses and match at full resolution without full-resolution maps.
6. `criterion` checks the predictions, picks the method and weights its terms. Called, it computes them by itself, CS in plain
   torch; a trainer has the `match` of CS computed by the kernels.

A new divergence is one function and one line in `criterion._TERMS`. No function here asks which task it sees.
"""

from kdam_hf.distillation.baselines import cwd, dist, kl
from kdam_hf.distillation.cauchy_schwarz import cauchy_schwarz_divergence
from kdam_hf.distillation.criterion import METHODS, DistillationCriterion
from kdam_hf.distillation.matching import INTER_MODES, inter_task, intra_task

__all__ = [
    "INTER_MODES",
    "METHODS",
    "DistillationCriterion",
    "cauchy_schwarz_divergence",
    "cwd",
    "dist",
    "inter_task",
    "intra_task",
    "kl",
]
