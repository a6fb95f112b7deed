import pytest
from conftest_kit import Kit


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path)
