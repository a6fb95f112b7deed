"""A Hub without a network: what `kdam_hf.hub.upload` asks `HfApi` for, kept where the real client looks for what it downloaded.

So what was published loads again through the real client, offline. Tokens have roles, the metadata of cards is checked.
`hub.faults` counts faults to come, of `commit` and `tag` (answered with 503).
"""

import hashlib
import math
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import httpx
import yaml
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

TOKENS = {"owner": "write", "reader": "read"}
LICENSES = {"unknown", "other", "apache-2.0", "mit", "cc-by-nc-4.0"}


def problems_of_card(content):
    """What the Hub demands of the metadata of a card, as far as its documentation states it; empty for a good card."""
    try:
        data = yaml.safe_load(content.removeprefix("---\n").split("\n---\n")[0])
        results = [r for model in data.get("model-index", []) if model["name"] for r in model["results"]]
        shown = [(r["task"]["type"], r["dataset"]["name"], r["dataset"]["type"], r["metrics"]) for r in results]
        values = [metric["value"] for *_, metrics in shown for metric in metrics if metric["type"]]
    except (AttributeError, LookupError, TypeError, yaml.YAMLError) as error:
        return [f"metadata: {type(error).__name__} {error}"]
    problems = [f'"{key}" is no list' for key in ("tags", "datasets") if not isinstance(data.get(key, []), list)]
    problems += [] if data.get("license", "unknown") in LICENSES else [f'"license" must be one of {sorted(LICENSES)}']
    return problems + [f'"value" is {value}' for value in values if not math.isfinite(value)]


def refuse(status):
    response = httpx.Response(status, request=httpx.Request("POST", "https://hub"))
    raise HfHubHTTPError(f"{status} from the Hub", response=response)


class FakeHub:
    """Also the `HfApi` class: calling it gives the client of a token.

    A repository has commits (id, message), tags (name -> id of a commit) and may be private; its files lie in the cache.
    """

    url = "https://hub"

    def __init__(self, cache):
        self.cache, self.repositories, self.faults, self.private_by_default = cache, {}, Counter(), False

    def __call__(self, token=None):
        return Api(self, TOKENS.get(token or os.environ["HF_TOKEN"]))

    def folder(self, id):
        return self.cache / f"models--{id.replace('/', '--')}"

    def put(self, id, files, message="put", gone=()):
        """A commit of these contents upon those that are there, but for those `gone`, without any check; its id."""
        repository = self.repositories.setdefault(id, SimpleNamespace(private=False, commits=[], tags={}))
        before = self.files(id) if repository.commits else {}
        content = {name: data for name, data in before.items() if name not in gone} | files
        oid = hashlib.sha1(repr([len(repository.commits), message]).encode()).hexdigest()
        for name, data in content.items():
            path = self.folder(id) / "snapshots" / oid / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        repository.commits.append((oid, message))
        self.name(id, "main", oid)
        return oid

    def name(self, id, ref, oid):
        (self.folder(id) / "refs").mkdir(parents=True, exist_ok=True)
        (self.folder(id) / "refs" / ref).write_text(oid)

    def files(self, id, revision=None):
        """path -> content of a commit; the last one for None."""
        folder = self.folder(id) / "snapshots" / (revision or self.repositories[id].commits[-1][0])
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}

    def messages(self, id):
        """Of all commits."""
        return [message for _, message in self.repositories[id].commits]


class Api:
    """The methods of `HfApi` that are used, for a role: `write`, `read` or None."""

    def __init__(self, hub, role):
        self.hub, self.role = hub, role

    def check(self, repo_id, fault=None):
        """Whether this role may write there, and whether a fault is due."""
        if self.role != "write" or not repo_id.startswith("org/"):
            refuse(401 if self.role is None else 403)
        self.hub.faults[fault] -= (due := self.hub.faults[fault] > 0)
        if due:
            refuse(503)

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        self.check(repo_id)
        if repo_id not in self.hub.repositories:
            self.hub.put(repo_id, {}, "initial commit")
            self.hub.repositories[repo_id].private = self.hub.private_by_default if private is None else private

    def model_info(self, repo_id):
        return self.hub.repositories[repo_id]

    def list_repo_files(self, repo_id):
        return [*self.hub.files(repo_id)]

    def list_repo_refs(self, repo_id):
        return SimpleNamespace(tags=[SimpleNamespace(name=name) for name in self.hub.repositories[repo_id].tags])

    def create_commit(self, repo_id, operations, *, commit_message):
        self.check(repo_id, "commit")
        paths = [one.path_in_repo for one in operations]
        assert len({*paths}) == len(paths), "what is added and deleted at once"
        added = [one for one in operations if isinstance(one, CommitOperationAdd)]
        sources = {one.path_in_repo: one.path_or_fileobj for one in added}
        gone = {*paths} - set(sources)
        files = {n: Path(source).read_bytes() if isinstance(source, str) else source for n, source in sources.items()}
        if problems := problems_of_card(files["README.md"].decode()):
            raise ValueError(f"Invalid metadata in README.md: {problems}")  # as the client does before it uploads
        oid = self.hub.put(repo_id, files, commit_message, gone)
        return SimpleNamespace(oid=oid, commit_url=f"{self.hub.url}/{repo_id}/commit/{oid}")

    def create_tag(self, repo_id, *, tag, revision):
        self.check(repo_id, "tag")
        self.hub.repositories[repo_id].tags[tag] = revision
        self.hub.name(repo_id, tag, revision)
