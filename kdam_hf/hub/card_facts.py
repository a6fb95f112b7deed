"""The sentences and tables of a model card. Each says only what a record holds, or that it holds nothing."""

import math
from collections.abc import Sequence
from typing import Any

from kdam_hf.hub.public import is_public_name, public
from kdam_hf.hub.record import Record, values
from kdam_hf.metrics import PROTOCOLS, delta_m
from kdam_hf.presets import PRESETS
from kdam_hf.tasks import Task, task_from_spec, with_boundaries

OUTPUTS = {
    "argmax": "class id",
    "foreground": "probability in [0, 1]",
    "sigmoid": "probability in [0, 1]",
    "unit": "unit vector (x right, y up, z towards the camera)",
}
LISTED = 12  # class names a table cell can bear


def tasks_of(record: Record) -> tuple[Task, ...]:
    """The tasks of the model, scored as its results say."""
    tasks = [task_from_spec(spec) for spec in record.config.tasks or []]
    return with_boundaries(tasks, record.meta.get("boundaries"))


def task_rows(tasks: Sequence[Task]) -> list[dict[str, str]]:
    """Name, output and classes of every task."""
    rows = []
    for task in tasks:
        names = list(task.class_names)
        listed = (
            ", ".join(names) if len(names) <= LISTED else f"{', '.join(names[:LISTED])} ... (config.json lists all)"
        )
        output = OUTPUTS.get(task.readout, {"m": "metres"}.get(task.unit, task.unit))
        rows.append({"name": task.name, "output": output, "classes": f"{len(names)}: {listed}" if names else "–"})
    return rows


def primary_keys(record: Record, tasks: Sequence[Task]) -> dict[str, Task]:
    """The first metric of every task that was scored."""
    keys = {f"{task.name}/{task.primary_metric}": task for task in tasks}
    return {key: task for key, task in keys.items() if key in record.scores}


