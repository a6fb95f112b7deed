"""What is known of a trained model: its configuration, scores, settings, log, and the models it is held against.

All of it is read from the model's folder and its neighbours; what is not there stays None, and the card says so.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.hub.remote_code import MODELS

NO_PICTURE = Path("none")
WEIGHTS, RESULTS, SHEET = "model.safetensors", "results.json", "contact_sheet.png"
# What two scores must share to stand side by side, and what a student and its baseline must.
SAME_SCORE = ("data", "split", "images", "protocol", "boundaries")
SAME_TRAINING = ("kind", "parameters", "steps", "seed", "train_images")
Results = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A trained model as its folder shows it.

    Args:
        folder: with model.safetensors and config.json.
        config: of the model.
        weights_sha256: of model.safetensors.
        results: results.json; None without scores.
        settings: keys that recipe and command line set.
        log: one dict per log line of the training.
        teacher: results.json of the teacher; None if unknown.
        baseline: results.json of the same student trained without a teacher; None if unknown.
        latency_over_teacher: seconds per image over those of the teacher; None if nobody measured.
        picture: a contact sheet; None for none.
    """

    folder: Path
    config: KdamConfig
    weights_sha256: str
    results: Results | None = None
    settings: dict[str, Any] | None = None
    log: list[dict[str, Any]] | None = None
    teacher: Results | None = None
    baseline: Results | None = None
    latency_over_teacher: float | None = None
    picture: Path | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """Facts of the results; empty without any."""
        return self.results["meta"] if self.results else {}

    @property
    def scores(self) -> dict[str, float]:
        """`task/metric` -> value."""
        return values(self.results)

    @property
    def method(self) -> str | None:
        """Of distillation; `none` for labels alone, `unknown` for a teacher matched nobody says how, None if nothing tells."""
        settings = self.settings or {}
        recorded: str | None = self.meta.get("method", settings.get("method"))
        if recorded is None and self.settings is not None:
            return "unknown" if settings.get("teacher") else "none"
        return recorded

    @property
    def distilled(self) -> bool:
        """Whether it is known to have had a teacher."""
        return self.method not in (None, "none")


def read_record(
    folder: Path,
    teacher_results: Path | None = None,
    baseline_results: Path | None = None,
    picture: Path | None = None,
) -> Record:
    """Read a folder that train.py or distill.py wrote.

    Args:
        folder: of the model.
        teacher_results: results.json of its teacher; by default that of the folder the model learned from.
        baseline_results: results.json of the student without a teacher; by default that of a neighbouring folder `none`,
            as compare.py leaves them.
        picture: a contact sheet; by default that of the comparison above the folder which this run belongs to;
            `NO_PICTURE` for none.

    Raises:
        CheckpointError: no model, a file that does not hold what its name says, or results of other weights.
        KdamValueError: a file given is missing, or holds scores that cannot stand beside these.
    """
    config = read_config(folder)
    weights = sha256(folder / WEIGHTS)
    results = _own_results(folder)
    settings = _object((folder.parent if folder.name.startswith("checkpoint-") else folder) / "recipe.json")
    if settings is None and results:
        settings = results["meta"].get("recipe")
    record = Record(folder, config, weights, results, settings, _log(folder))
    if results is None:
        return replace(record, picture=_picture(None, picture))
    _check_own(record)
    compared = _comparison(record)
    return replace(
        record,
        teacher=_teacher(record, teacher_results),
        baseline=_baseline(record, baseline_results),
        latency_over_teacher=(compared or {}).get("meta", {}).get("latency_over_teacher"),
        picture=_picture(folder.parent / SHEET if compared else None, picture),
    )


def read_config(folder: Path) -> KdamConfig:
    """The configuration of the model in a folder.

    Raises:
        CheckpointError: config.json or model.safetensors is missing, or it is another kind of model.
    """
    content = _object(folder / "config.json")
    if content is None or not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: no config.json with {WEIGHTS} beside it; expected a folder that train.py or distill.py wrote."
        )
    if content.get("model_type") not in MODELS:
        raise CheckpointError(f"{folder} holds a {content.get('model_type')}; expected one of {', '.join(MODELS)}.")
    config: KdamConfig = MODELS[content["model_type"]].config_class.from_pretrained(folder)
    return config


def values(results: Results | None) -> dict[str, float]:
    """The scores of a results.json."""
    return {key: value for key, value in (results or {}).items() if key != "meta"}


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); write it again, or remove it.") from error


