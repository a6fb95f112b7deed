import sys
from pathlib import Path

import pytest
from conftest_kit import Kit

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # kill_test; last, since a script may be named as a library


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path)


@pytest.fixture
def teacher(kit):
    """The folder of a saved teacher."""
    kit.model("teacher", seed=1).save_pretrained(kit.root / "teacher")
    return str(kit.root / "teacher")
