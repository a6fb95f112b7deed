"""A recipe is a flat YAML file of plain scalars and lists; the command line overrides it; unknown keys are errors."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import fields
from io import TextIOWrapper
from numbers import Number
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from kdam_hf.distributed import leave_group, tell_others
from kdam_hf.errors import KdamError, KdamValueError, did_you_mean
from kdam_hf.io import read_yaml
from kdam_hf.training.arguments import DistillationArguments

OF_DISTILLATION = {field.name for field in fields(DistillationArguments)}
# of which one says what the other would
ALTERNATIVES = {"max_steps": "num_train_epochs", "total_train_batch_size": "per_device_train_batch_size"}
ALTERNATIVES |= {other: key for key, other in ALTERNATIVES.items()}
SWITCHES = {"on": "true", "off": "false"}
NULLS = ("", "~", "null")
RECIPES = Path(__file__).parents[1] / "recipes"
Arguments = Sequence[str] | Mapping[str, Any] | None


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The keys and values of a recipe: a file, or the name of one that comes with the package.

    Raises:
        KdamValueError: no such file, not a flat mapping, or a nested value.
    """
    own = RECIPES / f"{path}.yaml"
    try:
        recipe = read_yaml(own if own.is_file() else path, f"recipe {path}")
    except OSError as error:
        named = [file.stem for file in RECIPES.glob("*.yaml")]
        hint = did_you_mean(str(path), named, "give a file, or one of the names that `kdam recipes` prints.")
        raise KdamValueError(f"recipe {path} cannot be read ({error.strerror}); {hint}") from error
    if nested := [key for key, value in recipe.items() if isinstance(value, dict)]:
        raise KdamValueError(f"recipe {path}: {', '.join(nested)} holds a mapping; values are plain scalars or lists.")
    return {key: None if value in NULLS else value for key, value in recipe.items()}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and the description as it is."""


class _Parser(HfArgumentParser):
    """Refuses a value in one line: its usage would be all keys."""

    def error(self, message: str) -> NoReturn:
        raise KdamValueError(f"command line: {message}; see --help all.")


def parse_recipe(
    groups: Sequence[type],
    argv: Arguments = None,
    description: str | None = None,
    usual: Mapping[str, str] | None = None,
) -> tuple[Any, ...]:
    """Dataclasses from `--config recipe.yaml` and command-line overrides.

    Args:
        groups: dataclasses whose fields are the permitted keys.
        argv: command line without the program; `sys.argv` by default. Or keys with their values, as of a recipe.
        description: text of `--help`, before all keys.
        usual: key -> the recipe that is taken without `--config` where the command line has this key.

    Returns:
        One instance per group, then the dict of keys that recipe and command line set.

    Raises:
        KdamValueError: an unknown key, naming the closest known one.
    """
    keys = dict(argv) if isinstance(argv, Mapping) else {}
    arguments = [] if isinstance(argv, Mapping) else list(sys.argv[1:] if argv is None else argv)
    for group in groups:
        group._argument_group_name = (group.__doc__ or "").split("\n")[0]  # type: ignore[attr-defined]
    parser = _Parser(groups, description=description, formatter_class=_Formatter, allow_abbrev=False)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for each in (parser, first):
        each.add_argument(
            "--config", help="recipe: a YAML file, or a name that `kdam recipes` prints; any key may stand in it"
        )
    typed = {s.lstrip("-").replace("-", "_"): action.dest for action in parser._actions for s in action.option_strings}
    known = {name: key for name, key in typed.items() if name == key or not name.startswith("no_")}
    given = {
        a.split("=")[0].removeprefix("--").replace("-", "_") for a in arguments if a.startswith("--")
    } | keys.keys()
    by_default = next((name for key, name in (usual or {}).items() if key in given), None)
    named = (keys.pop("config", None), first.parse_known_args(arguments)[0].config, by_default)
    config = next((name for name in named if name is not None), None)
    if config == "":
        raise KdamValueError("config is empty; give a recipe, or leave it out.")
    recipe = {} if config is None else read_recipe(config)
    known = {name: key for name, key in known.items() if key not in ("config", "help")}
    _refuse_unknown(recipe, known, f"recipe {config}")
    _refuse_unknown(keys, known, "keyword")
    _refuse_unknown(given, typed, "command line")
    for key in given & ALTERNATIVES.keys() - recipe.keys():
        recipe.pop(ALTERNATIVES[key], None)
    keys = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in keys.items()}
    recipe = {known[key]: value for key, value in (recipe | keys).items()}
    # a switch that is on by default also has a --no_ form, after its own
    actions = {action.dest: action for action in reversed(parser._actions)}
    types = {name: str(kind) for group in groups for name, kind in get_type_hints(group).items()}
    for key in recipe:
        where = key if key in keys else f"recipe {config}: {key}"
        if recipe[key] is None and not re.search(r"\b(None|Optional)\b", types[key]):
            raise KdamValueError(f"{where} has no value; give one, or leave the key out for {actions[key].default}.")
        recipe[key] = _typed(recipe[key], actions[key], where)
        actions[key].required = False
    parser.set_defaults(**recipe)
    found = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True, look_for_args_file=False)
    instances, stray = found[: len(groups)], found[-1]
    if stray:
        hint = f"--config {stray[0]}" if stray[0].endswith((".yaml", ".yml")) else f"--KEY {stray[0]}"
        raise KdamValueError(f"command line: {stray[0]!r} belongs to no key; write {hint}, see --help all.")
    settings = dict(recipe)
    recorded = {typed[key] for key in given}
    for instance in instances:
        settings |= {key: getattr(instance, key) for key in recorded if key in instance.__dataclass_fields__}
    return (*instances, settings)


def run_command(main: Callable[[], None]) -> None:
    """Run a script: an error this project raises on purpose is printed as one message, with exit code 2.

    A script that ends well, or that was told to stop, leaves its group of processes; one that fails ends the others.
    What a terminal without UTF-8 cannot show is printed as its code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        leave_group()
    except SystemExit:
        leave_group()
        raise
    except KeyboardInterrupt:
        tell_others("interrupted")
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except (KdamError, PermissionError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        tell_others(f"{type(error).__name__}: {error}")
        raise SystemExit(2) from None
    except Exception as error:
        tell_others(f"{type(error).__name__}: {error}")
        raise


def _typed(value: Any, action: argparse.Action, where: str) -> Any:
    """A value of a recipe, or of a keyword, as the command line would have read it."""
    if value is None:
        return None
    if action.nargs in ("+", "*"):
        scalar = copy(action)
        scalar.nargs = None
        return [_typed(item, scalar, where) for item in (value if isinstance(value, (list, tuple)) else [value])]
    if not isinstance(value, (str, PathLike, Number, list)):
        raise KdamValueError(
            f"{where} is a {type(value).__name__}; expected text, a number or a path; of a model, the folder it was saved in."
        )
    convert = action.type if callable(action.type) else str
    try:
        if isinstance(value, list):
            raise ValueError
        return convert(SWITCHES.get(str(value).lower(), str(value)) if convert is string_to_bool else str(value))
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise KdamValueError(f"{where} is {value!r}; expected one {getattr(convert, '__name__', 'value')}.") from error


def _refuse_unknown(keys: Iterable[str], known: Mapping[str, str], source: str) -> None:
    for key in (key for key in keys if key not in known):
        if key in OF_DISTILLATION:
            raise KdamValueError(
                f"{source}: {key!r} is a key of kdam distill; run that with --teacher, or with --method none to train the "
                "same student without a teacher."
            )
        raise KdamValueError(f"{source}: unknown key {key!r}; {did_you_mean(key, known, 'see --help all.')}")
