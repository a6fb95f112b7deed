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


def test_numbers_are_those_of_the_photo_and_the_sheet_shows_it(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    Image.new("RGB", (60, 40), (51, 102, 0)).save(tmp_path / "photo.png")
    sheet = tmp_path / "new" / "sheet.png"
    done = run("teach.py", f"{tmp_path}/own.py:Own", tmp_path / "photo.png", "--output", sheet)
    assert re.search(r"photo: 40x60 pixels, seen at 40x60; \d+ ms\n +depth: 5\.2 to 5\.2 m\n", done.stdout)
    seen = np.asarray(Image.open(sheet).convert("RGB"))
    assert (seen == (51, 102, 0)).all(-1).sum() == 40 * 60


def test_what_cannot_be_shown_is_refused_before_a_teacher_is_looked_for(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    for words, named in {"photo.png --output sheet.txt": "sheet.txt", "absent.png": "absent.png", "": "images"}.items():
        with pytest.raises((KdamValueError, DataIntegrityError), match=named):
            load("teach.py").main(["/nowhere", *words.replace("photo.png", str(tmp_path / "photo.png")).split()])
