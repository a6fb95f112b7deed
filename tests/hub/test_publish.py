"""Publishing: one commit, the right files, tags, private, and clear errors."""

import inspect
import json
import re
from io import BytesIO

import pytest
from fake_hub import Api, refuse
from hub_kit import ID, NAMES, ROOT, change_results
from huggingface_hub import HfApi, constants
from PIL import Image

from kdam_hf.commands import publish as script
from kdam_hf.errors import CheckpointError, HubError, KdamValueError
from kdam_hf.hub.publication import make_publication, publish, write_repository
from kdam_hf.hub.upload import explained

CODE = {path.name for path in (ROOT / "kdam_hf").glob("*_kdam.py")}
FIRST, WITH_SCORES = "initial commit", "Publish the model with its scores"


def test_everything_arrives_in_one_commit_and_nothing_else(hub, student, publication):
    url = publish(ID, publication)
    assert hub.messages(ID) == [FIRST, WITH_SCORES]
    assert url == f"{hub.url}/{ID}/commit/{hub.repositories[ID].commits[-1][0]}"
    files = hub.files(ID)
    data = {"config.json", "preprocessor_config.json", "results.json", "recipe.json", "training_log.json"}
    assert set(files) == {"README.md", "model.safetensors", "sample.png", *data, *CODE}
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"])["tasks"][0]["class_names"] == NAMES
    assert [line["step"] for line in json.loads(files["training_log.json"])] == [1, 2, 3]
    strict = {name: json.loads(files[name], parse_constant=pytest.fail) for name in data}  # NaN is no JSON
    assert strict["results.json"]["normals/mean_angle"] is None
    for name, content in files.items():
        for private in ("alice", "hf_secret", str(student.parent)):
            assert private.encode() not in content, f"{name} holds {private}"


def test_a_picture_loses_what_its_file_says_of_the_place_it_was_taken(student, tmp_path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "taken at home by alice", 6  # lies on its side
    Image.new("RGB", (8, 6), (10, 200, 30)).save(tmp_path / "photo.jpg", exif=exif)
    picture = make_publication(student, ID, picture=tmp_path / "photo.jpg")["sample.png"]
    assert b"alice" not in picture
    assert Image.open(BytesIO(picture)).size == (6, 8)
    bare = make_publication(student, ID)
    assert not any(b"sample.png" in text for text in (bare["README.md"], *map(str.encode, bare)))
    for name in ("config.json", "missing.png"):
        with pytest.raises(KdamValueError, match=name):
            make_publication(student, ID, picture=student / name)
    with pytest.raises(KdamValueError, match="no such"):  # a picture is a file: nothing is fetched
        make_publication(student, ID, picture="http://127.0.0.1:9/photo.png")


def test_what_only_an_earlier_model_had_goes_with_it_and_files_of_others_stay(hub, own, publication):
    publish(ID, publication)
    others = {"notes.md", "results.json.md"}
    hub.put(ID, dict.fromkeys(others, b"mine") | {"earlier_kdam.py": b""})
    for name in ("results.json", "recipe.json", "checkpoint-3/trainer_state.json"):
        (own / name).unlink()
    publish(ID, make_publication(own, ID, allow_no_results=True))
    files = set(hub.files(ID))
    assert files >= others
    assert not files & {"results.json", "recipe.json", "training_log.json", "sample.png", "earlier_kdam.py"}


def test_a_tag_names_its_commit_and_does_not_move(hub, publication):
    publish(ID, publication, tag="v1")
    repository = hub.repositories[ID]
    tags = {"v1": repository.commits[-1][0]}
    assert repository.tags == tags
    publish(ID, publication)
    with pytest.raises(HubError, match="v1"):
        publish(ID, publication, tag="v1")
    assert repository.tags == tags
    assert hub.messages(ID) == [FIRST, WITH_SCORES, WITH_SCORES]


def test_a_tag_that_fails_after_the_commit_does_not_deny_the_commit(hub, publication):
    hub.faults["tag"] = 1
    with pytest.raises(HubError) as caught:
        publish(ID, publication, tag="v1")
    assert hub.messages(ID) == [FIRST, WITH_SCORES]
    assert f"hf repos tag create {ID} v1 --revision {hub.repositories[ID].commits[-1][0]}" in str(caught.value)
    assert not re.search("nothing is visible|same command again", str(caught.value))


def test_a_private_model_is_never_silently_public(hub, publication):
    publish(ID, publication, private=True)
    assert hub.repositories[ID].private
    hub.repositories.clear()
    hub.private_by_default = True  # of its organisation
    publish(ID, publication)
    assert hub.repositories[ID].private
    hub.repositories[ID].private = False
    with pytest.raises(HubError, match="public"):
        publish(ID, publication, private=True)
    assert len(hub.messages(ID)) == 2


@pytest.mark.parametrize(
    ("token", "repo_id", "status"),
    [("forged", ID, 401), ("", ID, 401), ("reader", ID, 403), ("owner", "stranger/model", 403)],
)
def test_who_may_not_write_is_told_why(hub, student, monkeypatch, token, repo_id, status):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=str(status)):
        publish(repo_id, make_publication(student, repo_id))
    assert not hub.repositories


