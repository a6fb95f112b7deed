"""Looks at every sample of a split, in parallel: what its labels hold, and everything that is wrong with its files."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset_loaders.sample import DenseDataset, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamError, LabelOrientationError
from kdam_hf.tasks import LabelStatistics, Task


@dataclass(frozen=True)
class SampleReport:
    """One sample after a look at it, or its problem.

    Args:
        index: in the split.
        id: of the sample.
        size: height and width.
        orientation: of the stored photo, as EXIF counts; 1 is upright.
        statistics: facts of each labelled task.
        payload: what was made of it.
        problem: in one sentence.
        raw_label: whether the problem is that a label has the size of a photo that EXIF turns.
    """

    index: int
    id: str
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    statistics: dict[str, LabelStatistics] = field(default_factory=dict)
    payload: Any = None
    problem: str | None = None
    raw_label: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain data of a good sample, without the payload; `from_json` reads it."""
        facts = {"index": self.index, "id": self.id, "size": list(self.size), "orientation": self.orientation}
        return facts | {"statistics": {name: of.as_json() for name, of in self.statistics.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SampleReport":
        """What `as_json` wrote."""
        statistics = {name: LabelStatistics.from_json(facts) for name, facts in data["statistics"].items()}
        height, width = data["size"]
        return cls(data["index"], data["id"], (height, width), data.get("orientation", 1), statistics)


@dataclass
class SplitReport:
    """What a split holds: images by size and stored orientation, facts of each task, and problems in one sentence each."""

    dataset: DenseDataset
    problems: list[str]
    statistics: dict[str, LabelStatistics]
    sizes: Counter[str] = field(default_factory=Counter)
    turned: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, dataset: DenseDataset) -> "SplitReport":
        """An empty report; files that belong to no sample are problems from the start."""
        return cls(dataset, dataset.unlisted(), {task.name: LabelStatistics() for task in dataset.tasks})

    def add(self, sample: SampleReport) -> None:
        """Count one sample in."""
        if sample.problem is not None:
            self.problems.append(sample.problem)
            self.turned["raw"] += sample.raw_label
            return
        height, width = sample.size
        self.sizes[f"{height}x{width}"] += 1
        if sample.orientation > 1:
            self.turned["upright" if sample.orientation > 4 and height != width else "unclear"] += 1
        for name, facts in sample.statistics.items():
            self.statistics[name] += facts

    def remarks(self) -> list[str]:
        """What a user should look at, beside the notes of the data set."""
        doubts = {task.name: task.label.doubt(self.statistics[task.name]) for task in self.dataset.tasks}
        found = [f"{name}: {doubt}" for name, doubt in doubts.items() if doubt]
        raw, unclear = self.turned["raw"], self.turned["unclear"]
        if raw:
            found.append(
                f"EXIF: {raw} of {self.turned.total()} photos turned by EXIF have labels of the size before it. Turn these "
                "labels as the photos are shown, or remove the tag from the photos, which are then read as they are stored."
            )
        if unclear:
            found.append(
                f"EXIF: {unclear} photos are turned in a way that sizes do not show (square, mirrored, or by 180 degrees); see "
                "that their labels are turned like them."
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain data for report.json."""
        classes = {task.name: {"class_names": list(task.class_names)} for task in self.dataset.tasks}
        return {
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "origin": self.dataset.origin,
            "images": len(self.dataset),
            "usable": self.sizes.total(),
            "sizes": dict(self.sizes.most_common()),
            "tasks": {name: self.statistics[name].as_json() | named for name, named in classes.items()},
            "notes": [*self.dataset.notes, *self.remarks()],
            "problems": self.problems,
        }

    def text(self, most: int = 20) -> str:
        """For a person; at most `most` problems are spelled out."""
        data, usable = self.dataset, self.sizes.total()
        sizes = [f"{size} ({count})" for size, count in self.sizes.most_common()]
        others = f" and {len(sizes) - 4} other sizes" if len(sizes) > 4 else ""
        lines = [f"{data.name} {data.split}: {usable} of {len(data)} images usable", *filter(None, [data.origin])]
        lines.append(f"height x width: {', '.join(sizes[:4])}{others}")
        lines += (line for task in data.tasks for line in _task_lines(task, self.statistics[task.name], usable))
        lines += (f"note: {note}" for note in (*data.notes, *self.remarks()))
        lines += (f"PROBLEM: {problem}" for problem in self.problems[:most])
        lines += [f"... and {len(self.problems) - most} more problems"] if len(self.problems) > most else []
        return "\n  ".join(lines)


def _task_lines(task: Task, facts: LabelStatistics, images: int) -> list[str]:
    head = f"{task.name:<12} {facts.images} of {images} images labelled"
    if not facts.valid:
        return [head + ", no valid pixel"]
    head += f", {100 * facts.valid / facts.pixels:.1f} % of their pixels valid"
    if not facts.counts:
        extent = f", {facts.lowest:.3g} to {facts.highest:.3g} {task.unit}" if facts.lowest <= facts.highest else ""
        return [head + extent.rstrip()]
    names = task.class_names or [str(k) for k in range(len(facts.counts))]
    counted = list(zip(names, facts.counts, strict=True))
    shares = ", ".join(f"{name} {100 * count / facts.valid:.2g} %" for name, count in counted if count)
    absent = ", ".join(name for name, count in counted if not count)
    return [head, f"    {shares}", *([f"    never: {absent}"] if absent else [])]


def iter_reports(
    dataset: DenseDataset,
    indices: Sequence[int],
    make: Callable[[Sample, int], Any] | None = None,
    num_proc: int = 1,
    verb: str = "checking",
) -> Iterator[SampleReport]:
    """Read and check samples in the order of `indices`; a bad one comes back as a report with its problem.

    `make` is called on each good sample in the process that read it; its result is the payload.

    Raises:
        KdamError: a process that reads was killed.
    """
    # A DataLoader keeps the order, bounds what waits in memory and notices a killed worker. Handing over a sample costs as
    # much as checking a small one, so reports travel in bundles and payloads one by one.
    loader: DataLoader[Any] = DataLoader(
        _Reports(dataset, make),
        batch_size=16 if make is None and num_proc > 1 else 1,
        sampler=indices,
        num_workers=num_proc if num_proc > 1 else 0,
        collate_fn=list,
        prefetch_factor=8 if num_proc > 1 else None,
    )
    last = "the first sample"
    done, total = len(dataset) - len(indices), len(dataset)
    try:
        with tqdm(None, f"{verb} {dataset.split}", total, initial=done, unit="image", disable=None) as bar:
            for bundle in loader:
                for report in bundle:
                    last = f"sample {report.id!r}"
                    yield report
                bar.update(len(bundle))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise KdamError(
            f"{dataset.name} {dataset.split}: a reading process ended after {last} ({error}). Out of memory, or a file that "
            "crashes its parser: run again with --num_proc 1 to see which."
        ) from None


class _Reports(Dataset[SampleReport]):
    def __init__(self, dataset: DenseDataset, make: Callable[[Sample, int], Any] | None) -> None:
        self.dataset, self.make = dataset, make

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> SampleReport:
        try:
            sample = check_sample(self.dataset[index], self.dataset.tasks)
            payload = None if self.make is None else self.make(sample, index)
            header = self.dataset.photo_header(index)
        except DataIntegrityError as error:
            header = self.dataset.photo_header(index) if isinstance(error, LabelOrientationError) else None
            raw = header is not None and header.orientation > 4
            return SampleReport(index, self.dataset.ids[index], problem=str(error), raw_label=raw)
        labels, (height, width) = sample["labels"], sample["image"].shape[:2]
        statistics = {t.name: t.label.statistics(labels[t.name]) for t in self.dataset.tasks if t.name in labels}
        orientation = 1 if header is None else header.orientation
        return SampleReport(index, sample["id"], (height, width), orientation, statistics, payload)


def inspect_split(dataset: DenseDataset, num_proc: int = 1) -> SplitReport:
    """Check every sample of a split and report; nothing is written."""
    report = SplitReport.of(dataset)
    for sample in iter_reports(dataset, range(len(dataset)), num_proc=num_proc):
        report.add(sample)
    return report
