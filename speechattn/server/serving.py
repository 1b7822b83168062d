"""Run the server: load the model, open the socket, print the address."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from speechattn.server.limits import Limits

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

__all__ = ["configuration", "serve"]

MAX_CONNECTIONS = 256


def serve(
    model_name: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    allow_hosts: Iterable[str] = (),
) -> None:
    """Serve the page of a model until interrupted.

    Args:
        model_name: As for `FrameClassifier.from_pretrained`.
        host: Address to listen on; the default accepts connections from this machine only.
        port: Port to listen on; 0: any free port.
        limits: Limits for visitors.
        allow_hosts: Other host names of the server, such as that of a proxy.

    Raises:
        ImportError: If the libraries of the extra `serve` are missing.
        ValueError: If the address cannot be used, there is no such model, or it cannot be served.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
        import websockets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'the web page needs starlette, uvicorn and websockets: pip install "speechattn[serve]" ({error})'
        ) from error
    import torch

    from speechattn.model.classifier import FrameClassifier
    from speechattn.model.files import model_files
    from speechattn.model.hub import card_summary
    from speechattn.server.app import create_app

    with _bound(host, port) as listener:  # before loading the model, to fail at once if the port is in use
        model = FrameClassifier.from_pretrained(model_name)
        files = model_files(model_name)  # none for a model on the Hub
        about = card_summary(next(iter(files.values())).with_name("README.md")) if files else ""
        app = create_app(model, limits, about=about, allow_hosts=allow_hosts)
        torch.set_num_threads(max((os.cpu_count() or 1) // limits.jobs, 1))
        config = configuration(app)
        listener.listen(config.backlog)
        print(_greeting(listener), flush=True)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            if app.state.jobs.working:  # Python would wait for the thread, which cannot be stopped
                os._exit(130)
            raise


def configuration(app: ASGIApp) -> uvicorn.Config:
    """Configuration of uvicorn."""
    import uvicorn

    from speechattn.server.live import MAX_MESSAGE_BYTES

    return uvicorn.Config(
        app,
        http="h11",  # reads on after a refusal, so that the client receives it
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level=logging.ERROR,  # bad requests are answered, not logged
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=3,
    )


def _bound(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port must lie in 0..65535, got port={port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # on Windows it would let two servers share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = f"{error.strerror}; choose another --host or --port"
        raise ValueError(f"cannot listen on {host}, port {port}: {reason}") from error
    return listener


def _greeting(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    shown = "localhost" if address.is_unspecified else f"[{host}]" if address.version == 6 else host
    greeting = f"http://{shown}:{port}/ (stop with Ctrl-C)"
    if not address.is_loopback:
        greeting += "; anyone who can reach this machine can use it; browsers allow the microphone only over HTTPS"
    return greeting
