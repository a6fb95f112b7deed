"""Tasks of dense prediction: everything that is special about one of them stands in its own file.

`Categorical` (semseg), `HumanParts`, `Saliency`, `Depth`, `Normals` and `Edge` are the kinds; `NYUD_V2` and
`PASCAL_CONTEXT` the task sets of the field, in canonical order and with its published loss weights.
"""

from kdam_hf.tasks.base import Task
from kdam_hf.tasks.categorical import Categorical, HumanParts, Saliency
from kdam_hf.tasks.depth import Depth
from kdam_hf.tasks.edge import Edge
from kdam_hf.tasks.labels import IGNORE_INDEX, ClassMap, FloatMap, LabelKind, LabelStatistics, Mask, Metres, Vectors
from kdam_hf.tasks.named import (
    NYUD_V2,
    PASCAL_CONTEXT,
    TASK_NAMES,
    make_task,
    select_tasks,
    task_class,
    task_from_spec,
    with_boundaries,
    with_options,
)
from kdam_hf.tasks.normals import Normals
from kdam_hf.tasks.relative_depth import RelativeDepth, normalised_inverse_depth

__all__ = [
    "IGNORE_INDEX",
    "NYUD_V2",
    "PASCAL_CONTEXT",
    "TASK_NAMES",
    "Categorical",
    "ClassMap",
    "Depth",
    "Edge",
    "FloatMap",
    "HumanParts",
    "LabelKind",
    "LabelStatistics",
    "Mask",
    "Metres",
    "Normals",
    "RelativeDepth",
    "Saliency",
    "Task",
    "Vectors",
    "make_task",
    "normalised_inverse_depth",
    "select_tasks",
    "task_class",
    "task_from_spec",
    "with_boundaries",
    "with_options",
]
