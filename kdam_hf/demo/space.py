"""The demo page as the folder of a Hugging Face Space: everything it needs, ready to be uploaded.

The folder holds the source of this package rather than a requirement for it, so that it runs wherever its other
requirements can be installed, whether or not this version is published anywhere.
"""

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

from kdam_hf.errors import KdamValueError

PACKAGES = ("kdam_hf", "dataset_loaders")
MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
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
license: apache-2.0
pinned: false
---

Drop a photo and see every map that one small multi-task network predicts, with its teacher beside it if there is one.

Made by `python scripts/demo.py --export_space` of kdam-hf {version}. Models: {models}.
"""


def export_space(folder: Path, models: Sequence[str], examples: Sequence[Path]) -> None:
    """Write app.py, README.md, requirements.txt, the source, local models and the examples.

    Args:
        folder: new or empty.
        models: student and perhaps teacher; a local folder is copied, a hub id is loaded by the Space.
        examples: photos to offer.

    Raises:
        KdamValueError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise KdamValueError(
            f"{folder} is not empty; a Space is written to a new folder. Choose another, or remove it."
        )
    (folder / "examples").mkdir(parents=True)
    named = []
    for place, role in zip(models, ("student", "teacher"), strict=False):
        named.append(place)
        if Path(place).is_dir():
            named[-1] = f"models/{role}"
            (folder / named[-1]).mkdir(parents=True)
            for name in MODEL_FILES:
                shutil.copy(Path(place) / name, folder / named[-1] / name)
    for path in examples:
        shutil.copy(path, folder / "examples" / path.name)
    source = Path(__file__).parents[2]
    for package in PACKAGES:
        shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "app.py").write_text(APP.format(models=json.dumps(named)[1:-1]))
    facts = {"gradio": version("gradio"), "version": version("kdam-hf"), "models": ", ".join(named)}
    (folder / "README.md").write_text(README.format(**facts))
    # gradio itself is installed by the Space, in the version its README names
    needed = [line for line in requires("kdam-hf") or [] if "extra ==" not in line]
    (folder / "requirements.txt").write_text("\n".join(needed) + "\n")
