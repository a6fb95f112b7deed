"""Tiny teachers, online and stored, that the tests of the replayed teacher share."""

from kdam_hf.modeling_kdam import KdamOutput
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import DistillationArguments, FrozenTeacher, fill_cache, load_model

VIEWS = 2


def settings(kit, teachers, **kwargs):
    # one crop at a time: the last bit of a prediction depends on the size of the batch
    defaults = {"teacher_views": VIEWS, "teacher_precision": "fp32", "teacher_batch_size": 1}
    folders = [teachers] if isinstance(teachers, str) else teachers
    return DistillationArguments(**{"teacher": folders, "teacher_cache": str(kit.root / "cache"), **defaults, **kwargs})


def fill(kit, teachers, data=None, tasks=None, verify=False, args=None, **kwargs):
    data, tasks, args = data or kit.train_data(), tasks or kit.tasks, args or kit.args()
    chosen = settings(kit, teachers, **kwargs)
    teaching = plan_teaching(chosen.teacher, tasks, [task.name for task in tasks])
    return fill_cache(chosen, teaching, data, kit.model(tasks=tasks).config, args, verify)


class Rounded(FrozenTeacher):
    """A teacher whose predictions are as exact as a cache of fp16 stores them."""

    def forward(self, *inputs, **kwargs):
        output = super().forward(*inputs, **kwargs)
        return KdamOutput(predictions={name: value.half().float() for name, value in output.predictions.items()})


def online_teacher(kit, teacher, dtype="fp32"):
    kind = {"fp32": FrozenTeacher, "fp16": Rounded}[dtype]
    teaching = plan_teaching([teacher], kit.tasks)
    return kind([load_model(teacher)], kit.model().config, batch_size=1, teaching=teaching)
