"""Data: reading and augmenting samples from the prepared form beside the usual chain of the field.

Both start from the same files of one NYUD-v2 tree (images, segmentation, normals and edge as PNG, depth as .npy) and end in the
same tensors. `--data_dir` names a tree in layout atrc (NYUDv2/ of ATRC, InvPT); without it the tree holds rendered rooms, which
decode faster than photographs.

The usual chain is written from the description of the protocol, plainly and without waste: decode five files, turn everything
into float32, resize all of it, pad, crop (no class over 75 %, ten tries), mirror, jitter brightness and contrast in RGB and
saturation and hue in HSV (Liu et al., SSD, arXiv:1512.02325), normalise. Without OpenCV, Pillow resizes and the jitter in HSV
is left out.
"""

from argparse import Namespace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.harness import race, ratio, report, target
from dataset_loaders import PreparedDataset, SubsetDataset, TrainTransform, TransformedDataset, open_dataset, prepare

try:
    import cv2

    cv2.setNumThreads(1)
except ImportError:
    cv2 = None

Floats = NDArray[np.float32]
FOLDERS = {"image": "images", "semseg": "segmentation", "normals": "normals", "edge": "edge"}
PADDING = {"image": 0.0, "semseg": 255.0, "depth": 0.0, "normals": 0.0, "edge": 255.0}
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
    found = report("per sample" if cv2 else "per sample, without OpenCV", per_sample, USUAL)
    targets = [target("usual chain / ours", ratio(timings, USUAL, OURS), at_least=5)] if cv2 else []
    return {"rendered": not args.data_dir, "opencv": cv2 is not None, "chains": found, "targets": targets}


def make_chains(tree: Path, prepared: PreparedDataset, args: Namespace) -> dict[str, Any]:
    """Chain -> an epoch over the same samples."""
    size, ids = (args.crop_height, args.crop_width), prepared.ids
    data = TransformedDataset(prepared, TrainTransform(prepared.tasks, size, MEAN, STD, seed=args.seed))
    epochs, rng = count(), np.random.default_rng(args.seed)

    def usual() -> None:
        for sample_id in ids:
            augment(load(tree, sample_id), size, np.float32(MEAN), np.float32(STD), rng)

    def decode() -> None:
        for sample_id in ids:
            load(tree, sample_id)

    def ours() -> None:
        epoch = next(epochs)
        for index in range(len(data)):
            data[epoch, index]

    return {USUAL: usual, DECODE: decode, OURS: ours}


def write_tree(root: Path, args: Namespace) -> Path:
    """Rendered rooms as files in layout `atrc`; semseg ids 1..40, normals n = 2 v / 255 - 1, edges 0 and 255."""
    size = {"height": args.image_height, "width": args.image_width}
    rooms = open_dataset("synthetic_rooms", "train", num_images=args.num_images + 1, seed=args.seed, **size)
    for name in (*FOLDERS.values(), "depth", "gt_sets"):
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


def load(tree: Path, sample_id: str) -> dict[str, Floats]:
    """The image 0..255 and the labels of one sample of layout `atrc`, all float32."""
    files = {name: tree / folder / f"{sample_id}.png" for name, folder in FOLDERS.items()}
    arrays = {name: np.array(Image.open(path), dtype=np.float32) for name, path in files.items()}
    arrays["semseg"] -= 1
    arrays["normals"] = arrays["normals"] * np.float32(2 / 255) - 1
    arrays["edge"] /= 255
    return arrays | {"depth": np.load(tree / "depth" / f"{sample_id}.npy").astype(np.float32)}


def augment(
    arrays: dict[str, Floats], size: tuple[int, int], mean: Floats, std: Floats, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Random view of `size` (height, width) as (C, H, W) tensors; void and padding keep their marks."""
    scale = rng.uniform(0.5, 2.0)
    height, width = (round(side * scale) for side in arrays["image"].shape[:2])
    arrays = {name: resize(array, height, width, smooth=name == "image") for name, array in arrays.items()}
    arrays["depth"] = arrays["depth"] / np.float32(scale)
    more = [(0, max(0, wanted - side)) for wanted, side in zip(size, (height, width), strict=True)]
    arrays = {name: np.pad(a, [*more, (0, 0)][: a.ndim], constant_values=PADDING[name]) for name, a in arrays.items()}
    for _ in range(10):
        top, left = (int(rng.integers(have - want + 1)) for have, want in zip(arrays["edge"].shape, size, strict=True))
        window = slice(top, top + size[0]), slice(left, left + size[1])
        counts = np.bincount(arrays["semseg"][window].astype(np.uint8).ravel(), minlength=256)[:255]
        if counts.max() <= 0.75 * counts.sum():
            break
    arrays = {name: array[window] for name, array in arrays.items()}
    if rng.random() < 0.5:
        arrays = {name: array[:, ::-1] for name, array in arrays.items()}
        arrays["normals"] = arrays["normals"] * np.float32([-1, 1, 1])
    arrays["image"] = (distort(arrays["image"], rng) / 255 - mean) / std
    planes = {name: np.moveaxis(np.atleast_3d(array), 2, 0) for name, array in arrays.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in planes.items()}
    return tensors | {"semseg": tensors["semseg"][0].long()}


def resize(array: Floats, height: int, width: int, smooth: bool) -> Floats:
    """Bilinear or nearest."""
    if cv2 is not None:
        return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    planes = np.moveaxis(np.atleast_3d(array), 2, 0)
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), method)) for plane in planes]
    return resized[0] if array.ndim == 2 else np.stack(resized, axis=2)


def distort(image: Floats, rng: np.random.Generator) -> Floats:
    """Brightness, contrast, and with OpenCV saturation and hue, each with probability one half; 0..255."""
    apply, (offset, gain, saturation, turn) = rng.random(4) < 0.5, rng.uniform([-32, 0.5, 0.5, -18], [32, 1.5, 1.5, 18])
    image = image + np.float32(offset) if apply[0] else image
    image = np.clip(image * np.float32(gain) if apply[1] else image, 0, 255)
    if cv2 is None:
        return image
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)  # hue 0..360, saturation 0..1, value 0..255
    if apply[2]:
        hsv[..., 1] = np.minimum(hsv[..., 1] * np.float32(saturation), 1)
    if apply[3]:
        hsv[..., 0] = (hsv[..., 0] + np.float32(turn)) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
