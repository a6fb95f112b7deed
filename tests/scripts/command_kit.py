"""The commands, by their scripts: in a process of their own, or in this one, which has imported everything already."""

import importlib.util
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from kdam_hf.training import run_command

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"

sys.path.append(str(SCRIPTS))  # not first: scripts/evaluate.py would hide the library of that name


def load(script):
    """The module of a command, or of a script that is none."""
    if importlib.util.find_spec(f"kdam_hf.commands.{Path(script).stem}"):
        return importlib.import_module(f"kdam_hf.commands.{Path(script).stem}")
    specification = importlib.util.spec_from_file_location(f"{Path(script).stem}_command", SCRIPTS / script)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(script, *arguments, check=True):
    """The same without starting a process, which takes longer than what the tests let it do."""
    main, out, err, code = load(script).main, StringIO(), StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run_command(lambda: main([str(argument) for argument in arguments]))
        except SystemExit as ended:
            code = ended.code or 0
    assert not check or code == 0, out.getvalue()[-2000:] + err.getvalue()[-4000:]
    return subprocess.CompletedProcess([script, *arguments], code, out.getvalue(), err.getvalue())
