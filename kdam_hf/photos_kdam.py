"""The one reader of photos: paths, URLs, bytes, pictures, arrays and tensors, refused before anything large is decoded.

A file is opened lazily and judged by its header. Formats are named one by one: Pillow can read dozens, among them some that
start other programs. This file travels with published models.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "CMYK", "YCbCr", "1")
MAX_PIXELS = 50_000_000
MAX_SIDE = 10_000
MAX_BYTES = 200_000_000
_SCAN_AND_END = {"JPEG": (b"\xff\xda", b"\xff\xd9"), "PNG": (b"IDAT", b"IEND\xaeB`\x82")}
_SCAN_AND_END["MPO"] = _SCAN_AND_END["JPEG"]
"""What stands before the pixels of a file, and behind them: markers of JPEG, types of chunks of PNG, the last with its CRC."""


class PhotoHeader(NamedTuple):
    """Height and width of the upright photo, pixels, and the EXIF orientation (1 to 8) of the stored one: 1 is upright."""

    height: int
    width: int
    orientation: int = 1


def reduced(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """Height and width of a photo of `size` after its shorter side was brought to `shorter_side`; never enlarged."""
    if min(size) <= shorter_side:
        return size
    scale = shorter_side / min(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def open_photo(photo: Any, timeout: float | None = None, name: str | None = None) -> Image.Image:
    """A photo as an upright RGB image; transparency is dropped, of 16-bit colour the upper 8 bits are kept.

    Args:
        photo: PIL image, path, content of a file, http(s) URL, uint8 array (H, W, 3) or (H, W), or uint8 tensor (3, H, W).
        timeout: seconds to wait for a URL.
        name: what to call it in an error message.

    Raises:
        ValueError: not one of these, broken, empty, too large, or grey of more than 8 bits.
    """
    given = f"{str(photo)[:200]!r}" if isinstance(photo, (str, Path)) else f"the given {type(photo).__name__}"
    what = name or given
    image = _checked(photo, timeout, what)
    with _reading(what):
        return ImageOps.exif_transpose(image).convert("RGB")


def read_header(photo: Path | bytes, name: str) -> PhotoHeader:
    """What the header of a file says, or of its content. Errors are those of `open_photo`, also for a JPEG or PNG that was cut.

    Pixels are decoded only where the end of the file is not found.
    """
    with _checked(photo, None, name) as image, _reading(name):
        if _may_be_cut(photo, image.format or ""):
            image.load()
        # a PNG would be decoded to look for a tag behind its pixels
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    turned = orientation in (5, 6, 7, 8) and image.format != "TIFF"  # Pillow turns a TIFF itself
    width, height = image.size[::-1] if turned else image.size
    return PhotoHeader(height, width, orientation if orientation in range(1, 9) else 1)


def _may_be_cut(photo: Path | bytes, form: str) -> bool:
    """Whether a file, or its content, has no end of its pixels; False for a format whose end is not known."""
    if form not in _SCAN_AND_END:
        return False
    scan, end = _SCAN_AND_END[form]
    with BytesIO(photo) if isinstance(photo, bytes) else photo.open("rb") as file:
        file.seek(-len(end), SEEK_END)
        if file.read() == end:
            return False
        file.seek(0)
        content = file.read()
    return content.rfind(end) < content.rfind(scan)  # behind the end there may be more, such as a film


def _checked(photo: Any, timeout: float | None, what: str) -> Image.Image:
    """The image, opened lazily, if its header is that of a photo."""
    if isinstance(photo, Tensor) and photo.dtype == torch.uint8:
        photo = photo.cpu().numpy().transpose(1, 2, 0) if photo.ndim == 3 else photo.cpu().numpy()
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim > 1:
        photo = photo[..., 0] if photo.shape[2:] == (1,) else photo
        photo = Image.fromarray(photo) if photo.shape[2:] in ((), (3,)) else photo
    if not isinstance(photo, (Image.Image, str, Path, bytes)):
        given = f"{photo.dtype} {tuple(photo.shape)}" if isinstance(photo, (np.ndarray, Tensor)) else repr(photo)[:200]
        expected = "a PIL image, a path, an http(s) URL, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W)"
        raise ValueError(f"{what} is {given}; expected {expected} per photo.")
    if isinstance(photo, str) and photo.lower().startswith(("http://", "https://")):
        photo = _fetched(photo, timeout)
    with _reading(what):
        source = BytesIO(photo) if isinstance(photo, bytes) else photo
        image = source if isinstance(source, Image.Image) else Image.open(source, formats=FORMATS)
    if 0 in image.size or image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        most = f"1 to {MAX_SIDE:,} a side and at most {MAX_PIXELS:,} in all"
        raise ValueError(f"{what} has {image.width}x{image.height} pixels; expected {most}. Downscale it.")
    if image.mode not in MODES:
        raise ValueError(f"{what} is of mode {image.mode}; expected 8 bits a channel. Convert it first.")
    return image


def _fetched(url: str, timeout: float | None) -> bytes:
    request = Request(url, headers={"User-Agent": "kdam-hf"})  # some servers refuse Python's own name
    try:
        with urlopen(request, timeout=timeout) as response:
            content = response.read(MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise ValueError(f"{url[:200]!r} could not be fetched: {error}. Check the address and the network.") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{url[:200]!r} has more than {MAX_BYTES:,} bytes. Download and shrink it.")
    return content


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn whatever the parsers of Pillow raise, and on crafted bytes that is nearly anything, into one clear error."""
    try:
        yield
    except MemoryError:
        raise
    except FileNotFoundError as error:
        raise ValueError(f"{what}: no such photo; expected an existing path or an http(s) URL.") from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{what} is not a readable photo ({reason}); expected one of {', '.join(FORMATS)}.") from error
