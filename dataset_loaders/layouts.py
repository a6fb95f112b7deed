"""Which of several known trees a folder holds: recognised by signs, explained in words, overridable by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdam_hf.errors import DataIntegrityError, KdamValueError


@dataclass(frozen=True)
class Layout:
    """A tree that users have on disk: its name for `--layout`, where such trees come from, and what lies in it.

    Each of the signs, patterns below the root, must match something; `a|b` matches if either does.
    """

    key: str
    title: str
    signs: tuple[str, ...]

    def absent(self, root: Path) -> list[str]:
        """The signs that match nothing."""
        return [sign for sign in self.signs if not any(any(root.glob(pattern)) for pattern in sign.split("|"))]

    def __str__(self) -> str:
        return f"{self.key} ({self.title}): {', '.join(self.signs)}"


def recognise(data_dir: str | Path, layouts: Sequence[Layout], key: str | None, dataset: str) -> tuple[Path, Layout]:
    """The root and layout of a dataset: `data_dir` itself or, as archives often add one, a folder directly below it.

    Args:
        data_dir: what the user gave.
        layouts: those that the loader knows.
        key: the layout the user asked for; None to recognise it.
        dataset: its name.

    Raises:
        KdamValueError: no such folder, or an unknown key.
        DataIntegrityError: nothing or more than one thing is recognised; lists what was looked for and found.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise KdamValueError(f"{dataset}: data_dir {str(data_dir)!r} is no folder; give the root of the dataset.")
    known = {layout.key: layout for layout in layouts}
    if key is not None and key not in known:
        raise KdamValueError(f"{dataset}: unknown layout {key!r}; expected one of {', '.join(known)}.")
    wanted = list(layouts) if key is None else [known[key]]
    content = sorted(root.iterdir())
    for places in ([root], [path for path in content if path.is_dir() and not path.name.startswith(".")]):
        found = [(place, layout) for place in places for layout in wanted if not layout.absent(place)]
        if len(found) > 1:
            several = "; ".join(f"{layout.key} in {place}" for place, layout in found)
            raise DataIntegrityError(
                f"{dataset}: {root} could be any of: {several}. Give one as data_dir, or --layout."
            )
        if found:
            return found[0]
    names = [path.name + "/" * path.is_dir() for path in content]
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    raise DataIntegrityError(
        f"{dataset}: {root} is no layout that is known.\nLooked for, there and one folder below:\n"
        + "\n".join(f"  {layout}; absent: {', '.join(layout.absent(root))}" for layout in wanted)
        + f"\nFound: {', '.join(names[:12]) or 'nothing'}{more}.\nGive the folder that holds these as data_dir."
    )


def count_notes(published: dict[str, int], split: str, found: int) -> list[str]:
    """A note when a split is not as long as the published one."""
    expected = published.get(split)
    return [f"{found} images; the published split {split!r} has {expected}"] if expected not in (None, found) else []
