"""Who may ask, and what a browser may do with the answers.

A page of any web site can send requests to 127.0.0.1, and a name of its own can lead there. So a request has
to be for a name that is known to be ours, and a browser's must come from our own page.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOME = frozenset({"127.0.0.1", "localhost", "::1"})
EVERYWHERE = frozenset({"0.0.0.0", "::"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def known_hosts(host: str, others: Collection[str]) -> frozenset[str] | None:
    """The names that requests may be for: of this machine, the one listened on, and those of a proxy. None
    stands for any: where one listens everywhere and names nothing.
    """
    if host in EVERYWHERE and not others:
        return None
    return HOME | {host.lower(), *(name.lower() for name in others)}


class Guard:
    """Middleware: 403 for other names and other sites' pages; the safe headers on every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        problem = self._problem(Headers(scope=scope))
        answer = self.app if problem is None else JSONResponse({"error": problem}, 403)
        await answer(scope, receive, safe)

    def _problem(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return f"Host {host[:80]!r} is not this server's: start it with --proxy-name {_name(host)[:80]}"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return f"Origin {origin[:80]!r} is another site: open the page of this server"
        return None


def _name(host: str) -> str:
    """`[::1]:7860` → `::1`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
