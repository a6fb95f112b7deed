"""Rows of data sets of `datasets`: stored in its cache, in memory, or streamed; pictures are not decoded here.

Unusual here: a stream is read by row groups of Parquet, in any order. Its place in the data follows from the index that is
asked for, so resuming and data workers need no state of it, and nothing is written to the disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset_loaders.files import file_facts
from dataset_loaders.reading import reading
from dataset_loaders.sample import Runs
from kdam_hf.errors import KdamValueError
from kdam_hf.io import lines_sha256, source_parts

TOGETHER_BYTES = 256 * 2**20
"""Row groups of this size, unpacked, are kept in memory and mixed with one another; at least one."""
_IN_MEMORY: dict[str, Mapping[str, Any]] = {}
Rows = Any
"""A `datasets.Dataset`, or `ParquetRows`."""


def name_of(source: Path) -> str:
    """What data are called: by their folder, or by what stands behind the slash of a Hub id."""
    return (source.resolve() if source.is_dir() else source).name.replace(":", "-")


class ParquetRows:
    """What this package needs of a `datasets.Dataset`, read from Parquet files on disk or at `hf://`, and stored nowhere.

    Args:
        files: in order.
        columns: those to read; all for None.
    """

    def __init__(self, files: Sequence[str], columns: Sequence[str] | None = None) -> None:
        self._files, self._columns = tuple(files), columns
        self._read: dict[int, Any] = {}

    def select_columns(self, columns: Sequence[str]) -> "ParquetRows":
        return ParquetRows(self._files, columns)

    @cached_property
    def features(self) -> Mapping[str, Any]:
        from datasets import Features  # takes over a second to import

        with _opened(self._files[0]) as parquet:
            return dict(Features.from_arrow_schema(parquet.schema_arrow))

    @cached_property
    def _groups(self) -> list[tuple[str, int, int, int]]:
        """File, number in it, rows and bytes of each row group."""
        found = []
        for file in self._files:
            with _opened(file) as parquet:
                groups = [parquet.metadata.row_group(k) for k in range(parquet.metadata.num_row_groups)]
            found += [(file, k, group.num_rows, group.total_byte_size) for k, group in enumerate(groups)]
        return found

    @cached_property
    def runs(self) -> Runs:
        """The row groups, as many together as fit into `TOGETHER_BYTES`."""
        largest = max((size for _, _, _, size in self._groups), default=1)
        return Runs(tuple(rows for _, _, rows, _ in self._groups), max(1, TOGETHER_BYTES // largest))

    @property
    def _fingerprint(self) -> str:
        """Changes with names, sizes and times of files on disk; the address of others holds the commit."""
        return lines_sha256(file if "://" in file else file_facts(Path(file)) for file in self._files)

    def __len__(self) -> int:
        return sum(self.runs.lengths)

    def __getitem__(self, key: int | str) -> Any:
        """A row by its number, or the values of a column by its name."""
        if isinstance(key, str):
            values: list[Any] = []
            for file in self._files:
                with _opened(file) as parquet:
                    values += parquet.read([key])[key].to_pylist()
            return values
        starts = np.cumsum([0, *self.runs.lengths])
        group = int(np.searchsorted(starts, key, "right")) - 1
        if group not in self._read:
            while len(self._read) >= self.runs.together:
                del self._read[next(iter(self._read))]
            file, number, *_ = self._groups[group]
            with _opened(file) as parquet:
                self._read[group] = parquet.read_row_group(number, self._columns)
        table, row = self._read[group], key - int(starts[group])
        return {name: table[name][row].as_py() for name in table.column_names}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": {}}


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    """Opened anew each time: connections and handles do not survive a fork."""
    from huggingface_hub import HfFileSystem
    from pyarrow.parquet import ParquetFile

    opened = HfFileSystem().open if "://" in file else open
    with reading(file, "Parquet file"), opened(file, "rb") as content:
        yield ParquetFile(content)


def runs_of(rows: Rows, numbers: Sequence[int]) -> Runs | None:
    """Of some of the rows, by their numbers in order; None where any row is as near as another."""
    if not isinstance(rows, ParquetRows):
        return None
    lengths, _ = np.histogram(numbers, np.cumsum([0, *rows.runs.lengths]))
    return Runs(tuple(lengths.tolist()), rows.runs.together)


def undecoded(rows: Rows, columns: Sequence[str]) -> Rows:
    """Rows with these columns alone, pictures as they are stored, and arrays as such."""
    from datasets import Image, Value

    chosen = rows.select_columns(list(columns))
    if isinstance(rows, ParquetRows):
        return chosen
    chosen = chosen.with_format(None)
    for name in columns:
        if isinstance(rows.features[name], Image):
            chosen = chosen.cast_column(name, Image(decode=False))
    arrays = [name for name in columns if not isinstance(rows.features[name], (Image, Value))]
    return chosen.with_format("numpy", columns=arrays, output_all_columns=True) if arrays else chosen


@contextmanager
def in_memory(data: Any) -> Iterator[str]:
    """A name for a `Dataset` or `DatasetDict`, which `load_splits` knows while the block lasts; one split alone is `train`.

    Raises:
        KdamValueError: anything else.
    """
    from datasets import Dataset, DatasetDict

    if not isinstance(data, (Dataset, DatasetDict)):
        raise KdamValueError(
            f"data is a {type(data).__name__}; expected a datasets.Dataset or DatasetDict. For a stream give "
            "dataset='hub', data_dir=ID, streaming=True."
        )
    splits = {"train": data} if isinstance(data, Dataset) else data
    name = f"datasets:{next(iter(splits.values()))._fingerprint}/in-memory"
    _IN_MEMORY[name] = splits
    try:
        yield name
    finally:
        del _IN_MEMORY[name]


def is_in_memory(source: str) -> bool:
    """Whether this names data that were handed over, see `in_memory`."""
    return source in _IN_MEMORY


def load_splits(source: str, streaming: bool) -> Mapping[str, Rows]:
    """The rows of each split of a data set of the Hub, of a folder that `load_dataset` reads, or of one in memory.

    Args:
        source: see `source_parts`.
        streaming: read Parquet where it lies.

    Raises:
        KdamValueError: it cannot be read, or is to be streamed and is no Parquet.
    """
    from datasets import load_dataset, load_dataset_builder

    place, configuration = source_parts(source)
    place = str(Path(place).resolve()) if Path(place).is_dir() else place  # "." is no name to load_dataset
    try:
        if source in _IN_MEMORY or not streaming:
            found: Mapping[str, Rows] = _IN_MEMORY.get(source) or load_dataset(place, configuration)
            return found
        files = load_dataset_builder(place, configuration).config.data_files or {}
    except Exception as error:  # of the network, the Hub or Arrow
        here = "" if Path(place).exists() else "no such folder here, and "
        raise KdamValueError(
            f"{source}: {here}`load_dataset` cannot read it ({type(error).__name__}: {error}). Give a folder, or the id of "
            "a data set on the Hub; one of its configurations as ID:NAME."
        ) from error
    if other := [file for listed in files.values() for file in listed if not file.endswith(".parquet")]:
        raise KdamValueError(
            f"{source}: streaming reads Parquet, whose rows can be reached in any order, and {other[0]} is none. Leave "
            "streaming out, or publish the data as Parquet (push_to_hub)."
        )
    return {str(name): ParquetRows(listed) for name, listed in files.items()}


def find_split(splits: Mapping[str, Rows], split: str, source: str) -> tuple[Rows, range]:
    """The rows that a split such as `train` or `train[:90%]` names, and the numbers of those that belong to it.

    Raises:
        KdamValueError: no such split, or none of its rows.
    """
    from datasets import ReadInstruction

    name, bracket, rest = split.partition("[")
    name = "validation" if name == "val" and name not in splits else name
    lengths, numbers = {name: len(splits[name])} if name in splits else {}, range(0)
    with suppress(ValueError):  # no such split, or not of that form
        [part] = ReadInstruction.from_spec(name + bracket + rest).to_absolute(lengths)
        numbers = range(part.from_, part.to)
    if not numbers:
        first = next(iter(splits))
        raise KdamValueError(
            f"{source}: no split {split!r}, or no row in it; there is {', '.join(splits)}. Name them, or share one out: "
            f"--train_split {first}[:90%] --eval_split {first}[90%:] (kdam evaluate: --split, kdam prepare: --splits)."
        )
    return splits[name], numbers
