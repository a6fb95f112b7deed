"""A card says what was measured, says so where nothing was, and carries metadata that the Hub accepts."""

import json
import re
from io import BytesIO

import pytest
import yaml
from card_rules import problems_of_card
from hub_kit import make_student, results_of, write_json
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult
from PIL import Image

from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.hub import make_card, make_publication, read_record
from kdam_hf.hub.record import NO_PICTURE, sha256


def card_of(folder, **options):
    return str(make_card(read_record(folder, **options), "org/kdam-student", "mit"))


def changed(folder, **meta):
    """Other facts in results.json."""
    results = json.loads((folder / "results.json").read_text())
    results["meta"] |= meta
    for key in [key for key, value in meta.items() if value is None]:
        del results["meta"][key]
    write_json(folder / "results.json", results)


@pytest.fixture
def own(tmp_path):
    """A student's folder that may be changed."""
    return make_student(tmp_path / "run" / "cs")


def test_the_hub_accepts_the_metadata_and_reads_the_scores_back(student, hub):
    card = make_card(read_record(student), "org/kdam-student", "mit")
    card.validate()
    assert any(path == "/api/validate-yaml" for _, path in hub.log)
    results = ModelCard(str(card)).data.eval_results
    assert all(isinstance(result, EvalResult) for result in results)
    values = {result.metric_name: result.metric_value for result in results}
    assert values == {"semseg/miou": 12.5, "semseg/pixel_accuracy": 40.0, "depth/rmse": 0.9, "edge/odsf": 50.0}
    assert {result.task_type for result in results} == {"image-segmentation", "depth-estimation"}


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ({"license": "free-beer"}, "license"),
        ({"license": "mit", "tags": "kdam"}, "tags"),
        ({"license": "mit", "model-index": [{"name": "x", "results": [{"task": {"type": "t"}}]}]}, "dataset"),
        ({"license": "mit", "model-index": [{"results": []}]}, "name"),
    ],
)
def test_the_rules_that_cards_are_held_against_can_be_broken(broken, complaint):
    assert any(complaint in problem for problem in problems_of_card(f"---\n{yaml.safe_dump(broken)}---\n# x\n"))


def test_scores_stand_beside_teacher_and_undistilled_student_with_their_directions(own):
    none = results_of(method="none")
    write_json(own.parent / "none" / "results.json", none | {"semseg/miou": 10.0, "depth/rmse": 1.0, "edge/odsf": 40.0})
    text = card_of(own)
    assert "| metric | this model | same student, no teacher | teacher |" in text
    assert "| semseg/miou ↑ | 12.500 | 10.000 | 12.500 |" in text
    assert "| depth/rmse ↓ | 0.900 | 1.000 | 0.900 |" in text
    assert "| normals/mean_angle ↓ | – | – | – |" in text
    assert "Mean relative gain" not in text, "one of the tasks has no score"


def test_the_gain_is_the_mean_over_tasks_with_errors_counted_downwards(own):
    results = json.loads((own / "results.json").read_text()) | {"normals/mean_angle": 20.0}
    write_json(own / "results.json", results)
    scores = {"semseg/miou": 10.0, "depth/rmse": 1.0, "normals/mean_angle": 25.0, "edge/odsf": 40.0}
    write_json(own.parent / "none" / "results.json", results_of(method="none") | scores)
    expected = 100 * (2.5 / 10 + 0.1 / 1.0 + 5 / 25 + 10 / 40) / 4
    assert f"{expected:+.2f} %" in card_of(own)


@pytest.mark.parametrize("other", [{"images": 10}, {"seed": 4}, {"method": "kl"}, {"steps": 80}, {"protocol": "x"}])
def test_a_neighbour_that_was_trained_or_scored_otherwise_does_not_stand_beside(own, other):
    write_json(own.parent / "none" / "results.json", results_of(**({"method": "none"} | other)))
    assert "same student, no teacher" not in card_of(own)


