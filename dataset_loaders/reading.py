"""Reads the files that data sets share: photos, label arrays and lists of ids, refused by header before they are decoded.

Label files are never converted between image modes: `convert("L")` turns palette ids into grey values and cuts 16-bit
depth to 8 bits.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdam_hf.errors import DataIntegrityError
from kdam_hf.photos_kdam import open_photo

MAX_PIXELS = 50_000_000


def read_image(source: Path | bytes, where: str | None = None) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG photo as it is meant to be seen, EXIF orientation applied, alpha dropped: uint8 (H, W, 3) RGB.

    Args:
        source: a file, or its content; other formats are refused whatever the name says.
        where: what to call it in an error message; the path if not given.

    Raises:
        DataIntegrityError: missing, truncated, too large, 16-bit or no PNG / JPEG.
    """
    where = where or str(source)
    with reading(where, "PNG or JPEG"), Image.open(_file(source), formats=("PNG", "JPEG")) as image:
        return np.array(open_photo(image))


def read_array(source: Path | bytes, where: str | None = None) -> NDArray[Any]:
    """Decode a label file without changing a value.

    Args:
        source: a `.png` (grey, palette: the ids, 16-bit grey: uint16, RGB: for normals) or `.npy` file (never unpickled), or
            the content of a PNG.
        where: what to call it in an error message; the path if not given.

    Returns:
        (H, W) or (H, W, C); uint8 or uint16 from a PNG, any numeric dtype from .npy. NaN is left to the task.

    Raises:
        DataIntegrityError: missing, truncated, too large or of another kind.
    """
    where = where or str(source)
    if isinstance(source, Path) and source.suffix.lower() == ".npy":
        return _read_npy(source)
    with reading(where, "PNG"), Image.open(_file(source), formats=("PNG",)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataIntegrityError(f"{where}: {image.width}x{image.height} pixels; expected at most {MAX_PIXELS}.")
        if image.mode not in ("1", "L", "P", "I;16", "RGB"):
            raise DataIntegrityError(f"{where}: label mode {image.mode}; expected a PNG of mode L, P, I;16 or RGB.")
        array = np.array(image)
    return array.astype(np.uint8) // _grey_factor(source, image.mode) if image.mode in ("1", "L") else array


def _file(source: Path | bytes) -> Path | BytesIO:
    return BytesIO(source) if isinstance(source, bytes) else source


def _grey_factor(source: Path | bytes, mode: str) -> int:
    """Pillow stretches grey of 2 or 4 bits, as PNG optimisers write it, to 0..255; byte 24 holds the bit depth."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(25)
    bits = source[24]
    return 1 if mode == "1" or bits >= 8 else 255 // (2**bits - 1)


def _read_npy(path: Path) -> NDArray[Any]:
    """Through a memory map: a header that promises more than the file holds is refused before any allocation."""
    with reading(path, ".npy array"):
        array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype.kind not in "biuf" or array.ndim < 2 or array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise DataIntegrityError(
            f"{path}: array is {array.dtype} {array.shape}; expected numbers (H, W, ...), at most {MAX_PIXELS} pixels."
        )
    return np.array(array)


@contextmanager
def reading(where: Path | str, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises into a DataIntegrityError that names the file.

    Crafted bytes make the parsers of Pillow, NumPy and SciPy raise nearly anything, TypeError and TokenError among it.
    """
    try:
        yield
    except (DataIntegrityError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataIntegrityError(f"{where}: no such file.") from error
    except Exception as error:
        raise DataIntegrityError(f"{where}: not a readable {kind} ({error}). Replace it.") from error


def check_id(sample_id: str) -> str:
    """The id itself, if it is a plain file name; DataIntegrityError if it could leave the folder it is joined to."""
    if not sample_id or sample_id in (".", "..") or any(c in sample_id for c in "/\\\0"):
        raise DataIntegrityError(f"sample id {sample_id!r}: expected a plain file name, without folder, '..' or NUL.")
    return sample_id


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a split, one a line; DataIntegrityError for none, an id twice, or one that could leave the folder."""
    lines = (line.strip() for line in read_text(path, "it lists the ids of the split, one a line").splitlines())
    ids = Counter(line for line in lines if line)
    if not ids:
        raise DataIntegrityError(f"{path}: no ids; expected one a line, e.g. 0001 for images/0001.jpg.")
    for sample_id, count in ids.items():
        try:
            check_id(sample_id)
        except DataIntegrityError as error:
            raise DataIntegrityError(f"{path}: {error}") from error
        if count > 1:
            raise DataIntegrityError(f"{path}: id {sample_id!r} occurs twice; remove one.")
    return tuple(ids)


def read_text(path: Path, holds: str) -> str:
    """A text file; DataIntegrityError if it is missing, naming what lies beside it, or not UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        present = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))) or "none"
        raise DataIntegrityError(f"{path}: no such file; {holds}. {path.suffix} files there: {present}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataIntegrityError(f"{path}: not readable as UTF-8 text ({error}).") from error
