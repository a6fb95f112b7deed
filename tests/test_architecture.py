"""The house keeps its doors: who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest

from kdam_hf.distillation import DIVERGENCES, METHODS
from kdam_hf.readout_kdam import READOUTS
from kdam_hf.tasks.base import NAMED

ROOT = Path(__file__).parents[1]
FLAT = {path.stem for path in (ROOT / "kdam_hf").glob("*_kdam.py")}
# room: rooms of this project it may import; those of kdam_hf without its name
ALLOWED = """
errors:
distributed:
io: errors
configuration_kdam: efficientnet_lite_kdam
weights_kdam:
efficientnet_lite_kdam:
modeling_kdam: configuration_kdam weights_kdam
image_processing_kdam: configuration_kdam photos_kdam readout_kdam
photos_kdam:
colours_kdam:
upsampling_kdam: configuration_kdam
readout_kdam: colours_kdam configuration_kdam upsampling_kdam
pipeline_kdam: image_processing_kdam photos_kdam readout_kdam
metrics: configuration_kdam errors
tasks: configuration_kdam errors metrics plots readout_kdam
distillation: configuration_kdam distributed errors tasks
objective: configuration_kdam distillation distributed errors tasks
presets: configuration_kdam errors tasks
visualization:
video: errors
plots: errors
demo: image_processing_kdam modeling_kdam photos_kdam pipeline_kdam readout_kdam tasks training
evaluate_modules: errors metrics
dataset_loaders: errors io metrics photos_kdam tasks
hub: configuration_kdam errors image_processing_kdam io kdam_hf metrics modeling_kdam photos_kdam pipeline_kdam
    presets readout_kdam tasks weights_kdam
export: errors image_processing_kdam modeling_kdam readout_kdam upsampling_kdam
pretrained: configuration_kdam errors io kdam_hf modeling_kdam presets weights_kdam
teachers: dataset_loaders errors io pretrained tasks weights_kdam
training: configuration_kdam dataset_loaders distillation distributed errors hub image_processing_kdam io kdam_hf
    metrics modeling_kdam objective presets pretrained readout_kdam tasks teachers weights_kdam
commands: api dataset_loaders demo distillation errors export hub image_processing_kdam io kdam_hf metrics
    modeling_kdam photos_kdam pipeline_kdam plots pretrained readout_kdam tasks teachers training video
    visualization
api: commands dataset_loaders errors image_processing_kdam modeling_kdam pipeline_kdam pretrained video
__main__: training
kdam_hf: api configuration_kdam image_processing_kdam modeling_kdam objective pipeline_kdam
"""


def full(name):
    return name if name in ("kdam_hf", "dataset_loaders") else f"kdam_hf.{name}"


ALLOWED = {
    full(line.split(":")[0]): {full(name) for name in line.split(":")[1].split()}
    for line in ALLOWED.replace("\n    ", " ").strip().splitlines()
}


def room(module):
    parts = module.split(".")
    return parts[0] if parts[0] != "kdam_hf" else ".".join(parts[:2])


def sources():
    for package in ("kdam_hf", "dataset_loaders"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, module):
    """Project modules a file imports, whether relative or absolute, at the top or inside a function."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            names = [".".join([*base, node.module] if node.module else base)]
        yield from (n for n in names if n.split(".")[0] in ("kdam_hf", "dataset_loaders", "scripts", "tests"))


@pytest.mark.parametrize(("path", "module"), list(sources()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_room_imports_only_what_it_may(path, module):
    for name in imports(path, module):
        assert room(name) == room(module) or room(name) in ALLOWED[room(module)], f"{module} imports {name}"


def test_flat_files_import_each_other_with_a_single_dot_only():
    """What a published model needs is copied flat into its repository; anything else would not load from the Hub."""
    for name in FLAT:
        for node in ast.walk(ast.parse((ROOT / "kdam_hf" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                assert node.module in FLAT, f"{name} imports .{node.module}"
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] != "kdam_hf"


def compared_texts(node):
    """Texts that a comparison, a `match` or a look-up in a literal holds something against."""
    parts = [node] if isinstance(node, (ast.Compare, ast.MatchValue)) else []
    return {
        c.value for part in parts for c in ast.walk(part) if isinstance(c, ast.Constant) and isinstance(c.value, str)
    }


# what the names of each kind may be compared in
NAMES = {
    "task": (lambda: set(NAMED), ("kdam_hf.tasks", "dataset_loaders.rooms")),
    "method": (lambda: set(METHODS), ("kdam_hf.distillation.methods",)),
    "divergence": (lambda: set(DIVERGENCES), ("kdam_hf.distillation.divergences",)),
    "readout": (lambda: set(READOUTS) - {"none"}, ("kdam_hf.readout_kdam",)),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_is_compared_in_its_own_room_only(kind):
    names, rooms = NAMES[kind]
    for path, module in sources():
        if not module.startswith(rooms):
            for node in ast.walk(ast.parse(path.read_text())):
                assert not names() & compared_texts(node), f"{module}:{node.lineno}"


def test_text_files_are_read_and_written_in_one_encoding():
    """Not in that of the terminal, which another machine does not have."""
    for path in [*(path for path, _ in sources()), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            place = {"read_text": 0, "write_text": 1}.get(getattr(getattr(node, "func", None), "attr", ""))
            assert place is None or len(node.args) > place, f"{path}:{node.lineno}"


def test_nothing_asks_a_data_set_what_it_has():
    """Its class says it; only in a room that never sees one may an attribute be looked for by name."""
    for path, module in sources():
        if module.startswith(("dataset_loaders", "kdam_hf.training")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("getattr", "hasattr")
                ):
                    asked = ast.unparse(node.args[0])
                    assert not any(word in asked for word in ("data", "source", "split", "layer")), f"{module}: {asked}"


def test_few_names_are_public():
    import kdam_hf

    assert len(kdam_hf.__all__) <= 15
    assert sorted(kdam_hf.__all__) == kdam_hf.__all__
