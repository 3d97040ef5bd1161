"""A small hub on 127.0.0.1: the endpoints of the Hugging Face hub that a download needs, over folders on disk.

huggingface_hub is pointed at it by HF_ENDPOINT, so that the real client is what the tests run.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(repositories: dict[str, Path], gated: set[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:
    """Yield (address, paths asked for)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            parts = path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
            if name not in repositories:
                return self.send(404, b'{"error": "Repository not found"}', body, {"X-Error-Code": "RepoNotFound"})
            if name in gated and not api:
                return self.send(403, b'{"error": "gated"}', body, {"X-Error-Code": "GatedRepo"})
            if api:
                return self.send(200, json.dumps(self.listing(name, rest)).encode(), body, {})
            file = repositories[name].joinpath(*rest[2:])
            if rest[:1] != ["resolve"] or not file.is_file():
                return self.send(404, b"no such file", body, {"X-Error-Code": "EntryNotFound"})
            data = file.read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            return self.send(200, data, body, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

        def listing(self, name: str, rest: list[str]) -> object:
            files = sorted(p for p in repositories[name].rglob("*") if p.is_file())
            names = [p.relative_to(repositories[name]).as_posix() for p in files]
            if rest[:1] == ["tree"]:
                return [{"type": "file", "path": n, "size": p.stat().st_size,
                         "oid": hashlib.sha1(p.read_bytes()).hexdigest()}
                        for n, p in zip(names, files, strict=True)]
            return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": name in gated,
                    "disabled": False,
                    "downloads": 0, "likes": 0, "tags": [], "siblings": [{"rfilename": n} for n in names]}

        def send(self, status: int, data: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
