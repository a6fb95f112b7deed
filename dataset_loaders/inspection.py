"""Looks at every sample of a split, in parallel: what its labels hold, and everything that is wrong with its files."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dataset_loaders.sample import DenseDataset, Sample, check_sample
from kdam_hf.errors import DataIntegrityError, KdamError, LabelOrientationError
from kdam_hf.tasks import LabelStatistics, Task

Facts = dict[str, Any]
"""Of one sample, in plain data, as the index of prepared data keeps them: `index`, `id`, `size` (height, width), `orientation`
of the stored photo as EXIF counts (1 is upright), and `statistics` of each labelled task; or else its `problem` in one
sentence, and whether it is a `raw_label`, of the size of a photo before EXIF turns it."""


class SplitReport:
    """What a split holds: images by size and stored orientation, facts of each task, and problems in one sentence each."""

    def __init__(self, dataset: DenseDataset) -> None:
        self.dataset, self.problems = dataset, dataset.unlisted()  # files that belong to no sample, from the start
        self.statistics = {task.name: LabelStatistics() for task in dataset.tasks}
        self.sizes, self.turned = Counter[str](), Counter[str]()

    def add(self, sample: Facts) -> None:
        """Count one sample in."""
        if "problem" in sample:
            self.problems.append(sample["problem"])
            self.turned["raw"] += sample["raw_label"]
            return
        height, width = sample["size"]
        self.sizes[f"{height}x{width}"] += 1
        if (orientation := sample.get("orientation", 1)) > 1:
            self.turned["upright" if orientation > 4 and height != width else "unclear"] += 1
        for name, facts in sample["statistics"].items():
            self.statistics[name] += LabelStatistics.from_json(facts)

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
) -> Iterator[tuple[Facts, Any]]:
    """Read and check samples in the order of `indices`: facts of each, and what `make` made of it.

    `make` is called on each good sample in the process that read it.

    Raises:
        KdamError: a process that reads was killed.
    """
    # A DataLoader keeps the order, bounds what waits in memory and notices a killed worker. Handing over a sample costs as
    # much as checking a small one, so facts travel in bundles and what was made one by one.
    loader: DataLoader[Any] = DataLoader(
        _Inspected(dataset, make),
        batch_size=16 if make is None and num_proc > 1 else 1,
        sampler=indices,
        num_workers=num_proc if num_proc > 1 else 0,
        collate_fn=list,
        prefetch_factor=8 if num_proc > 1 else None,
    )
    last, total = "the first sample", len(dataset)
    try:
        with tqdm(
            None, f"{verb} {dataset.split}", total, initial=total - len(indices), unit="image", disable=None
        ) as bar:
            for bundle in loader:
                for facts, made in bundle:
                    last = f"sample {facts['id']!r}"
                    yield facts, made
                bar.update(len(bundle))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise KdamError(
            f"{dataset.name} {dataset.split}: a reading process ended after {last} ({error}). Out of memory, or a file that "
            "crashes its parser: run again with --num_proc 1 to see which."
        ) from None


class _Inspected(Dataset[tuple[Facts, Any]]):
    def __init__(self, dataset: DenseDataset, make: Callable[[Sample, int], Any] | None) -> None:
        self.dataset, self.make = dataset, make

    def __getitem__(self, index: int) -> tuple[Facts, Any]:
        facts: Facts = {"index": index, "id": self.dataset.ids[index]}
        try:
            sample = check_sample(self.dataset[index], self.dataset.tasks)
            made = None if self.make is None else self.make(sample, index)
            header = self.dataset.photo_header(index)
        except DataIntegrityError as error:
            header = self.dataset.photo_header(index) if isinstance(error, LabelOrientationError) else None
            return facts | {"problem": str(error), "raw_label": header is not None and header.orientation > 4}, None
        labels = sample["labels"]
        facts |= {"size": [*sample["image"].shape[:2]], "orientation": 1 if header is None else header.orientation}
        kinds = {task.name: task.label for task in self.dataset.tasks if task.name in labels}
        statistics = {name: kind.statistics(labels[name]).as_json() for name, kind in kinds.items()}
        return facts | {"statistics": statistics}, made


def inspect_split(dataset: DenseDataset, num_proc: int = 1) -> SplitReport:
    """Check every sample of a split and report; nothing is written."""
    report = SplitReport(dataset)
    for sample, _ in iter_reports(dataset, range(len(dataset)), num_proc=num_proc):
        report.add(sample)
    return report
