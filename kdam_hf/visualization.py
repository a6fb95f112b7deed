"""Contact sheets: a titled grid of pictures, with legends."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
MARGIN, TITLE, LARGEST = 6, 22, 480


def contact_sheet(
    rows: Sequence[Sequence[Picture | None]], row_titles: Sequence[str], column_titles: Sequence[str]
) -> Image.Image:
    """A grid of RGB pictures (H, W, 3) uint8, fitted into cells of one size; None leaves a cell empty.

    Titles are written above each row and column.
    """
    pictures = [p for row in rows for p in row if p is not None]
    height, width = (MARGIN + max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * width + MARGIN, TITLE + len(rows) * (height + TITLE) + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for c, title in enumerate(column_titles):
        draw.text((MARGIN + c * width, 3), title, fill="black", font=font)
    for r, (row, title) in enumerate(zip(rows, row_titles, strict=True)):
        top = TITLE + r * (height + TITLE)
        draw.text((MARGIN, top + 3), title, fill=(90, 90, 90), font=font)
        for c, picture in enumerate(row):
            if picture is not None:
                cell = Image.fromarray(shrunk(picture, height - MARGIN, width - MARGIN))
                sheet.paste(cell, (MARGIN + c * width, top + TITLE))
    return sheet


def shrunk(picture: Picture, height: int = LARGEST, width: int = LARGEST) -> Picture:
    """The picture reduced, in its proportions, to at most this size."""
    image = Image.fromarray(picture)
    image.thumbnail((width, height))
    return np.array(image)


def legend_picture(entries: Sequence[tuple[str, tuple[int, int, int]]], height: int, width: int) -> Picture:
    """What the colours of a task mean, as a cell of a contact sheet; in as many columns as fit."""
    image = Image.new("RGB", (width, height), (245, 245, 245))
    draw, font, per_column = ImageDraw.Draw(image), ImageFont.load_default(11), max(1, (height - 4) // 15)
    for k, (text, rgb) in enumerate(entries):
        x, y = 4 + (k // per_column) * 110, 4 + (k % per_column) * 15
        draw.rectangle((x, y, x + 12, y + 11), fill=tuple(rgb), outline=(120, 120, 120))
        draw.text((x + 17, y - 1), text, fill="black", font=font)
    return np.array(image)
