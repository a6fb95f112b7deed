"""Looks at every sample of a split, in parallel: what its labels hold, and everything that is wrong with its files."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset_loaders.sample import DenseDataset, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamError
from kdam_hf.tasks import LabelStatistics, Task

FACTS_PER_MESSAGE = 16


@dataclass(frozen=True)
class Seen:
    """One sample after a look at it.

    Args:
        index: in the split.
        id: of the sample; its number where it could not be read.
        size: "HEIGHTxWIDTH" in pixels.
        statistics: per labelled task.
        payload: what was made of the sample, if anything.
        problem: what is wrong with it; the other fields are empty then.
    """

    index: int
    id: str
    size: str = ""
    statistics: dict[str, LabelStatistics] = field(default_factory=dict)
    payload: Any = None
    problem: str | None = None


@dataclass
class SplitReport:
    """What a split holds.

    Args:
        name: of the dataset.
        split: its name.
        length: samples it lists.
        tasks: in canonical order.
        origin: where the files are and what was recognised.
        notes: what a user should know of the labels.
        sizes: images by size.
        statistics: per task.
        problems: one sentence each, with file, expected and found.
    """

    name: str
    split: str
    length: int
    tasks: Sequence[Task]
    origin: str = ""
    notes: list[str] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    statistics: dict[str, LabelStatistics] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, dataset: DenseDataset) -> "SplitReport":
        """An empty report; files that belong to no sample are problems from the start."""
        report = cls(dataset.name, dataset.split, len(dataset), dataset.tasks)
        report.origin = getattr(dataset, "origin", "")
        report.notes += getattr(dataset, "notes", ())
        report.problems += getattr(dataset, "unlisted", list)()
        report.statistics = {task.name: LabelStatistics() for task in dataset.tasks}
        return report

    def add(self, seen: Seen) -> None:
        """Count one sample in."""
        if seen.problem is not None:
            self.problems.append(seen.problem)
            return
        self.sizes[seen.size] += 1
        for name, facts in seen.statistics.items():
            self.statistics[name] += facts

    def as_json(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return {
            "dataset": self.name,
            "split": self.split,
            "origin": self.origin,
            "images": self.length,
            "usable": sum(self.sizes.values()),
            "sizes": dict(self.sizes.most_common()),
            "tasks": {
                task.name: self.statistics[task.name].as_json() | {"class_names": list(task.class_names)}
                for task in self.tasks
            },
            "notes": self.notes,
            "problems": self.problems,
        }

    def text(self, most: int = 20) -> str:
        """For a person; at most `most` problems are spelled out."""
        usable = sum(self.sizes.values())
        lines = [f"{self.name} {self.split}: {usable} of {self.length} images usable"]
        lines += [f"  {self.origin}"] if self.origin else []
        sizes = self.sizes.most_common()
        listed = ", ".join(f"{size} ({count})" for size, count in sizes[:4])
        lines.append(f"  height x width: {listed}" + (f" and {len(sizes) - 4} other sizes" if len(sizes) > 4 else ""))
        for task in self.tasks:
            lines += _task_lines(task, self.statistics[task.name], usable)
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  PROBLEM: {problem}" for problem in self.problems[:most]]
        if len(self.problems) > most:
            lines.append(f"  ... and {len(self.problems) - most} more problems")
        return "\n".join(lines)


def _task_lines(task: Task, facts: LabelStatistics, images: int) -> list[str]:
    head = f"  {task.name:<12} {facts.images} of {images} images labelled"
    if not facts.valid:
        return [head + ", no valid pixel"]
    head += f", {100 * facts.valid / facts.pixels:.1f} % of their pixels valid"
    if not facts.counts:
        extent = f", {facts.lowest:.3g} to {facts.highest:.3g} {task.unit}" if facts.lowest <= facts.highest else ""
        return [head + extent.rstrip()]
    names = task.class_names or [str(k) for k in range(len(facts.counts))]
    shares = [
        f"{name} {100 * count / facts.valid:.2g} %" for name, count in zip(names, facts.counts, strict=True) if count
    ]
    absent = [name for name, count in zip(names, facts.counts, strict=True) if not count]
    lines = [head, *_wrapped(shares)]
    return lines + (_wrapped(["never:", *absent]) if absent else [])


def _wrapped(words: Sequence[str], width: int = 110) -> list[str]:
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) > width:
            lines.append(line)
            line = ""
        line += (", " if line and not line.endswith(":") else " " if line else "") + word
    return [f"      {text}" for text in [*lines, line]]


def examine(
    dataset: DenseDataset,
    indices: Sequence[int],
    make: Callable[[Sample], Any] | None = None,
    num_proc: int = 1,
    progress: bool = True,
    verb: str = "checking",
) -> Iterator[Seen]:
    """Read and check samples; a bad one comes back as a `Seen` with its problem.

    Args:
        dataset: raw samples.
        indices: which, and in which order.
        make: called on each good sample in the process that read it; its result is the payload.
        num_proc: processes that read.
        progress: show a bar.
        verb: what the bar says is done.

    Raises:
        KdamError: a process that reads was killed.
    """
    # Handing over a sample costs as much as checking a small one, so facts travel in bundles and payloads one by one.
    size = FACTS_PER_MESSAGE if make is None and num_proc > 1 else 1
    # A DataLoader keeps the order, bounds what waits in memory and notices a killed worker.
    loader: DataLoader[list[Seen]] = DataLoader(
        _Examined(dataset, make),
        batch_size=None,
        sampler=[indices[k : k + size] for k in range(0, len(indices), size)],
        num_workers=num_proc if num_proc > 1 else 0,
        collate_fn=_unchanged,
        prefetch_factor=8 if num_proc > 1 else None,
    )
    done = len(dataset) - len(indices)
    last = "the first sample"
    try:
        with tqdm(
            None, f"{verb} {dataset.split}", len(dataset), initial=done, unit="image", disable=not progress
        ) as bar:
            for bundle in loader:
                for seen in bundle:
                    last = f"sample {seen.id!r}"
                    yield seen
                bar.update(len(bundle))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise KdamError(
            f"{dataset.name} {dataset.split}: a reading process ended after {last} ({error}). Out of memory, or a file that "
            "crashes its parser: run again with --num_proc 1 to see which."
        ) from None


def _unchanged(item: Any) -> Any:
    return item


class _Examined(Dataset[list[Seen]]):
    def __init__(self, dataset: DenseDataset, make: Callable[[Sample], Any] | None) -> None:
        self.dataset, self.make = dataset, make

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, indices: Sequence[int]) -> list[Seen]:
        return [self._look(index) for index in indices]

    def _look(self, index: int) -> Seen:
        try:
            sample = check_sample(self.dataset[index], self.dataset.tasks)
            payload = None if self.make is None else self.make(sample)
        except DataIntegrityError as error:
            ids = getattr(self.dataset, "ids", None)
            return Seen(index, str(index) if ids is None else ids[index], problem=str(error))
        height, width = sample["image"].shape[:2]
        statistics = {
            task.name: task.label.statistics(sample["labels"][task.name])
            for task in self.dataset.tasks
            if task.name in sample["labels"]
        }
        return Seen(index, sample["id"], f"{height}x{width}", statistics, payload)


def inspect_split(dataset: DenseDataset, num_proc: int = 1, progress: bool = True) -> SplitReport:
    """Check every sample of a split and report; nothing is written."""
    report = SplitReport.of(dataset)
    for seen in examine(dataset, range(len(dataset)), num_proc=num_proc, progress=progress):
        report.add(seen)
    return report
