"""Random predictions, labels and masks that tests of the objective share; the same numbers in any dtype."""

import threading
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from kdam_hf.distributed import Processes
from kdam_hf.tasks import NYUD_V2, make_task

SEMSEG = replace(
    make_task("semseg", ["wall", "floor", "chair", "lamp", "person"]), class_weights=(1.0, 0.5, 2.0, 0.0, 3.0)
)
TASKS = (SEMSEG, make_task("human_parts"), make_task("saliency"), *NYUD_V2[1:])


def _correlation(p, q, axis):
    p, q = p - p.mean(axis, keepdims=True), q - q.mean(axis, keepdims=True)
    return (p * q).sum(axis) / (np.sqrt((p * p).sum(axis) * (q * q).sum(axis)) + 1e-8)


# the formulas of every divergence, of probabilities
REFERENCES = {
    "cauchy_schwarz": lambda p, q, axis=0: -np.log((p * q).sum(axis) ** 2 / ((p * p).sum(axis) * (q * q).sum(axis))),
    "kullback_leibler": lambda p, q, axis=0: (q * np.log(q / p)).sum(axis),
    "pearson_distance": lambda p, q, axis=0: 1 - _correlation(p, q, axis),
}


class Case:
    """Maps at stride 4 of student and teacher, labels at full resolution, and a mask with padding."""

    def __init__(self, tasks=TASKS, batch=3, size=(29, 38), spread=3.0, apart=1.0, seed=0, padded=True):
        generator = torch.Generator().manual_seed(seed)
        small = [-(-side // 4) for side in size]

        def normal(channels):
            return torch.randn(batch, channels, *small, generator=generator, dtype=torch.float64)

        self.tasks = tasks
        self.student = {task.name: spread * normal(task.channels) for task in tasks}
        self.teacher = {task.name: self.student[task.name] + apart * normal(task.channels) for task in tasks}
        for maps in (self.student, self.teacher):
            if "depth" in maps:
                maps["depth"] = maps["depth"].abs() + 0.5
        self.labels = {task.name: self._label(task, batch, size, generator) for task in tasks}
        self.mask = torch.ones(batch, *size, dtype=torch.bool)
        if padded:
            self.mask[0, 20:], self.mask[1, :, 17:], self.mask[-1, 3:, 5:] = False, False, False

    @staticmethod
    def _label(task, batch, size, generator):
        """Valid on most pixels."""
        blank = torch.stack([task.label.to_tensor(task.label.unlabelled(*size))] * batch)
        kept = torch.rand(batch, 1, *size, generator=generator) < 0.8
        random = torch.rand(blank.shape, generator=generator)
        if task.class_names:
            return torch.where(kept[:, 0], (random * task.channels).long(), blank)
        values = {"edge": random < 0.2, "depth": 1 + 5 * random, "normals": F.normalize(random - 0.5, dim=1)}
        return torch.where(kept, values[task.name].float(), blank)

    def run(self, objective, dtype=torch.float32, part=slice(None), **kwargs):
        """Terms, and the gradient of their sum per task, of some images of the batch."""
        student = {name: x[part].to(dtype).requires_grad_() for name, x in self.student.items()}
        teacher = {name: x[part].to(dtype) for name, x in self.teacher.items()}
        labels = {name: label[part] for name, label in self.labels.items()}
        terms = objective(student, labels, self.mask[part], teacher, **kwargs)
        objective.total(terms).backward()
        return {name: term.detach() for name, term in terms.items()}, {name: x.grad for name, x in student.items()}


class ThreadedProcesses(Processes):
    """Processes of which each is a thread; written without torch.distributed, as an independent reference."""

    def __init__(self, size):
        super().__init__(size)
        self.barrier, self.slots, self.rank = threading.Barrier(size, timeout=20), [None] * size, threading.local()

    def run(self, work):
        """`work(rank)` in every process; their results."""
        results = [None] * self.size

        def start(rank):
            self.rank.index = rank
            results[rank] = work(rank)

        threads = [threading.Thread(target=start, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        return results

    def gather(self, x):
        self.slots[self.rank.index] = x
        self.barrier.wait()
        gathered = torch.stack(self.slots)
        self.barrier.wait()
        return gathered

    def mean(self, x):
        return self.gather(x.detach()).mean(0)

    def max(self, x):
        return self.gather(x.detach()).amax(0)

    def sum(self, x):
        # the gradient of an all-reduced sum is the sum of the processes' (here equal) gradients
        return self.gather(x.detach()).sum(0) + self.size * (x - x.detach())
