"""Who may come in: the page's files for who has the token, and the session's socket for the page that came from here.

Refused before anything is kept of the request. Names of other machines in `Host` are refused, so that a foreign web
site cannot reach the server by a name of its own that it points here (DNS rebinding), and a socket must come from a
page of this very server (`Origin`). Style and script are no secret, and need no token.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from websockets.http11 import Request, Response

FILES = Path(__file__).parent / "web"
OPEN = {"/page.css": "text/css", "/page.js": "text/javascript"}
PAGE, SOCKET = "/", "/session"
RULES = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>robot-rl</title>
<h1>{title}</h1><p>{text}</p></html>"""
NO_TOKEN = "The address lacks its token. Open the whole address that the terminal shows, up to its end."
WRONG_TOKEN = (
    "The token is not the one of this session: each has a new one. Open the address that the terminal shows now."
)


class Door:
    """Answers requests; `full()`: no further page has room."""

    def __init__(self, full: Callable[[], bool]) -> None:
        self.token = secrets.token_urlsafe(18)
        self._full = full
        self._names = {"localhost", socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        types = OPEN | {"/page.html": "text/html"}
        self._files = {path: (kind, (FILES / path[1:]).read_bytes()) for path, kind in types.items()}

    def answer(self, _connection: Any, request: Request) -> Response | None:
        """What goes back instead of a socket; None: the socket may open."""
        host, (path, _, query) = _only(request, "Host"), request.path.partition("?")
        if not self._is_here(host):
            return _refuse(403, "Another host", "Open this page by this machine's number, its own name or localhost.")
        if path in OPEN:
            return _page(200, *self._files[path], host)
        if path not in (PAGE, SOCKET):
            return _refuse(404, "Nothing here", "There is one page only, and its address is in the terminal.")
        given = _token(query)
        if not hmac.compare_digest(given.encode(errors="replace"), self.token.encode()):
            return _refuse(403, "Wrong token", WRONG_TOKEN) if given else _refuse(401, "No token", NO_TOKEN)
        return self._socket(request, host) if path == SOCKET else _page(200, *self._files["/page.html"], host)

    def _socket(self, request: Request, host: str) -> Response | None:
        if _only(request, "Origin") != f"http://{host}":
            return _refuse(403, "Another page", "Only the page of this server may open its socket.")
        return _refuse(503, "Full", "Too many pages are open; close one.") if self._full() else None

    def _is_here(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return name.lower() in self._names
        return "%" not in name


def _only(request: Request, name: str) -> str:
    """The header `name`; "" where it is missing or there are several."""
    values = request.headers.get_all(name)
    return values[0] if len(values) == 1 else ""


def _token(query: str) -> str:
    try:
        return parse_qs(query, max_num_fields=4).get("token", [""])[0]
    except ValueError:
        return ""


def _refuse(code: int, title: str, text: str) -> Response:
    return _page(code, "text/html", REFUSED.format(title=title, text=text).encode(), "")


def _page(code: int, kind: str, body: bytes, host: str) -> Response:
    """A response; the page at `host` may load and reach what is there, and nothing else."""
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    sources = f"script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws://{host}; " if host else ""
    policy = f"default-src 'none'; {sources}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    headers = Headers(RULES)
    headers["Content-Type"] = f"{kind}; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    headers["Content-Security-Policy"] = policy
    headers["Connection"] = "close"
    return Response(code, "", headers, body)