def score_table(record: Record, keys: dict[str, Task]) -> str:
    """Markdown: the first metric of every task, beside the same student without a teacher and the teacher."""
    columns = [("this model", record.scores)]
    columns += [("same student, no teacher", values(record.baseline))] if record.baseline else []
    columns += [("teacher", values(record.teacher))] if record.teacher else []
    lines = ["| metric | " + " | ".join(name for name, _ in columns) + " |", "| --- |" + " --- |" * len(columns)]
    for key, task in keys.items():
        cells = [_number(scores.get(key, math.nan)) for _, scores in columns]
        lines.append(f"| {key} {'↑' if task.higher_is_better else '↓'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def score_note(record: Record, keys: dict[str, Task]) -> str:
    """On what, when and under which settings the scores were measured, and the gain over the undistilled student."""
    meta = record.meta
    protocol = PROTOCOLS.get(meta.get("protocol", ""))
    parts = [
        f"{meta['images']} images of `{meta['data']}`, split `{meta['split']}`; {meta['date']}, {meta['hardware']}.",
        "Shares in percent, depth in metres, angles in degrees; ↑ higher is better, ↓ lower is better.",
        f"Protocol `{meta.get('protocol', 'unknown')}`"
        + (f", boundaries `{meta['boundaries']}`" if "boundaries" in meta else "")
        + (f": {protocol.differs} (source: {protocol.source})" if protocol and protocol.name != "ours" else "")
        + ".",
    ]
    baseline = values(record.baseline)
    pairs = [(record.scores[key], baseline.get(key, 0.0), task.higher_is_better) for key, task in keys.items()]
    if record.baseline and all(reference > 0 and math.isfinite(value) for value, reference, _ in pairs):
        parts.append(
            f"Mean relative gain over the same student without a teacher: {delta_m(pairs):+.2f} %, one run each."
        )
    return " ".join(parts)


def further_scores(record: Record, keys: dict[str, Task]) -> list[tuple[str, str]]:
    """Every other entry of the results."""
    return [(key, _number(value)) for key, value in record.scores.items() if key not in keys]


def cost_rows(record: Record) -> list[tuple[str, str, str]]:
    """Parameters, GFLOPs and latency, of the model and its teacher."""
    own, other = record.meta, record.teacher["meta"] if record.teacher else {}
    sizes = {"x".join(map(str, meta.get("gflops_size", ()))) for meta in (own, other)} - {""}
    ratio = record.latency_over_teacher
    return [
        ("parameters, M", _scaled(own.get("parameters"), 1e6), _scaled(other.get("parameters"), 1e6)),
        (
            f"GFLOPs per image of {', '.join(sizes) or 'any size'}",
            _scaled(own.get("gflops")),
            _scaled(other.get("gflops")),
        ),
        (
            "latency per image, ratio measured side by side on a CPU",
            "not measured" if ratio is None else f"{ratio:.2f}",
            "–" if ratio is None else "1",
        ),
    ]


def data_lines(record: Record) -> list[str]:
    """What the model learned from, and which labels are derived."""
    meta, settings = record.meta, record.settings or {}
    name = meta.get("trained_on") or meta.get("data") or settings.get("dataset")
    if not name:
        return ["The training data is not recorded."]
    count = f": {meta['train_images']} images" if "train_images" in meta else "; how many images is not recorded"
    lines = [f"Trained on `{name}`, split `{settings.get('train_split', 'train')}`{count}."]
    if hub_dataset(record):
        lines.append(f"Source: `{hub_dataset(record)}` on the Hub.")
    notes = meta.get("notes") if name == meta.get("data") else None
    if notes is None:
        lines.append("Which labels are derived or distilled was not recorded.")
    elif public(notes):
        lines += [f"{note[:1].upper()}{note[1:]}." for note in public(notes)]
    else:
        lines.append("The loader reports no derived labels: maps are taken as the data set has them.")
    return lines


def training_lines(record: Record) -> list[str]:
    """How long and from where it was trained."""
    meta, settings = record.meta, record.settings
    if settings is None:
        return ["The settings of the training are not recorded."]
    start = backbone_source(record)
    lines = [
        f"Backbone: {getattr(record.config.backbone_config, 'model_type', 'unknown')}"
        + (f" (preset `{settings['preset']}`)" if "preset" in settings else "")
        + (f", starting from `{start}`." if start else ", no published weights recorded as its start.")
    ]
    if "steps" in meta:
        batch = settings.get("per_device_train_batch_size")
        lines.append(
            f"{meta['steps']} optimizer steps"
            + (f" of {batch * meta.get('world_size', 1)} crops" if batch else "")
            + f", seed {meta.get('seed')}, {meta.get('world_size', 1)} process(es), "
            + ("bfloat16 autocast." if meta.get("bf16") else "float32.")
        )
    lines.append(
        "`recipe.json` holds every setting that was given"
        + (f"; the others are the defaults of kdam-hf {meta['versions']['kdam-hf']}." if "versions" in meta else ".")
    )
    return lines


def log_table(record: Record) -> dict[str, Any] | None:
    """Loss and its terms at the first and the last log line."""
    lines = [line for line in record.log or [] if "loss" in line and "step" in line]
    if not lines:
        return None
    names = [key for key in lines[0] if key not in ("step", "epoch", "learning_rate", "grad_norm")]
    shown = lines[:1] + (lines[-1:] if len(lines) > 1 else [])
    return {
        "names": names,
        "rows": [(line["step"], [_number(line.get(key, math.nan)) for key in names]) for line in shown],
    }


def distillation_lines(record: Record) -> list[str]:
    """Who taught, and how the match was made."""
    meta, settings = record.meta, record.settings or {}
    method = record.method
    if method is None:
        return ["Not recorded."]
    if method == "none":
        return ["None: this model was trained on labels alone."]
    names = [name for name in meta.get("teacher", []) if is_public_name(name)]
    hashes = [value for value in meta.get("teacher_sha256", []) if value]
    known = meta.get("distillation", {})
    lines = [
        "Teacher: "
        + (", ".join(f"`{name}`" for name in names) or "not published under a name")
        + (
            "; weights SHA-256 " + ", ".join(f"`{value}`" for value in hashes)
            if hashes
            else "; hash of its weights not recorded"
        )
        + ".",
        "Method: not recorded."
        if method == "unknown"
        else f"Method: `{method}`" + (" (KDAM, the Cauchy-Schwarz divergence)." if method == "cs" else "."),
    ]
    for key, text in (
        ("temperature", "temperature T"),
        ("beta", "weight beta"),
        ("scale_by_temperature_squared", "multiplied by T²"),
        ("inter", "inter-task match"),
        ("intra", "intra-task match"),
        ("kd_resolution", "resolution of the match"),
        ("teacher_views", "fixed crops per image seen by the teacher"),
    ):
        value = known.get(key, settings.get(key))
        if value is not None:
            lines.append(f"{text[:1].upper()}{text[1:]}: {_word(value)}.")
        elif key in ("temperature", "beta"):
            lines.append(f"{text[:1].upper()}{text[1:]}: not recorded.")
    if "matching_batch" in meta:
        lines.append(
            f"Matching batch: {meta['matching_batch']} images compared as one; another size is another objective."
        )
    return lines


def limit_lines(record: Record) -> list[str]:
    """What the numbers leave open."""
    lines = []
    if "seed" in record.meta:
        lines.append(f"One run, seed {record.meta['seed']}: the spread over seeds is not known from it.")
    if record.distilled and record.teacher is None:
        lines.append("The scores of its teacher were not at hand when this card was written.")
    if record.distilled and record.baseline is None:
        lines.append(
            "No student trained alike without a teacher stands beside it: what distillation added is not shown."
        )
    return lines


def hub_dataset(record: Record) -> str | None:
    """Id of the data set on the Hub it was trained on."""
    settings = record.settings or {}
    name = settings.get("data_dir")
    return name if settings.get("dataset") == "hub" and name and is_public_name(name) else None


def backbone_source(record: Record) -> str | None:
    """Hub id of the weights the backbone started from."""
    settings = record.settings or {}
    name = settings.get("backbone_weights")
    if name == "preset":
        name = PRESETS[settings["preset"]].weights if settings.get("preset") in PRESETS else None
    return name if name and name != "none" and is_public_name(name) else None


def _number(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3f}"


def _scaled(value: float | None, unit: float = 1) -> str:
    return "not known" if value is None else f"{value / unit:.2f}"


def _word(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
