"""A Hub on loopback: as much of its HTTP protocol as the real client needs to publish and load models.

Everything is in memory. A repository is a list of commits, a commit a dict of path -> SHA-256 of a blob. Tokens have roles,
private repositories are hidden, uploads are verified, card metadata is checked. `hub.faults` counts faults to come:
`upload` (a file breaks off half-way), `commit` and `tag` (answered with 503).

The client reads its settings when it is imported, so `hub.environment(folder)` is for a process that is started after that.
"""

import base64
import hashlib
import json
import math
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKENS = {"owner": "write", "reader": "read"}
LICENSES = {"unknown", "other", "apache-2.0", "mit", "cc-by-nc-4.0"}
LARGE = (".safetensors", ".bin", ".png")
REPO = r"/api/models/(?P<id>[^/]+/[^/]+)"
ROUTES = []


class Answer(Exception):  # noqa: N818
    """What is sent back; raised to end a request early."""

    def __init__(self, status=200, body=b"", code=None, message=None, **headers):
        super().__init__(status)
        self.status, self.headers = status, {k.replace("_", "-"): v for k, v in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if code or message:
            self.headers |= {"X-Error-Code": code or "", "X-Error-Message": message or ""}
            self.body = self.body or json.dumps({"error": message}).encode()


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


def route(methods, pattern, writes=False):
    def register(function):
        ROUTES.append((methods.split(), re.compile(pattern), function, writes))
        return function

    return register


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def serve(self):
        path, self.hub = unquote(urlsplit(self.path).path), self.server.hub
        self.hub.log.append((self.command, path))
        try:
            answer = self.answer(path)
        except Answer as early:
            answer = early
        if answer is None:
            return
        self.send_response(answer.status)
        for name, value in ({"Content-Length": len(answer.body)} | answer.headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = serve  # noqa: N815

    def answer(self, path):
        found = ((m, f, w) for methods, p, f, w in ROUTES if self.command in methods and (m := p.fullmatch(path)))
        match, function, writes = next(found, (None, None, False))
        self.body = b"" if function is store else self.read()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.role = TOKENS.get(token)
        if token and self.role is None:
            raise Answer(401, message="Invalid credentials in Authorization header")
        if function is None:
            raise Answer(404, message=f"no route {self.command} {path}")
        if writes and self.role != "write":
            raise Answer(401 if self.role is None else 403, message="you have no right to write here")
        names = match.groupdict()
        if "id" not in names:
            return function(self, **names)
        repository = self.hub.repositories.get(names["id"])
        if repository is None or (repository.private and self.role is None):
            raise Answer(404, code="RepoNotFound", message="Repository not found")
        return function(self, repository, **names)

    def read(self, share=1.0):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(int(self.headers.get("Content-Length") or 0) * share))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def json(self):
        return json.loads(self.body)

    def fault(self, what):
        """Whether this request is to fail."""
        self.hub.faults[what] -= (due := self.hub.faults[what] > 0)
        return due


@route("POST", "/api/validate-yaml")
def validate(request):
    problems = problems_of_card(request.json()["content"])
    return Answer(400 if problems else 200, {"errors": [{"message": text} for text in problems], "warnings": []})


@route("POST", "/api/repos/create", writes=True)
def create(request):
    wanted = request.json()
    name = f"{wanted.get('organization') or 'org'}/{wanted['name']}"
    if not name.startswith("org/"):
        raise Answer(403, message=f"you are no member of {name.split('/')[0]}")
    known = name in request.hub.repositories
    if not known:
        repository = Repository(wanted.get("visibility") == "private")
        repository.commit({}, "initial commit")
        request.hub.repositories[name] = repository
    return Answer(409 if known else 200, {"url": f"{request.hub.url}/{name}", "id": name, "name": name})


@route("POST", f"{REPO}/preupload/.+", writes=True)
def preupload(request, repository, id):
    modes = [
        {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
        for f in request.json()["files"]
    ]
    return Answer(body={"files": modes})


@route("POST", r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", writes=True)
def batch(request):
    objects = []
    for wanted in request.json()["objects"]:
        action = {"upload": {"href": f"{request.hub.url}/store/{wanted['oid']}"}}
        objects.append({**wanted} if wanted["oid"] in request.hub.blobs else {**wanted, "actions": action})
    return Answer(body={"transfer": "basic", "objects": objects})


@route("PUT", "/store/(?P<oid>[0-9a-f]{64})")
def store(request, oid):
    if request.fault("upload"):
        request.read(share=0.5)
        request.close_connection = True
        request.connection.close()
        return None
    content = request.read()
    if hashlib.sha256(content).hexdigest() != oid:
        raise Answer(400, message="the content does not have this SHA-256")
    request.hub.blobs[oid] = content
    return Answer()


@route("POST", f"{REPO}/commit/main", writes=True)
def commit(request, repository, id):
    if request.fault("commit"):
        raise Answer(503, message="try again later")
    files, message = dict(repository.at("main")[1]), ""
    for line in map(json.loads, request.body.splitlines()):
        key, value = line["key"], line["value"]
        if key == "header":
            message = value["summary"]
        elif key == "file":
            files[value["path"]] = request.hub.keep(base64.b64decode(value["content"]))
        elif key == "lfsFile" and value["oid"] in request.hub.blobs:
            files[value["path"]] = value["oid"]
        else:
            raise Answer(400, message=f"cannot commit {line}")
    oid = repository.commit(files, message)
    return Answer(body={"success": True, "commitOid": oid, "commitUrl": f"{request.hub.url}/{id}/commit/{oid}"})


@route("POST", f"{REPO}/tag/(?P<revision>.+)", writes=True)
def tag(request, repository, id, revision):
    if request.fault("tag"):
        raise Answer(503, message="try again later")
    repository.refs[request.json()["tag"]] = repository.at(revision)[0]
    return Answer(body={})


@route("GET", f"{REPO}/refs")
def refs(request, repository, id):
    tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repository.tags.items()]
    return Answer(body={"branches": [], "tags": tags, "converts": []})


@route("GET", f"{REPO}(?:/revision/(?P<revision>.+))?")
def info(request, repository, id, revision):
    oid, files = repository.at(revision or "main")
    facts = {"id": id, "modelId": id, "sha": oid, "private": repository.private, "gated": False, "disabled": False}
    siblings = [{"rfilename": path} for path in sorted(files)]
    return Answer(body=facts | {"tags": [], "downloads": 0, "siblings": siblings})


@route("GET HEAD", r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request, repository, id, revision, path):
    oid, files = repository.at(revision)
    if path not in files:
        raise Answer(404, code="EntryNotFound", message="Entry not found", X_Repo_Commit=oid)
    content = request.hub.blobs[files[path]]
    headers = {"ETag": f'"{files[path]}"', "X-Repo-Commit": oid, "X-Linked-Size": len(content)}
    return Answer(200, content, **headers)


class Repository:
    """Commits (id, files, message), and refs: names of commits, `main` and tags."""

    def __init__(self, private):
        self.private, self.commits, self.refs = private, [], {}

    @property
    def tags(self):
        return {name: oid for name, oid in self.refs.items() if name != "main"}

    def commit(self, files, message):
        text = json.dumps([len(self.commits), sorted(files.items()), message])
        self.refs["main"] = hashlib.sha1(text.encode()).hexdigest()
        self.commits.append((self.refs["main"], files, message))
        return self.refs["main"]

    def at(self, revision):
        """(commit id, files) of a branch, tag or id."""
        for oid, files, _ in self.commits:
            if oid == self.refs.get(revision, revision):
                return oid, files
        raise Answer(404, code="RevisionNotFound", message=f"no revision {revision}")


class HubServer:
    """The server in a thread; see the module."""

    def __init__(self):
        self.repositories, self.blobs, self.log, self.faults = {}, {}, [], Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.hub, self._server.daemon_threads = self, True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home, token="owner"):
        """Variables for a process whose Hub this is."""
        fixed = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), **fixed} | ({"HF_TOKEN": token} if token else {})

    def keep(self, content):
        """Store a blob; returns its SHA-256."""
        name = hashlib.sha256(content).hexdigest()
        self.blobs[name] = content
        return name

    def files(self, id, revision="main"):
        """path -> content at a revision."""
        return {path: self.blobs[blob] for path, blob in self.repositories[id].at(revision)[1].items()}

    def messages(self, id):
        """Of all commits."""
        return [message for _, _, message in self.repositories[id].commits]

    def uploads(self):
        """How many files were sent."""
        return sum(method == "PUT" for method, _ in self.log)

    def put(self, id, files):
        """A public model with these contents, without any client."""
        repository = self.repositories.setdefault(id, Repository(private=False))
        return repository.commit({path: self.keep(content) for path, content in files.items()}, "put")
