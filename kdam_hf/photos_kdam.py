"""Photos from whoever brings them: paths, URLs, pictures and arrays, refused before anything large is decoded.

A file is opened lazily and judged by its header. Formats are named one by one: Pillow can read dozens, among them some that
start other programs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.utils import httpx
from PIL import Image, ImageOps
from transformers.image_utils import load_image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "CMYK", "YCbCr", "1")
MAX_PIXELS = 50_000_000
MAX_SIDE = 10_000


def open_photo(photo: Any, timeout: float | None = None) -> Image.Image:
    """A photo as an upright RGB image, checked before it is decoded.

    Args:
        photo: PIL image, path, http(s) URL or uint8 array (H, W, 3) or (H, W).
        timeout: seconds to wait for a URL.

    Raises:
        ValueError: says what was given and what was expected.
    """
    what = f"{str(photo)[:200]!r}" if isinstance(photo, (str, Path)) else f"the given {type(photo).__name__}"
    _check_kind(photo)
    with _reading(what):
        image = _opened(photo, timeout)
    _check_size(image, what)
    with _reading(what):
        return ImageOps.exif_transpose(image).convert("RGB")


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn whatever the parsers of Pillow raise, and on crafted bytes that is nearly anything, into one clear error."""
    try:
        yield
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{what} is too large: {error} Expected at most {MAX_PIXELS:,} pixels.") from error
    except FileNotFoundError as error:
        raise ValueError(
            f"{what}: no such photo; expected an existing path, or a URL that starts with http."
        ) from error
    except httpx.HTTPError as error:
        raise ValueError(f"{what} could not be fetched: {error}. Check the address and the network.") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{what} is not a readable photo ({reason}); expected an intact JPEG, PNG, WebP, BMP or TIFF file."
        ) from error


def _check_kind(photo: Any) -> None:
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (3,)):
            raise ValueError(f"{photo.dtype} array {photo.shape} given; expected uint8 (H, W, 3) in [0, 255].")
    elif not isinstance(photo, (Image.Image, str, Path)):
        raise ValueError(
            f"{type(photo).__name__} given; expected a PIL image, a path, an http(s) URL or a uint8 array (H, W, 3) per photo."
        )


def _opened(photo: Any, timeout: float | None) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, np.ndarray):
        return Image.fromarray(photo)
    if isinstance(photo, str) and photo.startswith(("http://", "https://")):
        return load_image(photo, timeout)
    return Image.open(photo, formats=FORMATS)


def _check_size(image: Image.Image, what: str) -> None:
    width, height = image.size
    if not width or not height:
        raise ValueError(f"{what} is empty: {width}x{height} pixels.")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(
            f"{what} has {width}x{height} pixels; expected at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} a side. Downscale it."
        )
    if image.mode not in MODES:
        raise ValueError(
            f"{what} is of mode {image.mode}; expected 8 bits a channel, colour or grey. Convert it first."
        )