def test_a_teacher_that_was_retrained_since_does_not_stand_beside(own):
    (own.parent / "teacher" / "model.safetensors").write_bytes(b"other weights")
    text = card_of(own)
    assert "| metric | this model |\n" in text
    assert "scores of its teacher were not at hand" in text


def test_results_given_by_hand_must_be_of_the_same_images(own):
    write_json(own.parent / "other.json", results_of(images=10))
    with pytest.raises(KdamValueError, match="images 10, the model 654"):
        read_record(own, teacher_results=own.parent / "other.json")
    with pytest.raises(KdamValueError, match="no results there"):
        read_record(own, baseline_results=own.parent / "missing.json")


def test_distillation_is_told_in_full_and_a_local_teacher_by_its_hash_alone(own):
    text = card_of(own)
    digest = sha256(own.parent / "teacher" / "model.safetensors")
    assert f"Teacher: not published under a name; weights SHA-256 `{digest}`." in text
    for line in ("Method: `cs`", "Temperature T: 8.0.", "Weight beta: 0.5.", "Matching batch: 8 images"):
        assert line in text
    assert str(own.parent) not in text
    changed(own, teacher=["org/teacher"])
    assert "Teacher: `org/teacher`" in card_of(own)


def test_settings_in_force_go_before_those_that_were_typed(own):
    changed(own, distillation={"temperature": 4.0, "beta": 0.5, "kd_resolution": "full", "intra": False})
    text = card_of(own)
    assert "Temperature T: 4.0." in text
    assert "Resolution of the match: full." in text
    assert "Intra-task match: no." in text


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("notes", "Which labels are derived or distilled was not recorded."),
        ("train_images", "how many images is not recorded"),
        ("gflops", "| not known |"),
        ("versions", "Versions: not recorded."),
    ],
)
def test_what_is_missing_is_said_to_be_missing(own, gone, said):
    changed(own, **{gone: None})
    assert said in card_of(own)


def test_data_it_was_scored_on_later_is_not_taken_for_what_it_learned_from(own):
    assert "- Trained on `nyud_v2`, split `train`: 795 images." in card_of(own)
    changed(own, data="camvid", trained_on="nyud_v2")
    text = card_of(own)
    assert "- Trained on `nyud_v2`, split `train`: 795 images." in text
    assert "654 images of `camvid`, split `val`" in text
    assert "Normals: derived from depth" not in text, "that is said of the other data"


def test_derived_labels_are_named(own):
    assert "- Normals: derived from depth." in card_of(own)


def test_latency_is_told_only_where_it_was_measured(own):
    assert "| latency per image, ratio measured side by side on a CPU | not measured | – |" in card_of(own)
    results = json.loads((own / "results.json").read_text())
    results["meta"]["latency_over_teacher"] = 0.14
    write_json(own.parent / "results.json", {"teacher": {}, "cs": results})
    assert "| 0.14 | 1 |" in card_of(own)
    results["meta"]["weights_sha256"] = "0" * 64
    write_json(own.parent / "results.json", {"cs": results})
    assert "| not measured | – |" in card_of(own), "that is the latency of another run"


def test_a_model_without_scores_claims_none(own):
    (own / "results.json").unlink()
    text = card_of(own)
    assert re.search(r"## Scores\n+Not measured\.", text)
    assert "model-index" not in text
    assert not problems_of_card(text)


def test_synthetic_data_is_announced_at_the_top(own):
    assert "synthetic" not in card_of(own)
    changed(own, data="synthetic_rooms")
    text = card_of(own)
    assert "synthetic-data" in text
    assert text.index("**Trained and scored on synthetic data.**") < text.index("## How to use")


def test_the_licence_is_the_publishers_word_or_unknown(own):
    record = read_record(own)
    assert "license: unknown" in str(make_card(record, "org/x"))
    assert "states none for the weights" in str(make_card(record, "org/x"))
    assert "Weights: `mit`, as stated by the publisher." in card_of(own)


