"""Models with random weights, and a batch of rendered rooms with the labels of NYUD-v2."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device

from dataset_loaders import Collator, TrainTransform, TransformedDataset, open_dataset
from kdam_hf.modeling_kdam import KdamPreTrainedModel, KdamStudent, KdamTeacher
from kdam_hf.presets import make_config
from kdam_hf.tasks import NYUD_V2, Task

OPTIONS = {"teacher": "swin-base", "height": 448, "width": 576, "batch_size": 1}
QUICK = {"teacher": "tiny-swin", "height": 96, "width": 128, "rounds": 2}


def make_model(
    role: str, preset: str, args: Namespace, tasks: Sequence[Task] = NYUD_V2, **options: Any
) -> KdamPreTrainedModel:
    """A model with random weights, the same ones for the same seed; `options` are of its configuration."""
    torch.manual_seed(args.seed)
    config = make_config(role, preset, tasks, image_size=[args.height, args.width], **options)
    return (KdamTeacher if role == "teacher" else KdamStudent)(config).to(args.device)


def make_crops(args: Namespace) -> TransformedDataset:
    """As many rooms as the batch has, at their own size and without augmentation."""
    size = {"height": args.height, "width": args.width, "seed": args.seed}
    names = [task.name for task in NYUD_V2]
    rooms = open_dataset("synthetic_rooms", "train", tasks=names, num_images=args.batch_size, **size)
    config = make_config("student", "tiny-resnet", NYUD_V2)
    view = (args.height, args.width), config.image_mean, config.image_std
    unchanged = {"scale": (1.0, 1.0), "hflip": False, "photometric": False, "seed": args.seed}
    return TransformedDataset(rooms, TrainTransform(NYUD_V2, *view, **unchanged))


def make_batch(args: Namespace) -> dict[str, Any]:
    """The crops as the collator makes a batch of them, on the device."""
    crops = make_crops(args)
    return send_to_device(Collator(NYUD_V2)([crops[0, index] for index in range(len(crops))]), args.device)
