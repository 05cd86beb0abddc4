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
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from drivers.web_admission import party_of

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


GUESSES, MINUTE = 20, 60.0  # wrong tokens that an address may try in so long [s]
ADDRESSES = 1024  # that are remembered


class Guesses:
    """How many wrong tokens each address tried. One that has shown a right one may err: that is a person's.

    So whoever guesses is not heard any more after `GUESSES` in a `MINUTE`, right or wrong, and shuts nobody out who is
    in. Times are of the steady clock [s].
    """

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, how many
        self._known: OrderedDict[str, None] = OrderedDict()

    def too_many(self, address: str, now: float) -> bool:
        """It is not to be heard now."""
        since, count = self._wrong.get(address, (now, 0))
        return address not in self._known and count >= GUESSES and now - since < MINUTE

    def add(self, address: str, right: bool, now: float) -> None:
        """It showed a token."""
        if right:
            _keep(self._known, address, None)
            return
        since, count = self._wrong.get(address, (now, 0))
        _keep(self._wrong, address, (since, count + 1) if now - since < MINUTE else (now, 1))


class Door:
    """Answers requests by `scheme`, http or https; `full(may_drive)`: no further such page has room.

    With `token` a page may drive and mark, with `look_token` it may only look.
    """

    def __init__(self, full: Callable[[bool], bool], scheme: str = "http") -> None:
        self.token, self.look_token = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        self.scheme, self._full, self._guesses = scheme, full, Guesses()
        self._names = {"localhost", socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        types = OPEN | {"/page.html": "text/html"}
        self._files = {path: (kind, (FILES / path[1:]).read_bytes()) for path, kind in types.items()}

    def may_drive(self, request: Request) -> bool:
        """It showed the token to drive."""
        return _same(_token(request.path.partition("?")[2]), self.token)

    def answer(self, connection: Any, request: Request) -> Response | None:
        """What goes back instead of a socket; None: the socket may open."""
        host, (path, _, query) = _only(request, "Host"), request.path.partition("?")
        if not self._is_here(host):
            return _refuse(403, "Another host", "Open this page by this machine's number, its own name or localhost.")
        if path in OPEN:
            return self._page(200, *self._files[path], host)
        if path not in (PAGE, SOCKET):
            return _refuse(404, "Nothing here", "There is one page only, and its address is in the terminal.")
        given = _token(query)
        if not given:
            return _refuse(401, "No token", NO_TOKEN)
        party, now = party_of(connection.remote_address[0]), time.monotonic()
        if self._guesses.too_many(party, now):
            return _refuse(429, "Too many tries", "Too many wrong tokens came from this address: wait for a minute.")
        drives, looks = _same(given, self.token), _same(given, self.look_token)
        self._guesses.add(party, drives or looks, now)
        if not (drives or looks):
            return _refuse(403, "Wrong token", WRONG_TOKEN)
        if path == SOCKET:
            return self._socket(request, host, drives)
        return self._page(200, *self._files["/page.html"], host)

    def _socket(self, request: Request, host: str, may_drive: bool) -> Response | None:
        if _only(request, "Origin") != f"{self.scheme}://{host}":
            return _refuse(403, "Another page", "Only the page of this server may open its socket.")
        return _refuse(503, "Full", "Too many pages are open; close one.") if self._full(may_drive) else None

    def _page(self, code: int, kind: str, body: bytes, host: str) -> Response:
        """What the page at `host` consists of, which may load and reach what is there and nothing else."""
        peer = f"{'wss' if self.scheme == 'https' else 'ws'}://{host}"
        return _response(
            code, kind, body, f"script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' {peer}; "
        )

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


def _same(given: str, token: str) -> bool:
    """In a time that says nothing of where they differ."""
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _keep(kept: OrderedDict[str, Any], address: str, value: Any) -> None:
    """The newest `ADDRESSES`."""
    kept[address] = value
    kept.move_to_end(address)
    if len(kept) > ADDRESSES:
        kept.popitem(last=False)


def _refuse(code: int, title: str, text: str) -> Response:
    return _response(code, "text/html", REFUSED.format(title=title, text=text).encode(), "")


def _response(code: int, kind: str, body: bytes, sources: str) -> Response:
    """A response, whose page may load and reach its `sources` alone."""
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    policy = f"default-src 'none'; {sources}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    headers = Headers(RULES)
    headers["Content-Type"] = f"{kind}; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    headers["Content-Security-Policy"] = policy
    headers["Connection"] = "close"
    return Response(code, "", headers, body)
