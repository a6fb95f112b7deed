"""Some samples of a split, chosen by their ids: such as those of a list that a benchmark is reported on."""

import hashlib
from collections.abc import Sequence

from dataset_loaders.sample import DenseDataset, Sample
from kdam_hf.errors import KdamValueError


class SubsetDataset:
    """The samples of `dataset` with the given ids, in the order of `ids`.

    Args:
        dataset: the whole split.
        ids: of samples in it, each once.

    Raises:
        KdamValueError: no id, an id that is not in the split, or twice.
    """

    def __init__(self, dataset: DenseDataset, ids: Sequence[str]) -> None:
        index_of = {sample_id: index for index, sample_id in enumerate(dataset.ids)}
        unknown = [sample_id for sample_id in ids if sample_id not in index_of]
        if unknown or not ids or len(set(ids)) != len(ids):
            raise KdamValueError(
                f"{dataset.name} {dataset.split}: {len(unknown)} of {len(ids)} ids are not in the split"
                + (f", first {', '.join(unknown[:5])}" if unknown else "")
                + f"; expected some of its {len(index_of)}, such as {dataset.ids[0]}, each once."
            )
        self.name, self.split, self.tasks, self.ids = dataset.name, dataset.split, dataset.tasks, tuple(ids)
        self.checked = getattr(dataset, "checked", False)
        if hasattr(dataset, "notes"):
            self.notes = dataset.notes
        self._dataset = dataset
        self._indices = [index_of[sample_id] for sample_id in ids]

    @property
    def digest(self) -> str:
        """SHA-256 of the ids, one a line: whether two scores are over the same images."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """A sample of the whole split."""
        return self._dataset[self._indices[index]]
