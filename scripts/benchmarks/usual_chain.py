"""The opponent of the data section: files to tensors, as most code of the field does it.

Written from the description of the protocol, plainly and without waste: decode five files, turn everything into float32,
resize all of it, pad, crop (no class over 75 %, ten tries), mirror, jitter brightness and contrast in RGB and saturation and
hue in HSV (Liu et al., SSD, arXiv:1512.02325), normalise. Without OpenCV, Pillow resizes and the jitter in HSV is left out.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

try:
    import cv2

    cv2.setNumThreads(1)
except ImportError:
    cv2 = None

Floats = NDArray[np.float32]
FOLDERS = {"image": "images", "semseg": "segmentation", "normals": "normals", "edge": "edge"}
PADDING = {"image": 0.0, "semseg": 255.0, "depth": 0.0, "normals": 0.0, "edge": 255.0}


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
