"""The command `kdam`. A `--help` is read from the source: nothing is imported, and torch loads, before a command runs."""

import argparse
import ast
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "commands"
# command -> its module, and what it does
COMMANDS = {
    "distill": ("distill", "teachers into a student, on photos or on data with labels"),
    "teacher": ("teach", "see what a teacher says of a photo"),
    "predict": ("predict", "maps of photos"),
    "demo": ("demo", "a web page: drop a photo, see the student beside its teacher"),
    "evaluate": ("evaluate", "score a model, or maps on disk"),
    "prepare": ("prepare_data", "check a data set, report on it, decode it for fast training"),
    "train": ("train", "a multi-task teacher, or a baseline, on data with labels"),
    "cache-teacher": ("cache_teacher", "run the teacher once, for trainings to replay"),
    "compare": ("compare", "a teacher, and students by several methods and seeds"),
    "export": ("export", "an ONNX file, checked against PyTorch"),
    "onnx": ("run_onnx", "maps of a photo from an ONNX file, without torch"),
    "publish": ("publish", "model, card and scores on the Hub"),
    "recipes": ("recipes", "the recipes that --config knows by name"),
    "doctor": ("doctor", "versions, devices and extras: what is there and would be used"),
}
LAUNCHED = ("train", "distill", "cache-teacher")  # may run in several processes
ALONE = ("onnx", "recipes", "doctor")  # their files import nothing of this package
LAUNCH = "-m accelerate.commands.launch --num_machines 1 --mixed_precision no --dynamo_backend no"
USAGE = """kdam COMMAND ...: multi-task dense prediction and its distillation.

{commands}

    kdam distill --images photos/ --teacher DEPTH_MODEL SEGMENTATION_MODEL --output_dir outputs/student
    kdam predict --model outputs/student --images photo.jpg
    kdam evaluate --model outputs/student --dataset folder --data_dir DIR

kdam COMMAND --help: its main keys and examples; --help all: every key. train, distill and cache-teacher take
--num_processes N. `python -m kdam_hf` is the same, so `accelerate launch -m kdam_hf distill ...` works.
Tab completes commands and main keys after eval "$(kdam completion)", in bash, and in zsh with bashcompinit."""
COMPLETION = r"""_kdam() {
    local word="${COMP_WORDS[COMP_CWORD]}"
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
    elif [ "${word#-}" != "$word" ]; then
        COMPREPLY=($(compgen -W "$(kdam "${COMP_WORDS[1]}" --help | grep -oE -e '--[a-z0-9_]+' | sort -u)" -- "$word"))
    fi
}
complete -o default -F _kdam kdam"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; exit code 2 for one that does not exist."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    module = COMMANDS.get(name, [name])[0]
    file = FOLDER / f"{module}.py"
    if name in ("--help", "-h", "help"):
        print(USAGE.format(commands="\n".join(f"    {key:15}{line}" for key, (_, line) in COMMANDS.items())))
    elif name == "completion":
        print(COMPLETION.replace("@COMMANDS@", " ".join(COMMANDS)))
    elif name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        _refuse(f"unknown command {name!r}; " + (f"did you mean {close[0]}?" if close else "see kdam --help."))
    elif {"--help", "-h"} & {*words} and "all" not in words:
        print(_first_screen(file))
    elif name in ALONE:
        specification: Any = spec_from_file_location(module, file)
        alone = module_from_spec(specification)
        specification.loader.exec_module(alone)
        alone.main(words)
    elif name in LAUNCHED and (count := _processes(words)) > 1:
        launcher = f"{LAUNCH} --multi_gpu --num_processes {count} -m kdam_hf {name}".split()
        os.execv(sys.executable, [sys.executable, *launcher, *words])
    else:
        from kdam_hf.training import run_command

        run_command(lambda: import_module(f"kdam_hf.commands.{module}").main(words))


def run_script(name: str) -> None:
    """A command as a script of a clone."""
    main([name, *sys.argv[1:]])


def _first_screen(file: Path) -> str:
    """The docstring of a command; behind its examples its own options, and the keys of trainings that it names as KEYS."""
    tree, training = _parsed(file), FOLDER.with_name("training")
    title, examples, *rest = (ast.get_docstring(tree) or "").split("\n\n")
    known = {**_declared(_parsed(training / "recipes.py")), **_declared(_parsed(training / "arguments.py"))}
    assigned = (node for node in tree.body if isinstance(node, ast.Assign))
    keys = [ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "KEYS"]
    told = {key: known[key] for key in " ".join(keys).split()} | _declared(tree)
    lines = [f"    --{name:<23} {text}" for name, text in told.items()]
    return "\n\n".join([title, examples, *(["\n".join(lines)] if lines else []), *rest])


def _declared(tree: ast.Module) -> dict[str, str]:
    """Options that a file declares, by `option` or `required` or to a parser, and their texts."""
    told = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.value or node).startswith(("option(", "required(")):
            told[ast.unparse(node.target)] = node.value.args[-1]  # type: ignore[union-attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            text = next(word.value for word in node.keywords if word.arg == "help")
            told[ast.literal_eval(node.args[0])[2:]] = text
    return {name: ast.literal_eval(text) for name, text in told.items()}


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def _processes(words: list[str]) -> int:
    """Take `--num_processes N` out of the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num_processes", type=int, default=1)
    found, words[:] = parser.parse_known_args(words)
    if found.num_processes < 1:
        _refuse(f"--num_processes is {found.num_processes}; expected a number of processes, at least 1.")
    return int(found.num_processes)


def _refuse(message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