def test_tables_of_the_card_have_as_many_cells_as_headers(own):
    tables = re.findall(r"(?:^\|.*\n)+", card_of(own), re.MULTILINE)
    assert len(tables) == 5, "tasks, scores, further metrics, cost, log"
    for table in tables:
        header, rule, *rows = table.splitlines()
        assert re.fullmatch(r"\|( --- \|)+", rule)
        assert {row.count("|") for row in [header, rule, *rows]} == {rule.count("|")}, table
        assert rows


@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"semseg/miou": 1.0}, r"holds no 'meta'.*evaluate\.py --model"),
        ({"semseg/miou": 1.0, "meta": []}, "holds no 'meta'"),
        ([1.0], "holds a list, not an object"),
    ],
)
def test_results_without_their_facts_are_refused(own, recipe, content, message):
    if not recipe:
        (own / "recipe.json").unlink()
    write_json(own / "results.json", content)
    with pytest.raises(CheckpointError, match=message):
        read_record(own)


def test_a_file_that_is_no_json_is_named(own):
    (own / "results.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_record(own)


def test_no_sheet_but_that_of_its_own_comparison_goes_on_the_card(own):
    sheet = own.parent / "contact_sheet.png"
    (own / "contact_sheet.png").write_bytes(sheet.read_bytes())  # of somebody's photos, by predict.py
    assert read_record(own).picture == sheet
    assert read_record(own, picture=own / "contact_sheet.png").picture == own / "contact_sheet.png"
    compared = json.loads((own.parent / "results.json").read_text())
    compared["cs"]["semseg/miou"] += 1
    write_json(own.parent / "results.json", compared)
    assert read_record(own).picture == sheet, "scored again, they are still the weights that are shown"
    compared["cs"]["meta"]["weights_sha256"] = "0" * 64
    write_json(own.parent / "results.json", compared)
    assert read_record(own).picture is None, "that comparison was of other runs"
    (own.parent / "results.json").unlink()
    assert read_record(own).picture is None


@pytest.mark.parametrize(
    ("recorded", "settings", "role", "told"),
    [
        ("cs", {"method": "cs"}, "distilled from a teacher", "Method: `cs`"),
        ("none", {"method": "none"}, "trained on labels alone", "None: this model was trained on labels alone."),
        (None, {"method": "kl"}, "distilled from a teacher", "Method: `kl`."),
        (None, {"teacher": ["org/teacher"]}, "distilled from a teacher", "Method: not recorded."),
        (None, {}, "trained on labels alone", "None: this model was trained on labels alone."),
        (None, None, "of unrecorded training", "## Distillation\n\n- Not recorded."),
    ],
)
def test_whether_it_was_distilled_is_answered_alike_all_over_the_card(own, recorded, settings, role, told):
    changed(own, method=recorded, recipe=settings)
    (own / "recipe.json").unlink()
    text = card_of(own)
    distilled = role == "distilled from a teacher"
    assert role in text
    assert told in text
    assert ("- knowledge-distillation\n" in text) == distilled
    assert ("No student trained alike without a teacher" in text) == distilled


def test_a_picture_loses_what_its_file_says_of_the_place_it_was_taken(own, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "taken at home by alice"
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (8, 6), (10, 200, 30)).save(tmp_path / "photo.jpg", exif=exif)
    assert b"alice" in (tmp_path / "photo.jpg").read_bytes()
    ready = make_publication(own, "org/x", picture=tmp_path / "photo.jpg")
    assert b"alice" not in ready.files["sample.png"]
    assert Image.open(BytesIO(ready.files["sample.png"])).size == (6, 8), "the side it lies on was metadata, too"
    bare = make_publication(own, "org/x", picture=NO_PICTURE)
    assert "sample.png" not in bare.files
    assert b"sample.png" not in bare.files["README.md"]
    with pytest.raises(KdamValueError, match="not a readable PNG, JPEG or WebP"):
        make_publication(own, "org/x", picture=own / "config.json")
    with pytest.raises(KdamValueError, match="no such picture"):
        make_publication(own, "org/x", picture=own / "missing.png")
