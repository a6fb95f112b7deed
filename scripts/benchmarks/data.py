"""Data: reading and augmenting samples from the prepared form beside the usual chain of the field.

Both start from the same files of one NYUD-v2 tree (images, segmentation, normals and edge as PNG, depth as .npy) and end in the
same tensors. `--data_dir` names a tree in layout atrc (NYUDv2/ of ATRC, InvPT); without it the tree holds rendered rooms, which
decode faster than photographs.
"""

from argparse import Namespace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import usual_chain
from benchmarks.harness import race, ratio, report, target
from dataset_loaders import PreparedDataset, SubsetDataset, TrainTransform, TransformedDataset, open_dataset, prepare

CROP = {"crop_height": 448, "crop_width": 576}
OPTIONS = {"data_dir": "", "num_images": 24, "image_height": 425, "image_width": 560} | CROP
QUICK = {"num_images": 3, "rounds": 2}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL, DECODE, OURS = "usual chain", "usual chain, decoding alone", "ours, read + augment"


def run(args: Namespace) -> dict[str, Any]:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        tree = Path(args.data_dir) if args.data_dir else write_tree(Path(folder) / "NYUDv2", args)
        whole = open_dataset("nyud_v2", "train", data_dir=tree, layout="atrc")
        prepared = prepare(SubsetDataset(whole, whole.ids[: args.num_images]), Path(folder) / "prepared")
        timings = race(make_chains(tree, prepared, args), args)
    per_sample = {name: [ms / len(prepared) for ms in times] for name, times in timings.items()}
    found = report("per sample", per_sample, USUAL)
    targets = [target("usual chain / ours", ratio(timings, USUAL, OURS), at_least=5)]
    return {"rendered": not args.data_dir, "opencv": usual_chain.cv2 is not None, "chains": found, "targets": targets}


def make_chains(tree: Path, prepared: PreparedDataset, args: Namespace) -> dict[str, Any]:
    """Chain -> an epoch over the same samples."""
    size, ids = (args.crop_height, args.crop_width), prepared.ids
    data = TransformedDataset(prepared, TrainTransform(prepared.tasks, size, MEAN, STD, seed=args.seed))
    epochs, rng = count(), np.random.default_rng(args.seed)

    def usual() -> None:
        for sample_id in ids:
            usual_chain.augment(usual_chain.load(tree, sample_id), size, np.float32(MEAN), np.float32(STD), rng)

    def decode() -> None:
        for sample_id in ids:
            usual_chain.load(tree, sample_id)

    def ours() -> None:
        epoch = next(epochs)
        for index in range(len(data)):
            data[epoch, index]

    return {USUAL: usual, DECODE: decode, OURS: ours}


def write_tree(root: Path, args: Namespace) -> Path:
    """Rendered rooms as files in layout `atrc`; semseg ids 1..40, normals n = 2 v / 255 - 1, edges 0 and 255."""
    size = {"height": args.image_height, "width": args.image_width}
    rooms = open_dataset("synthetic_rooms", "train", num_images=args.num_images + 1, seed=args.seed, **size)
    for name in (*usual_chain.FOLDERS.values(), "depth", "gt_sets"):
        (root / name).mkdir(parents=True)
    ids = [f"{index + 1:04}" for index in range(len(rooms))]
    for index, sample_id in enumerate(ids):
        image, labels = rooms[index]["image"], rooms[index]["labels"]
        pictures = {"images": image, "segmentation": labels["semseg"] + 1, "edge": labels["edge"] * 255}
        pictures["normals"] = np.rint((labels["normals"] + 1) * 127.5).astype(np.uint8)
        for name, array in pictures.items():
            Image.fromarray(array).save(root / name / f"{sample_id}.png")
        np.save(root / "depth" / f"{sample_id}.npy", labels["depth"])
    for split, listed in {"train": ids[:-1], "val": ids[-1:]}.items():
        (root / "gt_sets" / f"{split}.txt").write_text("\n".join(listed) + "\n")
    return root
