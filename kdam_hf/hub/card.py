"""Model cards: the metadata that the Hub validates, and a page of facts that says where something was not recorded.

The sentences stand in card_template.md; they see redacted facts only.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from kdam_hf.hub.record import Record, scores_of
from kdam_hf.hub.redact import is_hub_name, redact
from kdam_hf.io import source_parts
from kdam_hf.metrics import PROTOCOLS, delta_m
from kdam_hf.pipeline_kdam import TASK
from kdam_hf.presets import PRESETS
from kdam_hf.readout_kdam import Numbers
from kdam_hf.tasks import Task, task_from_spec, with_boundaries

TEMPLATE = Path(__file__).with_name("card_template.md")
PICTURE = "sample.png"
UNKNOWN = "unknown"
SETTINGS = {
    "temperature": "Temperature T",
    "beta": "Weight beta",
    "scale_by_temperature": "Multiplied by T²",
    "inter": "Inter-task match",
    "inter_temperature": "Temperature of its rows",
    "intra": "Intra-task match",
    "teacher_views": "Fixed crops per image seen by the teacher",
}


def make_card(
    record: Record, repo_id: str, license: str = UNKNOWN, has_picture: bool = False, progress: str = ""
) -> ModelCard:
    """The card of a model to be published as `repo_id`; its metadata holds a `model-index` when there are scores.

    Args:
        record, repo_id: what is known of it, and `org/name`.
        license: identifier that the Hub knows, of the weights; it depends on the training data, so none is assumed.
        has_picture: whether the repository holds `PICTURE`.
        progress: for a model that is still being trained, how far it is.
    """
    facts = card_facts(record)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": _number, "scaled": _scaled}
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        facts,
        card_data=card_data(facts, repo_id, license).to_yaml(),
        repo_id=repo_id,
        license=license,
        picture=PICTURE if has_picture else None,
        progress=progress,
        pipeline=TASK,
        protocol=PROTOCOLS.get(facts["meta"]["protocol"] or ""),
    )
    return ModelCard(text)


def card_facts(record: Record) -> dict[str, Any]:
    """What the template says, without anything that `redact` takes out; in dicts of facts what is absent is None."""
    results, teacher, baseline = (redact(side or {}) for side in (record.results, record.teacher, record.baseline))
    known = results.get("meta", {}), teacher.get("meta", {}), redact(record.settings or {})
    meta, teacher_meta, settings = (defaultdict(lambda: None, facts) for facts in known)
    tasks = with_boundaries([task_from_spec(spec) for spec in record.config.tasks or []], meta["boundaries"])
    scores = scores_of(results)
    shown = {key: task for task in tasks if (key := f"{task.name}/{task.primary_metric}") in scores}
    agreed = {key: task for task in tasks if (key := f"agreement/{task.name}/{task.primary_metric}") in scores}
    columns = {"this model": scores, "same student, no teacher": scores_of(baseline), "teacher": scores_of(teacher)}
    columns = {name: values for name, values in columns.items() if values or name == "this model"}
    sizes = {"x".join(map(str, facts["gflops_size"] or ())) for facts in (meta, teacher_meta)}
    return {
        "record": record,
        "teachers": redact(record.teachers) or [],
        "config": record.config,
        "meta": meta,
        "teacher_meta": teacher_meta,
        "settings": settings,
        "tasks": tasks,
        "outputs": {task.name: _output(task) for task in tasks},
        "scores": scores,
        "columns": list(columns),
        "rows": {
            f"{key} {'↑' if task.higher_is_better else '↓'}": [values.get(key, math.nan) for values in columns.values()]
            for key, task in (shown | agreed).items()
        },
        "further": {key: value for key, value in scores.items() if key not in shown | agreed},
        "agreement": any(key.startswith("agreement/") for key in scores),
        "gain": _gain(scores, scores_of(baseline), shown),
        "cost_sizes": ", ".join(sorted(sizes - {""})),
        "distillation": {key: settings[key] for key in SETTINGS} | (meta["distillation"] or {}),
        "words": SETTINGS,
        "synthetic": "synthetic_rooms" in (meta["data"], settings["dataset"]),
        "hub_dataset": _hub_dataset(settings),
        "backbone_source": _backbone_source(settings),
    }


def card_data(facts: dict[str, Any], repo_id: str, license: str) -> ModelCardData:
    """Metadata of the card; values that are not finite are left out of the model-index."""
    meta, tasks = facts["meta"], {task.name: task for task in facts["tasks"]}
    hub_dataset, _ = source_parts(facts["hub_dataset"] or "")
    on = {"dataset_type": hub_dataset or meta["data"], "dataset_name": meta["data"]}
    results = []
    for key, value in facts["scores"].items():
        task, _, metric = key.partition("/")
        if task in tasks and math.isfinite(value):
            scored = {"metric_type": metric, "metric_name": key, "metric_value": round(value, 4)}
            results.append(EvalResult(tasks[task].hub_task, dataset_split=meta["split"], **on, **scored))
    tags = ["kdam", "multi-task-learning", "dense-prediction", *tasks]
    tags += ["knowledge-distillation"] if facts["record"].distilled else []
    return ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag=facts["tasks"][0].hub_task,
        tags=tags + (["synthetic-data"] if facts["synthetic"] else []),
        datasets=[hub_dataset] if hub_dataset else None,
        base_model=facts["backbone_source"],
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=results or None,
    )


def _output(task: Task) -> str:
    """What a value of the task is, in words; a plain number has a unit."""
    words = task.reader.words
    return f"{words}, {task.unit}" if words == Numbers.words and task.unit else words


def _gain(scores: dict[str, float], baseline: dict[str, float], shown: dict[str, Task]) -> float | None:
    """delta_m over the undistilled student in percent; None unless every task has both scores."""
    pairs = [(scores[key], baseline.get(key, 0.0), task.higher_is_better) for key, task in shown.items()]
    known = pairs and all(reference > 0 and math.isfinite(value) for value, reference, _ in pairs)
    return delta_m(pairs) if known else None


def _hub_dataset(settings: dict[str, Any]) -> str | None:
    """Hub id of the data set, perhaps with a configuration."""
    place = settings.get("data_dir") or ""  # a local one was taken out
    return place if settings.get("dataset") == "hub" and is_hub_name(place) else None


def _backbone_source(settings: dict[str, Any]) -> str | None:
    """Hub id of the weights the backbone started from: those of the preset, unless it is one of ours and they are not named."""
    preset: str | None = settings.get("preset")
    name: str | None = settings.get("backbone_weights") or ("preset" if preset and preset not in PRESETS else "none")
    if name == "preset":
        return PRESETS[preset].weights if preset in PRESETS else preset
    return None if name == "none" else name


def _number(value: Any) -> str:
    return str(value) if not isinstance(value, float) else "–" if math.isnan(value) else f"{value:.3f}"


def _scaled(value: float | None, unit: float = 1) -> str:
    return "not known" if value is None else f"{value / unit:.2f}"
