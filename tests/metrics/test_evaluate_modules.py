"""The `evaluate` module gives the numbers of the metrics it wraps, however maps are handed over."""

import ast
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import kdam_hf
from kdam_hf.errors import KdamValueError
from kdam_hf.evaluate_modules import module_path
from kdam_hf.metrics import (
    BOUNDARY_PROTOCOLS,
    BoundaryScores,
    DepthErrors,
    MeanIoU,
    NormalErrors,
    Saliency,
    under_protocol,
)

ROOT = Path(kdam_hf.__file__).parent


def ids(classes):
    g = np.random.default_rng(0)
    label = g.integers(0, classes + 1, (4, 12, 16))
    return g.integers(0, classes, (4, 12, 16)), np.where(label == classes, 255, label)


def floats(low, *shape):
    g = np.random.default_rng(1)
    label = g.uniform(low, 1, (4, *shape, 12, 16)).astype(np.float32)
    return g.uniform(low, 1, label.shape).astype(np.float32), label


def binary():
    p, label = floats(0)
    return p, np.where(label < 0.2, 255, label > 0.7).astype(np.float32)


def depths():
    p, label = floats(0)
    return p, np.where(label < 0.2, 0, label)


# task -> (settings of evaluate.load, the metric, maps, shape of a batch for the metric)
CASES = {
    "semseg": ({"num_classes": 5}, lambda: MeanIoU(5), lambda: ids(5), (4, 12, 16)),
    "human_parts": ({}, lambda: MeanIoU(7), lambda: ids(7), (4, 12, 16)),
    "saliency": ({}, Saliency, binary, (4, 12, 16)),
    "depth": ({}, DepthErrors, depths, (4, 1, 12, 16)),
    "normals": ({}, NormalErrors, lambda: floats(-1, 3), (4, 3, 12, 16)),
    "edge": (
        {"boundaries": "nyud"},
        lambda: BoundaryScores(**BOUNDARY_PROTOCOLS["nyud"]),
        binary,
        (4, 12, 16),
    ),
}
every_task = pytest.mark.parametrize("task", CASES)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`evaluate.load` of a configuration, with caches of its own; the library is imported for these tests only."""
    import evaluate

    folder = tmp_path_factory.mktemp("evaluate")
    evaluate.config.HF_MODULES_CACHE = folder / "modules"

    def load(task, **settings):
        return evaluate.load(module_path(), task, cache_dir=str(folder / "data"), **settings)

    return load


def expected(task):
    _, make, maps, shape = CASES[task]
    metric = make()
    metric.update(*(torch.from_numpy(values).reshape(shape) for values in maps()))
    return metric.compute()


@every_task
def test_arrays_tensors_single_maps_and_lists_add_up_to_the_numbers_of_the_metric(load, task):
    settings, _, maps, _ = CASES[task]
    predictions, references = maps()
    module = load(task, **settings)
    for _ in range(2):  # the second time nothing of the first is left
        module.add_batch(predictions=torch.from_numpy(predictions[:1]), references=torch.from_numpy(references[:1]))
        module.add(prediction=predictions[1], reference=references[1])
        module.add_batch(predictions=predictions[2:3].tolist(), references=references[2:3].tolist())
        assert len(module) == 3
        values = module.compute(predictions=list(predictions[3:]), references=list(references[3:]))
        assert values == pytest.approx(expected(task), rel=1e-9)
        assert len(module) == 0


@every_task
def test_several_processes_gather_through_files(load, task):
    settings, _, maps, _ = CASES[task]
    predictions, references = maps()
    results = {}

    def process(k):
        module = load(task, num_process=2, process_id=k, experiment_id=task, **settings)
        module.add_batch(predictions=predictions[k::2], references=references[k::2])
        results[k] = module.compute()

    threads = [threading.Thread(target=process, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results[1] is None
    assert results[0] == pytest.approx(expected(task), rel=1e-9)


def test_maps_of_several_sizes_add_up(load):
    module, metric = load("semseg", num_classes=3), MeanIoU(3)
    g = np.random.default_rng(2)
    for height, width in ((3, 4), (7, 2), (1, 1)):
        prediction, reference = g.integers(0, 3, (2, height, width))
        module.add(prediction=prediction, reference=reference)
        metric.update(torch.from_numpy(prediction), torch.from_numpy(reference))
    assert module.compute() == metric.compute()


def test_protocols_combine_under_names(load):
    import evaluate

    predictions, references = ids(3)
    modules = {name: load("semseg", num_classes=4, protocol=name) for name in ("ours", "atrc")}
    both = evaluate.combine(modules)
    both.add_batch(predictions=predictions[:2], references=references[:2])
    both.add(prediction=predictions[2], reference=references[2])
    both.add_batch(predictions=predictions[3:], references=references[3:])
    values = both.compute()
    for name in modules:
        metric = under_protocol(MeanIoU(4), name)
        metric.update(torch.from_numpy(predictions), torch.from_numpy(references))
        assert values[f"{name}_miou"] == pytest.approx(metric.compute()["miou"])
    assert values["ours_miou"] > values["atrc_miou"]


def test_module_serves_as_compute_metrics_of_a_trainer_batch_by_batch(load):
    """As `Trainer` calls it with `batch_eval_metrics=True`."""
    from transformers import EvalPrediction

    module = load("semseg", num_classes=5)

    def compute_metrics(batch, compute_result):
        module.add_batch(predictions=batch.predictions.argmax(1), references=batch.label_ids)
        return module.compute() if compute_result else {}

    predictions, references = ids(5)
    logits = np.eye(5)[predictions].transpose(0, 3, 1, 2)
    assert compute_metrics(EvalPrediction(logits[:2], references[:2]), compute_result=False) == {}
    values = compute_metrics(EvalPrediction(torch.from_numpy(logits[2:]), torch.from_numpy(references[2:])), True)
    assert values == pytest.approx(expected("semseg"))


def test_misuse_of_a_module_is_refused_with_the_reason(load):
    predictions, references = ids(5)
    module = load("semseg", num_classes=5)
    with pytest.raises(KdamValueError, match="nothing to compute"):
        module.compute()
    with pytest.raises(KdamValueError, match=r"num_labels.*evaluate\.load"):
        module.compute(predictions=predictions, references=references, num_labels=5)
    with pytest.raises(KdamValueError, match="as many predictions"):
        module.add_batch(predictions=predictions[:2], references=references)
    with pytest.raises(KdamValueError, match=r"\(4, 12, 16\).*2 axes"):
        module.add(prediction=predictions, reference=references)


@pytest.mark.parametrize(
    ("configuration", "settings", "given"),
    [
        (None, {}, ("None", "human_parts")),
        ("pose", {}, ("'pose'", "semseg")),
        ("depth", {"protocol": "theirs"}, ("'theirs'", "invpt")),
        ("edge", {"boundaries": "cityscapes"}, ("'cityscapes'", "nyud")),
        ("semseg", {}, ("semseg", "num_classes")),
        ("depth", {"num_classes": 3}, ("depth", "num_classes")),
    ],
)
def test_unusable_settings_are_refused_with_what_was_given(load, configuration, settings, given):
    with pytest.raises(KdamValueError) as caught:
        load(configuration, **settings)
    assert all(word in str(caught.value) for word in given)


def test_folder_is_a_metric_repository_whose_card_explains_every_configuration_and_value():
    folder = Path(module_path())
    assert {path.name for path in folder.iterdir() if path.is_file()} == {f"{folder.name}.py", "README.md"}
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["title"] == folder.name
    assert header["tags"] == ["evaluate", "metric"]
    for task in CASES:
        assert all(f"`{name}`" in card for name in (task, *CASES[task][0], *expected(task)))


def test_evaluate_is_imported_by_its_module_only():
    for path in ROOT.rglob("*.py"):
        if path.parent == Path(module_path()):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.split(".")[0] == "evaluate" for name in names), path
