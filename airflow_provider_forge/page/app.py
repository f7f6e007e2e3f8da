"""Serves the files of the page *Forge*: HTML, CSS, JavaScript and icons, which hold no data.

The page in the browser reads Airflow's own REST API with the session of the signed-in user. Airflow decides
what that user may see and do. There is no other route.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

__all__ = ["URL_PREFIX", "PageFiles"]

URL_PREFIX = "/forge"

STATIC = Path(__file__).parent / "static"

HEADERS = {
    # Nothing from another host, and no inline script or style.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    # Files keep their names in the next version.
    "cache-control": "no-cache",
}


class PageFiles:
    """An ASGI application that serves the files; it loads Starlette at the first request."""

    def __init__(self) -> None:
        self._files: Any = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Respond to a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        if self._files is None:
            # Airflow's other components load the plugin, too, and need no web framework for it.
            from starlette.applications import Starlette
            from starlette.routing import Mount
            from starlette.staticfiles import StaticFiles

            self._files = Starlette(routes=[Mount("/", StaticFiles(directory=STATIC, html=True))])

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._files(scope, receive, send_with_headers)
