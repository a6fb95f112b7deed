"""Models with random weights and crops of rendered rooms, as the sections about models share them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import torch
from torch import Tensor

from dataset_loaders import TrainTransform, TransformedDataset, open_dataset
from kdam_hf.modeling_kdam import KdamPreTrainedModel, KdamStudent, KdamTeacher
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2, Task

QUICK_MODELS = {"teacher": "tiny-swin", "height": 96, "width": 128, "rounds": 3}


def add_model_arguments(parser: ArgumentParser) -> None:
    """Options of sections about models."""
    parser.add_argument("--teacher", default="swin-base", help="preset of the teacher")
    parser.add_argument("--height", type=int, default=448)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--batch_size", type=int, default=1)


def make_model(role: str, preset: str, args: Namespace, tasks: Sequence[Task] = NYUD_V2) -> KdamPreTrainedModel:
    """A model with random weights, the same ones for the same seed."""
    torch.manual_seed(args.seed)
    config = make_config(role, preset, tasks, image_size=[args.height, args.width])
    return (KdamTeacher if role == "teacher" else KdamStudent)(config).to(args.device)


def make_crops(args: Namespace) -> TransformedDataset:
    """As many rooms as the batch has, with the labels of NYUD-v2's tasks, at their own size."""
    size = args.height, args.width
    names = [task.name for task in NYUD_V2]
    rooms = open_dataset(
        "synthetic_rooms",
        "train",
        tasks=names,
        num_images=args.batch_size,
        height=size[0],
        width=size[1],
        seed=args.seed,
    )
    config = make_config("student", "tiny-resnet", NYUD_V2)
    whole = TrainTransform(
        NYUD_V2,
        size,
        config.image_mean,
        config.image_std,
        scale=(1.0, 1.0),
        hflip=False,
        photometric=False,
        seed=args.seed,
    )
    return TransformedDataset(rooms, whole)


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest over tasks of ||found - expected|| / ||expected||."""
    return max(
        float((found[name] - x).detach().double().norm() / x.detach().double().norm().clamp_min(1e-30))
        for name, x in expected.items()
    )
