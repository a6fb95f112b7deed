"""A card says what was measured, says so where nothing was, and carries metadata that the Hub accepts."""

import json
import re

import pytest
from fake_hub import problems_of_card
from hub_kit import ID, change_results, results_of
from huggingface_hub import ModelCard

from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.hub.card import _output, make_card
from kdam_hf.hub.publication import make_publication
from kdam_hf.hub.record import read_record
from kdam_hf.io import write_json
from kdam_hf.tasks import make_task


def card_of(folder, **beside):
    return str(make_card(read_record(folder, **beside), ID, "mit"))


def beside(folder, **meta):
    """A results.json of another model, scored and trained alike but for `meta`."""
    path = folder.parent / "beside.json"
    scores = {"semseg/miou": 10.0, "depth/rmse": 1.0, "normals/mean_angle": 25.0, "edge/odsf": 40.0}
    write_json(path, results_of(**meta) | scores)
    return path


def test_the_hub_accepts_the_metadata_and_reads_the_scores_back(student):
    card = make_card(read_record(student), ID, "mit")
    assert not problems_of_card(str(card))
    results = ModelCard(str(card)).data.eval_results
    values = {result.metric_name: result.metric_value for result in results}
    assert values == {"semseg/miou": 12.5, "semseg/pixel_accuracy": 40.0, "depth/rmse": 0.9, "edge/odsf": 50.0}
    assert {result.task_type for result in results} == {"image-segmentation", "depth-estimation"}


def test_scores_stand_beside_teacher_and_undistilled_student_with_their_directions(own):
    text = card_of(own, baseline_results=beside(own), teacher_results=own.parent / "teacher" / "results.json")
    for row in (
        "| metric | this model | same student, no teacher | teacher |",
        "| semseg/miou ↑ | 12.500 | 10.000 | 12.500 |",
        "| depth/rmse ↓ | 0.900 | 1.000 | 0.900 |",
        "| normals/mean_angle ↓ | – | 25.000 | – |",
        "| parameters, M | 0.08 | 6.60 |",
    ):
        assert row in text
    assert "Mean relative gain" not in text, "one of the tasks has no score"
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 4, "tasks, scores, further metrics, cost"
    for table in tables:
        header, rule, *rows = table.splitlines()
        assert re.fullmatch(r"\|( --- \|)+", rule)
        assert rows
        assert {row.count("|") for row in [header, *rows]} == {rule.count("|")}, table


def test_the_gain_is_the_mean_over_tasks_with_errors_counted_downwards_if_a_baseline_is_given(own):
    text = card_of(own)
    assert "scores of its teacher were not at hand" in text
    assert "what distillation added is not shown" in text
    path = own / "results.json"
    write_json(path, json.loads(path.read_text()) | {"normals/mean_angle": 20.0})
    expected = 100 * (2.5 / 10 + 0.1 / 1.0 + 5 / 25 + 10 / 40) / 4
    assert f"{expected:+.2f} %" in card_of(own, baseline_results=beside(own))


def test_other_conditions_and_another_student_or_teacher_do_not_stand_side_by_side(own):
    others = {"data": "x", "split": "test", "images": 10, "ids_sha256": "a", "protocol": "atrc", "boundaries": "bsds"}
    of_students = {"parameters": 1, "kind": "KdamTeacher"}
    change_results(own, ids_sha256="b")
    for role, more in (("teacher_results", {"weights_sha256": "0" * 64}), ("baseline_results", of_students)):
        for key, value in (others | more).items():
            with pytest.raises(KdamValueError, match=f"{key} .* -> "):
                read_record(own, **{role: beside(own, **{key: value})})
        with pytest.raises(KdamValueError, match="protocol None -> ours"):
            read_record(own, **{role: beside(own, protocol=None)})
    assert read_record(own, baseline_results=beside(own)).baseline, "earlier versions did not say which images"


def test_what_is_recorded_is_told_and_what_is_missing_is_said_to_be_missing(own):
    recorded = (own / "results.json").read_text()
    for meta, said in (
        ({}, f"Teacher: not published under a name; weights SHA-256 `{'f' * 64}`."),
        ({"teacher": ["org/teacher"]}, "Teacher: `org/teacher`"),
        ({}, "Method: `cs`"),
        ({}, "Temperature T: 8.0."),
        ({}, "Matching batch: 8 images"),
        ({"distillation": {"temperature": 4.0}}, "Temperature T: 4.0."),  # in force, not what was typed
        ({"distillation": {"intra": False}}, "Intra-task match: no."),
        ({"distillation": {"own_setting": 3}}, "own_setting: 3."),  # of a method of the user's
        ({}, "- Normals: derived from depth."),
        ({"notes": []}, "no derived labels"),
        ({"notes": None}, "Which labels are derived or distilled was not recorded."),
        ({"train_images": None}, "how many images is not recorded"),
        ({"gflops": None}, "| not known |"),
        ({"versions": None}, "Versions: not recorded."),
        ({}, "a CPU | not measured | – |"),
        ({"latency_over_teacher": 0.14}, "a CPU | 0.14 | 1 |"),
    ):
        (own / "results.json").write_text(recorded)
        change_results(own, **meta)
        text = card_of(own)
        assert said in text
        assert str(own.parent) not in text


