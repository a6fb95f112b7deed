"""Every error this project raises on purpose; each says what was given, what was expected and what to do."""


class KdamError(Exception):
    """Base of all errors raised on purpose by kdam_hf and dataset_loaders."""


class KdamValueError(KdamError, ValueError):
    """An argument, recipe key or combination of settings is not usable."""


class DataIntegrityError(KdamError, ValueError):
    """A file of a dataset is missing, unreadable or does not hold what its task expects."""


class BackboneWeightsError(KdamError, RuntimeError):
    """Pretrained backbone weights did not arrive completely in the model."""


class CheckpointError(KdamError, RuntimeError):
    """A saved model or training checkpoint is missing, incomplete or of another kind."""


class NonFiniteLossError(KdamError, ArithmeticError):
    """A loss became NaN or infinite; raised before the optimizer step, so the weights are still good."""
