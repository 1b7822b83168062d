"""Security checks and headers for every request.

Every web page that a user opens can reach a server on the loopback interface. Requests of other sites are refused by
`Origin`, and DNS rebinding (a foreign name that resolves to this machine) by `Host`. The Content Security Policy keeps
our page from loading or sending anything elsewhere.
"""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

__all__ = ["Guard"]

HEADERS = {
    "Cache-Control": "no-cache",  # so that all files of the page have the same version
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware that refuses requests of other sites and adds HEADERS to every response.

    Args:
        app: The application.
        allow_hosts: Accepted host names besides `localhost`, this machine's name, and IP addresses (which cannot be
            rebound).
    """

    def __init__(self, app: ASGIApp, allow_hosts: Iterable[str] = ()) -> None:
        machine = socket.gethostname().lower()
        self.app = app
        self.names = {"localhost", machine, f"{machine}.local", *(name.lower() for name in allow_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await WebSocketClose(1008)(scope, receive, send)  # before the handshake: answered with 403
        else:
            await JSONResponse({"error": refusal}, 403)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        """Reason to refuse a request, or None."""
        if scope["type"] not in ("http", "websocket"):
            return None
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return f"unknown host name {host!r}: start the server with --allow-host, or use its IP address"
        if origin is None or scope.get("method") in SAFE_METHODS:
            return None  # browsers send Origin with all other methods
        if origin.lower().partition("://")[2] != host.lower():
            return f"pages of {origin} may not use this server; a proxy must pass on the browser's Host header"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True
