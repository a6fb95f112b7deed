"""Reads the files that data sets share: photos, label arrays and lists of ids, refused by header before they are decoded.

Photos go through `photos_kdam`, as those of users do, so that every door takes and refuses the same ones.

Label files are never converted between image modes: `convert("L")` turns palette ids into grey values and cuts 16-bit
depth to 8 bits.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdam_hf.errors import DataIntegrityError
from kdam_hf.photos_kdam import FORMATS, MAX_PIXELS, PhotoHeader, open_photo, read_header

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".npy", ".tif", ".tiff")
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
"""Compressions of a TIFF that change values."""
_STRETCHED = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey of 2 and 4 bits by, as PNG optimisers write it, to fill 0..255."""


def read_image(source: Path | bytes, where: str | None = None) -> NDArray[np.uint8]:
    """Decode a photo as `open_photo` does: uint8 (H, W, 3) RGB, EXIF orientation applied, alpha dropped.

    Args:
        source: a file, or its content; what it is counts, not what its name says.
        where: what to call it in an error message; the path if not given.

    Raises:
        DataIntegrityError: missing, truncated, too large, 16-bit grey or no photo.
    """
    with _data_errors():
        return np.array(open_photo(source, name=where or str(source)))


def read_photo_header(source: Path | bytes, where: str | None = None) -> PhotoHeader:
    """Size and orientation of a photo, decoded only where its end is not found; otherwise as `read_image`."""
    with _data_errors():
        return read_header(source, where or str(source))


@contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise DataIntegrityError(str(error)) from error


def picture(cell: Mapping[str, Any] | bytes | None, where: str, folder: Path | None = None) -> bytes:
    """The bytes of the picture in a cell of a column of `datasets` that is not decoded.

    A path is followed inside `folder` alone: data from elsewhere must not read files of this machine.
    """
    content = cell["bytes"] if isinstance(cell, Mapping) else cell
    if not content and folder is not None and isinstance(cell, Mapping) and cell["path"]:
        path = Path(cell["path"]).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return path.read_bytes()
    if not content:
        raise DataIntegrityError(
            f"{where}: {cell!s:.100}; expected the bytes of an image in the row: `push_to_hub` embeds files, `to_parquet` "
            "leaves their paths, which are followed inside the folder of the data alone."
        )
    return bytes(content)


def read_array(source: Path | bytes, where: str | None = None) -> NDArray[Any]:
    """Decode a label file without changing a value.

    Args:
        source: a `.npy` file (never unpickled), or a PNG or TIFF, or its content: grey, palette (the ids), 16-bit grey, RGB
            (for normals), and in a TIFF whole or float numbers of 32 bits.
        where: what to call it in an error message; the path if not given.

    Returns:
        (H, W) or (H, W, C); uint8 or uint16 from a PNG, any numeric dtype from others. NaN is left to the task.

    Raises:
        DataIntegrityError: missing, truncated, too large, stored with loss (JPEG, WebP) or of another kind.
    """
    where = where or str(source)
    if isinstance(source, Path) and source.suffix.lower() == ".npy":
        return _read_npy(source)
    file = BytesIO(source) if isinstance(source, bytes) else source
    with reading(where, "PNG or TIFF"), Image.open(file, formats=FORMATS) as image:
        stored = image.info.get("compression") if image.format == "TIFF" else image.format
        if image.format not in ("PNG", "TIFF") or stored in LOSSY_TIFF:
            raise DataIntegrityError(
                f"{where}: a label stored as {stored}; expected PNG or TIFF without loss. "
                "JPEG and WebP change ids: write the labels again from where they came from, converting mends nothing."
            )
        if image.width * image.height > MAX_PIXELS:
            raise DataIntegrityError(f"{where}: {image.width}x{image.height} pixels; expected at most {MAX_PIXELS}.")
        if image.mode not in ("1", "L", "P", "I;16", "I;16B", "I", "F", "RGB"):
            raise DataIntegrityError(
                f"{where}: label mode {image.mode}; expected one channel (L, P, I;16, I, F) or RGB."
            )
        layout = image.tile[0].args if image.tile else ""  # of the stored pixels, such as L;4
        array = np.array(image)
    if image.mode in ("1", "L"):
        raw_mode = layout if isinstance(layout, str) else str((layout or [""])[0])
        return array.astype(np.uint8) // _STRETCHED.get(raw_mode[:3], 1)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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


def is_listable(name: str) -> bool:
    """Whether a list of ids can hold a name: it is UTF-8, without control characters, line ends and turns of direction."""
    turned = any(unicodedata.bidirectional(sign) in ("LRE", "RLE", "LRO", "RLO") for sign in name)
    return not turned and not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name)


def composed(name: str) -> str:
    """A name in the one Unicode form (NFC) in which ids are compared: macOS writes umlauts as two characters."""
    return unicodedata.normalize("NFC", name)


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a split, one a line; DataIntegrityError for none, an id twice, or one that could leave the folder."""
    text = composed(read_text(path, "it lists the ids of the split, one a line"))
    lines = (line.strip() for line in text.splitlines())
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
