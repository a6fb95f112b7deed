"""The demo page as the folder of a Hugging Face Space: everything it needs, ready to be uploaded.

The folder holds the source of this package rather than a requirement for it, so that it runs wherever its other
requirements can be installed, whether or not this version is published anywhere.
"""

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

from kdam_hf.demo.exhibition import LARGEST
from kdam_hf.errors import KdamValueError
from kdam_hf.hub.public import is_public_name, public_config
from kdam_hf.hub.record import WEIGHTS, read_config
from kdam_hf.hub.repository import bare_picture

PACKAGES = ("kdam_hf", "dataset_loaders")
ROLES = ("student", "teacher")
APP = '''"""The Space: python app.py serves the page."""

from pathlib import Path

from kdam_hf.demo import Exhibition, build_page, serve

HERE = Path(__file__).parent
MODELS = [{models}]

if __name__ == "__main__":
    local = [str(HERE / model) if (HERE / model).is_dir() else model for model in MODELS]
    serve(build_page(Exhibition(*local), sorted((HERE / "examples").iterdir())))
'''
README = """---
title: One photo, every map
emoji: 🛋️
colorFrom: indigo
colorTo: gray
sdk: gradio
sdk_version: {gradio}
python_version: "3.12"
app_file: app.py
pinned: false
---

Drop a photo and see every map that one small multi-task network predicts, with its teacher beside it if there is one.

Made by `python scripts/demo.py --export_space` of kdam-hf {version}. Models: {models}. The code is Apache-2.0; the terms of
the models, and of the photos, are those of their owners.
"""


def export_space(folder: Path, models: Sequence[str], examples: Sequence[Path]) -> None:
    """Write app.py, README.md, requirements.txt, the source, local models and the examples.

    A Space is for the world: configurations go without the folders of this machine, photos without their names and metadata.

    Args:
        folder: new or empty.
        models: student and perhaps teacher; a local folder is copied, a hub id is loaded by the Space.
        examples: photos to offer.

    Raises:
        KdamValueError: the folder is not empty, a model is neither a folder nor an id, or a photo is not readable.
        CheckpointError: a folder holds no model. In either case nothing is written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KdamValueError(
            f"{folder} is not empty; a Space is written to a new folder. Choose another, or remove it."
        )
    named = [
        (f"models/{role}" if _is_local(place) else place, Path(place))
        for role, place in zip(ROLES, models, strict=False)
    ]
    photos = [bare_picture(path, LARGEST) for path in examples]
    (folder / "examples").mkdir(parents=True)
    for name, place in named:
        if place.is_dir():
            (folder / name).mkdir(parents=True)
            config = public_config(json.loads((place / "config.json").read_text()))
            (folder / name / "config.json").write_text(json.dumps(config, indent=1))
            shutil.copy(place / WEIGHTS, folder / name / WEIGHTS)
    for number, photo in enumerate(photos, 1):
        (folder / "examples" / f"{number:03}.png").write_bytes(photo)
    source = Path(__file__).parents[2]
    for package in PACKAGES:
        shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    names = [name for name, _ in named]
    (folder / "app.py").write_text(APP.format(models=json.dumps(names)[1:-1]))
    facts = {"gradio": version("gradio"), "version": version("kdam-hf"), "models": ", ".join(names)}
    (folder / "README.md").write_text(README.format(**facts))
    # gradio itself is installed by the Space, in the version its README names
    needed = [line for line in requires("kdam-hf") or [] if "extra ==" not in line]
    (folder / "requirements.txt").write_text("\n".join(needed) + "\n")


def _is_local(place: str) -> bool:
    """Whether a model is a folder here, which then holds one, rather than an id on the Hub."""
    if Path(place).is_dir():
        read_config(Path(place))
        return True
    if not is_public_name(place):
        raise KdamValueError(
            f"model {place!r}; expected a folder that train.py or distill.py wrote, or org/name on the Hub."
        )
    return False
