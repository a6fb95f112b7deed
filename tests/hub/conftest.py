"""A Hub on loopback for every test, and a published model."""

import shutil

import huggingface_hub.constants
import pytest
from hub_kit import ID, make_student
from hub_server import HubServer

from kdam_hf.hub import make_publication


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh Hub that this process's client talks to, as its owner."""
    with HubServer() as server:
        settings = {"ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        settings["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings["HF_HUB_CACHE"] = str(tmp_path / "cache")
        for name, value in settings.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        # transformers keeps the client of the first Hub it saw
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        monkeypatch.setenv("HF_TOKEN", "owner")
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between attempts
        yield server


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    """The folder of the student; not to be changed."""
    return make_student(tmp_path_factory.mktemp("run") / "cs")


@pytest.fixture
def own(student, tmp_path):
    """A student's folder that may be changed."""
    run = shutil.copytree(student.parent, tmp_path / "run")
    for path in run.rglob("*.json"):
        path.write_text(path.read_text().replace(str(student.parent), str(run)))
    return run / "cs"


@pytest.fixture(scope="session")
def publication(student):
    """What of it is published."""
    sheet = student.parent / "contact_sheet.png"
    return make_publication(student, ID, license="cc-by-nc-4.0", picture=sheet)
