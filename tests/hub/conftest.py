"""A Hub on loopback for every test, and a published model."""

import huggingface_hub.constants
import pytest
from hub_kit import make_student
from hub_server import HubServer

from kdam_hf.hub import make_publication

ID = "org/kdam-student"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh Hub that this process's client talks to, as its owner."""
    constants = huggingface_hub.constants
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # transformers keeps the client of the first Hub it saw
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)
        monkeypatch.setenv("HF_TOKEN", "owner")
        yield server


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    """The folder of the student; not to be changed."""
    return make_student(tmp_path_factory.mktemp("run") / "cs")


@pytest.fixture(scope="session")
def publication(student):
    """What of it is published."""
    return make_publication(student, ID, license="cc-by-nc-4.0")
