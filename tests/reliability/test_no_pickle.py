"""What could run code while it reads is nowhere in the source; there is no exception to list."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault(27)

ROOT = Path(__file__).parents[2]
FOLDERS = ("kdam_hf", "dataset_loaders", "scripts")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
SWITCHES = {"allow_pickle", "shell", "trust_remote_code"}  # off by default


def option(call, name):
    """The constant given for a keyword; None when it is absent or computed."""
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def dangers(source):
    """(line, what) of everything in the source that could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {name}") for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        found = (
            (name in BUILTINS)
            or (name.endswith("torch.load") and option(node, "weights_only") is not True)
            or name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load")
            or any(k.arg in SWITCHES and option(node, k.arg) is not False for k in node.keywords)
            or name in ("os.system", "os.popen", "runpy.run_path")
            or name.endswith("read_pickle")
        )
        if found:
            yield node.lineno, name


def sources():
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_in_the_source_unpickles_or_runs_what_it_reads(path):
    found = list(dangers(path.read_text("utf-8")))
    assert not found, f"{found}; read safetensors, JSON or plain arrays"


DANGEROUS = """import pickle
from joblib import load
torch.load(path)
torch.load(path, weights_only=flag)
np.load(path, allow_pickle=True)
np.load(path, allow_pickle=flag)
yaml.load(text)
yaml.unsafe_load(text)
eval(text)
AutoModel.from_pretrained(name, trust_remote_code=True)
AutoModel.from_pretrained(name, trust_remote_code=trust)
subprocess.run(line, shell=True)
pandas.read_pickle(path)"""
SAFE = """torch.load(path, weights_only=True)
np.load(path)
np.load(path, allow_pickle=False)
yaml.safe_load(text)
re.compile(text)
model.eval()
AutoConfig.from_pretrained(name, trust_remote_code=False)"""


@pytest.mark.parametrize(("lines", "found"), [(DANGEROUS, True), (SAFE, False)], ids=["dangerous", "safe"])
def test_the_scan_finds_what_it_is_for_and_passes_what_is_safe(lines, found):
    for line in lines.splitlines():
        assert bool(list(dangers(line))) is found, line
