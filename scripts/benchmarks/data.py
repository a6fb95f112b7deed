"""Data: samples per second and core from the training cache beside the usual chain, and beside a training step.

Unusual here: both sides start from the same files of one NYUD-v2 tree (images, segmentation, normals and edge as PNG,
depth as .npy). Without --data_dir they show rendered rooms: images of about the size of photographs, labels without
noise, which decode faster than measured ones.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks import usual_chain
from benchmarks.harness import Work, claim, interleave, one_thread, ratio, settings_of, spread, table
from dataset_loaders import (
    Collator,
    PreparedDataset,
    SubsetDataset,
    TrainTransform,
    TransformedDataset,
    open_dataset,
    prepare,
    resampling,
)
from kdam_hf.distillation.kernels import dense_loss
from kdam_hf.jit import HAS_NUMBA
from kdam_hf.modeling_kdam import KdamStudent
from kdam_hf.presets import make_config
from kdam_hf.tasks import Task

QUICK = {"num_images": 4, "rounds": 2, "step_rounds": 1, "preset": "tiny-resnet"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLDERS = ("images", "segmentation", "depth", "normals", "edge")
USUAL, DECODE = "usual chain", "usual chain, decoding alone"
OURS, PLAIN = "read + augment from the cache", "read + augment from the cache, without numba"


def add_arguments(parser: ArgumentParser) -> None:
    """Options of this section."""
    parser.add_argument(
        "--data_dir", help="NYUD-v2 in layout atrc (NYUDv2/ of ATRC, InvPT); rendered rooms when left out"
    )
    parser.add_argument("--num_images", type=int, default=24)
    parser.add_argument("--image_height", type=int, default=425, help="of rendered rooms")
    parser.add_argument("--image_width", type=int, default=560, help="of rendered rooms")
    parser.add_argument("--crop_height", type=int, default=448)
    parser.add_argument("--crop_width", type=int, default=576)
    parser.add_argument("--rounds", type=int, default=9, help="a round is one epoch over the images")
    parser.add_argument("--preset", default="resnet18", help="backbone of the student whose training step is timed")
    parser.add_argument("--batch_size", type=int, default=2, help="of the training step")
    parser.add_argument("--step_rounds", type=int, default=3, help="training steps that are timed")
    parser.add_argument("--seed", type=int, default=0)


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print; what is returned holds every number that is printed."""
    with one_thread(), TemporaryDirectory() as folder:
        tree = Path(args.data_dir) if args.data_dir else write_tree(Path(folder) / "NYUDv2", args)
        whole = open_dataset("nyud_v2", "train", data_dir=tree, layout="atrc")
        packed = prepare(SubsetDataset(whole, whole.ids[: args.num_images]), Path(folder) / "cache", progress=False)
        ids = [packed[index]["id"] for index in range(len(packed))]
        return {
            "settings": settings_of(args, "data_dir"),
            "source": "files of --data_dir" if args.data_dir else "rendered rooms",
            "opencv": usual_chain.cv2 is not None,
            "numba": HAS_NUMBA,
            "kib_per_sample": {name: kib_per_file(tree / name, ids) for name in FOLDERS},
            "chains": race(tree, ids, packed, args),
            "parts": parts(packed, args),
            "step": step(packed, args),
        }


# ---- files --------------------------------------------------------------------------------------------------------------


def write_tree(root: Path, args: Namespace) -> Path:
    """Rendered rooms as files in layout `atrc`; semseg ids 1..40, normals n = 2 v / 255 - 1, edges 0 and 255."""
    size = {"height": args.image_height, "width": args.image_width}
    rooms = open_dataset("synthetic_rooms", "train", num_images=args.num_images + 1, seed=args.seed, **size)
    for name in (*FOLDERS, "gt_sets"):
        (root / name).mkdir(parents=True)
    ids = [f"{index + 1:04}" for index in range(args.num_images + 1)]
    for index, sample_id in enumerate(ids):
        sample = rooms[index]
        labels = sample["labels"]
        bytes_of = {
            "images": sample["image"],
            "segmentation": labels["semseg"] + 1,
            "normals": np.rint((labels["normals"] + 1) * 127.5).astype(np.uint8),
            "edge": labels["edge"] * 255,
        }
        for name, array in bytes_of.items():
            Image.fromarray(array).save(root / name / f"{sample_id}.png")
        np.save(root / "depth" / f"{sample_id}.npy", labels["depth"])
    for split, listed in {"train": ids[:-1], "val": ids[-1:]}.items():
        (root / "gt_sets" / f"{split}.txt").write_text("\n".join(listed) + "\n")
    return root


