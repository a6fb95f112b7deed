"""A Hub on loopback: as much of its HTTP protocol as the real client needs to publish and load models and data sets.

Everything is in memory. A repository is a list of commits, a commit a dict of path -> SHA-256 of a blob. Tokens have roles,
private repositories are hidden, uploads are verified, card metadata is checked; faults can be ordered:

    with HubServer() as hub:
        hub.drop_uploads = 1      # the next file breaks off half-way
        hub.unavailable = 2       # the next two commits are answered with 503
    hub.tags_unavailable = 1  # and the next tag

The client reads its settings when it is imported, so `hub.environment(folder)` is for a process that is started after that.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from card_rules import problems_of_card

TOKENS = {"owner": "write", "reader": "read"}
LARGE = (".safetensors", ".bin", ".png", ".parquet")
REPO = r"(?P<kind>model|dataset|space)s/(?P<id>[^/]+/[^/]+)"
ROUTES = []


@dataclass
class Repository:
    private: bool
    commits: list = field(default_factory=list)  # (id, {path: blob}, message)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def commit(self, branch, files, message):
        text = json.dumps([len(self.commits), sorted(files.items()), message])
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), files, message))
        self.branches[branch] = self.commits[-1][0]
        return self.commits[-1][0]

    def at(self, revision):
        """(commit id, files) of a branch, tag or id."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        for commit, files, _ in self.commits:
            if commit == oid:
                return commit, files
        raise Answer(404, code="RevisionNotFound", message=f"no revision {revision}")


