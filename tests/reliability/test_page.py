"""docs/reliability.md cannot rot: rows, marked tests and the page agree, and the script calls no row proven that is not."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from reliability_table import PAGE, is_proven, main, marked_tests, outcome_of, read_outcomes, read_rows, render  # noqa: E402

ROWS = range(1, 35)


@pytest.fixture(scope="module")
def tests():
    return marked_tests()


def test_every_row_is_told_and_proven_by_a_test(tests):
    rows = read_rows()
    assert list(rows) == list(ROWS)
    assert all(set(text) == {"fault", "elsewhere", "here"} for text in rows.values())
    assert set(tests) <= set(ROWS), "a test marks a row that does not exist"
    assert not set(ROWS) - set(tests), "rows without a test"


@pytest.mark.parametrize("row", ROWS)
def test_the_page_names_the_tests_of_each_row_as_they_are(row, tests):
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| {row} | ")]
    assert len(lines) == 1
    linked = [f"{path}::{test}" for test, path in re.findall(r"\[`(\w+)`\]\(\.\./([\w/.]+)\)", lines[0])]
    assert linked == tests.get(row), "run python scripts/reliability_table.py"
    assert "not proven" not in lines[0]


def test_marks_of_functions_and_of_whole_files_are_found(tmp_path):
    lines = ["import pytest", "pytestmark = pytest.mark.fault(3)"]
    lines += ["@pytest.mark.fault(1, 2)", "def test_a(): ...", "def test_b(): ..."]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_x.py").write_text("\n".join(lines))
    a, b = "tests/test_x.py::test_a", "tests/test_x.py::test_b"
    assert marked_tests(tmp_path / "tests") == {1: [a], 2: [a], 3: [a, b]}


def test_the_marks_in_the_source_are_those_that_pytest_sees(request, tests):
    for item in request.session.items:
        seen = {row for mark in item.iter_markers("fault") for row in mark.args}
        name = item.nodeid.partition("[")[0]
        assert seen == {row for row, names in tests.items() if name in names}, name


@pytest.mark.parametrize(
    ("counts", "proven"),
    [
        ({"a": {"passed": 2}}, True),
        ({"a": {"passed": 2}, "b": {"skipped": 1}}, True),
        ({"a": {"passed": 2}, "b": {"failed": 1}}, False),
        ({"a": {"skipped": 2}}, False),
        ({}, False),
    ],
)
def test_a_row_needs_a_passing_test_and_no_failing_one(counts, proven):
    assert is_proven(["a", "b"], {name: Counter(count) for name, count in counts.items()}) is proven


def test_a_row_says_what_became_of_its_tests():
    text = {1: {"fault": "f", "elsewhere": "e | e", "here": "h"}}
    passed, failed = ({"t.py::a": Counter({outcome: 2})} for outcome in ("passed", "failed"))
    page = render(text, {1: ["t.py::a"]}, passed, "")
    assert page.splitlines()[-1] == "| 1 | f | e \\| e | h | [`a`](../t.py) | 2 passed |"
    assert "**not proven** (2 failed)" in render(text, {1: ["t.py::a"]}, failed, "")
    assert "**not proven** (not run)" in render(text, {}, {}, "")


SUITE = """
import pytest

@pytest.mark.parametrize("k", range(3))
def test_a(k):
    assert k != 2

@pytest.fixture
def broken():
    raise OSError

def test_b(broken): ...

def test_c():
    pytest.skip()
"""


def test_outcomes_are_read_from_the_report_of_pytest_and_unproven_rows_end_with_1(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_x.py").write_text(SUITE)
    report = tmp_path / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        f"--junit-xml={report}",
        "tests",
    ]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    found = {name: outcome_of(count) for name, count in read_outcomes(report).items()}
    assert found == {
        "tests/test_x.py::test_a": "1 failed, 2 passed",
        "tests/test_x.py::test_b": "1 failed",
        "tests/test_x.py::test_c": "1 skipped",
    }
    page = tmp_path / "page.md"
    assert main(["--report", str(report), "--output", str(page)]) == 1
    assert page.read_text().count("**not proven** (not run)") == len(ROWS)
