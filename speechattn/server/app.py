"""The web application: its routes, and errors as one line of JSON."""

import asyncio
import logging
import mimetypes
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from speechattn.audio import AudioError
from speechattn.jobs.stamps import VERSION
from speechattn.model.classifier import FrameClassifier
from speechattn.prediction.files import FORMATS
from speechattn.server.analysis import Analysis, TooLong, analyse, file_of, page_data
from speechattn.server.guard import Guard
from speechattn.server.jobs import Jobs
from speechattn.server.limits import Limits
from speechattn.server.live import LiveSessions
from speechattn.server.uploads import clean_name, receive

__all__ = ["create_app"]

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv; charset=utf-8"}  # else text/plain

# The system's table may give another type, and browsers would refuse to run the scripts.
mimetypes.add_type("text/javascript", ".js")

logger = logging.getLogger("speechattn")


def create_app(
    model: FrameClassifier,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    *,
    about: str = "",
    allow_hosts: Iterable[str] = (),
) -> Starlette:
    """Make the application for one model.

    Args:
        model: In eval mode, with a front end and without pooling.
        limits: Limits for visitors.
        about: One or two sentences about the model, shown on the page.
        allow_hosts: See `Guard`.

    Raises:
        ValueError: If the model takes features, or has pooling.
    """
    if model.feature_dim is not None:
        raise ValueError("a model that takes features cannot be served: it has no front end for audio")
    if model.pooling is not None:
        raise ValueError("a model with pooling cannot be served: it labels utterances, not frames")
    server = _Server(model, limits, about)
    app = Starlette(
        routes=[
            Route("/", server.page),
            Route("/api/model", server.facts),
            Route("/api/phones", server.phones, methods=["POST"]),
            Route("/api/view", server.view, methods=["POST"]),
            WebSocketRoute("/api/live", server.live_sessions.serve),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, allow_hosts=tuple(allow_hosts))],
        exception_handlers={HTTPException: _refused, ClientDisconnect: _gone},
    )
    app.state.jobs = server.jobs
    return app


class _Server:
    """The request handlers."""

    def __init__(self, model: FrameClassifier, limits: Limits, about: str) -> None:
        self.model, self.limits = model, limits
        self.jobs = Jobs(limits)
        self.live_sessions = LiveSessions(model, limits)
        self._facts = _facts(model, limits) | {"about": about}

    async def page(self, request: Request) -> Response:
        """Send the page."""
        return FileResponse(STATIC / "index.html")

    async def facts(self, request: Request) -> Response:
        """Describe the model and the limits."""
        return JSONResponse(self._facts)

    async def phones(self, request: Request) -> Response:
        """Send the phones of the audio in the body as a file."""
        format_name = request.query_params.get("format", "json")
        if format_name not in FORMATS:
            raise HTTPException(400, f"format must be one of {', '.join(FORMATS)}, got {format_name!r}")

        def answer(analysis: Analysis, name: str) -> Response:
            file_name, text = file_of(analysis.segments, Path(name).stem, format_name)
            media_type = MEDIA_TYPES.get(format_name, "text/plain; charset=utf-8")
            return Response(text, media_type=media_type, headers={"Content-Disposition": _attachment(file_name)})

        return await self._analysed(request, answer)

    async def view(self, request: Request) -> Response:
        """Send everything that the page shows about the audio in the body."""

        def answer(analysis: Analysis, name: str) -> Response:
            return Response(page_data(self.model, analysis, name), media_type="application/json")

        return await self._analysed(request, answer)

    async def _analysed(self, request: Request, answer: Callable[[Analysis, str], Response]) -> Response:
        """Analyse the audio in the body and format the result with `answer`, in a thread."""
        name = clean_name(request.query_params.get("name", ""))
        smooth = request.query_params.get("smooth", "0")
        if smooth not in ("0", "1") or (smooth == "1" and self.model.phonotactics is None):
            raise HTTPException(400, f"smooth must be 0, or 1 if the model can smooth, got {smooth!r}")

        def job(path: Path) -> Response:
            try:
                return answer(analyse(self.model, path, self.limits, smooth=smooth == "1"), name)
            except ValueError as error:
                status = 413 if isinstance(error, TooLong) else 415 if isinstance(error, AudioError) else 400
                raise HTTPException(status, _line(error, path, name)) from error
            except Exception as error:  # must not affect other recordings
                logger.exception("%s could not be analysed", name)
                raise HTTPException(500, f"{name} could not be analysed; see the server's log") from error

        # A job that timed out may still have the file open; some systems cannot remove it then.
        with self.jobs.place(), TemporaryDirectory(prefix="speechattn-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "audio"  # no suffix: the format is detected from the content
            await receive(request, path, self.limits)
            return await _while_connected(request, self.jobs.run(job, path))


def _facts(model: FrameClassifier, limits: Limits) -> dict[str, Any]:
    try:
        model.stream()
        no_live = None
    except ValueError as error:
        no_live = str(error)
    return {
        "version": VERSION,
        "symbols": list(model.phones.symbols),
        "silences": sorted(model.phones.silences),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sample_rate": model.frontend.geometry.sample_rate,
        "lookahead_ms": model.lookahead_ms,
        "can_smooth": model.phonotactics is not None,
        "no_live": no_live,
        "limits": {"upload_mb": limits.upload_mb, "duration_s": limits.duration_s, "live_s": limits.live_s},
    }


async def _while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Await some work, and cancel it when the client disconnects."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnection(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _line(error: Exception, path: Path, name: str) -> str:
    """An error message in one line, with the visitor's file name instead of the temporary path."""
    return " ".join(str(error).replace(str(path), name).split())


def _attachment(file_name: str) -> str:
    return f"attachment; filename*=utf-8''{quote(file_name)}"


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client has disconnected
