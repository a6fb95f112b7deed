"""The opponent of the data benchmark: files to tensors, as most code of the field does it.

Unusual here: this is written from the description of the protocol, plainly and without waste, and is used nowhere else.
Decode five files, turn everything into float32, resize all of it, pad, crop (no class over 75 %, ten tries), mirror,
jitter brightness and contrast in RGB and saturation and hue in HSV (Liu et al., SSD, arXiv:1512.02325), normalise.
OpenCV resizes and converts colours when it is installed, as is usual; otherwise Pillow does.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

try:
    import cv2
except ImportError:
    cv2 = None

Arrays = dict[str, NDArray[np.float32]]
PADDING = {"image": 0.0, "semseg": 255.0, "depth": 0.0, "normals": 0.0, "edge": 255.0}


def load(tree: Path, sample_id: str) -> Arrays:
    """The image 0..255 and the labels of one sample of layout `atrc`, all float32."""

    def png(folder: str) -> NDArray[np.float32]:
        return np.array(Image.open(tree / folder / f"{sample_id}.png"), dtype=np.float32)

    return {
        "image": png("images"),
        "semseg": png("segmentation") - 1,
        "depth": np.load(tree / "depth" / f"{sample_id}.npy").astype(np.float32),
        "normals": png("normals") * np.float32(2 / 255) - 1,
        "edge": png("edge") / 255,
    }


def augment(
    arrays: Arrays, size: tuple[int, int], mean: NDArray, std: NDArray, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Random view of `size` (height, width) as tensors; the labels that void and padding have are left as they are."""
    arrays = rescale(arrays, rng.uniform(0.5, 2.0))
    arrays = crop(pad(arrays, size), size, rng)
    if rng.random() < 0.5:
        arrays = {name: array[:, ::-1] for name, array in arrays.items()}
        arrays["normals"] = arrays["normals"] * np.float32([-1, 1, 1])
    arrays["image"] = (distort(arrays["image"], rng) / 255 - mean) / std
    tensors = {name: to_tensor(array) for name, array in arrays.items()}
    return tensors | {"semseg": tensors["semseg"][0].long()}


def rescale(arrays: Arrays, scale: float) -> Arrays:
    """Everything `scale` times larger, and depth that much nearer."""
    height, width = (round(side * scale) for side in arrays["image"].shape[:2])
    arrays = {name: resize(array, height, width, smooth=name == "image") for name, array in arrays.items()}
    return arrays | {"depth": arrays["depth"] / np.float32(scale)}


def resize(array: NDArray[np.float32], height: int, width: int, smooth: bool) -> NDArray[np.float32]:
    """Bilinear or nearest."""
    if cv2 is not None:
        return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    planes = np.moveaxis(np.atleast_3d(array), 2, 0)
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), method)) for plane in planes]
    return resized[0] if array.ndim == 2 else np.stack(resized, axis=2)


def pad(arrays: Arrays, size: tuple[int, int]) -> Arrays:
    """At least `size`, filled up at the bottom and on the right."""
    bottom, right = (max(0, wanted - side) for wanted, side in zip(size, arrays["image"].shape[:2], strict=True))
    if not bottom and not right:
        return arrays
    widths = ((0, bottom), (0, right), (0, 0))
    return {name: np.pad(array, widths[: array.ndim], constant_values=PADDING[name]) for name, array in arrays.items()}


def crop(arrays: Arrays, size: tuple[int, int], rng: np.random.Generator) -> Arrays:
    """A random window in which no class covers more than 75 %, or the tenth one."""
    height, width = arrays["image"].shape[:2]
    for _ in range(10):
        top, left = int(rng.integers(height - size[0] + 1)), int(rng.integers(width - size[1] + 1))
        window = slice(top, top + size[0]), slice(left, left + size[1])
        counts = np.bincount(arrays["semseg"][window].astype(np.uint8).ravel(), minlength=256)[:255]
        if counts.max() <= 0.75 * counts.sum():
            break
    return {name: array[window] for name, array in arrays.items()}


def distort(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each of the four with probability one half; 0..255."""
    if rng.random() < 0.5:
        image = image + np.float32(rng.uniform(-32, 32))
    if rng.random() < 0.5:
        image = image * np.float32(rng.uniform(0.5, 1.5))
    hsv = to_hsv(np.clip(image, 0, 255))
    if rng.random() < 0.5:
        hsv[..., 1] = np.minimum(hsv[..., 1] * np.float32(rng.uniform(0.5, 1.5)), 1)
    if rng.random() < 0.5:
        hue = hsv[..., 0] + np.float32(rng.uniform(-18, 18))
        hsv[..., 0] = np.where(hue < 0, hue + 360, np.where(hue >= 360, hue - 360, hue))
    return from_hsv(hsv)


def to_hsv(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """RGB 0..255 -> hue 0..360, saturation 0..1, value 0..255."""
    if cv2 is not None:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    hsv = np.array(Image.fromarray(image.astype(np.uint8)).convert("HSV"), dtype=np.float32)
    return hsv * np.float32([360 / 256, 1 / 255, 1])


def from_hsv(hsv: NDArray[np.float32]) -> NDArray[np.float32]:
    """The way back."""
    if cv2 is not None:
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    bytes_of = (hsv * np.float32([256 / 360, 255, 1])).astype(np.uint8)
    return np.array(Image.fromarray(bytes_of, "HSV").convert("RGB"), dtype=np.float32)


def to_tensor(array: NDArray[np.float32]) -> Tensor:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.atleast_3d(array), 2, 0)))
