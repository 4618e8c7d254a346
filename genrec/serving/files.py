"""The files of the web page at `/`. Sources: `serving/page/`; `make page` builds them into `genrec/serving/page/`.

Out: `/`, `/page.js` and the like, which need no key: they hold nothing of the catalogue. What the page shows it asks of the
API, with the key that its user types.
"""

import hashlib
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
# Scripts and styles from these files alone, nothing from elsewhere, in nobody's frame, and no script may turn text into HTML.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again, and not sent again where it is the same
}  # fmt: skip


def add_page(app: FastAPI) -> None:
    """Add the routes. The files are read once: an upgrade under a running server does not mix two versions."""
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in files.items()}

    def answer(request: Request, name: str) -> Response:
        headers = HEADERS | {"ETag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers=headers, media_type=KINDS[Path(name).suffix])

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return answer(request, "index.html")

    @app.get("/page.{kind}", include_in_schema=False)
    async def file(request: Request, kind: str) -> Response:
        if f"page.{kind}" not in files:
            raise HTTPException(404, "Not Found")
        return answer(request, f"page.{kind}")