def _object(path: Path) -> dict[str, Any] | None:
    content = _read(path)
    if content is not None and not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object; write it again, or remove it.")
    return content


def _own_results(folder: Path) -> Results | None:
    results, where = _object(folder / RESULTS), folder / RESULTS
    if results is not None and not isinstance(results.get("meta"), dict):
        raise CheckpointError(
            f"{where} holds no 'meta'; write it again with scripts/evaluate.py --model {folder} --output {where}."
        )
    return results


def _given(path: Path) -> Results:
    results = _read(path)
    if not isinstance(results, dict) or not isinstance(results.get("meta"), dict):
        raise KdamValueError(f"{path}: no results there; give the results.json of train.py, distill.py or evaluate.py.")
    return results


def _check_own(record: Record) -> None:
    """Scores of another model, or of these weights before they changed, would be a lie on the card."""
    where = record.folder / RESULTS
    tasks = {key.split("/")[0] for key in record.scores if "/" in key}
    scored = record.meta.get("weights_sha256") or record.weights_sha256
    if scored != record.weights_sha256 or not tasks <= set(record.config.task_names):
        raise CheckpointError(
            f"{where} is the score of other weights or tasks than those in {record.folder}; "
            f"score this model with scripts/evaluate.py --model {record.folder} --output {where}."
        )


def _log(folder: Path) -> list[dict[str, Any]] | None:
    """The log lines of the training: of the folder, or of its newest checkpoint."""
    checkpoints = [path for path in folder.glob("checkpoint-*/trainer_state.json") if _step(path) is not None]
    for path in [folder / "trainer_state.json", *sorted(checkpoints, key=_step, reverse=True)]:
        state = _object(path)
        if state is not None:
            history: list[dict[str, Any]] = state.get("log_history", [])
            return history
    return None


def _step(path: Path) -> Any:
    number = path.parent.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else None


def _picture(sheet: Path | None, given: Path | None) -> Path | None:
    """The picture given, or the sheet of the comparison; any other lying about may show what nobody meant to publish."""
    if given == NO_PICTURE:
        return None
    if given is not None:
        if not given.is_file():
            raise KdamValueError(
                f"{given}: no such picture; give a PNG or JPEG, such as one of predict.py or compare.py, or none."
            )
        return given
    return sheet if sheet is not None and sheet.is_file() else None


def _teacher(record: Record, given: Path | None) -> Results | None:
    """Scores of the teacher, from the file given or from the folder the student learned from."""
    if given is not None:
        return _comparable(record, given, SAME_SCORE)
    names, hashes = (record.meta.get(key) or [] for key in ("teacher", "teacher_sha256"))
    if len(names) != 1 or not (Path(names[0]) / RESULTS).is_file():
        return None
    weights = Path(names[0]) / WEIGHTS
    if not weights.is_file() or [sha256(weights)] != hashes:
        return None  # retrained since
    return _comparable(record, Path(names[0]) / RESULTS, SAME_SCORE, optional=True)


def _baseline(record: Record, given: Path | None) -> Results | None:
    """Scores of the same student without a teacher, from the file given or from a neighbour."""
    if given is not None:
        return _comparable(record, given, (*SAME_SCORE, "kind", "parameters"))
    if not record.distilled:
        return None
    for name in ("none", f"none-seed{record.meta.get('seed')}"):
        path = record.folder.parent / name / RESULTS
        if path.is_file() and _given(path)["meta"].get("method") == "none":
            found = _comparable(record, path, (*SAME_SCORE, *SAME_TRAINING), optional=True)
            if found is not None:
                return found
    return None


def _comparable(record: Record, path: Path, keys: tuple[str, ...], optional: bool = False) -> Results | None:
    other = _given(path)
    different = [key for key in keys if other["meta"].get(key) != record.meta.get(key)]
    if not different:
        return other
    if optional:
        return None
    key = different[0]
    raise KdamValueError(
        f"{path} has {key} {other['meta'].get(key)}, the model {record.meta.get(key)}; scores stand side by side only on the "
        "same images under the same protocol. Score both with scripts/evaluate.py on one split."
    )


def _comparison(record: Record) -> Results | None:
    """What compare.py left of these very weights above the model's folder; None if they are not among those compared."""
    summary = _read(record.folder.parent / RESULTS)
    for entry in summary.values() if isinstance(summary, dict) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("meta"), dict):
            continue
        if any(run["meta"].get("weights_sha256") == record.weights_sha256 for run in (entry, *entry.get("runs", ()))):
            return entry
    return None
