"""Which names a server without API keys answers to.

In: a request's `Host` and `Origin`. Out: the request, handed on, or 421 and 403 with what to do.

A server on loopback is open to everybody on the machine, and a browser is one of them. A web page may point its own name at
127.0.0.1 after it was loaded ("DNS rebinding"): then its scripts ask this server and read the answers, and only the `Host`
header, which holds the page's name, tells. An address in its place is no danger: nobody can point one elsewhere. `Origin` stops
what other pages send without being able to read the answer.
"""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from genrec.errors import SettingError

ANY = "*"


def check_hosts(names: Sequence[str]) -> None:
    """Raises `SettingError` for what is no host name, or no list of them."""
    if isinstance(names, str):
        raise SettingError(f"allow_hosts takes several names, as in ({names!r},); got the text {names!r} alone.")
    for name in names:
        if name != ANY:
            _sent(name)


def _sent(name: str) -> str:
    """A name as browsers send it: "Bücher.example" -> "xn--bcher-kva.example". Raises `SettingError`."""
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
        raise SettingError(f"allow-host takes a name such as genrec.local, without scheme and port, or *; got {name!r}.")
    if name.isascii():
        return name.lower()
    try:
        sent = name.encode("idna")
        same = sent.decode("idna") == name.lower()
    except UnicodeError:
        same = False
    if not same:  # the codec is of 2003, and makes "ß" to "ss": another name, which may be a stranger's
        raise SettingError(f"allow-host cannot tell how browsers send {name!r}: give the form that begins with xn--.")
    return sent.decode("ascii").lower()


class HostsMiddleware:
    """allowed: names beside localhost and all addresses; with "*", any."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str] = ()) -> None:
        check_hosts(allowed)
        self.app, self.any, self.names = app, ANY in allowed, {"localhost", *(_sent(name) for name in allowed if name != ANY)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.any:
            headers = Headers(scope=scope)
            host, origin = _name(headers.get("host", "")), headers.get("origin")
            if not self._answers(host):
                await _refused(421, "HostError", f"the request is for {host[:100]!r}", host)(scope, receive, send)
                return
            page = None if origin is None else _page(origin)
            if page is not None and page != host and page not in self.names and not _loopback(page):
                await _refused(403, "OriginError", f"a page of {origin!r:.100} asks", page)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _answers(self, host: str) -> bool:
        return host in self.names or _address(host) is not None


def _refused(status: int, kind: str, came: str, name: str) -> JSONResponse:
    cure = f"--allow-host {name}" if re.fullmatch(r"[\w.-]{1,100}", name) else "--allow-host NAME"
    message = (
        "Without API keys this server answers to localhost and to addresses alone, so that no stranger's web page can ask it; "
        f"{came}. If that is yours, start the server with `{cure}` (allow_hosts behind Ray), or with API keys (`--keys`)."
    )
    return JSONResponse({"error": {"type": kind, "message": message}}, status)


def _name(host: str) -> str:
    """ "LocalHost:8000" -> "localhost", "[::1]:8000" -> "::1"."""
    match = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host.strip())
    return (match[1] or match[2] or "").lower().removesuffix(".") if match else host.lower()


def _page(origin: str) -> str:
    """The name in an `Origin`; empty, which no server has, where there is none."""
    try:
        return _name(urlsplit(origin).netloc)
    except ValueError:  # "http://["
        return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _loopback(name: str) -> bool:
    address = _address(name)
    return address is not None and address.is_loopback
