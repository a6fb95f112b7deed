"""Exported graphs of tiny models, each written once."""

import pytest
from export_kit import tiny

from kdam_hf.export import save_onnx, trace


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """(role, preset, size) -> model, program, path of its ONNX file."""
    made = {}

    def get(role, preset, size):
        key = role, preset, size
        if key not in made:
            model = tiny(role, preset)
            program = trace(model, size)
            path = tmp_path_factory.mktemp("graphs") / "model.onnx"
            save_onnx(program, path, model)
            made[key] = model, program, path
        return made[key]

    return get
