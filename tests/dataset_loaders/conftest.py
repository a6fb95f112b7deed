"""Miniature trees to be spoilt."""

import shutil

import pytest


@pytest.fixture
def copy(tree, tmp_path):
    """As `tree`, to be spoilt."""

    def get(layout):
        root, truth = tree(layout)
        return shutil.copytree(root, tmp_path / layout), truth

    return get
