"""The page at /: its files, with headers that let it load and send nothing elsewhere and run no script but its own.

The files hold no secret, so they are open without a key: the page itself asks for one. Only files that were there when
the server started are given out, by a table, so that no path leads elsewhere.
"""

import hashlib
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

UI = Path(__file__).with_name("ui")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                               "media-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",                         # asked each time, answered with 304
}
WIDGETS = {UI / "widget.js", UI / "translate.js"}        # what a page elsewhere may load
FOR_OTHERS = {"cross-origin-resource-policy": "cross-origin"}
FILES = {f"/ui/{path.relative_to(UI).as_posix()}": path for path in sorted(UI.rglob("*")) if path.suffix in TYPES}
FILES["/"] = FILES.pop("/ui/index.html")
PATHS = frozenset(FILES)

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/ui/{path:path}")
async def page(request: Request) -> Response:
    """One file of the page."""
    path = FILES.get(request.scope["path"])
    if path is None:
        raise HTTPException(404)
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, **(FOR_OTHERS if path in WIDGETS else {}), "etag": etag}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=TYPES[path.suffix])
