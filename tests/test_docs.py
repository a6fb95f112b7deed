"""What the documents state of the source: quoted messages, the table of sizes, the keys of recipes, and the notebook."""

import ast
import json
import re
import runpy
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch

import kdam_hf
from kdam_hf import KdamStudent
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import arguments

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = json.loads((DOCS / "quickstart.ipynb").read_text("utf-8"))["cells"]


def messages():
    """Every text of the source, with `...` for what an f-string fills in."""
    for package in ("kdam_hf", "dataset_loaders"):
        for path in (DOCS.parent / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)


def test_every_message_of_troubleshooting_is_one_of_the_source():
    quoted = re.findall("^### `(.*)`$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    known = "\n".join(messages())
    assert len(quoted) >= 15
    assert [text for text in quoted if text not in known] == []


def test_the_table_of_sizes_has_every_preset_with_weights_and_its_parameters():
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| ([\d.]+) ", (DOCS / "models.md").read_text("utf-8"), re.MULTILINE)
    assert {(name, weights) for name, weights, _ in rows} == {(n, b.weights) for n, b in PRESETS.items() if b.weights}
    for name, _, millions in (row for row in rows if float(row[2]) < 5):
        with torch.device("meta"):
            model = KdamStudent(make_config("student", name, NYUD_V2))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(float(millions), abs=0.051)


@pytest.mark.parametrize("name", re.findall(r"<!-- keys: (\w+) -->", (DOCS / "reference/arguments.md").read_text()))
def test_the_reference_lists_every_key(name):
    table = runpy.run_path(str(DOCS / "hooks.py"))["keys"](name)
    group = getattr(arguments, name)
    own = [field.name for field in fields(group) if field.name in group.__annotations__]
    assert sorted(re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)) == sorted(own)


def test_a_link_that_leaves_the_documents_keeps_its_words_unless_it_is_broken():
    page = SimpleNamespace(file=SimpleNamespace(src_uri="benchmarks/README.md"))
    text = "[method](../../kdam_hf/objective.py) [data](../data.md) [gone](../../kdam_hf/gone.py)"
    kept = runpy.run_path(str(DOCS / "hooks.py"))["on_page_markdown"](text, page)
    assert kept == text.replace("[method](../../kdam_hf/objective.py)", "method")


def test_the_notebook_runs_from_photos_to_maps(tmp_path, monkeypatch):
    code = ["".join(cell["source"]) for cell in NOTEBOOK if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in NOTEBOOK)
    monkeypatch.chdir(tmp_path)
    quick = {"max_steps": 2, "use_cpu": True, "cpu_threads": 1, "disable_tqdm": True}
    monkeypatch.setattr(kdam_hf, "distill", lambda distill=kdam_hf.distill, **keys: distill(**keys | quick))
    found = {}
    mpl.use("Agg")
    for source in code:
        exec(compile(source, "quickstart.ipynb", "exec"), found)
    size = np.array(found["photo"]).shape[:2]
    assert {name: values.shape for name, values in found["maps"].items()} == {"semseg": size, "depth": size}
    assert {"agreement/semseg/miou", "agreement/depth/rmse"} <= found["student"].metrics.keys()
    assert [axis.get_images() != [] for axis in found["figure"].axes] == [True] * 5
    found["plt"].close("all")
