"""Tiny teachers, online and stored, that the tests of the replayed teacher share."""

from kdam_hf.training import DistillationArguments, FrozenTeacher, fill_cache, load_model
from kdam_hf.training.teacher_cache import decode, encode

VIEWS = 2


def settings(kit, teachers, **kwargs):
    # one crop at a time: the last bit of a prediction depends on the size of the batch
    defaults = {"teacher_views": VIEWS, "teacher_precision": "fp32", "teacher_batch_size": 1}
    folders = [teachers] if isinstance(teachers, str) else teachers
    return DistillationArguments(**{"teacher": folders, "teacher_cache": str(kit.root / "cache"), **defaults, **kwargs})


def fill(kit, teachers, data=None, tasks=None, verify=False, args=None, **kwargs):
    data, tasks, args = data or kit.train_data(), tasks or kit.tasks, args or kit.args()
    return fill_cache(settings(kit, teachers, **kwargs), data, tasks, kit.model(tasks=tasks).config, args, verify)


def taught_online(kit, teacher, key):
    item = kit.train_data()[key]
    return {
        k: v[0] for k, v in online_teacher(kit, teacher)(item["pixel_values"][None], item["pixel_mask"][None]).items()
    }


class Rounded(FrozenTeacher):
    """A teacher whose predictions are as exact as a cache stores them."""

    def forward(self, *inputs):
        exact = super().forward(*inputs)
        return {name: decode(encode(exact[name], form), form) for name, form in self.forms.items()}


def online_teacher(kit, teacher, dtype="fp32"):
    rounded = Rounded([load_model(teacher)], kit.model().config, batch_size=1)
    logits = {"fp32": "fp32", "fp16": "fp16", "uint8": "log_probabilities"}[dtype]
    others = "fp16" if dtype == "uint8" else dtype
    rounded.forms = {task.name: logits if task.predicts_logits else others for task in kit.tasks}
    return rounded


def content(cache):
    return {path.name: path.read_bytes() for path in sorted(cache.folder.glob("view-*.bin"))}
