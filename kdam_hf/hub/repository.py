"""The files of a published repository: model, processor, code, card, results, settings, log and a picture.

The list is closed: what is not named here is not published, so no pickle and no checkpoint ever is. JSON is copied without
the places and secrets of this machine, a picture without its metadata.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard
from PIL import Image, ImageOps

from kdam_hf.errors import KdamValueError
from kdam_hf.hub.card import PICTURE
from kdam_hf.hub.public import public, public_config
from kdam_hf.hub.record import RESULTS, WEIGHTS, Record
from kdam_hf.hub.remote_code import code_files, with_model_code, with_processor_code
from kdam_hf.image_processing_kdam import KdamImageProcessor

Files = Mapping[str, bytes | Path]


def repository_files(record: Record, card: ModelCard) -> dict[str, bytes | Path]:
    """Path in the repository -> content, or the file that holds it.

    Args:
        record: of the model.
        card: its README.md.
    """
    processor = KdamImageProcessor.from_model_config(record.config).to_dict()
    config = json.loads((record.folder / "config.json").read_text())
    files: dict[str, bytes | Path] = {
        "README.md": str(card).encode(),
        WEIGHTS: record.folder / WEIGHTS,
        "config.json": _json(with_model_code(public_config(config))),
        "preprocessor_config.json": _json(with_processor_code(processor)),
        **code_files(),
    }
    for name, content in (
        (RESULTS, record.results),
        ("recipe.json", record.settings),
        ("training_log.json", record.log),
    ):
        if content is not None:
            files[name] = _json(public(content))
    if record.picture is not None:
        files[PICTURE] = bare_picture(record.picture)
    return files


def write_repository(files: Files, folder: Path) -> None:
    """Write the files to a new or empty folder, as they would lie on the Hub.

    Raises:
        KdamValueError: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KdamValueError(f"{folder} exists and is not empty; give a new folder for the repository.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def bare_picture(path: Path, largest: int | None = None) -> bytes:
    """A picture as an upright PNG of nothing but pixels: a photo's metadata may say where it was taken.

    Args:
        path: a PNG, JPEG or WebP.
        largest: pixels its longer side may have; a larger one is reduced.

    Raises:
        KdamValueError: not such a picture.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            pixels = Image.fromarray(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise KdamValueError(f"{path} is not a readable PNG, JPEG or WebP ({error}); give another picture.") from error
    if largest is not None:
        pixels.thumbnail((largest, largest))
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue()
