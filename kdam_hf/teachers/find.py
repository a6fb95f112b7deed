"""A teacher by its name: a folder or hub id, or a module of the user; what it teaches is known before it is loaded."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import ModelCard
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, cached_file, extract_commit_hash

from kdam_hf.errors import CheckpointError, KdamError, KdamValueError, did_you_mean
from kdam_hf.io import file_sha256, lines_sha256, tensors_sha256
from kdam_hf.pretrained import explained, is_kdam, load_model, weights_sha256
from kdam_hf.tasks import TASK_NAMES, Normals, Task, task_from_spec
from kdam_hf.teachers.base import FAMILIES
from kdam_hf.teachers.inputs import input_rule
from kdam_hf.teachers.normals import parse_axes
from kdam_hf.weights_kdam import refuse_incomplete, refuse_non_finite

UNREACHED = "neck.fusion_stage.layers.0.residual_layer1."
"""Weights of DPT and its kin that no output depends on, since the first layer has nothing to fuse; older files lack them."""
PROTOCOL = "or write a module with `tasks` and a forward, and give FILE.py:NAME; see docs/teachers.md"


@dataclass(frozen=True)
class TeacherSource:
    """A teacher that was found, and not loaded yet.

    Args:
        name: as it was given, a folder by its full path.
        tasks: what it predicts, or what is wanted of it.
        load: makes the module.
        sha256: of its weights.
        facts: more to record, such as `revision` and `license`.
        settings_sha256: of the files that say how its weights and photos are read; empty for a module of the user.
    """

    name: str
    tasks: tuple[Task, ...]
    load: Callable[[], nn.Module]
    sha256: str
    facts: dict[str, Any] = field(default_factory=dict)
    settings_sha256: str = ""


def find_teacher(given: str, normal_axes: str | None = None) -> TeacherSource:
    """The teacher called `given`: a folder, a hub id with or without `@REVISION`, or `FILE.py:NAME`, perhaps behind `TASK=`.

    `normal_axes` says where the channels of its normals point, see `normals.parse_axes`; as its family states for None.

    Raises:
        CheckpointError: nothing there, no safetensors, no image processor, or weights that are not whole.
        KdamValueError: a model that cannot teach, or a task that it does not have.
    """
    task, found, name = given.partition("=")
    if not found or Path(given).exists():
        task, name = "", given
    elif task not in TASK_NAMES:
        raise KdamValueError(f"teacher {given}: there is no task {task!r}; {did_you_mean(task, TASK_NAMES)}")
    source = _find(name, None if normal_axes is None else parse_axes(normal_axes))
    if not task:
        return source
    chosen = tuple(one for one in source.tasks if one.name == task)
    if not chosen:
        known = ", ".join(one.name for one in source.tasks)
        raise KdamValueError(f"{name} predicts {known}, not {task}; give another teacher for {task}.")
    return replace(source, tasks=chosen)


def find_teachers(given: Sequence[str], normal_axes: str | None = None) -> list[TeacherSource]:
    """All of them, see `find_teacher`.

    Raises:
        KdamValueError: two teach the same task, or none states axes of normals that could be others.
    """
    sources: dict[tuple[str, str], TeacherSource] = {}
    for source in (find_teacher(name, normal_axes) for name in given):
        before = sources.setdefault((source.name, source.sha256), source)
        more = tuple(task for task in source.tasks if task not in before.tasks)  # of a model that is there already
        sources[source.name, source.sha256] = replace(before, tasks=(*before.tasks, *more))
    if normal_axes is not None and not any("normal_axes" in source.facts for source in sources.values()):
        raise KdamValueError(
            f"normal_axes {normal_axes}: no teacher is a model of transformers that predicts normals; leave it out. A KDAM "
            "model has our axes, and a module of your own turns its vectors itself."
        )
    taught: dict[str, str] = {}
    for source in sources.values():
        for name in (task.name for task in source.tasks):
            if name in taught:
                raise KdamValueError(
                    f"task {name} is taught by two teachers, {taught[name]} and {source.name}; choose one for each task, as "
                    f"in --teacher {name}={source.name} ..., as often as needed."
                )
            taught[name] = source.name
    return [*sources.values()]


def _find(name: str, axes: tuple[str, ...] | None) -> TeacherSource:
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _own_module(Path(file), attribute)
    if name.endswith(".py") and not Path(name).is_dir():
        raise KdamValueError(f"teacher {name}: expected FILE.py:NAME, where NAME() makes a module.")
    repo, _, revision = name.partition("@")
    if Path(name).exists():
        repo, revision = str(Path(name).resolve()), ""
    elif Path(name).is_absolute() or name.startswith(".") or repo.count("/") > 1:
        raise CheckpointError(f"no teacher at {name!r}: no such folder; expected one with config.json, or a hub id.")
    remedy = "Give a folder or hub id with config.json; a gated model needs `hf auth login`."
    with explained(CheckpointError, f"no teacher at {name!r}", remedy):
        facts, _ = PreTrainedConfig.get_config_dict(repo, revision=revision or None)
    if is_kdam(facts):
        load = partial(load_model, repo, revision or None)
        with explained(CheckpointError, f"{name}: the tasks of its config.json cannot be used"):
            tasks = tuple(task_from_spec(spec) for spec in facts.get("tasks") or ())
        return TeacherSource(repo, tasks, load, *_known_by(repo, revision or None))
    return _of_library(name, repo, revision or None, axes)


def _of_library(name: str, repo: str, revision: str | None, axes: tuple[str, ...] | None) -> TeacherSource:
    """A model of transformers, by the class of its head."""
    with explained(CheckpointError, f"{name}: its config.json cannot be used"):
        config = AutoConfig.from_pretrained(repo, revision=revision, trust_remote_code=False)
    heads = config.architectures or ["unknown"]
    if (family := FAMILIES.get(heads[0])) is None:
        raise KdamValueError(
            f"{name} is a {heads[0]} ({config.model_type}), which predicts no dense task that is known here; expected one of "
            f"{', '.join(sorted(FAMILIES))}, a kdam model, {PROTOCOL}."
        )
    tasks = family.tasks_of(config)

    def load() -> nn.Module:
        rule = input_rule(repo, revision)
        with explained(CheckpointError, f"{name}: its weights cannot be used"):
            model, info = getattr(transformers, heads[0]).from_pretrained(
                repo, config=config, revision=revision, use_safetensors=True, output_loading_info=True, dtype="float32"
            )
            # heads of the other uses of a checkpoint are left over
            missing = [key for key in info["missing_keys"] if not key.startswith(UNREACHED)]
            refuse_incomplete(name, info | {"missing_keys": missing, "unexpected_keys": []})
            refuse_non_finite(name, model.state_dict())
        teacher = family(model.eval(), rule)
        teacher.axes, teacher.revision = axes or teacher.axes, revision
        return teacher

    sha256, facts, settings = _known_by(repo, revision)
    facts = {"head": heads[0], **facts}
    if any(isinstance(task, Normals) for task in tasks):
        facts["normal_axes"] = list(axes or family.axes)
    return TeacherSource(repo, tasks, load, sha256, facts, settings)


def _own_module(file: Path, attribute: str) -> TeacherSource:
    """`NAME()` of a Python file of the user."""
    if not file.is_file():
        raise KdamValueError(f"teacher {file}: no such file; expected FILE.py:NAME, where NAME() makes a module.")
    spec: Any = importlib.util.spec_from_file_location(f"teacher_{file.stem}", file)
    code = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for their names
    try:
        spec.loader.exec_module(code)
        module = getattr(code, attribute)()
    except KdamError:
        raise
    except Exception as error:  # of the user's code
        raise KdamValueError(f"teacher {file}:{attribute} cannot be made: {type(error).__name__}: {error}") from error
    tasks = getattr(module, "tasks", None)
    if not isinstance(module, nn.Module) or not tasks or not all(isinstance(task, Task) for task in tasks):
        given = f"teacher {file}:{attribute} is a {type(module).__name__} with tasks {tasks!r}"
        raise KdamValueError(f"{given}; expected an nn.Module whose `tasks` are Task objects, such as (Depth(),).")
    # its code says as much as its tensors
    sha256 = lines_sha256([tensors_sha256(module), attribute, file.read_text("utf-8")])
    return TeacherSource(f"{file}:{attribute}", tuple(tasks), lambda: module, sha256)


def _known_by(repo: str, revision: str | None) -> tuple[str, dict[str, Any], str]:
    """SHA-256 of the weights, commit and licence where they are known, and SHA-256 of the settings."""
    find = partial(cached_file, repo, revision=revision, _raise_exceptions_for_missing_entries=False)
    files = [find(name) for name in (CONFIG_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)]
    facts = {"revision": extract_commit_hash(files[0], None) or revision}
    with suppress(OSError, ValueError):
        if (card := find("README.md")) is not None:
            data = ModelCard.load(card, ignore_metadata_errors=True).data
            # other, and its own name
            facts["license"] = " ".join(str(x) for x in (data.license, data.license_name) if x)
    settings = lines_sha256([file_sha256(file) for file in files if file is not None])
    return weights_sha256(repo, revision), {key: value for key, value in facts.items() if value}, settings
