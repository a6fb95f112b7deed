"""docs/reliability.md cannot rot: rows, marks and links agree, and no row is called proven that is not."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXTS = yaml.safe_load((ROOT / "docs/reliability_rows.yaml").read_text("utf-8"))


def test_every_row_is_told_and_every_mark_names_a_row():
    assert all(set(text) == {"fault", "elsewhere", "here"} for text in TEXTS.values())
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    marked = [rows for text in sources for rows in re.findall(r"mark\.fault\(([\d, ]+)\)", text)]
    marks = {int(row) for rows in marked for row in rows.split(",")}
    assert marks == set(TEXTS), "rows without a test, or marks without a row"


def test_the_page_shows_every_row_proven_by_tests_that_exist():
    page = (ROOT / "docs/reliability.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.*)$", page, re.M))
    assert [*map(int, rows)] == [*TEXTS]
    assert "not proven" not in page
    for row in rows.values():
        links = re.findall(r"\[`(\w+)`\]\(\.\./([\w/.]+)\)", row)
        assert links
        for test, path in links:
            assert f"def {test}(" in (ROOT / path).read_text("utf-8"), "run python scripts/reliability_table.py"


@pytest.mark.parametrize(
    ("cases", "result"),
    [
        ([("a[0]", "call", "passed"), ("a[1]", "call", "failed")], "**not proven** (1 failed, 1 passed)"),
        ([("a", "setup", "failed")], "**not proven** (1 failed)"),
        ([("a", "setup", "skipped")], "**not proven** (1 skipped)"),
        ([("a", "setup", "passed"), ("a", "call", "passed"), ("b", "setup", "skipped")], "1 passed, 1 skipped"),
        ([], "**not proven** (not run)"),
    ],
)
def test_a_row_needs_a_passing_test_and_no_failing_one(cases, result, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    table = import_module("reliability_table")
    outcomes = table.Outcomes()
    outcomes.marked = {name: {1} for name, _, _ in cases}
    for name, when, outcome in cases:
        outcomes.pytest_runtest_logreport(SimpleNamespace(nodeid=name, when=when, outcome=outcome))
    line, proven = table.render(1, {"fault": "f", "elsewhere": "e | e", "here": "h"}, outcomes.rows[1])
    assert line.split(" | ")[-1] == f"{result} |\n"
    assert proven == (not result.startswith("**not"))
