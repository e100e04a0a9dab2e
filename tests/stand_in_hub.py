"""A stand-in for the Hugging Face hub: one user's models, over the hub's HTTP interface."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_of_me"
COMMIT = "0123456789" * 4
LICENSES = ("apache-2.0", "openrail++")


@dataclass
class Repository:
    """A model."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class StandIn:
    """What the hub has, and where it is."""

    models: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256, which come before the commit that names them."""
    endpoint: str = ""


@contextmanager
def stand_in_hub() -> Iterator[StandIn]:
    """A hub on this machine that knows the user `me` by TOKEN."""
    hub = StandIn()
    handler = type("OfThisHub", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"objects": objects})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            self._commit(found[1], body)
        else:
            self._answer({"error": self.path}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        oid = self.path.removeprefix("/lfs/")
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.blobs[oid] = body
        self._answer({})

    def do_GET(self) -> None:
        place = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/?]+)([^?]*).*", self.path)
        model = self.hub.models.get(place[1]) if place else None
        if place is None or model is None:
            self._answer({"error": "Repository not found"}, 404)
        elif place[2] in ("", "/revision/main"):
            siblings = [{"rfilename": name} for name in model.files]
            about = {"id": place[1], "sha": COMMIT, "private": model.private, "siblings": siblings}
            self._answer(about)
        elif place[2] == f"/tree/{COMMIT}":
            self._answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                    for name, content in model.files.items()
                ]
            )
        elif place[2] == "/xet-write-token/main":
            self.close_connection = True  # the hub's own protocol for uploads breaks off here
        else:
            content = model.files[place[2].removeprefix(f"/resolve/{COMMIT}/")]
            self._send(content, 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing: tests look at what arrived."""

    def _validate(self, card: str) -> None:
        [license] = re.findall(r"^license: (.+)$", card, re.MULTILINE) or [""]
        if license in LICENSES:
            self._answer({"errors": [], "warnings": []})
        else:  # as plain text, which is asked for
            self._send(b'"license" must be one of these', 400, {"Content-Type": "text/plain"})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            error = "You don't have the rights to create a model under this namespace"
            self._answer({"error": error}, 403)
            return
        there = name in self.hub.models
        self.hub.models.setdefault(name, Repository(asked.get("visibility") == "private"))
        self._answer({"url": f"{self.hub.endpoint}/{name}"}, 409 if there else 200)

    def _commit(self, name: str, body: bytes) -> None:
        files = self.hub.models[name].files
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        url = f"{self.hub.endpoint}/{name}/commit/{COMMIT}"
        self._answer({"commitUrl": url, "commitOid": COMMIT})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
