"""Publishing through the real client to a Hub on loopback: one commit, the right files, tags, private, and clear errors."""

import json
import re
import sys

import pytest
from hub_kit import ROOT
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError

from kdam_hf import KdamStudent
from kdam_hf.errors import CheckpointError, HubError, KdamValueError
from kdam_hf.hub import make_publication, publish
from kdam_hf.presets import make_config
from kdam_hf.tasks import make_task

sys.path.append(str(ROOT / "scripts"))
import publish as script

ID = "org/kdam-student"
CODE = {path.name for path in (ROOT / "kdam_hf").glob("*_kdam.py")}


def uploads(hub):
    return sum(method == "PUT" for method, _ in hub.log)


def messages(hub):
    return [message for _, _, message in hub.repositories["model", ID].commits]


def test_everything_arrives_in_one_commit_and_nothing_else(hub, student, publication):
    url = publish(publication)
    assert messages(hub) == ["initial commit", "Publish the model with its scores"]
    assert url == f"{hub.url}/{ID}/commit/{hub.repositories['model', ID].branches['main']}"
    files = hub.files(ID)
    data = {"config.json", "preprocessor_config.json", "results.json", "recipe.json", "training_log.json"}
    assert set(files) == {"README.md", "model.safetensors", "sample.png", *data, *CODE}
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert [line["step"] for line in json.loads(files["training_log.json"])] == [1, 2, 3]


def test_no_place_and_no_secret_of_this_machine_is_published(student, publication):
    for name, content in publication.files.items():
        text = content if isinstance(content, bytes) else content.read_bytes()
        for private in ("alice", "hf_secret", str(student.parent)):
            assert private.encode() not in text, f"{name} holds {private}"


def test_class_names_that_look_like_paths_arrive_with_the_model(tmp_path):
    tasks = (make_task("semseg", ["/m/01g317", "~other", "floor"]),)
    KdamStudent(make_config("student", "tiny-resnet", tasks)).save_pretrained(tmp_path)
    config = json.loads(make_publication(tmp_path, ID, allow_no_results=True).files["config.json"])
    assert config["tasks"][0]["class_names"] == ["/m/01g317", "~other", "floor"]
    assert config["tasks"][0]["channels"] == 3


def test_publishing_again_is_another_commit_on_top(hub, publication):
    publish(publication)
    publish(publication)
    assert len(messages(hub)) == 3
    assert uploads(hub) == 2, "weights and picture are sent once"


def test_a_tag_names_the_commit_and_does_not_move(hub, publication):
    publish(publication, tag="v1")
    repository = hub.repositories["model", ID]
    assert repository.tags == {"v1": repository.branches["main"]}
    with pytest.raises(HubError, match="has a tag v1 already"):
        publish(publication, tag="v1")
    assert len(messages(hub)) == 2


def test_a_tag_that_fails_after_the_commit_does_not_deny_the_commit(hub, publication):
    hub.tags_unavailable = 1
    with pytest.raises(HubError, match="but the tag v1 failed") as caught:
        publish(publication, tag="v1")
    repository = hub.repositories["model", ID]
    assert len(messages(hub)) == 2
    assert not repository.tags
    assert f"committed as {repository.branches['main']}" in str(caught.value)
    assert f"hf repos tag create {ID} v1 --revision {repository.branches['main']}" in str(caught.value)
    assert not re.search("nothing is visible|same command again", str(caught.value))


def test_a_tag_that_is_no_name_is_refused_before_any_request(hub, publication):
    with pytest.raises(KdamValueError, match="revision 'v 1'"):
        publish(publication, tag="v 1")
    assert not hub.log


def test_a_private_model_is_seen_by_its_members_only(hub, publication, monkeypatch):
    publish(publication, private=True)
    assert HfApi(token="reader").model_info(ID).private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info(ID)


def test_private_is_never_silently_public(hub, publication):
    publish(publication)
    with pytest.raises(HubError, match="exists and is public"):
        publish(publication, private=True)
    assert len(messages(hub)) == 2


