"""The `evaluate` module gives the numbers of the metrics it wraps, however maps are handed over."""

from pathlib import Path

import pytest
import torch
import yaml
from metric_cases import binary, class_ids, depths, vectors

from kdam_hf.errors import KdamValueError
from kdam_hf.evaluate_modules import module_path
from kdam_hf.metrics import BOUNDARY_PROTOCOLS, BoundaryScores, DepthErrors, MeanIoU, NormalErrors, Saliency

# configuration -> (settings of evaluate.load, the metric, predictions and labels for it)
CASES = {
    "semseg": ({"num_classes": 6}, MeanIoU(6), lambda: class_ids(5)),
    "human_parts": ({"ignore_index": 255}, MeanIoU(7), lambda: class_ids(7)),
    "saliency": ({}, Saliency(), binary),
    "depth": ({}, DepthErrors(), depths),
    "normals": ({}, NormalErrors(), vectors),
    "edge": ({"boundaries": "nyud"}, BoundaryScores(**BOUNDARY_PROTOCOLS["nyud"]), binary),
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


def maps_and_values(task):
    """Maps as the module takes them, one channel without an axis, and the values of the metric."""
    torch.manual_seed(0)
    _, metric, make = CASES[task]
    metric, pair = metric.with_settings(), make()
    metric.update(*pair)
    return *(values.squeeze(1).numpy() for values in pair), metric.compute()


@every_task
def test_arrays_tensors_single_maps_and_lists_add_up_to_the_numbers_of_the_metric(load, task):
    predictions, references, expected = maps_and_values(task)
    module = load(task, **CASES[task][0])
    for _ in range(2):  # the second time nothing of the first is left
        module.add_batch(predictions=torch.from_numpy(predictions[:1]), references=torch.from_numpy(references[:1]))
        module.add(prediction=predictions[1], reference=references[1])
        module.add_batch(predictions=predictions[2:3].tolist(), references=references[2:3].tolist())
        assert len(module) == 3
        values = module.compute(predictions=list(predictions[3:]), references=list(references[3:]))
        assert values == pytest.approx(expected, rel=1e-6)  # nested lists become float32
        assert len(module) == 0


def test_protocols_combine_under_names_and_maps_may_differ_in_size(load):
    import evaluate

    predictions, references, expected = maps_and_values("semseg")
    both = evaluate.combine({name: load("semseg", num_classes=6, protocol=name) for name in ("ours", "atrc")})
    both.add_batch(predictions=predictions[:2], references=references[:2])
    both.add(prediction=predictions[2, :4], reference=references[2, :4])
    both.add(prediction=predictions[2, 4:], reference=references[2, 4:])
    both.add_batch(predictions=predictions[3:], references=references[3:])
    values = both.compute()
    assert values["ours_miou"] == pytest.approx(expected["miou"])
    assert values["atrc_miou"] == pytest.approx(5 / 6 * expected["miou"])


def test_a_batch_counts_as_a_whole_or_not_at_all(load):
    module, good = load("semseg", num_classes=3), torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(KdamValueError):
        module.add_batch(predictions=[good, good + 7], references=[good, good])
    assert len(module) == 0
    module.add_batch(predictions=[good, good + 1], references=[good, good + 1])
    assert len(module) == 2
    assert module.compute()["miou"] == 100


def test_misuse_of_a_module_is_refused_with_the_reason(load):
    predictions, references, _ = maps_and_values("semseg")
    module = load("semseg", num_classes=6)
    maps = {"predictions": predictions, "references": references}
    for call, given, reason in (
        (module.compute, {}, "nothing to compute"),
        (module.compute, {**maps, "num_labels": 5}, r"num_labels.*evaluate\.load"),
        (module.add_batch, {**maps, "predictions": predictions[:2]}, "as many predictions"),
        (module.add, {"prediction": predictions, "reference": references}, r"\(6, 9, 11\).*2 axes"),
    ):
        with pytest.raises(KdamValueError, match=reason):
            call(**given)


@pytest.mark.parametrize(
    ("configuration", "settings", "given"),
    [
        (None, {}, ("None", "human_parts")),
        ("pose", {}, ("'pose'", "semseg")),
        ("depth", {"protocol": "theirs"}, ("'theirs'", "invpt")),
        ("edge", {"boundaries": "cityscapes"}, ("'cityscapes'", "nyud")),
        ("semseg", {}, ("semseg", "num_classes")),
        ("semseg", {"num_classes": -1}, ("num_classes", "-1")),
        ("depth", {"num_process": 2}, ("num_process", "gather_for_metrics")),
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
        assert all(f"`{name}`" in card for name in (task, *CASES[task][0], *maps_and_values(task)[2]))
