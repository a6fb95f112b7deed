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
    """A grid of pictures.

    Args:
        rows: each a list of (H, W, 3) uint8 pictures, or None for an empty cell; fitted into cells of one size.
        row_titles: written above each row.
        column_titles: written above each column.

    Returns:
        An RGB image.
    """
    pictures = [p for row in rows for p in row if p is not None]
    height, width = max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB", (columns * (width + MARGIN) + MARGIN, TITLE + len(rows) * (height + MARGIN + TITLE) + MARGIN), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for c, title in enumerate(column_titles):
        draw.text((MARGIN + c * (width + MARGIN), 3), title, fill="black", font=font)
    for r, (row, title) in enumerate(zip(rows, row_titles, strict=True)):
        top = TITLE + r * (height + MARGIN + TITLE)
        draw.text((MARGIN, top + 3), title, fill=(90, 90, 90), font=font)
        for c, picture in enumerate(row):
            if picture is not None:
                cell = Image.fromarray(picture)
                cell.thumbnail((width, height))
                sheet.paste(cell, (MARGIN + c * (width + MARGIN), top + TITLE))
    return sheet


def shrunk(picture: Picture) -> Picture:
    """The picture with no side over 480 pixels, as a cell of a contact sheet needs it."""
    image = Image.fromarray(picture)
    image.thumbnail((LARGEST, LARGEST))
    return np.array(image)


def legend_picture(entries: Sequence[tuple[str, tuple[int, int, int]]], height: int, width: int) -> Picture:
    """What the colours of a task mean, as a cell of a contact sheet; in as many columns as fit."""
    image = Image.new("RGB", (width, height), (245, 245, 245))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    step, wide = 15, 110
    per_column = max(1, (height - 4) // step)
    for k, (text, rgb) in enumerate(entries):
        x, y = 4 + (k // per_column) * wide, 4 + (k % per_column) * step
        draw.rectangle((x, y, x + 12, y + 11), fill=tuple(rgb), outline=(120, 120, 120))
        draw.text((x + 17, y - 1), text, fill="black", font=font)
    return np.array(image)