def kib_per_file(folder: Path, ids: list[str]) -> float:
    """Mean size of the files of these ids."""
    return mean(path.stat().st_size / 1024 for sample_id in ids for path in folder.glob(f"{sample_id}.*"))


# ---- measurements -------------------------------------------------------------------------------------------------------


def race(tree: Path, ids: list[str], packed: PreparedDataset, args: Namespace) -> dict[str, Any]:
    """The same samples through both chains, an epoch of each a round."""
    size = args.crop_height, args.crop_width

    def usual(number: int) -> int:
        for index, sample_id in enumerate(ids):
            rng = np.random.default_rng([args.seed, number, index])
            usual_chain.augment(usual_chain.load(tree, sample_id), size, np.float32(MEAN), np.float32(STD), rng)
        return len(ids)

    def decode(number: int) -> int:
        for sample_id in ids:
            usual_chain.load(tree, sample_id)
        return len(ids)

    ours = epoch(packed, size, packed.tasks, args)

    def plain(number: int) -> int:
        with mock.patch.object(resampling, "HAS_NUMBA", False):
            return ours(number)

    fast = {OURS: ours} if HAS_NUMBA else {}
    timings = interleave({USUAL: usual, DECODE: decode, **fast, PLAIN: plain}, args.rounds)
    gains = {name: ratio(timings, USUAL, name) for name in (*fast, PLAIN)}
    rows = [[name, spread(t["cpu_ms"])["median"], 1e3 / spread(t["cpu_ms"])["median"]] for name, t in timings.items()]
    print(f"\n{len(ids)} samples, crop {size[0]}x{size[1]}, {args.rounds} rounds, one thread")
    print(table(["", "ms per sample (processor)", "samples/s per core"], rows))
    for name, gain in gains.items():
        print(claim(f"samples/s per core, {name}, over the usual chain", gain))
    wall = {name: ratio(timings, USUAL, name, "wall_ms") for name in gains}
    return {"timings": timings, "ratio": gains, "ratio_wall": wall}


def epoch(
    packed: PreparedDataset, size: tuple[int, int], tasks: tuple[Task, ...], args: Namespace, **kwargs: Any
) -> Work:
    """One pass over the cache as training makes it; the number of the round is that of the epoch."""
    data = TransformedDataset(packed, TrainTransform(tasks, size, MEAN, STD, seed=args.seed, **kwargs))

    def work(number: int) -> int:
        for index in range(len(data)):
            data[number, index]
        return len(data)

    return work


def parts(packed: PreparedDataset, args: Namespace) -> dict[str, Any]:
    """What each part of our chain adds; the differences are those of neighbouring measurements."""
    size = args.crop_height, args.crop_width

    def read(number: int) -> int:
        for index in range(len(packed)):
            packed[index]
        return len(packed)

    variants = {
        "find the sample in the cache": read,
        "window of the image, resize, normalise": epoch(packed, size, (), args, photometric=False),
        "colour": epoch(packed, size, (), args),
        "windows of the labels, crop rule, tensors": epoch(packed, size, packed.tasks, args),
    }
    timings = interleave(variants, args.rounds)
    totals = [timings[name]["cpu_ms"] for name in variants]
    added = {
        name: spread([b - a for a, b in zip(below, total, strict=True)])
        for name, below, total in zip(variants, [[0.0] * args.rounds, *totals], totals, strict=False)
    }
    print("\n" + table(["part of our chain", "adds ms per sample"], [[n, s["median"]] for n, s in added.items()]))
    return {"timings": timings, "added_cpu_ms": added}


def step(packed: PreparedDataset, args: Namespace) -> dict[str, Any]:
    """Reading and augmenting beside forward, losses and backward of a student, per sample."""
    size = args.crop_height, args.crop_width
    torch.manual_seed(args.seed)
    student = KdamStudent(make_config("student", args.preset, packed.tasks)).train()
    data = TransformedDataset(packed, TrainTransform(packed.tasks, size, MEAN, STD, seed=args.seed))
    batch = Collator(packed.tasks)([data[0, index % len(data)] for index in range(args.batch_size)])

    def train(number: int) -> int:
        student.zero_grad()
        predictions = student(batch["pixel_values"], batch["pixel_mask"]).predictions
        dense_loss(packed.tasks, predictions, batch["labels"], batch["pixel_mask"])[0].backward()
        return args.batch_size

    name = f"training step of a {args.preset} student"
    timings = interleave({OURS: epoch(packed, size, packed.tasks, args), name: train}, args.step_rounds)
    share = ratio(timings, OURS, name)
    print("\n" + table(["", "ms per sample"], [[n, spread(t["cpu_ms"])["median"]] for n, t in timings.items()]))
    print(claim("share of a training step, per sample and core", share))
    return {"timings": timings, "share": share}
