"""The files of the web page: built from the sources beside them, small, in the package, and served with strict headers."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import httpx
from servers import Running

from genrec.serving.security import make_key

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "serving" / "page"
BUILT = ROOT / "genrec" / "serving" / "page"
MOST_BYTES = 60_000


def sources_hash() -> str:
    """As `sourcesHash` of serving/page/vite.config.js."""
    names = ["index.html", "package.json", "package-lock.json", "vite.config.js"]
    names += [f"src/{path.name}" for path in (SOURCES / "src").iterdir()]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\n".encode() + (SOURCES / name).read_bytes() + b"\n")
    return digest.hexdigest()


def test_the_built_page_is_not_older_than_its_sources() -> None:
    built = re.search(r'name="genrec-sources" content="([0-9a-f]{64})"', (BUILT / "index.html").read_text("utf-8"))
    assert built
    assert built[1] == sources_hash(), "serving/page/ has changed since genrec/serving/page/ was built: run `make page`"


def test_the_built_page_is_small_and_names_the_licences_of_what_is_in_it() -> None:
    assert sum(path.stat().st_size for path in BUILT.iterdir()) < MOST_BYTES
    licences = (BUILT / "page.txt").read_text("utf-8")
    for name in ("preact", "@preact/signals", "@preact/signals-core"):
        assert f"{name}\n\nThe MIT License" in licences


def test_no_file_has_a_script_or_a_style_of_its_own_in_the_html() -> None:
    html = (BUILT / "index.html").read_text("utf-8")
    assert re.findall(r"<script[^>]*>(.*?)</script>", html) == [""]
    assert "<style" not in html
    assert not re.search(r"\son\w+=|style=", html)


def test_the_files_need_no_key_and_come_with_strict_headers(start: Callable[..., Running], tmp_path: Path) -> None:
    make_key(tmp_path / "keys.json", "web")
    server = start(keys=tmp_path / "keys.json")
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        response = httpx.get(server.url + path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        again = httpx.get(server.url + path, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_nothing_else_can_be_fetched_there(server: Running) -> None:
    for path in (
        "/page.py",
        "/page.",
        "/page.js/x",
        "/index.html",
        "/page/page.js",
        "/page.%2e%2e%2fapp.py",
        "/page/../app.py",
    ):
        response = httpx.get(server.url + path)
        assert response.status_code == 404, path
        assert response.json()["error"]["message"]
