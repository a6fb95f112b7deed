"""The house keeps its doors: who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest

from kdam_hf.distillation import DIVERGENCES, METHODS
from kdam_hf.readout_kdam import READOUTS
from kdam_hf.tasks.base import NAMED

ROOT = Path(__file__).parents[1]
FLAT = {
    "configuration_kdam",
    "modeling_kdam",
    "efficientnet_lite_kdam",
    "image_processing_kdam",
    "photos_kdam",
    "readout_kdam",
    "colours_kdam",
    "upsampling_kdam",
    "weights_kdam",
    "pipeline_kdam",
}
# room -> rooms of this project it may import
ALLOWED = {
    "kdam_hf.errors": set(),
    "kdam_hf.distributed": set(),
    "kdam_hf.io": {"kdam_hf.errors"},
    "kdam_hf.jit": set(),
    "kdam_hf.configuration_kdam": {"kdam_hf.efficientnet_lite_kdam"},
    "kdam_hf.weights_kdam": set(),
    "kdam_hf.efficientnet_lite_kdam": set(),
    "kdam_hf.modeling_kdam": {"kdam_hf.configuration_kdam", "kdam_hf.weights_kdam"},
    "kdam_hf.image_processing_kdam": {
        *("kdam_hf.configuration_kdam", "kdam_hf.photos_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.photos_kdam": set(),
    "kdam_hf.colours_kdam": set(),
    "kdam_hf.upsampling_kdam": {"kdam_hf.configuration_kdam"},
    "kdam_hf.readout_kdam": {"kdam_hf.colours_kdam", "kdam_hf.upsampling_kdam", "kdam_hf.configuration_kdam"},
    "kdam_hf.pipeline_kdam": {
        *("kdam_hf.image_processing_kdam", "kdam_hf.photos_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.metrics": {"kdam_hf.errors", "kdam_hf.jit", "kdam_hf.configuration_kdam"},
    "kdam_hf.tasks": {
        *("kdam_hf.errors", "kdam_hf.jit", "kdam_hf.metrics", "kdam_hf.plots"),
        *("kdam_hf.configuration_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.distillation": {"kdam_hf.errors", "kdam_hf.distributed", "kdam_hf.tasks", "kdam_hf.configuration_kdam"},
    "kdam_hf.objective": {
        *("kdam_hf.errors", "kdam_hf.distributed", "kdam_hf.tasks", "kdam_hf.distillation"),
        "kdam_hf.configuration_kdam",
    },
    "kdam_hf.presets": {"kdam_hf.errors", "kdam_hf.tasks", "kdam_hf.configuration_kdam"},
    "kdam_hf.visualization": set(),
    "kdam_hf.plots": {"kdam_hf.errors"},
    "kdam_hf.demo": {
        *("kdam_hf.tasks", "kdam_hf.training", "kdam_hf.modeling_kdam", "kdam_hf.pipeline_kdam"),
        *("kdam_hf.image_processing_kdam", "kdam_hf.photos_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.evaluate_modules": {"kdam_hf.errors", "kdam_hf.metrics"},
    "dataset_loaders": {
        *("kdam_hf.io", "kdam_hf.errors", "kdam_hf.jit", "kdam_hf.tasks", "kdam_hf.metrics", "kdam_hf.photos_kdam"),
    },
    "kdam_hf.hub": {
        "kdam_hf.io",
        *("kdam_hf", "kdam_hf.errors", "kdam_hf.metrics", "kdam_hf.tasks", "kdam_hf.presets"),
        *("kdam_hf.configuration_kdam", "kdam_hf.modeling_kdam", "kdam_hf.image_processing_kdam"),
        *("kdam_hf.pipeline_kdam", "kdam_hf.photos_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.export": {
        *("kdam_hf.errors", "kdam_hf.modeling_kdam", "kdam_hf.image_processing_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.pretrained": {
        *("kdam_hf", "kdam_hf.io", "kdam_hf.errors", "kdam_hf.presets"),
        *("kdam_hf.configuration_kdam", "kdam_hf.weights_kdam", "kdam_hf.modeling_kdam"),
    },
    "kdam_hf.teachers": {
        *(
            "kdam_hf.io",
            "kdam_hf.errors",
            "kdam_hf.tasks",
            "kdam_hf.weights_kdam",
            "kdam_hf.pretrained",
            "dataset_loaders",
        ),
    },
    "kdam_hf.training": {
        *("kdam_hf.io", "kdam_hf.pretrained", "kdam_hf.teachers"),
        *("kdam_hf", "kdam_hf.hub", "kdam_hf.errors", "kdam_hf.distributed", "kdam_hf.metrics", "kdam_hf.tasks"),
        *("kdam_hf.distillation", "kdam_hf.objective", "kdam_hf.presets", "dataset_loaders"),
        *("kdam_hf.configuration_kdam", "kdam_hf.weights_kdam", "kdam_hf.modeling_kdam"),
        *("kdam_hf.image_processing_kdam", "kdam_hf.readout_kdam"),
    },
    "kdam_hf.commands": {
        *(
            "kdam_hf",
            "kdam_hf.api",
            "dataset_loaders",
            "kdam_hf.io",
            "kdam_hf.errors",
            "kdam_hf.metrics",
            "kdam_hf.tasks",
        ),
        *(
            "kdam_hf.distillation",
            "kdam_hf.teachers",
            "kdam_hf.training",
            "kdam_hf.hub",
            "kdam_hf.export",
            "kdam_hf.demo",
        ),
        *(
            "kdam_hf.plots",
            "kdam_hf.visualization",
            "kdam_hf.photos_kdam",
            "kdam_hf.readout_kdam",
            "kdam_hf.pretrained",
        ),
        *("kdam_hf.modeling_kdam", "kdam_hf.image_processing_kdam", "kdam_hf.pipeline_kdam"),
    },
    "kdam_hf.api": {
        *("kdam_hf.errors", "dataset_loaders"),
        "kdam_hf.modeling_kdam",
        *("kdam_hf.image_processing_kdam", "kdam_hf.commands", "kdam_hf.pretrained"),
    },
    "kdam_hf.__main__": {"kdam_hf.training"},
    "kdam_hf": {
        "kdam_hf.api",
        *("kdam_hf.configuration_kdam", "kdam_hf.modeling_kdam", "kdam_hf.image_processing_kdam"),
        *("kdam_hf.pipeline_kdam", "kdam_hf.objective"),  # the latter when a loss is asked for
    },
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


def test_top_level_is_what_was_agreed():
    for name in ("kdam_hf", "scripts", "dataset_loaders", "tests", "model_cards", "pyproject.toml"):
        assert (ROOT / name).exists()
