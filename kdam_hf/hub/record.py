"""What is known of a trained model: configuration, scores, settings, log, and the results shown beside its own.

All of it is in the model's folder or in a file that the caller names; what is not there stays None, and the card says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdam_hf import KdamStudent, KdamTeacher
from kdam_hf.configuration_kdam import KdamConfig
from kdam_hf.errors import CheckpointError, KdamError, KdamValueError
from kdam_hf.io import as_scores, differences, file_sha256, list_checkpoints
from kdam_hf.modeling_kdam import KdamPreTrainedModel
from kdam_hf.weights_kdam import WEIGHTS

MODELS: dict[str, type[KdamPreTrainedModel]] = {cls.config_class.model_type: cls for cls in (KdamTeacher, KdamStudent)}
RESULTS = "results.json"
# conditions that two scores must share to stand side by side
SAME_SCORE = ("data", "split", "images", "ids_sha256", "protocol", "boundaries")
Results = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A trained model and the results it is shown beside; what is not known is None.

    `settings` are the keys that recipe and command line set, `log` the lines of the training log; `teacher` and `baseline` are
    the results.json of its teacher and of the same student trained without one.
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
    def teachers(self) -> list[dict[str, Any]]:
        """Tasks, licence and revision of each teacher, also of a run without results yet."""
        return self.meta.get("teachers") or (self.settings or {}).get("teachers") or []

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
    folder: str | Path, teacher_results: str | Path | None = None, baseline_results: str | Path | None = None
) -> Record:
    """Read a folder that kdam train or kdam distill wrote, or a checkpoint of theirs, and the results.json to show beside.

    Raises:
        CheckpointError: no model, a file that does not hold what its name says, or results of other weights.
        KdamValueError: a file given is missing, or holds scores that cannot stand beside these.
    """
    folder = Path(folder)
    record = Record(folder, _config(folder), file_sha256(folder / WEIGHTS), _scores(folder / RESULTS))
    if record.results is not None:
        _check_own(record)
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    return replace(
        record,
        settings=_object(run / "recipe.json") or record.meta.get("recipe"),
        log=training_log(folder),
        teacher=_beside(record, teacher_results, weights=[x for x in record.meta.get("teacher_sha256") or () if x]),
        baseline=_beside(record, baseline_results, same=("kind", "parameters")),
    )


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


def _scores(path: Path, error: type[KdamError] = CheckpointError) -> Results | None:
    content = _object(path, error)
    return None if content is None else as_scores(content)


def _config(folder: Path) -> KdamConfig:
    content = _object(folder / "config.json") or {}
    if content.get("model_type") not in MODELS or not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: expected {WEIGHTS} beside the config.json of a {' or '.join(MODELS)}, as kdam train and kdam distill "
            f"write them; found one of {content.get('model_type')}."
        )
    config: KdamConfig = MODELS[content["model_type"]].config_class.from_pretrained(folder)
    return config


def _check_own(record: Record) -> None:
    """Refuse scores of other weights, or of these before they changed."""
    results, where = record.results or {}, record.folder / RESULTS
    # `task/metric`, or `agreement/task/metric`
    tasks, known = {key.split("/")[-2] for key in results if "/" in key}, isinstance(results.get("meta"), dict)
    scored = known and (record.meta.get("weights_sha256") or record.weights_sha256)
    if scored != record.weights_sha256 or not tasks <= set(record.config.task_names):
        fault = f"{where} is without 'meta', or the score of other weights or tasks than those in {record.folder}"
        raise CheckpointError(f"{fault}; use kdam evaluate --model {record.folder} --output {where}.")


def training_log(folder: Path) -> list[dict[str, Any]] | None:
    """The log lines of a training, of its folder or its newest checkpoint; None if it left none."""
    states = (_object(path / "trainer_state.json") for path in (folder, *list_checkpoints(folder)))
    return next((state.get("log_history", []) for state in states if state is not None), None)


def score_facts(*metas: Mapping[str, Any]) -> list[str]:
    """What two scores must agree in; the images by their ids where both say them, as results of earlier versions do not."""
    return [key for key in SAME_SCORE if key != "ids_sha256" or all(meta.get(key) for meta in metas)]


def _beside(
    record: Record, path: str | Path | None, same: Sequence[str] = (), weights: Sequence[str] = ()
) -> Results | None:
    """Results to stand beside the model's own: under the same conditions, with the `same` facts, of one of the `weights`."""
    if path is None:
        return None
    other = _scores(Path(path), KdamValueError)
    if other is None or not isinstance(other.get("meta"), dict):
        raise KdamValueError(f"{path}: no results there; give a results.json of kdam train, distill or evaluate.")
    compared = (*score_facts(other["meta"], record.meta), *same)
    there, here = ({key: meta.get(key) for key in compared} for meta in (other["meta"], record.meta))
    scored = other["meta"].get("weights_sha256")
    if scored and weights and scored not in weights:
        there["weights_sha256"], here["weights_sha256"] = scored, weights[0]
    if different := differences(there, here):
        fault = f"{path} does not fit {record.folder / RESULTS} (there -> here): {'; '.join(different)}"
        raise KdamValueError(f"{fault}. Score both on the same images under one protocol, with kdam evaluate.")
    return other
