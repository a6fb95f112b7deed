"""What an outsider adds is one file: it is written here, imported, trained two steps, saved, loaded, scored and exported."""

import importlib.util
import json
import sys

import families_kit
import numpy as np
import pytest
import torch
from conftest_kit import StopAt
from PIL import Image

from dataset_loaders import DATASETS, open_dataset, prepare
from kdam_hf.distillation import DIVERGENCES, METHODS
from kdam_hf.errors import KdamValueError
from kdam_hf.tasks import make_task, task_from_spec
from kdam_hf.tasks.base import KINDS, NAMED
from kdam_hf.teachers import FAMILIES
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import FrozenTeacher, MultiTaskTrainer, evaluate_model, load_model, load_teacher


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a file, and import it as its author would; what it registered goes with the test."""
    registers = [(register, dict(register)) for register in (KINDS, NAMED, DATASETS, DIVERGENCES, METHODS)]

    def write(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    yield write
    for register, before in registers:
        for name in register.keys() - before.keys():
            del register[name]


FLOW = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from kdam_hf.metrics.base import Metric, ratio
from kdam_hf.tasks import FloatMap, Task


class EndPointError(Metric):
    def __init__(self):
        self.state = {"count": torch.zeros((), dtype=torch.int64), "error": torch.zeros((), dtype=torch.float64)}

    def update(self, prediction, label):
        valid = label.isfinite().all(-3)
        error = (prediction - label).square().sum(-3).sqrt()[valid]
        self.add_state({"count": valid.sum(), "error": error.double().sum()})

    def compute(self):
        return {"epe": ratio(self.state["error"], self.state["count"])}


@dataclass(frozen=True)
class Flow(Task):
    """Optical flow in pixels, x right and y down."""

    name: str = "flow"
    kind: ClassVar[str] = "flow"
    primary_metric: ClassVar[str] = "epe"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "px"
    channels = 2
    readout = "none"

    @property
    def label(self):
        return FloatMap(self.name, channels=2, mirrored=(0,), scaling=1)

    def loss_share(self, prediction, label, mask, weights):
        valid = self.valid_pixels(label, mask)[:, None]
        return (torch.where(valid, prediction - label, 0).abs() * weights).sum()

    def distribution_logits(self, prediction):
        centres = torch.linspace(-16, 16, 9, device=prediction.device)
        return -(prediction[..., None] - centres).abs().flatten(-2)

    def metric(self):
        return EndPointError()
'''


def test_a_new_task_with_a_float_label_costs_one_file(kit, written, tmp_path):
    """[fault] A label (3.5, -12.0) was stored as (1, -1), since storage was guessed from its type and shape."""
    written("flow", FLOW)
    root = tmp_path / "data"
    for folder in ("images", "flow"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 56, 3), np.uint8)).save(root / "images" / f"{k}.png")
        flow = np.full((40, 56, 2), (3.5, -12.0), np.float32)
        flow[:4] = np.nan
        np.save(root / "flow" / f"{k}.npy", flow)
    (root / "dataset.json").write_text(json.dumps({"name": "mine", "tasks": {"flow": {}}}))
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "val.txt").write_text("3\n")
    train, held_out = (open_dataset("folder", split, data_dir=root) for split in ("train", "val"))
    prepared = prepare(train, tmp_path / "prepared")
    label = prepared[0]["labels"]["flow"]
    assert label[10, 10].tolist() == [3.5, -12.0]
    assert np.isnan(label[0, 0]).all()
    tasks = prepared.tasks
    crops = kit.train_data(prepared, scale=(2.0, 2.0))
    seen = torch.stack([crops[epoch, 0]["labels"]["flow"] for epoch in range(8)]).movedim(1, -1)
    assert {tuple(pair) for pair in seen[seen.isfinite().all(-1)].tolist()} == {(7.0, -24.0), (-7.0, -24.0)}
    model = kit.model(tasks=tasks)
    teacher = FrozenTeacher([kit.model("teacher", tasks=tasks, seed=1)], model.config)
    held_out = kit.eval_data(held_out)
    trainer = kit.distiller(model=model, teacher=teacher, tasks=tasks, data=crops, held_out=held_out, max_steps=2)
    trainer.train()
    trainer.save_model()
    saved = load_model(str(kit.root / "run"))
    assert task_from_spec(saved.config.tasks[0]) == tasks[0]
    score = evaluate_model(saved, trainer.get_eval_dataloader(), tasks, "cpu", trainer.processes)
    assert np.isfinite(score["flow/epe"])
    assert tasks[0].reader.colours(np.full((4, 5, 2), (3.5, -12.0), np.float32)).shape == (4, 5, 3)


def test_a_new_task_is_exported_and_predicted_with(kit, written, tmp_path):
    pytest.importorskip("onnxruntime")
    from transformers import pipeline

    from kdam_hf import KdamImageProcessor
    from kdam_hf.export import save_onnx

    written("flow", FLOW)
    model = kit.model(tasks=(make_task("flow"),)).eval()
    model.save_pretrained(tmp_path / "model")
    processor = KdamImageProcessor.from_model_config(model.config)
    processor.save_pretrained(tmp_path / "model")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))
    found = pipeline("multi-task-dense-prediction", model=str(tmp_path / "model"))(photo, return_pictures=True)
    assert found["flow"]["values"].shape == (40, 56, 2)
    save_onnx(model, (40, 56), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()


def test_a_new_divergence_costs_one_function(kit, written):
    written(
        "hellinger",
        "from kdam_hf.distillation import divergence\n\n\n"
        "@divergence\n"
        "def hellinger(log_p, log_q, dim, processes):\n"
        "    return 1 - processes.sum((0.5 * (log_p + log_q)).exp().sum(dim))\n",
    )
    trainer = kit.distiller(max_steps=2, divergence="hellinger", inter="per_task", intra=False)
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["kd_inter_task_semseg"] > 0
    assert trainer.describe()["distillation.divergence"] == "hellinger"
    trainer.save_model()
    assert load_model(str(kit.root / "run")).config.task_names == [task.name for task in kit.tasks]


def test_a_new_data_set_costs_one_file(kit, written):
    written(
        "stripes",
        "import numpy as np\n\n"
        "from dataset_loaders import DenseDataset, register\n"
        "from kdam_hf.tasks import make_task, select_tasks\n\n\n"
        "@register('stripes')\n"
        "class Stripes(DenseDataset):\n"
        "    name = 'stripes'\n\n"
        "    def __init__(self, split, tasks=None, width: int = 8):\n"
        "        self.split, self.width = split, width\n"
        "        self.tasks = select_tasks([make_task('semseg', ['dark', 'light'])], tasks)\n\n"
        "    @property\n"
        "    def ids(self):\n"
        "        return [f'{self.split}-{k}' for k in range(4)]\n\n"
        "    def __getitem__(self, index):\n"
        "        label = np.broadcast_to(np.arange(56) // self.width % 2, (40, 56)).astype(np.uint8)\n"
        "        image = np.repeat(label[..., None] * np.uint8(200), 3, 2)\n"
        "        return {'id': self.ids[index], 'image': image, 'labels': {'semseg': label}}\n",
    )
    train, held_out = (open_dataset("stripes", split, width=4) for split in ("train", "val"))
    assert train.options["width"] == 4
    prepared = prepare(train, kit.root / "prepared")
    tasks, crops = train.tasks, kit.train_data(prepared)
    model = kit.model(tasks=tasks)
    trainer = MultiTaskTrainer(model, kit.args(max_steps=2), tasks, crops, kit.eval_data(held_out))
    trainer.train()
    trainer.save_model()
    saved = load_model(str(kit.root / "run"))
    score = evaluate_model(saved, trainer.get_eval_dataloader(), tasks, "cpu", trainer.processes)
    assert np.isfinite(score["semseg/miou"])


FAMILY = '''
from kdam_hf.teachers.base import ForeignTeacher, classes_of


class SegformerTeacher(ForeignTeacher):
    """Semantic segmentation at stride 4."""

    heads = ("SegformerForSemanticSegmentation",)

    @classmethod
    def tasks_of(cls, config):
        return classes_of(config)

    def maps(self, output):
        return {"semseg": output.logits}
'''


def taught_steps(kit, given, tasks):
    """Log of two steps of a student with these labelled tasks under the teacher called `given`."""
    teaching = plan_teaching([given], tasks)
    model = kit.model(tasks=teaching.tasks)
    crops, teacher = kit.train_data(tasks=teaching.tasks), load_teacher(teaching, model.config)
    trainer = kit.distiller(model=model, teacher=teacher, tasks=teaching.tasks, data=crops, max_steps=2)
    trainer.train()
    return trainer.state.log_history[0]


def test_a_new_teacher_family_costs_one_file(kit, written, monkeypatch):
    monkeypatch.delitem(FAMILIES, "SegformerForSemanticSegmentation")
    folder = str(families_kit.save("segformer", kit.root / "segformer"))
    with pytest.raises(KdamValueError, match="SegformerForSemanticSegmentation"):
        plan_teaching([folder], ())
    written("segformer_teacher", FAMILY)
    assert taught_steps(kit, folder, kit.tasks[:1])["kd_inter_task"] > 0


OWN = """
import torch

