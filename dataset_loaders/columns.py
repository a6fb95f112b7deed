"""Which column of a foreign data set is the photo and which holds the labels of a task, and what its classes are called."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdam_hf.errors import DataIntegrityError, KdamValueError, did_you_mean
from kdam_hf.tasks import TASK_NAMES

ID, IMAGE = "id", "image"
SYNONYMS: dict[str, tuple[str, ...]] = {
    IMAGE: ("pixel_values", "photo", "img"),
    "semseg": ("annotation", "label", "mask", "segmentation", "objects"),
    "depth": ("depth_map",),
    "normals": ("normal",),
    "edge": ("edges", "boundary"),
}
"""Names by which a column is recognised, beside that of the task itself, which comes first."""
ID2LABEL = "id2label.json"


def find_columns(
    features: Mapping[str, Any], stated: Sequence[str], source: str, tasks: Sequence[str] | None = None
) -> dict[str, str]:
    """`image`, tasks, and `id` where it is stated, each with its column.

    Args:
        features: of the columns.
        stated: `NAME=COLUMN` of `--columns`; the others are recognised by their names.
        source: the data set, for messages.
        tasks: those that are wanted; all for None.

    Raises:
        KdamValueError: an unknown name or column, several columns that could be meant, no photo, or no label.
    """
    found = {}
    for text in stated:
        name, _, column = text.partition("=")
        for word, known in ((name, (IMAGE, ID, *TASK_NAMES)), (column, features)):
            if word not in known:
                raise KdamValueError(f"columns {text!r}: {word!r} is not known; {did_you_mean(word, known)}")
        if name != ID and not _holds_pixels(features[column]):
            _refuse(features, source, f"column {column} holds no pixels")
        found[name] = column
    for name in (IMAGE, *TASK_NAMES):
        free = [c for c in (name, *SYNONYMS.get(name, ())) if c in features and c not in found.values()]
        fitting = [column for column in free if _holds_pixels(features[column])]
        wanted = name not in found and (tasks is None or name in (IMAGE, *tasks))
        if len(fitting) > 1 and fitting[0] != name and wanted:
            _refuse(features, source, f"several columns could be {name}: {', '.join(fitting)}")
        if fitting:
            found.setdefault(name, fitting[0])
    if IMAGE not in found or not TASK_NAMES & found.keys():
        _refuse(features, source, f"no column is known as {'a label' if IMAGE in found else 'the image'}")
    return found


def image_column(features: Mapping[str, Any], stated: Sequence[str], source: str) -> str:
    """The column of photos without labels: the one stated, else one of a usual name, else the only one of images."""
    from datasets import Image as Pictures  # takes over a second to import

    images = [name for name, column in features.items() if isinstance(column, Pictures)]
    usual = [name for name in (IMAGE, *SYNONYMS[IMAGE]) if name in images]
    found = [text.removeprefix(f"{IMAGE}=") for text in stated] or usual[:1] or images
    if len(found) != 1 or found[0] not in images:
        raise KdamValueError(
            f"{source}: {', '.join(stated) or 'no columns given'}; of its columns {', '.join(features)} those of images are "
            f"{', '.join(images) or 'none'}. Give --columns image=COLUMN."
        )
    return found[0]


def _refuse(features: Mapping[str, Any], source: str, problem: str) -> None:
    image, label, *_ = *(name for name, feature in features.items() if _holds_pixels(feature)), "PHOTO", "LABEL"
    listed = "; ".join(f"{column}: {feature!s:.60}" for column, feature in features.items())
    raise KdamValueError(
        f"{source}: {problem}. Its columns are {listed}. Say which is which, such as --columns image={image} semseg={label}; "
        f"the tasks are {', '.join(TASK_NAMES)}."
    )


def _holds_pixels(feature: Any) -> bool:
    """Whether a cell may be a picture or an array."""
    from datasets import Array2D, Array3D, Image, List, Value

    nested = isinstance(feature, List) and isinstance(feature.feature, List)
    return nested or isinstance(feature, (Array2D, Array3D, Image)) or feature == Value("binary")


def innermost(feature: Any) -> Any:
    """The feature of the items of a list of lists."""
    from datasets import List

    return innermost(feature.feature) if isinstance(feature, List) else feature


def classes_column(name: str) -> str:
    """The column that lists the classes in view for the task called `name`."""
    return f"{name}_classes"


def class_names(features: Mapping[str, Any], name: str, column: str) -> Sequence[str]:
    """Names of the classes of a task by the `ClassLabel` of its column, or of one that lists its classes; or none."""
    from datasets import ClassLabel

    keys = (classes_column(name), classes_column(column), column)
    labels = (innermost(features[key]) for key in keys if key in features)
    return next((label.names for label in labels if isinstance(label, ClassLabel)), ())


def read_id2label(source: str) -> Sequence[str]:
    """Names of the classes by the file in the folder or Hub repository of a data set; none without such a file.

    Raises:
        DataIntegrityError: it does not map ids from 0 on to names.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    path = Path(source) / ID2LABEL
    try:
        path = path if Path(source).is_dir() else Path(hf_hub_download(source, ID2LABEL, repo_type="dataset"))
        names = {int(key): name for key, name in json.loads(path.read_text("utf-8")).items()}
        if sorted(names) != [*range(len(names))] or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"{names!s:.100}")
    except (FileNotFoundError, EntryNotFoundError, HFValidationError, RepositoryNotFoundError):
        return ()
    except (ValueError, AttributeError) as error:
        raise DataIntegrityError(f'{path}: {error}; expected a name for each id: {{"0": "wall", "1": ...}}.') from error
    return [names[k] for k in range(len(names))]
