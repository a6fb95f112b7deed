"""The command teach.py shows a photo as a teacher sees it, in the units in which it teaches."""

import re

import numpy as np
import pytest
from command_kit import load, run
from PIL import Image

from kdam_hf.errors import DataIntegrityError, KdamValueError

OWN = """
import torch
from kdam_hf.tasks import Depth
class Own(torch.nn.Module):
    tasks = (Depth(),)
    def forward(self, images):
        return {"depth": 1 + images[:, :1] + 10 * images[:, 1:2]}
"""


def test_numbers_are_those_of_each_photo_of_a_folder_and_the_sheet_shows_them(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "photos").mkdir()
    photos, sheet = {"a": ((51, 102, 0), 5.2), "b": ((102, 51, 0), 3.4)}, tmp_path / "new" / "sheet.png"
    for name, (colour, _) in photos.items():
        Image.new("RGB", (60, 40), colour).save(tmp_path / "photos" / f"{name}.png")
    done = run("teach.py", f"{tmp_path}/own.py:Own", tmp_path / "photos", "--output", sheet)
    seen = np.asarray(Image.open(sheet).convert("RGB"))
    for name, (colour, metres) in photos.items():
        told = rf"{name}: 40x60 pixels, seen at 40x60; \d+ ms\n +depth: {metres} to {metres} m\n"
        assert re.search(told, done.stdout)
        assert (seen == colour).all(-1).sum() == 40 * 60


def test_what_cannot_be_shown_is_refused_before_a_teacher_is_looked_for(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    for words, named in {"photo.png --output sheet.txt": "sheet.txt", "absent.png": "absent.png", "": "images"}.items():
        with pytest.raises((KdamValueError, DataIntegrityError), match=named):
            load("teach.py").main(["/nowhere", *words.replace("photo.png", str(tmp_path / "photo.png")).split()])
