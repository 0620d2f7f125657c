"""A small Hugging Face hub on this machine: what the client asks of it to download and to upload, and no more.

Emulated, as the client of huggingface_hub calls it:
- HEAD and GET /USER/NAME/resolve/REVISION/FILE with ETag, X-Repo-Commit, X-Linked-Size and X-Linked-Etag; an error has
  the header X-Error-Code: RepoNotFound (with 401, as the hub says it of private ones too), RevisionNotFound,
  EntryNotFound, GatedRepo.
- GET /api/models/USER/NAME/tree/REVISION and /api/models/USER/NAME: the files.
- POST /api/validate-yaml (accepted),
  POST /api/repos/create, POST .../preupload/main ("lfs" for safetensors), POST .git/info/lfs/objects/batch,
  PUT of the content, POST .../commit/main (lines of JSON).
"""

import base64
import contextlib
import hashlib
import importlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"


class Server(ThreadingHTTPServer):
    """Repositories are {"user/name": {"file": bytes}}; `private` and `gated` are names of some of them."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.private, self.gated = {}, set(), set()
        self.revisions = {"main", "v1", COMMIT}
        self.damaged = set()  # files whose content is not what was announced
        self.announced = {}  # file -> a size that is not its own
        self.requests, self.uploads, self.created = [], {}, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing is printed."""

    def answer(self, status, content=b"", **headers):
        """Sends status, headers (X_Error_Code for X-Error-Code) and content."""
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refused(self, repo, revision="main"):
        """Answers where the repository or its revision is not to be had."""
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in self.server.repos or (repo in self.server.private and not has_token):
            self.answer(401, {"error": "Invalid username or password."}, X_Error_Code="RepoNotFound")
        elif repo in self.server.gated and not has_token:
            self.answer(401, {"error": "Access is restricted."}, X_Error_Code="GatedRepo")
        elif revision not in self.server.revisions:
            self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        else:
            return False
        return True

    def do_GET(self):  # noqa: N802
        """Files and their metadata."""
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path))
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = found.groups()
            if not self.refused(repo, revision):
                self.file(name, self.server.repos[repo].get(name))
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(?:tree|revision)/([^/]+))?", path):
            repo, revision = found[1], found[2] or "main"
            if not self.refused(repo, revision):
                files = self.server.repos[repo]
                tree = [{"type": "file", "path": n, "size": len(c), "oid": COMMIT} for n, c in files.items()]
                info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                self.answer(200, tree if "/tree/" in path else info, Content_Type="application/json")
        else:
            self.answer(404, {"error": "not emulated"})

    do_HEAD = do_GET  # noqa: N815

    def file(self, name, content):
        """One file of a repository: large ones are kept under their SHA-256, small ones under git's SHA-1."""
        if content is None:
            return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        size = self.server.announced.get(name, len(content))
        if name.endswith((".safetensors", ".bin")):
            etag = hashlib.sha256(content).hexdigest()
            linked = {"X_Linked_Size": str(size), "X_Linked_Etag": f'"{etag}"'}
        else:
            etag, linked = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), {}
        if name in self.server.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT, **linked)

    def do_POST(self):  # noqa: N802
        """Creating a repository and committing to it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server, path = self.server, self.path.partition("?")[0]
        server.requests.append((self.command, path))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":  # of the model card
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            said = json.loads(body)
            repo = f"{said.get('organization') or 'me'}/{said['name']}"
            if repo in server.repos:
                return self.answer(409, {"error": "You already created this model repo", "url": f"{server.url}/{repo}"})
            server.created.append(said)
            server.repos[repo] = {}
            return self.answer(200, {"url": f"{server.url}/{repo}", "name": repo})
        if path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return self.answer(200, {"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {"oid": o["oid"], "size": o["size"], "authenticated": True,
                 "actions": {"upload": {"href": f"{server.url}/upload/{o['oid']}", "header": {}}}}
                for o in json.loads(body)["objects"]
            ]  # fmt: skip
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    server.repos[found[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    server.repos[found[1]][value["path"]] = server.uploads[value["oid"]]
            url = f"{server.url}/{found[1]}/commit/{COMMIT}"
            return self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        return self.answer(404, {"error": "not emulated"})

    def do_PUT(self):  # noqa: N802
        """The content of a large file."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.command, "/upload"))
        self.server.uploads[self.path.rpartition("/")[2]] = body
        self.answer(200)


@contextlib.contextmanager
def serving(directory):
    """A hub at HF_ENDPOINT with an empty cache in `directory`, and nobody logged in."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server = Server()
    words = {"HF_ENDPOINT": server.url, "HF_HOME": str(directory / "hf"), "HF_HUB_DISABLE_XET": "1"}
    with pytest.MonkeyPatch.context() as environment:
        for word in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE"):
            environment.delenv(word, raising=False)
        for word, value in {**words, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}.items():
            environment.setenv(word, value)
        importlib.reload(constants)  # which reads the environment once
        yield server
    server.shutdown()
    server.server_close()
    importlib.reload(constants)
