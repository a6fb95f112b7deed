"""Miniature trees, each written once."""

import shutil
from functools import cache

import pytest
import trees


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """`tree("A")` is (root, truth) of a layout, four training images and three of val; alone in its parent folder."""

    @cache
    def get(layout):
        root = tmp_path_factory.mktemp(layout) / "tree"
        return root, trees.write_tree(layout, root, 4, 3)

    return get


@pytest.fixture
def copy(tree, tmp_path):
    """As `tree`, to be spoilt."""

    def get(layout):
        root, truth = tree(layout)
        return shutil.copytree(root, tmp_path / layout), truth

    return get
