"""A Hub without a network for every test, and a published model."""

import shutil

import huggingface_hub.constants
import pytest
from fake_hub import FakeHub
from hub_kit import ID, make_student

from kdam_hf.hub.publication import make_publication


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh Hub that this process publishes to, as its owner, and loads from."""
    hub = FakeHub(tmp_path / "cache")
    monkeypatch.setattr("kdam_hf.hub.upload.HfApi", hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setenv("HF_TOKEN", "owner")
    return hub


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