@pytest.mark.parametrize(
    ("token", "message"),
    [("forged", "not valid .401."), ("", "not valid .401."), ("reader", "may not write there .403.")],
)
def test_a_token_that_may_not_write_is_told_apart(hub, publication, monkeypatch, tmp_path, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match=message):
        publish(publication)
    assert not hub.repositories


def test_an_organisation_of_others_is_refused(hub, student):
    with pytest.raises(HubError, match="may not write there"):
        publish(make_publication(student, "stranger/model"))


def test_an_interrupted_upload_shows_nothing_and_is_completed_by_the_same_command(hub, publication, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.drop_uploads = 100  # more than the client tries by itself
    with pytest.raises(HubError, match=r"interrupted.*run the same command again"):
        publish(publication)
    assert messages(hub) == ["initial commit"]
    hub.drop_uploads = 0
    publish(publication)
    assert len(messages(hub)) == 2


def test_a_connection_that_breaks_once_is_no_failure(hub, publication):
    hub.drop_uploads = 1
    publish(publication)
    assert messages(hub) == ["initial commit", "Publish the model with its scores"]
    assert uploads(hub) == 3


def test_what_has_arrived_is_not_sent_twice(hub, publication):
    hub.unavailable = 1
    with pytest.raises(HubError, match=r"\(503\)"):
        publish(publication)
    sent = uploads(hub)
    publish(publication)
    assert uploads(hub) == sent == 2


def test_a_hub_that_is_not_there_or_switched_off_is_named(hub, publication, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"could not be reached.*Check the network"):
        publish(publication)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        publish(publication)


def test_metadata_that_the_hub_refuses_is_explained_before_anything_is_sent(hub, student):
    with pytest.raises(HubError, match="license"):
        publish(make_publication(student, ID, license="free-beer"))
    assert messages(hub) == ["initial commit"]
    assert uploads(hub) == 0


@pytest.mark.parametrize("repo_id", ["student", "org/a/b", "org/", "org/a b", "", "../x", "org/-x"])
def test_a_wrong_repository_id_is_refused_before_any_request(hub, student, repo_id):
    with pytest.raises(KdamValueError, match="expected org/name"):
        make_publication(student, repo_id)
    assert not hub.log


def test_without_results_it_is_refused_unless_told_so(tmp_path, student, hub):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((student / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"no results.json.*--allow_no_results"):
        make_publication(tmp_path, ID)
    ready = make_publication(tmp_path, ID, allow_no_results=True)
    assert not {"results.json", "recipe.json", "training_log.json", "sample.png"} & set(ready.files)
    publish(ready)
    assert messages(hub)[-1] == "Publish the model without scores"


def test_results_of_other_weights_are_refused(tmp_path, student):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((student / name).read_bytes())
    results = json.loads((student / "results.json").read_text())
    results["meta"]["weights_sha256"] = "0" * 64
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(CheckpointError, match="score of other weights"):
        make_publication(tmp_path, ID)


def test_the_command_publishes_and_a_dry_run_writes_the_same_repository(hub, student, tmp_path, capsys):
    arguments = ["--model", str(student), "--repo_id", ID]
    script.main([*arguments, "--dry_run", str(tmp_path / "dry")])
    assert not hub.repositories
    script.main([*arguments, "--private", "--revision", "v1"])
    assert f"Published: {hub.url}/{ID}/commit/" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in (tmp_path / "dry").iterdir()} == hub.files(ID, "v1")
    assert hub.repositories["model", ID].private
    script.main([*arguments, "--card_only", str(tmp_path / "card")])
    assert sorted(p.name for p in (tmp_path / "card").iterdir()) == ["README.md", "sample.png"]
    with pytest.raises(KdamValueError, match="not empty"):
        script.main([*arguments, "--dry_run", str(tmp_path / "dry")])


def test_the_command_refuses_what_is_no_complete_model(tmp_path, student):
    with pytest.raises(KdamValueError, match="no such folder"):
        script.main(["--model", str(tmp_path / "none"), "--repo_id", ID])
    (tmp_path / "config.json").write_bytes((student / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((student / "model.safetensors").read_bytes()[:2000])
    with pytest.raises(CheckpointError):
        script.main(["--model", str(tmp_path), "--repo_id", ID, "--allow_no_results"])
