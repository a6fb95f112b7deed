"""Tiny rooms, models and arguments that the training tests share; importable by the processes they start."""

import os
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainerCallback

from dataset_loaders import DenseDataset, EvalTransform, TrainTransform, TransformedDataset, open_dataset
from kdam_hf import KdamStudent, KdamTeacher
from kdam_hf.distillation import make_method
from kdam_hf.presets import make_config
from kdam_hf.training import DistillationTrainer, FrozenTeacher, KdamTrainingArguments

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
# a few steps of a tiny model and tiny rooms, as words of a command
SMALL = shlex.split("--preset tiny-resnet --crop_height 32 --crop_width 48 --max_steps 3 --use_cpu --cpu_threads 1")
SMALL += shlex.split("--per_device_train_batch_size 2 --logging_steps 1 --disable_tqdm true")
ROOMS = shlex.split("--rooms_train 8 --rooms_val 3 --rooms_height 40 --rooms_width 56")
DROPOUTS = ("drop_path_rate", "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout")
METHOD_SETTINGS = ("temperature", "beta", "matched", "divergence", "inter", "intra")


class Kit:
    """Tiny rooms, tiny models and arguments, for a few optimizer steps."""

    def __init__(self, root):
        self.root = root
        self.rooms = open_dataset("synthetic_rooms", "train", num_images=8, height=40, width=56)
        self.tasks = self.rooms.tasks

    def train_data(self, rooms=None, tasks=None, crop=(32, 48), **kwargs):
        rooms = rooms or self.rooms
        return TransformedDataset(rooms, TrainTransform(tasks or rooms.tasks, crop, MEAN, STD, **kwargs))

    def eval_data(self, rooms=None):
        rooms = rooms or open_dataset("synthetic_rooms", "val", num_images=5, height=40, width=56)
        return TransformedDataset(rooms, EvalTransform(rooms.tasks, MEAN, STD))

    def model(self, role="student", preset="tiny-resnet", seed=0, tasks=None, dropout=None, **overrides):
        """Drawn from `seed`; with `dropout` also stochastic depth, in backbones that have any."""
        config = make_config(role, preset, tasks or self.tasks, **({"image_mean": MEAN, "image_std": STD} | overrides))
        for name in DROPOUTS if dropout else ():
            if hasattr(config.backbone_config, name):
                setattr(config.backbone_config, name, dropout)
        torch.manual_seed(seed)
        return {"teacher": KdamTeacher, "student": KdamStudent}[role](config)

    def saved(self, name, role="student", **kwargs):
        """The folder of a saved model."""
        self.model(role, **kwargs).save_pretrained(self.root / name)
        return str(self.root / name)

    def args(self, name="run", **kwargs):
        steps = {
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "learning_rate": 0.01,
        }
        quiet = {"logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True}
        machine = {"use_cpu": True, "precision": "fp32", "cpu_threads": 1}
        return KdamTrainingArguments(**({"output_dir": str(self.root / name)} | steps | quiet | machine | kwargs))

    def frozen(self, seed=1, **kwargs):
        """A teacher that is not saved."""
        return FrozenTeacher([self.model("teacher", seed=seed)], self.model().config, **kwargs)

    def distiller(self, method="cs", name="run", model=None, teacher=None, tasks=None, data=None, **args):
        """A trainer of a tiny student; what is for it or for its method is told from arguments of the training by its name."""
        tasks = self.tasks if tasks is None else tasks
        settings = {key: args.pop(key) for key in METHOD_SETTINGS if key in args}
        held_out, views, weigh = (args.pop(key, None) for key in ("held_out", "views", "weigh"))
        if teacher is None and method != "none" and data is None:
            teacher = self.frozen()
        return DistillationTrainer(
            model or self.model(tasks=tasks),
            self.args(name, **args),
            tasks,
            data or self.train_data(),
            held_out or self.eval_data(),
            teacher=teacher,
            method=make_method(method, settings.pop("matched", tasks), **settings),
            views=views,
            weighting=weigh,
        )


class Made(DenseDataset):
    """A split whose samples are made by a function each when they are read; other members as given."""

    name, split, tasks, ids = "made", "val", (), ()

    def __init__(self, *makers, **members):
        self.makers, self.ids = makers, tuple(map(str, range(len(makers))))
        vars(self).update(members)

    def __getitem__(self, index):
        return self.makers[index]()


class StopAt(TrainerCallback):
    """Ends a training after this step, as an interruption would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


class Canary:
    """Whoever unpickles it makes this folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_photos(folder, *names, taller=0):
    """Noise of 40 x 56 pixels, every photo by so many rows taller than the one before."""
    folder.mkdir()
    for k, name in enumerate(names):
        pixels = np.random.default_rng(k).integers(0, 255, (40 + taller * k, 56, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def without_batch_statistics(model):
    """Statistics of a part of a batch are another model."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train = lambda mode=True, m=module: torch.nn.Module.train(m, False)
    return model


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path)


@pytest.fixture
def teacher(kit):
    """The folder of a saved teacher."""
    return kit.saved("teacher", "teacher", seed=1)
