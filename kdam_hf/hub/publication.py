"""The files of a published repository: model, processor, code, card, results, settings, log and a picture.

The list is closed: what is not named here is not published, so no pickle and no checkpoint ever is. JSON is copied without
local paths and secrets, a picture without its metadata. With the code, and the entries of the JSON files that point to it,
`AutoModel.from_pretrained(id, trust_remote_code=True)` works where this package is not installed.
"""

import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.hub.card import PICTURE, UNKNOWN, make_card
from kdam_hf.hub.record import MODELS, RESULTS, WEIGHTS, Record, read_record
from kdam_hf.hub.redact import redact, redact_config
from kdam_hf.hub.upload import check_repo_id, open_repository, upload
from kdam_hf.image_processing_kdam import KdamImageProcessor
from kdam_hf.io import replacing, to_json
from kdam_hf.photos_kdam import open_photo
from kdam_hf.pipeline_kdam import TASK, MultiTaskDensePredictionPipeline

PERMISSIVE = {
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "zlib", "ncsa", "unlicense",
    "cc0-1.0", "pddl", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "odc-by", "cdla-permissive-1.0",
    "cdla-permissive-2.0", UNKNOWN,
}  # fmt: skip
"""Licences, as the Hub names them, that ask for no more than to be named; and those of whom nothing is known."""


def make_publication(
    folder: str | Path,
    repo_id: str,
    license: str = UNKNOWN,
    allow_no_results: bool = False,
    picture: str | Path | None = None,
    progress: str = "",
    accept_teacher_license: bool = False,
    **beside: str | Path | None,
) -> dict[str, bytes | Path]:
    """Card, model, processor, code, results, settings, log and picture of a model, ready to be uploaded.

    Args:
        folder: that kdam train or kdam distill wrote; the caller has made sure that the weights are complete.
        repo_id: `org/name`.
        license: identifier of the weights' licence that the Hub knows.
        allow_no_results: make it without scores, too.
        picture: for the card.
        progress: for a model that is still being trained, how far it is.
        accept_teacher_license: the publisher has read the licences that `check_licenses` refuses.
        beside: results shown beside its own; see `read_record`.

    Returns:
        Path in the repository -> content, or the file that holds it.

    Raises:
        KdamValueError: not a repository id, a file given is not usable, or a teacher's licence is not accepted.
        CheckpointError: no model, no results, or results of other weights.
    """
    record = read_record(folder, **beside)
    if record.results is None and not allow_no_results:
        raise CheckpointError(
            f"{folder} holds no {RESULTS}, so its card could not say how good it is. Score it with kdam evaluate --model "
            f"{folder} --output {Path(folder) / RESULTS}, or give --allow_no_results."
        )
    if not accept_teacher_license:
        check_licenses(record.teachers)
    card = make_card(record, check_repo_id(repo_id), license, picture is not None, progress)
    files = {"README.md": str(card).encode(), **_model_files(record)}
    if picture is not None:
        files[PICTURE] = _bare_picture(picture)
    return files


def check_licenses(teachers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse teachers whose licence may limit what is done with a student: all but `PERMISSIVE` ones, and none at all.

    Args:
        teachers: facts of each, with `license` where its card states it.

    Raises:
        KdamValueError: names the licences, and what to give by somebody who has read them.
    """
    stated = {str(one["license"]) for one in teachers if one.get("license")}
    if limited := sorted(text for text in stated if text.lower() not in PERMISSIVE):
        raise KdamValueError(
            f"a teacher's licence is {', '.join(limited)}, which may limit use, also of what learnt from it (nc: no commercial "
            "use; other: terms of its own; and all that is not on our list of permissive ones). Read it, then give "
            "--accept_teacher_license; the card will name it."
        )


def publish(repo_id: str, files: Mapping[str, bytes | Path], private: bool = False, tag: str | None = None) -> str:
    """Create the repository if need be, commit everything at once with the token of this machine; the URL of the commit.

    Raises:
        HubError: refused, unreachable or interrupted, or committed but not tagged; says which, and what to do.
        KdamValueError: a tag that is not a name.
    """
    if tag is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", tag):
        raise KdamValueError(f"revision {tag!r}; expected a name of letters, digits, '.', '_' and '-', such as v1.")
    open_repository(repo_id, private)
    scores = "with its scores" if RESULTS in files else "without scores"
    return upload(repo_id, files, f"Publish the model {scores}", tag)


def write_repository(files: Mapping[str, bytes | Path], folder: str | Path) -> None:
    """Write the files to a new or empty folder, as they would lie on the Hub; KdamValueError if it holds something."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KdamValueError(f"{folder} exists and is not empty; give a new folder for the repository.")
    if not folder.name:  # the working directory, which cannot be replaced
        raise KdamValueError(f"{folder}: give a folder by its name.")
    with replacing(folder) as partial:
        partial.mkdir()
        for name, content in files.items():
            if isinstance(content, bytes):
                (partial / name).write_bytes(content)
            else:
                shutil.copyfile(content, partial / name)


def _model_files(record: Record) -> dict[str, bytes | Path]:
    config = redact_config(json.loads((record.folder / "config.json").read_text("utf-8")))
    model = MODELS[config["model_type"]]
    config["auto_map"] = {"AutoConfig": _code(model.config_class), "AutoModel": _code(model)}
    pipeline = {"impl": _code(MultiTaskDensePredictionPipeline), "pt": ["AutoModel"], "type": "image"}
    config["custom_pipelines"] = {TASK: pipeline}
    processor = KdamImageProcessor.from_model_config(record.config).to_dict()
    processor["auto_map"] = {"AutoImageProcessor": _code(KdamImageProcessor)}
    optional = {RESULTS: record.results, "recipe.json": record.settings, "training_log.json": record.log}
    files: dict[str, bytes | Path] = {
        WEIGHTS: record.folder / WEIGHTS,
        "config.json": _json(config),
        "preprocessor_config.json": _json(processor),
    }
    files |= {path.name: path for path in sorted(Path(__file__).parents[1].glob("*_kdam.py"))}
    return files | {name: _json(redact(content)) for name, content in optional.items() if content is not None}


def _code(cls: type) -> str:
    """Where a class lies in the repository: `kdam_hf.modeling_kdam.KdamStudent` as `modeling_kdam.KdamStudent`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _json(content: Any) -> bytes:
    return to_json(content, sort_keys=True).encode()


def _bare_picture(path: str | Path) -> bytes:
    """A picture as an upright PNG of nothing but pixels: a photo's metadata may say where it was taken."""
    try:
        pixels = Image.fromarray(np.asarray(open_photo(Path(path))))
    except ValueError as error:
        raise KdamValueError(f"picture: {error}") from error
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue()
