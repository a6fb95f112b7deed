"""docs/reliability.md cannot rot: rows, marks and links agree, and no row is called proven that is not."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEXTS = yaml.safe_load((ROOT / "docs/reliability_rows.yaml").read_text("utf-8"))
SUITE = """
import pytest

@pytest.mark.fault(1, 2)
@pytest.mark.parametrize("k", range(3))
def test_a(k):
    assert k != 2

@pytest.fixture
def broken():
    raise OSError

@pytest.mark.fault(3)
def test_b(broken): ...

@pytest.mark.fault(4)
def test_c():
    pytest.skip()

@pytest.mark.fault(5)
@pytest.mark.parametrize("k", range(2))
def test_d(k): ...

@pytest.mark.fault(5)
def test_e():
    pytest.skip()
"""


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


def test_a_row_needs_a_passing_test_and_no_failing_one(tmp_path):
    texts = {row: {"fault": "f", "elsewhere": "e | e", "here": "h"} for row in range(1, 7)}
    files = {"tests/test_x.py": SUITE, "docs/reliability_rows.yaml": yaml.safe_dump(texts)}
    files["docs/reliability.md"] = "# Title\n\nIntroduction.\n\nOld."
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, ROOT / "scripts/reliability_table.py", "--root", tmp_path]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1
    lines = (tmp_path / "docs/reliability.md").read_text().splitlines()
    assert lines[:4] == ["# Title", "", "Introduction.", ""]
    assert [line.split(" | ")[-1].removesuffix(" |") for line in lines[-6:]] == [
        *["**not proven** (1 failed, 2 passed)"] * 2,
        "**not proven** (1 failed)",
        "**not proven** (1 skipped)",
        "2 passed, 1 skipped",
        "**not proven** (not run)",
    ]
