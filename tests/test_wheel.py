"""What an installation gets."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import kdam_hf

ROOT = Path(__file__).parents[1]
FOLDERS = ("kdam_hf", "dataset_loaders")


@pytest.mark.reliability
def test_a_wheel_holds_the_command_its_recipes_and_templates(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "kdam_cli.py"):
        shutil.copy(ROOT / name, tmp_path)
    source = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "dist").iterdir()
    assert path.name.split("-")[:2] == ["kdam_hf", kdam_hf.__version__]
    with ZipFile(path) as wheel:
        held = set(wheel.namelist())
        entry = next(name for name in held if name.endswith("entry_points.txt"))
        assert b"kdam = kdam_cli:main" in wheel.read(entry)
    ours = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if "__pycache__" not in path.parts]
    assert {str(path.relative_to(ROOT)) for path in ours if path.is_file()} | {"kdam_cli.py"} <= held
