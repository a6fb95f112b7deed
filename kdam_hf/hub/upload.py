"""One commit on the Hub; whatever the client raises becomes one `HubError` with the repository, the cause and the remedy.

Nothing is visible before the commit, so the same command may be run again; weights that arrived are not sent twice. After
it only the tag can fail, which is said apart.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from kdam_hf.errors import HubError, KdamValueError
from kdam_hf.hub.redact import is_repo_id

AGAIN = "run the same command again; nothing is visible before the commit, and what has arrived is not sent twice"
# what one model may have and the next not
OPTIONAL = re.compile(r"(results|recipe|training_log)\.json|sample\.png|\w+_kdam\.py")
REMEDIES = {
    401: "the token is missing or not valid (401); log in with `hf auth login`, or set HF_TOKEN to one that may write.",
    403: "the token may not write there (403); ask for the role, use a token with the right to write, or another repo_id.",
    404: "no such repository, or this token may not see it (404); check the spelling, or create it first.",
}


def check_repo_id(repo_id: str) -> str:
    """`repo_id` itself; KdamValueError unless it has the form `org/name`."""
    if not is_repo_id(repo_id):
        raise KdamValueError(f"repo_id {repo_id!r}; expected org/name or user/name, such as my-org/kdam-student.")
    return repo_id


def open_repository(repo_id: str, private: bool = False, token: str | None = None) -> None:
    """Create the repository unless it is there, with the token of this machine unless one is given.

    Raises:
        HubError: refused, unreachable, or there already and public although private was asked for.
    """
    api = HfApi(token=token)
    with explained(repo_id):
        # None leaves it to the organisation, whose default may be private
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            remedy = "Nothing was uploaded. Make it private in its settings on the Hub, or choose another name."
            raise HubError(f"{repo_id} exists and is public, but private was asked for. {remedy}")


def upload(
    repo_id: str, files: Mapping[str, bytes | Path], message: str, tag: str | None = None, token: str | None = None
) -> str:
    """Put files (path -> content, or the file that holds it) into a repository by one commit; returns the commit's URL.

    Results, settings, pictures and code of a model that was there before go with it; other files stay.

    Args:
        repo_id, files, message: of the commit.
        tag: name for this state; it must be new.
        token: with the right to write; by default the one of this machine.

    Raises:
        HubError: refused, unreachable or interrupted; or committed, but not tagged.
    """
    api = HfApi(token=token)
    with explained(repo_id):
        if tag and tag in {ref.name for ref in api.list_repo_refs(repo_id).tags}:
            raise HubError(f"{repo_id} has a tag {tag} already, and a tag does not move; choose another --revision.")
        operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
        left = [name for name in api.list_repo_files(repo_id) if OPTIONAL.fullmatch(name) and name not in files]
        operations += map(CommitOperationDelete, left)
        commit = api.create_commit(repo_id, operations, commit_message=message)
    if tag is not None:
        alone = f"set the tag with `hf repos tag create {repo_id} {tag} --revision {commit.oid}`"
        with explained(f"{repo_id}: committed as {commit.oid}, but the tag {tag} failed", alone):
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    return str(commit.commit_url)


@contextmanager
def explained(what: str, again: str = AGAIN) -> Iterator[None]:
    """Turn the client's errors into a `HubError`: what failed, why, and what to do `again` once the network is back."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # the client raises RuntimeError, ValueError, OSError and those of its HTTP library
        # the client names what is wrong with its settings, the token or the card, and what to do
        text = " ".join(f"{error} {error.__cause__ or ''}".split()).rstrip(".") or type(error).__name__
        other = f"not done: {text}. Mend what is named, or check the network, and {again}."
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        raise HubError(f"{what}: {REMEDIES.get(status, other)}") from error