def test_an_interruption_shows_nothing_and_the_same_command_completes_it(hub, publication):
    hub.faults["commit"] = 1
    with pytest.raises(HubError, match="run the same command again"):
        publish(ID, publication)
    assert hub.messages(ID) == [FIRST]
    publish(ID, publication)
    assert hub.messages(ID) == [FIRST, WITH_SCORES]


@pytest.mark.parametrize(("setting", "value"), [("ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", True)])
def test_a_hub_that_is_not_there_or_switched_off_is_named(publication, monkeypatch, setting, value):
    for name, given in ({"HF_HUB_OFFLINE": False} | {setting: value}).items():
        monkeypatch.setattr(constants, name, given)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between attempts
    with pytest.raises(HubError, match="HF_HUB_OFFLINE" if value is True else "check the network"):
        publish(ID, publication)


def test_the_hub_of_these_tests_is_asked_as_the_real_one():
    for name in ("create_repo", "model_info", "list_repo_refs", "list_repo_files", "create_commit", "create_tag"):
        given, real = (inspect.signature(vars(cls)[name]).parameters for cls in (Api, HfApi))
        assert given.keys() <= real.keys()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_answer_of_the_hub_has_its_own_remedy_and_an_error_of_ours_is_not_wrapped(status):
    with pytest.raises(HubError, match=rf"org/m: [^:]*\({status}\)"), explained("org/m"):
        refuse(status)
    with pytest.raises(HubError) as caught, explained("org/m"):
        raise HubError("as it is")
    assert str(caught.value) == "as it is"


def test_a_repository_is_written_to_a_new_or_empty_folder_alone(publication, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(KdamValueError, match="file"):
        write_repository(publication, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    write_repository(publication, tmp_path / "empty")
    assert {path.name for path in (tmp_path / "empty").iterdir()} == set(publication)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(KdamValueError, match="by its name"):
        write_repository(publication, ".")


def test_metadata_that_the_hub_refuses_is_explained_before_anything_is_sent(hub, student):
    with pytest.raises(HubError, match="license"):
        publish(ID, make_publication(student, ID, license="free-beer"))
    assert hub.messages(ID) == [FIRST]


def test_a_wrong_repository_id_or_tag_is_refused_before_any_request(hub, student, publication):
    for repo_id in ("student", "org/a/b", "org/", "org/a b", "", "../x", "org/-x"):
        with pytest.raises(KdamValueError, match=re.escape(repr(repo_id))):
            make_publication(student, repo_id)
    for tag in ("v 1", "-v1", ""):
        with pytest.raises(KdamValueError, match=repr(tag)):
            publish(ID, publication, tag=tag)
    assert not hub.repositories


def test_without_results_it_is_refused_unless_told_so(own, hub):
    (own / "results.json").unlink()
    with pytest.raises(CheckpointError, match="--allow_no_results"):
        make_publication(own, ID)
    files = make_publication(own, ID, allow_no_results=True)
    assert "results.json" not in files
    publish(ID, files)
    assert hub.messages(ID)[-1] == "Publish the model without scores"


def test_the_command_publishes_and_a_dry_run_writes_the_same_repository(hub, student, tmp_path, capsys):
    arguments = ["--model", str(student), "--repo_id", ID]
    arguments += ["--teacher_results", str(student.parent / "teacher/results.json")]
    arguments += ["--picture", str(student.parent / "contact_sheet.png")]
    script.main([*arguments, "--dry_run", str(tmp_path / "dry")])
    assert not hub.repositories
    script.main([*arguments, "--private", "--revision", "v1"])
    assert f"Published: {hub.url}/{ID}/commit/" in capsys.readouterr().out
    published = hub.files(ID, hub.repositories[ID].tags["v1"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "dry").iterdir()} == published
    assert hub.repositories[ID].private
    with pytest.raises(KdamValueError, match="not empty"):
        script.main([*arguments, "--dry_run", str(tmp_path / "dry")])


def test_the_command_refuses_what_is_no_complete_model(own):
    weights = own / "model.safetensors"
    with pytest.raises(KdamValueError, match="missing"):
        script.main(["--model", str(own / "missing"), "--repo_id", ID])
    change_results(own, weights_sha256="0" * 64)
    for fault in (lambda: None, lambda: weights.write_bytes(weights.read_bytes()[:2000])):
        fault()
        with pytest.raises(CheckpointError, match=str(own)):
            script.main(["--model", str(own), "--repo_id", ID])
