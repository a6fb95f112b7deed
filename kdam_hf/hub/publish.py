"""From a model's folder to a repository on the Hub that a stranger can use."""

from dataclasses import dataclass
from pathlib import Path

from kdam_hf.errors import CheckpointError
from kdam_hf.hub.card import UNKNOWN, make_card
from kdam_hf.hub.record import RESULTS, read_record
from kdam_hf.hub.repository import repository_files
from kdam_hf.hub.upload import check_repo_id, check_tag, open_repository, upload


@dataclass(frozen=True)
class Publication:
    """A repository that is ready to be written or uploaded.

    Args:
        repo_id: `org/name`.
        files: path in the repository -> content, or the file that holds it.
        has_results: whether the card shows scores.
    """

    repo_id: str
    files: dict[str, bytes | Path]
    has_results: bool


def make_publication(
    folder: str | Path,
    repo_id: str,
    license: str = UNKNOWN,
    allow_no_results: bool = False,
    teacher_results: Path | None = None,
    baseline_results: Path | None = None,
    picture: Path | None = None,
    progress: str = "",
) -> Publication:
    """Card, model, processor, code, results, settings, log and picture of a model.

    Args:
        folder: that train.py or distill.py wrote; the caller has made sure that the weights are complete.
        repo_id: `org/name`.
        license: identifier of the weights' licence that the Hub knows.
        allow_no_results: make it without scores, too.
        teacher_results: see `read_record`.
        baseline_results: see `read_record`.
        picture: see `read_record`.
        progress: for a model that is still being trained, how far it is.

    Raises:
        KdamValueError: not a repository id, or a file given is not usable.
        CheckpointError: no model, no results, or results of other weights.
    """
    record = read_record(Path(folder), teacher_results, baseline_results, picture)
    if record.results is None and not allow_no_results:
        raise CheckpointError(
            f"{folder} holds no {RESULTS}, so its card could not say how good it is. Score it with scripts/evaluate.py --model "
            f"{folder} --output {Path(folder) / RESULTS}, or give --allow_no_results."
        )
    card = make_card(record, check_repo_id(repo_id), license, progress)
    return Publication(repo_id, repository_files(record, card), record.results is not None)


def publish(publication: Publication, private: bool = False, tag: str | None = None, token: str | None = None) -> str:
    """Create the repository if need be, and commit everything at once.

    Args:
        publication: what to upload.
        private: only its owners may see it.
        tag: name for this state, e.g. v1.
        token: with the right to write; by default the one of this machine.

    Returns:
        URL of the commit.

    Raises:
        HubError: refused, unreachable or interrupted, or committed but not tagged; says which, and what to do.
    """
    check_tag(tag)
    open_repository(publication.repo_id, private, token)
    scores = "with its scores" if publication.has_results else "without scores"
    return upload(publication.repo_id, publication.files, f"Publish the model {scores}", tag, token=token)