@pytest.mark.parametrize("place", [None, "org/streets"])
def test_a_data_set_of_the_hub_is_named_and_one_that_lay_here_is_not(own, place):
    settings = json.loads((own / "recipe.json").read_text())
    write_json(own / "recipe.json", settings | {"dataset": "hub", "data_dir": place or str(own)})
    assert ("org/streets" in card_of(own)) == (place is not None)
    assert str(own) not in card_of(own)


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({"preset": "org/backbone"}, "org/backbone"),
        ({"preset": "timm/resnet18", "backbone_weights": "preset"}, "timm/resnet18"),
        ({"preset": "resnet18", "backbone_weights": "preset"}, "microsoft/resnet-18"),
        ({"preset": "resnet18"}, None),
        ({"preset": "org/backbone", "backbone_weights": "none"}, None),
    ],
)
def test_the_weights_a_backbone_started_from_are_its_base_model(own, settings, source):
    known = json.loads((own / "recipe.json").read_text())
    del known["preset"]
    write_json(own / "recipe.json", known | settings)
    assert ModelCard(card_of(own)).data.base_model == source


def test_a_licence_that_may_limit_use_is_asked_about_also_before_there_are_results(own):
    limited = ("cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "other nvidia", "apple-amlr", "openrail++", "cc-by-nd-4.0", "gpl-3.0")
    for license, limits in (
        *((name, True) for name in (*limited, "cc-by-sa-4.0")),
        *((name, False) for name in ("mit", "Apache-2.0", "unknown")),
    ):
        settings = json.loads((own / "recipe.json").read_text())
        write_json(own / "recipe.json", settings | {"teachers": [{"tasks": ["depth"], "license": license}]})
        (own / "results.json").unlink(missing_ok=True)
        if limits:
            with pytest.raises(KdamValueError, match=re.escape(license)):
                make_publication(own, ID, allow_no_results=True)
        files = make_publication(own, ID, allow_no_results=True, accept_teacher_license=limits)
        assert license in files["README.md"].decode()


def test_a_task_stands_with_the_metric_of_its_protocol_and_a_plain_number_with_its_unit(own):
    change_results(own, boundaries="none")
    path = own / "results.json"
    write_json(path, json.loads(path.read_text()) | {"edge/maxf": 30.0})
    assert "| edge/maxf ↑ | 30.000 |" in card_of(own)
    relative = make_task("relative_depth")
    assert _output(relative).endswith(f", {relative.unit}")


def test_data_it_was_scored_on_later_is_not_taken_for_what_it_learned_from(own):
    change_results(own, data="camvid", trained_on="nyud_v2")
    text = card_of(own)
    assert "- Trained on `nyud_v2`, split `train`: 795 images." in text
    assert "654 images of `camvid`, split `val`" in text
    assert "Normals: derived from depth" not in text, "that is said of the other data"


def test_a_model_without_scores_claims_none(own):
    (own / "results.json").unlink()
    text = card_of(own)
    assert re.search(r"## Scores\n+Not measured\.", text)
    assert "model-index" not in text
    assert not problems_of_card(text)


def test_synthetic_data_is_announced_at_the_top(own):
    assert "synthetic" not in card_of(own)
    change_results(own, data="synthetic_rooms")
    text = card_of(own)
    assert "synthetic-data" in text
    assert text.index("**Trained and scored on synthetic data.**") < text.index("## How to use")


def test_the_licence_is_the_publishers_word_or_unknown(student):
    text = str(make_card(read_record(student), ID))
    assert "license: unknown" in text
    assert "states none for the weights" in text
    assert "Weights: `mit`, as stated by the publisher." in card_of(student)


def test_results_without_their_facts_or_of_other_weights_or_tasks_are_refused_by_name(own):
    path = own / "results.json"
    results = json.loads(path.read_text())
    others = [results | {"human_parts/miou": 1.0}, results | {"meta": results["meta"] | {"weights_sha256": "0" * 64}}]
    others += [[1.0], {"semseg/miou": 1.0}, {"semseg/miou": 1.0, "meta": []}]
    for content in ("{", *map(json.dumps, others)):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=str(path)):
            read_record(own)
    path.unlink()
    with pytest.raises(KdamValueError, match=str(path)):
        read_record(own, baseline_results=path)


def test_whether_it_was_distilled_is_answered_alike_all_over_the_card(own):
    (own / "recipe.json").unlink()
    taught, alone = "distilled from a teacher", "trained on labels alone"
    for recorded, settings, role, told in (
        ("none", {"method": "none"}, alone, "None: this model was trained on labels alone."),
        (None, {"method": "kl"}, taught, "Method: `kl`."),
        (None, {"teacher": ["/home/alice/teacher"]}, taught, "Method: not recorded."),
        (None, {}, alone, "None: this model was trained on labels alone."),
        (None, None, "of unrecorded training", "## Distillation\n\n- Not recorded."),
    ):
        change_results(own, method=recorded, recipe=settings)
        text = card_of(own)
        assert role in text
        assert told in text
        assert ("- knowledge-distillation\n" in text) == (role == taught)
        assert ("No student trained alike without a teacher" in text) == (role == taught)
