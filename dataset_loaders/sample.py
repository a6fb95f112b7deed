"""What every loader yields, its checks, and the two file readers that loaders share.

A task that is absent from `labels` is unlabelled for that image (partial label). Label files are never converted
between image modes: `convert("L")` turns palette ids into grey values and cuts 16-bit depth to 8 bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kdam_hf.errors import DataIntegrityError
from kdam_hf.tasks import Task

MAX_PIXELS = 50_000_000


class Sample(TypedDict):
    """A raw sample: `image` uint8 (H, W, 3) RGB, `labels` raw labels by task name, each (H, W, ...)."""

    id: str
    image: NDArray[np.uint8]
    labels: dict[str, NDArray[Any]]


class DenseDataset(Protocol):
    """One split of a dataset of images with dense labels; picklable, so that it can be read in worker processes."""

    name: str
    split: str
    tasks: tuple[Task, ...]

    @property
    def ids(self) -> Sequence[str]:
        """Of the samples, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def check_id(sample_id: str) -> str:
    """The id itself, if it is a plain file name without extension.

    Raises:
        DataIntegrityError: empty, `.` or `..`, or holding a separator or NUL; joined to a folder it could leave it.
    """
    if not sample_id or sample_id in (".", "..") or any(c in sample_id for c in "/\\\0"):
        raise DataIntegrityError(f"sample id {sample_id!r}: expected a plain file name, without folder, '..' or NUL.")
    return sample_id


def check_sample(sample: Sample, tasks: Sequence[Task]) -> Sample:
    """The sample itself, if its image and the labels of `tasks` keep the contract; other labels are not looked at.

    Raises:
        DataIntegrityError: names the sample, the task and both sizes, dtypes or the values at fault.
    """
    where = f"sample {check_id(sample['id'])!r}"
    image = sample["image"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataIntegrityError(f"{where}: image is {image.dtype} {image.shape}; expected uint8 (H, W, 3).")
    for task in tasks:
        label = sample["labels"].get(task.name)
        if label is None:
            continue
        kind = task.label
        if label.dtype != kind.dtype or label.ndim < 2 or label.shape[2:] != kind.shape_suffix:
            expected = ", ".join(["H", "W", *map(str, kind.shape_suffix)])
            raise DataIntegrityError(
                f"{where}: {task.name} label is {label.dtype} {label.shape}; expected {kind.dtype} ({expected})."
            )
        check_sizes(image, label, f"{where}: {task.name} label")
        kind.check(label, where)
    return sample


def check_sizes(image: NDArray[np.uint8], label: NDArray[Any], where: str) -> None:
    """Raise DataIntegrityError when a label does not lie on the grid of its image."""
    if label.shape[:2] != image.shape[:2]:
        (h, w), (image_h, image_w) = label.shape[:2], image.shape[:2]
        raise DataIntegrityError(
            f"{where} has {h}x{w} pixels, its image {image_h}x{image_w}; expected one size (height x width). "
            "Resize the label by nearest neighbour; if they are swapped, the photo carries an EXIF rotation."
        )


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG photo as it is meant to be seen: EXIF orientation applied, alpha dropped.

    Args:
        path: the file; other formats are refused whatever its name says.
        max_pixels: limit on width x height, read from the header before anything is decoded.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        DataIntegrityError: missing, truncated, too large, 16-bit or no PNG / JPEG.
    """
    with _opened(path, ("PNG", "JPEG"), max_pixels) as image:
        if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "CMYK"):
            raise DataIntegrityError(f"{path}: image mode {image.mode}; expected 8 bits a channel, colour or grey.")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def read_array(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decode a label file without changing a value.

    Args:
        path: `.png` (grey, palette: the ids, 16-bit grey: uint16, RGB: for normals) or `.npy` (never unpickled).
        max_pixels: limit on height x width, read from the header.

    Returns:
        (H, W) or (H, W, 3); uint8 or uint16 from a PNG, any numeric dtype from .npy. NaN is left to the task.

    Raises:
        DataIntegrityError: missing, truncated, too large or of another kind.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path, max_pixels)
    with _opened(path, ("PNG",), max_pixels) as image:
        if image.mode not in ("1", "L", "P", "I;16", "RGB"):
            raise DataIntegrityError(f"{path}: label mode {image.mode}; expected a PNG of mode L, P, I;16 or RGB.")
        array = np.array(image)
        if image.mode in ("1", "L"):
            array = array.astype(np.uint8) // _grey_factor(path, image.mode)
        return array


def _grey_factor(path: Path, mode: str) -> int:
    """Pillow stretches grey of 2 or 4 bits, as PNG optimisers write it, to 0..255; byte 24 holds the bit depth."""
    with path.open("rb") as file:
        bits = file.read(25)[24]
    return 1 if mode == "1" or bits >= 8 else 255 // (2**bits - 1)


def _read_npy(path: Path, max_pixels: int) -> NDArray[Any]:
    """Through a memory map: a header that promises more than the file holds is refused before any allocation."""
    with reading(path, ".npy array"):
        array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype.kind not in "biuf" or array.ndim < 2 or array.shape[0] * array.shape[1] > max_pixels:
        raise DataIntegrityError(
            f"{path}: array is {array.dtype} {array.shape}; expected numbers (H, W, ...), at most {max_pixels} pixels."
        )
    return np.array(array)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...], max_pixels: int) -> Iterator[Image.Image]:
    with reading(path, " or ".join(formats)), Image.open(path, formats=formats) as image:
        if image.width * image.height > max_pixels:
            raise DataIntegrityError(
                f"{path}: {image.width}x{image.height} pixels; expected at most {max_pixels}. Downscale the file."
            )
        yield image


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises into a DataIntegrityError that names the file.

    Crafted bytes make the parsers of Pillow, NumPy and SciPy raise nearly anything, TypeError and TokenError among it.
    """
    try:
        yield
    except (DataIntegrityError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataIntegrityError(f"{path}: no such file.") from error
    except Exception as error:
        raise DataIntegrityError(f"{path}: not a readable {kind} ({error}). Replace it.") from error
