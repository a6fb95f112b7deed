"""Model cards: the metadata that the Hub validates, and the page around the facts of a record."""

import math
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from kdam_hf.hub import card_facts as facts
from kdam_hf.hub.record import Record
from kdam_hf.pipeline_kdam import TASK
from kdam_hf.tasks import Task

TEMPLATE = Path(__file__).with_name("card_template.md")
PICTURE = "sample.png"
UNKNOWN = "unknown"


def make_card(record: Record, repo_id: str, license: str = UNKNOWN, progress: str = "") -> ModelCard:
    """The card of a model.

    Args:
        record: what is known of it.
        repo_id: where it is published, `org/name`.
        license: identifier that the Hub knows, of the weights; it depends on the training data, so none is assumed.
        progress: for a model that is still being trained, how far it is.

    Returns:
        A card whose metadata holds a `model-index` when there are scores.
    """
    tasks = facts.tasks_of(record)
    keys = facts.primary_keys(record, tasks)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(TEMPLATE.read_text()).render(
        card_data=card_data(record, repo_id, license, tasks).to_yaml(),
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        role=_role(record),
        synthetic=is_synthetic(record),
        progress=progress,
        picture=PICTURE if record.picture else None,
        picture_caption="Sample; the titles in the picture say what each cell shows.",
        pipeline=TASK,
        tasks=facts.task_rows(tasks),
        scores=facts.score_table(record, keys) if record.results else None,
        score_note=facts.score_note(record, keys) if record.results else "",
        further=facts.further_scores(record, keys),
        cost=facts.cost_rows(record),
        data=facts.data_lines(record),
        training=facts.training_lines(record),
        log=facts.log_table(record),
        distillation=facts.distillation_lines(record),
        limits=facts.limit_lines(record),
        licence=_licence(license),
        weights_sha256=record.weights_sha256,
        provenance=_provenance(record),
    )
    return ModelCard(text)


def card_data(record: Record, repo_id: str, license: str, tasks: tuple[Task, ...]) -> ModelCardData:
    """Metadata of the card; values that are not finite are left out of the model-index."""
    dataset, meta = facts.hub_dataset(record), record.meta
    rooms = {task.name: task for task in tasks}
    results = [
        EvalResult(
            task_type=rooms[key.split("/")[0]].hub_task,
            dataset_type=dataset or meta["data"],
            dataset_name=meta["data"],
            dataset_split=meta["split"],
            metric_type=key.split("/")[1],
            metric_name=key,
            metric_value=round(value, 4),
        )
        for key, value in record.scores.items()
        if key.split("/")[0] in rooms and math.isfinite(value)
    ]
    tags = ["kdam", "multi-task-learning", "dense-prediction", *rooms]
    tags += ["knowledge-distillation"] if record.distilled else []
    return ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag=tasks[0].hub_task,
        tags=tags + (["synthetic-data"] if is_synthetic(record) else []),
        datasets=[dataset] if dataset else None,
        base_model=facts.backbone_source(record),
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=results or None,
    )


def is_synthetic(record: Record) -> bool:
    """Whether it was trained on the rendered rooms."""
    return "synthetic_rooms" in (record.meta.get("data"), (record.settings or {}).get("dataset"))


def _role(record: Record) -> str:
    kind = "teacher (strong decoder)" if record.config.model_type.endswith("teacher") else "student (light decoder)"
    how = {None: "of unrecorded training", "none": "trained on labels alone"}.get(
        record.method, "distilled from a teacher"
    )
    return f"KDAM {kind}, {how},"


def _licence(license: str) -> str:
    stated = (
        "The publisher states none for the weights: ask before you use them."
        if license == UNKNOWN
        else f"Weights: `{license}`, as stated by the publisher."
    )
    besides = (
        "The terms of the training data, and of the backbone's weights, apply besides. The code files are Apache-2.0."
    )
    return f"{stated} {besides}"


def _provenance(record: Record) -> list[str]:
    meta: dict[str, Any] = record.meta
    if not meta:
        return ["No results.json was at hand: versions, hardware and date are not recorded."]
    versions = ", ".join(f"{name} {version}" for name, version in meta.get("versions", {}).items())
    return [f"Scored on {meta['date']}; {meta['hardware']}.", f"Versions: {versions or 'not recorded'}."]
