"""A hub on this machine: the routes that `huggingface_hub` asks for, over folders of files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 10_000
"""From this size on a file is kept as the hub keeps weights, under its SHA-256."""


@dataclass(slots=True)
class Hub:
    """What the hub holds, and what it was asked for."""

    repositories: dict[str, Path]
    licences: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    """Files that arrive otherwise than the hub says they are."""
    breaks_after: int | None = None
    """Bytes of a large file after which the connection is cut, once."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range."""
    url: str = ""


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve until the end of the block."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.asked.append((self.command, path, self.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body=with_body)
        else:
            self._refuse(404, "EntryNotFound")

    def _info(self, name: str, rest: list[str]) -> None:
        folder = self.served.repositories.get(name)
        if folder is None:
            self._refuse(401, "RepoNotFound")
            return
        if rest[:1] == ["tree"]:
            self._send(json.dumps([_entry(file, folder) for file in _files(folder)]).encode())
            return
        if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
            return
        siblings = []
        for file in _files(folder):
            entry = _entry(file, folder)
            siblings.append(
                {
                    "rfilename": entry["path"],
                    "size": entry["size"],
                    "blobId": entry["oid"],
                    **(
                        {
                            "lfs": {
                                "sha256": entry["lfs"]["oid"],
                                "size": entry["size"],
                                "pointerSize": 134,
                            }
                        }
                        if "lfs" in entry
                        else {}
                    ),
                }
            )
        licence = self.served.licences.get(name)
        card = {"cardData": {"license": licence}} if licence else {}
        record = {
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "siblings": siblings,
            "tags": [],
            "private": False,
            "gated": name in self.served.gated,
            **card,
        }
        self._send(json.dumps(record).encode())

    def _file(self, name: str, revision: str, file: str, *, with_body: bool) -> None:
        hub = self.served
        folder = hub.repositories.get(name)
        if folder is None or not (folder / file).is_file():
            self._refuse(404, "EntryNotFound")
            return
        if name in hub.gated:
            self._refuse(403, "GatedRepo")
            return
        content = (folder / file).read_bytes()
        entry = _entry(folder / file, folder)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        if file in hub.wrong:
            content = bytes(len(content))
        start = 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start = int(asked[6:].split("-")[0])
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        if hub.breaks_after is not None and len(body) > LARGE_BYTES:
            body, hub.breaks_after = body[: hub.breaks_after], None
            self.wfile.write(body)
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(path: Path, folder: Path) -> dict[str, object]:
    content = path.read_bytes()
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    entry: dict[str, object] = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": digest.hexdigest(),
    }
    if len(content) >= LARGE_BYTES:
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
    return entry
