"""The page on a socket of this machine, until a signal ends it."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rtmpose.files import UserError, disk_trouble, one_line

if TYPE_CHECKING:
    from fastapi import FastAPI

GRACE = 3  # seconds that open connections get at the end
NEEDED = ("fastapi", "uvicorn", "python_multipart")


def check_extra() -> None:
    """UserError where the packages of the extra `page` are not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"rtmpose serve: {', '.join(missing)} is not installed: pip install 'rtmpose[page]'")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; UserError where the address is not ours or the port is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: no address of this machine ({one_line(error)})") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        reason = (error.strerror or disk_trouble(error)).lower()
        raise UserError(
            f"--port {port}: {host} cannot be listened on ({reason}): give another --port"
        ) from None
    return found


def url_of(host: str, listener: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM; open ones then get a moment, temporary files go."""
    import uvicorn

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE, server_header=False
    )
    # uvicorn raises SIGINT once more when all is closed. It is how a page is ended, no accident.
    with listener, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