from kdam_hf.tasks import Depth


class Brightness(torch.nn.Module):
    tasks = (Depth(),)

    def forward(self, pixel_values):
        return {"depth": 1 + pixel_values.mean(1, keepdim=True)}
"""


def test_any_module_with_tasks_and_a_forward_is_a_teacher(kit, written, tmp_path):
    written("own", OWN)
    depth = [task for task in kit.tasks if task.name == "depth"]
    assert taught_steps(kit, f"{tmp_path / 'own.py'}:Brightness", depth)["kd_inter_task"] > 0


HINT = '''
from torch import nn

from kdam_hf.distillation import Method


class Hint(Method):
    """Squared distance of the coarsest maps, after a projection of the student's."""

    name = "hint"
    needs_features = True

    def __init__(self, tasks, beta=1.0, student_channels=48, teacher_channels=48):
        super().__init__(tasks, beta)
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.projector = nn.Conv2d(student_channels, teacher_channels, 1)

    def terms(self, batch):
        mine, theirs = (maps[-1] for maps in batch.features)
        return {"kd_hint": self.beta * (self.projector(mine) - theirs).square().mean()}
'''


def test_a_method_with_parameters_of_its_own_is_trained_saved_and_resumed(kit, written):
    written("hint", HINT)

    def trained(name, steps, resume=None):
        trainer = kit.distiller("hint", name, max_steps=2, save_strategy="steps", save_steps=1)
        before = {key: value.clone() for key, value in trainer.objective.state_dict().items()}
        if steps == 1:
            trainer.add_callback(StopAt(1))
        trainer.train(resume_from_checkpoint=resume)
        return trainer, before

    whole, before = trained("whole", 2)
    assert whole.state.log_history[0]["kd_hint"] > 0
    assert not torch.equal(before["method.projector.weight"], whole.objective.method.projector.weight)
    trained("again", 1)
    again, _ = trained("again", 2, "last")
    for key, value in whole.objective.state_dict().items():
        assert torch.equal(value, again.objective.state_dict()[key]), key
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
    whole.save_model()
    assert not any("projector" in key for key in load_model(str(kit.root / "whole")).state_dict())


def test_a_weighting_sees_the_gradient_of_every_term(kit):
    """Each term is divided by the norm of its gradient for the shared map, as GradNorm and its kin need it."""
    seen = {}

    def equal_norms(terms):
        shared = trainer.model.decoder.norm.weight
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(term, shared, retain_graph=True)
            seen[name] = gradient.norm().item()
        return sum(term / max(seen[name], 1e-6) for name, term in terms.items())

    trainer = kit.distiller(weigh=equal_norms, max_steps=2)
    trainer.train()
    assert {"loss_depth", "kd_inter_task", "kd_intra_task_edge"} <= seen.keys()
    assert seen["kd_inter_task"] > 0
    assert np.isfinite(trainer.state.log_history[0]["loss"])