class Answer(Exception):  # noqa: N818
    """What is sent back; raised to end a request early."""

    def __init__(self, status=200, body=b"", code=None, message=None, **headers):
        super().__init__(status)
        self.status, self.headers = status, {k.replace("_", "-"): v for k, v in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if code or message:
            self.headers |= {"X-Error-Code": code or "", "X-Error-Message": message or ""}
            self.body = self.body or json.dumps({"error": message}).encode()


def route(methods, pattern):
    def register(function):
        ROUTES.append((methods.split(), re.compile(pattern), function))
        return function

    return register


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def serve(self):
        url = urlsplit(self.path)
        path, self.query, self.hub = unquote(url.path), parse_qs(url.query), self.server.hub
        self.hub.log.append((self.command, path))
        try:
            self.role = self.check_token()
            matches = ((m, f) for methods, p, f in ROUTES if self.command in methods and (m := p.fullmatch(path)))
            match, function = next(matches, (None, None))
            if function is None:
                raise Answer(404, message=f"no route {self.command} {path}")
            self.body = b"" if function is store else self.read()
            answer = function(self, **match.groupdict())
        except Answer as early:
            answer = early
        if answer is not None:
            self.reply(answer)

    do_GET = do_HEAD = do_POST = do_PUT = serve  # noqa: N815

    def check_token(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            self.read()
            raise Answer(401, message="Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def may_write(self):
        if self.role != "write":
            raise Answer(401 if self.role is None else 403, message="you have no right to write here")

    def read(self, share=1.0):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(int(self.headers.get("Content-Length") or 0) * share))

    def json(self):
        return json.loads(self.body)

    def repository(self, kind, id):
        found = self.hub.repositories.get((kind, id))
        if found is None or (found.private and self.role is None):
            raise Answer(404, code="RepoNotFound", message="Repository not found")
        return found

    def reply(self, answer):
        self.send_response(answer.status)
        for name, value in ({"Content-Length": len(answer.body)} | answer.headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


@route("GET", "/api/whoami-v2")
def whoami(request):
    if request.role is None:
        raise Answer(401, message="Invalid username or password.")
    token = {"displayName": "test", "role": request.role}
    return Answer(
        body={"type": "user", "name": "org", "orgs": [], "auth": {"type": "access_token", "accessToken": token}}
    )


@route("POST", "/api/validate-yaml")
def validate(request):
    problems = problems_of_card(request.json()["content"])
    return Answer(400 if problems else 200, {"errors": [{"message": text} for text in problems], "warnings": []})


@route("POST", "/api/repos/create")
def create(request):
    request.may_write()
    wanted = request.json()
    kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or 'org'}/{wanted['name']}"
    if not name.startswith("org/"):
        raise Answer(403, message=f"you are no member of {name.split('/')[0]}")
    url = f"{request.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
    if (kind, name) in request.hub.repositories:
        raise Answer(409, {"error": "exists", "url": url})
    repository = Repository(wanted.get("visibility") == "private")
    repository.commit("main", {}, "initial commit")
    request.hub.repositories[kind, name] = repository
    return Answer(body={"url": url, "id": name, "name": name})


@route("POST", f"/api/{REPO}/preupload/(?P<revision>.+)")
def preupload(request, kind, id, revision):
    request.repository(kind, id)
    request.may_write()
    modes = [
        {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
        for f in request.json()["files"]
    ]
    return Answer(body={"files": modes})


@route("POST", r"/(?:datasets/)?[^/]+/[^/]+\.git/info/lfs/objects/batch")
def batch(request):
    request.may_write()
    objects = []
    for wanted in request.json()["objects"]:
        action = {"upload": {"href": f"{request.hub.url}/store/{wanted['oid']}"}}
        known = wanted["oid"] in request.hub.blobs
        objects.append({"oid": wanted["oid"], "size": wanted["size"]} | ({} if known else {"actions": action}))
    return Answer(body={"transfer": "basic", "objects": objects})


@route("PUT", "/store/(?P<oid>[0-9a-f]{64})")
def store(request, oid):
    if request.hub.drop_uploads:
        request.hub.drop_uploads -= 1
        request.read(share=0.5)
        request.close_connection = True
        request.connection.close()
        return None
    content = request.read()
    if hashlib.sha256(content).hexdigest() != oid:
        raise Answer(400, message="the content does not have this SHA-256")
    request.hub.blobs[oid] = content
    return Answer()


@route("POST", f"/api/{REPO}/commit/(?P<revision>.+)")
def commit(request, kind, id, revision):
    repository = request.repository(kind, id)
    request.may_write()
    if request.hub.unavailable:
        request.hub.unavailable -= 1
        raise Answer(503, message="try again later")
    files, message = dict(repository.at(revision)[1]), ""
    for line in map(json.loads, request.body.splitlines()):
        key, value = line["key"], line["value"]
        if key == "header":
            message = value["summary"]
        elif key == "file":
            content = base64.b64decode(value["content"])
            files[value["path"]] = hashlib.sha256(content).hexdigest()
            request.hub.blobs[files[value["path"]]] = content
        elif key == "lfsFile" and value["oid"] in request.hub.blobs:
            files[value["path"]] = value["oid"]
        elif key == "deletedFile":
            files.pop(value["path"], None)
        else:
            raise Answer(400, message=f"cannot commit {line}")
    oid = repository.commit(revision, files, message)
    return Answer(body={"success": True, "commitOid": oid, "commitUrl": f"{request.hub.url}/{id}/commit/{oid}"})


@route("POST", f"/api/{REPO}/tag/(?P<revision>.+)")
def tag(request, kind, id, revision):
    repository = request.repository(kind, id)
    request.may_write()
    if request.hub.tags_unavailable:
        request.hub.tags_unavailable -= 1
        raise Answer(503, message="try again later")
    if request.json()["tag"] in repository.tags:
        raise Answer(409, message="the tag exists")
    repository.tags[request.json()["tag"]] = repository.at(revision)[0]
    return Answer(body={})


@route("GET", f"/api/{REPO}/refs")
def refs(request, kind, id):
    repository = request.repository(kind, id)
    listed = {
        key: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": oid} for name, oid in entries.items()]
        for key, ref, entries in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags))
    }
    return Answer(body=listed | {"converts": []})


@route("GET", f"/api/{REPO}(?:/revision/(?P<revision>.+))?")
def info(request, kind, id, revision):
    repository = request.repository(kind, id)
    oid, files = repository.at(revision or "main")
    facts = {"id": id, "modelId": id, "sha": oid, "private": repository.private, "gated": False, "disabled": False}
    return Answer(
        body=facts | {"tags": [], "downloads": 0, "siblings": [{"rfilename": path} for path in sorted(files)]}
    )


@route("GET", f"/api/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
def tree(request, kind, id, revision, folder):
    _, files = request.repository(kind, id).at(revision)
    prefix = f"{folder}/" if folder else ""
    inside = [path for path in sorted(files) if path.startswith(prefix)]
    if folder and not inside:
        raise Answer(404, code="EntryNotFound", message=f"no folder {folder}")
    entries = {}
    for path in inside:
        first = path[len(prefix) :].split("/")[0]
        if "/" in path[len(prefix) :] and request.query.get("recursive", ["false"])[0].lower() == "false":
            entries[prefix + first] = {"type": "directory", "path": prefix + first, "oid": "0" * 40, "size": 0}
        else:
            entries[path] = entry(request.hub, path, files[path])
    return Answer(body=list(entries.values()))


@route("POST", f"/api/{REPO}/paths-info/(?P<revision>.+)")
def paths_info(request, kind, id, revision):
    _, files = request.repository(kind, id).at(revision)
    json_body = "json" in request.headers.get("Content-Type", "")
    paths = request.json()["paths"] if json_body else parse_qs(request.body.decode()).get("paths", [])
    return Answer(body=[entry(request.hub, path, files[path]) for path in paths if path in files])


@route("GET HEAD", r"/(?:(?P<kind>dataset)s/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request, kind, id, revision, path):
    oid, files = request.repository(kind or "model", id).at(revision)
    if path not in files:
        raise Answer(404, code="EntryNotFound", message="Entry not found", X_Repo_Commit=oid)
    content = request.hub.blobs[files[path]]
    etag = f'"{files[path]}"'
    headers = {"ETag": etag, "X-Repo-Commit": oid, "X-Linked-Etag": etag, "X-Linked-Size": len(content)}
    headers |= {"Accept-Ranges": "bytes"}
    if span := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
        first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Answer(206, content[first : last + 1], **headers)
    return Answer(200, content, **headers)


def entry(hub, path, blob):
    return {"type": "file", "path": path, "oid": blob[:40], "size": len(hub.blobs[blob])}


class HubServer:
    """The server in a thread; see the module."""

    def __init__(self):
        self.repositories, self.blobs, self.log = {}, {}, []
        self.drop_uploads = self.unavailable = self.tags_unavailable = 0
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

    def files(self, id, revision="main", kind="model"):
        """path -> content at a revision."""
        return {path: self.blobs[blob] for path, blob in self.repositories[kind, id].at(revision)[1].items()}

    def put(self, id, files, kind="model"):
        """A public repository with these contents, without any client."""
        repository = self.repositories.setdefault((kind, id), Repository(private=False))
        names = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        self.blobs |= {names[path]: content for path, content in files.items()}
        return repository.commit("main", names, "put")
