"""Photos of every kind as file contents, with the pixels that every door must show, or None where it must refuse."""

import io

import numpy as np
import trees
from PIL import Image

H, W = 6, 8
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY, ALPHA = RGB[..., 0], np.full((H, W), 90, np.uint8)
IDS = RNG.integers(0, 16, (H, W), dtype=np.uint8)
DEEP = RNG.integers(300, 60_000, (H, W), dtype=np.uint16)
PALETTE = trees.palette()


def encoded(image, kind="PNG", orientation=None, **options):
    """The content of a file."""
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_palette(ids):
    image = Image.fromarray(ids)
    image.putpalette(PALETTE.tobytes())
    return image


def rgb(image):
    return np.asarray(image.convert("RGB"))


CMYK = Image.fromarray(RGB).convert("CMYK")
LOSSY, LOSSY_CMYK = encoded(RGB, "JPEG"), encoded(CMYK, "JPEG")
# kind: content, and the pixels it shows; None where it is refused
PHOTOS = {
    "colour.png": (encoded(RGB), RGB),
    "grey.png": (encoded(GREY), GREY[..., None].repeat(3, -1)),
    "alpha.png": (encoded(np.dstack([RGB, ALPHA])), RGB),
    "grey-alpha.png": (encoded(np.dstack([GREY, ALPHA])), GREY[..., None].repeat(3, -1)),
    "palette.png": (encoded(with_palette(GREY)), PALETTE[GREY]),
    "grey-4-bit.png": (trees.packed_png(IDS, 4, 0), (17 * IDS)[..., None].repeat(3, -1)),
    "grey-1-bit.png": (trees.packed_png(IDS % 2, 1, 0), (255 * (IDS % 2))[..., None].repeat(3, -1)),
    "palette-4-bit.png": (trees.packed_png(IDS, 4, 3), PALETTE[IDS]),
    "colour-16-bit.png": (trees.packed_png(RGB.reshape(H, -1) * np.uint16(256) + 99, 16, 2), RGB),
    "turned.png": (encoded(RGB, orientation=6), np.rot90(RGB, -1)),
    "turned.jpg": (encoded(RGB, "JPEG", 8), np.rot90(rgb(Image.open(io.BytesIO(LOSSY))))),
    "turned.tif": (encoded(RGB, "TIFF", 6), np.rot90(RGB, -1)),
    "upside-down.png": (encoded(RGB, orientation=3), RGB[::-1, ::-1]),
    "colour.jpg": (LOSSY, rgb(Image.open(io.BytesIO(LOSSY)))),
    "cmyk.jpg": (LOSSY_CMYK, rgb(Image.open(io.BytesIO(LOSSY_CMYK)))),
    "cmyk.tif": (encoded(CMYK, "TIFF"), rgb(CMYK)),
    "palette.tif": (encoded(with_palette(GREY), "TIFF"), PALETTE[GREY]),
    "colour.webp": (encoded(RGB, "WEBP", lossless=True), RGB),
    "colour.bmp": (encoded(RGB, "BMP"), RGB),
    "grey-16-bit.png": (encoded(DEEP), None),
    "grey-16-bit.tif": (encoded(DEEP, "TIFF"), None),
    "float.tif": (encoded(np.float32(GREY / 255), "TIFF"), None),
    "gif-named.png": (encoded(RGB, "GIF"), None),
    "cut.png": (encoded(RGB)[:90], None),
    "text.png": (b"no photo at all", None),
}
