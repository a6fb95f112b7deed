"""Every error this project raises on purpose; each says what was given, what was expected and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class KdamError(Exception):
    """Base of all errors raised on purpose by kdam_hf and dataset_loaders."""


class KdamValueError(KdamError, ValueError):
    """An argument, recipe key or combination of settings is not usable."""


class UnknownTaskError(KdamValueError):
    """A task was asked for that the dataset does not have."""


class DataIntegrityError(KdamError, ValueError):
    """A file of a dataset is missing, unreadable or does not hold what its task expects."""


class LabelOrientationError(DataIntegrityError):
    """Height and width of a label are swapped against those of its image."""


class BackboneWeightsError(KdamError, RuntimeError):
    """Pretrained backbone weights did not arrive completely in the model."""


class CheckpointError(KdamError, RuntimeError):
    """A saved model or training checkpoint is missing, incomplete or of another kind."""


class NonFiniteLossError(KdamError, ArithmeticError):
    """A loss became NaN or infinite; raised before the optimizer step, so the weights are still good."""


class OutOfMemoryError(KdamError, RuntimeError):
    """The memory of the device does not hold one step; nothing was made smaller behind your back."""


class DataWorkerError(KdamError, RuntimeError):
    """A process that loads data died, or did not deliver within dataloader_timeout."""


class HubError(KdamError, RuntimeError):
    """The Hub refused a repository or an upload, or could not be reached."""


class ExportError(KdamError, RuntimeError):
    """A model cannot be written in another format, or what was written does not compute what the model does."""


def did_you_mean(given: str, known: Iterable[str], otherwise: str = "") -> str:
    """How a message on an unknown name ends: the closest name, else `otherwise`, else all names."""
    names = list(known)
    close = get_close_matches(given, names, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise or f"expected one of {', '.join(names)}."
