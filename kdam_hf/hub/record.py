"""What is known of a trained model: configuration, scores, settings, log, and the results shown beside its own.

All of it is in the model's folder or in a file that the caller names; what is not there stays None, and the card says so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError, KdamError, KdamValueError
from kdam_hf.hub.remote_code import MODELS
from kdam_hf.io import differences, file_sha256

WEIGHTS, RESULTS = "model.safetensors", "results.json"
# conditions that two scores must share to stand side by side
SAME_SCORE = ("data", "split", "images", "ids_sha256", "protocol", "boundaries")
Results = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A trained model and the results it is shown beside.

    Args:
        folder: with model.safetensors and config.json.
        config: of the model.
        weights_sha256: of model.safetensors.
        results: results.json; None without scores.
        settings: keys that recipe and command line set.
        log: one dict per log line of the training.
        teacher: results.json of the teacher.
        baseline: results.json of the same student trained without a teacher.
    """

    folder: Path
    config: KdamConfig
    weights_sha256: str
    results: Results | None = None
    settings: dict[str, Any] | None = None
    log: list[dict[str, Any]] | None = None
    teacher: Results | None = None
    baseline: Results | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """Facts of the results; empty without any."""
        return self.results["meta"] if self.results else {}

    @property
    def method(self) -> str | None:
        """Of distillation; `none` for labels alone, `unknown` for an unrecorded one, None if nothing tells."""
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
    folder: str | Path, teacher_results: Path | None = None, baseline_results: Path | None = None
) -> Record:
    """Read a folder that train.py or distill.py wrote, or a checkpoint of theirs.

    Args:
        folder: of the model.
        teacher_results: results.json of its teacher.
        baseline_results: results.json of the same student trained without a teacher.

    Raises:
        CheckpointError: no model, a file that does not hold what its name says, or results of other weights.
        KdamValueError: a file given is missing, or holds scores that cannot stand beside these.
    """
    folder = Path(folder)
    record = Record(folder, _config(folder), file_sha256(folder / WEIGHTS), _object(folder / RESULTS), log=_log(folder))
    if record.results is not None:
        _check_own(record)
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    settings = _object(run / "recipe.json") or record.meta.get("recipe")
    teacher = _beside(record, teacher_results, weights=list(filter(None, record.meta.get("teacher_sha256") or ())))
    baseline = _beside(record, baseline_results, same=("kind", "parameters"))
    return replace(record, settings=settings, teacher=teacher, baseline=baseline)


def scores_of(results: Results | None) -> dict[str, float]:
    """`task/metric` -> value, and totals such as delta_m."""
    return {key: value for key, value in (results or {}).items() if key != "meta"}


def _object(path: Path, error: type[KdamError] = CheckpointError) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as fault:
        raise error(f"{path} is not valid JSON ({fault}); write it again, or remove it.") from fault
    if not isinstance(content, dict):
        raise error(f"{path} holds a {type(content).__name__}, not an object; write it again, or remove it.")
    return content


def _config(folder: Path) -> KdamConfig:
    content = _object(folder / "config.json")
    if content is None or not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: no config.json with {WEIGHTS} beside it; expected a folder that train.py or distill.py wrote."
        )
    if content.get("model_type") not in MODELS:
        raise CheckpointError(f"{folder} holds a {content.get('model_type')}; expected one of {', '.join(MODELS)}.")
    config: KdamConfig = MODELS[content["model_type"]].config_class.from_pretrained(folder)
    return config


def _check_own(record: Record) -> None:
    """Refuse scores of other weights, or of these before they changed."""
    results, where = record.results or {}, record.folder / RESULTS
    again = f"score this model with scripts/evaluate.py --model {record.folder} --output {where}."
    if not isinstance(results.get("meta"), dict):
        raise CheckpointError(f"{where} holds no 'meta'; {again}")
    scored = record.meta.get("weights_sha256") or record.weights_sha256
    tasks = {key.split("/")[0] for key in results if "/" in key}
    if scored != record.weights_sha256 or not tasks <= set(record.config.task_names):
        raise CheckpointError(f"{where} is the score of other weights or tasks than those in {record.folder}; {again}")


def _log(folder: Path) -> list[dict[str, Any]] | None:
    """The log lines of the training: of the folder, or of its newest checkpoint."""
    steps = {path.name.removeprefix("checkpoint-"): path for path in folder.glob("checkpoint-*")}
    newest = [steps[step] for step in sorted(filter(str.isdigit, steps), key=int, reverse=True)]
    for path in (folder, *newest):
        state = _object(path / "trainer_state.json")
        if state is not None:
            history: list[dict[str, Any]] = state.get("log_history", [])
            return history
    return None


def _beside(record: Record, path: Path | None, same: Sequence[str] = (), weights: Sequence[str] = ()) -> Results | None:
    """Results to stand beside the model's own: under the same conditions, with the `same` facts, of one of the `weights`."""
    if path is None:
        return None
    other = _object(path, KdamValueError)
    if other is None or not isinstance(other.get("meta"), dict):
        raise KdamValueError(f"{path}: no results there; give the results.json of train.py, distill.py or evaluate.py.")
    there = {key: other["meta"].get(key) for key in (*SAME_SCORE, *same)}
    here = {key: record.meta.get(key) for key in there}
    scored = other["meta"].get("weights_sha256")
    if scored and weights and scored not in weights:
        there["weights_sha256"], here["weights_sha256"] = scored, weights[0]
    different = differences(there, here)
    if different:
        raise KdamValueError(
            f"{path} does not fit {record.folder / RESULTS} (there -> here): {'; '.join(different)}. Scores stand side by side "
            "only on the same images under the same protocol; score both with scripts/evaluate.py."
        )
    return other
