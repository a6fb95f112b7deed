"""From a teacher's classes to the student's: probabilities of classes that become one are summed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdam_hf.errors import KdamValueError, did_you_mean
from kdam_hf.io import read_yaml

IGNORE, REST = "ignore", "rest"


@dataclass(frozen=True)
class ClassMap:
    """Which of a teacher's classes make up each class of the student.

    Args:
        sources: student class -> indices of the teacher's classes; none for a class that is learnt from labels only.
        unclaimed: the teacher's other classes; where one of them wins, the teacher has no say.
    """

    sources: Mapping[str, tuple[int, ...]]
    unclaimed: tuple[int, ...] = ()

    @property
    def taught(self) -> tuple[int, ...]:
        """Indices of the student's classes that the teacher knows."""
        return tuple(k for k, members in enumerate(self.sources.values()) if members)

    def __call__(self, logits: Tensor) -> Tensor:
        """Class logits (B, K, h, w) of the teacher -> log-probabilities of the student's C classes (B, C, h, w).

        With unclaimed classes one more channel at the end holds their log-probability. A class that
        the teacher does not know gets the smallest number, and must be left out of the match.
        """
        log_p = logits.float().log_softmax(1)
        groups = [*self.sources.values(), *([self.unclaimed] if self.unclaimed else [])]
        nothing = torch.full_like(log_p[:, 0], -1e4)
        return torch.stack([log_p[:, list(g)].logsumexp(1) if g else nothing for g in groups], 1).clamp_min(-1e4)

    def to_dict(self, teacher_classes: Sequence[str]) -> dict[str, list[str]]:
        """As names, for results.json; `ignore` lists what the teacher knows beyond the student."""
        named = {name: [teacher_classes[k] for k in members] for name, members in self.sources.items()}
        return named | ({IGNORE: [teacher_classes[k] for k in self.unclaimed]} if self.unclaimed else {})


def equal_names(teacher: Sequence[str], student: Sequence[str]) -> ClassMap:
    """Classes of one name, whatever their case; "house, home" of a teacher is found by either word.

    Raises:
        KdamValueError: they have no class in common, or two of the student's are one of the teacher's.
    """
    known: dict[str, int] = {}
    for words in ([[name] for name in teacher], [name.split(",") for name in teacher]):  # whole names come first
        for k, each in enumerate(words):
            for word in each:
                known.setdefault(_plain(word), k)
    sources = {name: (known[_plain(name)],) if _plain(name) in known else () for name in student}
    if not any(sources.values()):
        both = f"the teacher's classes ({_some(teacher)}) and the student's ({_some(student)})"
        raise KdamValueError(f"{both} have no name in common; say which belong together with --class_map FILE.")
    claims = Counter(sources.values())
    if shared := [name for name, members in sources.items() if members and claims[members] > 1]:
        raise KdamValueError(
            f"the teacher has one class for {' and '.join(shared)}; say which of them it teaches with --class_map FILE."
        )
    return _complete(sources, len(teacher))


def read_class_map(path: str | Path) -> dict[str, list[str] | str]:
    """A YAML file of student class -> list of teacher classes, `ignore` (learnt from labels only) or `rest` (all others).

    Raises:
        KdamValueError: not readable, or of another form.
    """
    try:
        content = read_yaml(path, f"class_map {path}")
    except OSError as error:
        raise KdamValueError(f"class_map {path} cannot be read ({error}); expected a YAML file.") from error
    if not content:
        raise KdamValueError(f"class_map {path}: expected lines of the form 'student class: [teacher class, ...]'.")
    for name, members in content.items():
        listed = isinstance(members, list) and members and all(isinstance(m, str) for m in members)
        if not listed and members not in (IGNORE, REST):
            expected = f"a list of teacher classes, '{IGNORE}' or '{REST}'"
            raise KdamValueError(f"class_map {path}: {name}: {members!r}; expected {expected}.")
    return content


def from_names(
    entries: Mapping[str, Any], teacher: Sequence[str], student: Sequence[str] | None, where: str
) -> ClassMap:
    """The map that `read_class_map` found (student class -> teacher classes, `ignore` or `rest`), for these classes.

    Args:
        entries, where: the map, and its file for messages.
        teacher, student: their classes; for None the student's are those of `entries`.

    Raises:
        KdamValueError: an unknown class, or a teacher class that two student classes claim.
    """
    index = {_plain(name): k for k, name in reversed([*enumerate(teacher)])}
    for name in entries:
        if student is not None and name not in student:
            raise KdamValueError(f"{where}: the labels have no class {name!r}{_near(name, student)}.")
    claimed: dict[int, str] = {}
    sources: dict[str, tuple[int, ...]] = dict.fromkeys(entries if student is None else student, ())
    for name, members in entries.items():
        for member in members if isinstance(members, list) else ():
            if _plain(member) not in index:
                raise KdamValueError(f"{where}: {name}: the teacher has no class {member!r}{_near(member, teacher)}.")
            k = index[_plain(member)]
            if claimed.setdefault(k, name) != name:
                raise KdamValueError(f"{where}: {member!r} is claimed by {claimed[k]!r} and {name!r}; give it to one.")
            sources[name] += () if k in sources[name] else (k,)
    rest = [name for name, members in entries.items() if members == REST]
    if len(rest) > 1:
        raise KdamValueError(f"{where}: {', '.join(rest)} are all '{REST}'; there can be one.")
    if rest:
        sources[rest[0]] = tuple(k for k in range(len(teacher)) if k not in claimed)
    if not any(sources.values()):
        raise KdamValueError(f"{where}: no student class has a class of the teacher.")
    return _complete(sources, len(teacher))


def _complete(sources: Mapping[str, tuple[int, ...]], count: int) -> ClassMap:
    claimed = {k for members in sources.values() for k in members}
    return ClassMap(sources, tuple(k for k in range(count) if k not in claimed))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _near(name: str, known: Sequence[str]) -> str:
    return f"; {did_you_mean(name, known, f'expected some of {_some(known)}')}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
