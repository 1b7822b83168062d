"""Live phones over a WebSocket.

The client sends binary messages (16-bit little-endian samples of one channel at the model's rate) and finally the text
`end`. The server sends JSON objects with a `type`: first `ready`, then `phones` after each message, last `end` or
`error`; docs/server.md lists their fields.
"""

import time
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from speechattn.labels.intervals import Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.prediction.live import LiveSegments
from speechattn.server.limits import Limits

__all__ = ["MAX_MESSAGE_BYTES", "LiveSessions"]

MAX_MESSAGE_BYTES = 1 << 16  # two seconds at 16 kHz

# Codes of RFC 6455, section 7.4.1.
NORMAL, UNSUPPORTED, POLICY, TRY_AGAIN = 1000, 1003, 1008, 1013


class _SessionError(Exception):
    """An error that ends a session; the message is for the client."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class LiveSessions:
    """The live sessions of a server.

    Args:
        model: In eval mode.
        limits: Number of sessions, and time limits.
    """

    def __init__(self, model: FrameClassifier, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self._open = 0

    async def serve(self, websocket: WebSocket) -> None:
        """Run one session, from connection to end."""
        try:
            await websocket.accept()
            try:
                await self._admit(websocket)
            except _SessionError as error:
                await websocket.send_json({"type": "error", "error": str(error)})
                await websocket.close(error.code)
        except WebSocketDisconnect:
            pass

    async def _admit(self, websocket: WebSocket) -> None:
        if self._open >= self.limits.live_sessions:
            raise _SessionError(TRY_AGAIN, f"all {self._open} live sessions of this server are in use")
        self._open += 1
        try:
            await self._run(websocket)
        finally:
            self._open -= 1

    async def _run(self, websocket: WebSocket) -> None:
        model, limits = self.model, self.limits
        try:
            live = LiveSegments(model)
        except ValueError as error:
            raise _SessionError(POLICY, str(error)) from error
        rate = model.frontend.geometry.sample_rate
        started = time.monotonic()
        await websocket.send_json(
            {"type": "ready", "sample_rate": rate, "lookahead_ms": model.lookahead_ms, "longest_s": limits.live_s}
        )
        while True:
            left = limits.live_s - max(time.monotonic() - started, live.num_samples / rate)
            if left <= 0:
                break
            try:
                with anyio.fail_after(min(left, limits.live_idle_s)):
                    samples = _samples(await websocket.receive())
            except TimeoutError as error:
                if left <= limits.live_idle_s:
                    break
                raise _SessionError(POLICY, f"no samples received for {limits.live_idle_s:g} s") from error
            if samples is None:
                break
            ended = await anyio.to_thread.run_sync(live.push, samples)
            await websocket.send_json(
                {"type": "phones", **_segments(ended, live.unfinished), "heard": live.num_samples / rate}
            )
        ended = await anyio.to_thread.run_sync(live.flush)
        await websocket.send_json({"type": "end", **_segments(ended, None), "heard": live.num_samples / rate})
        await websocket.close(NORMAL)


def _samples(message: Message) -> np.ndarray | None:
    """The samples in a message, (n,) int16; None at the end."""
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", NORMAL))
    if message.get("text") == "end":
        return None
    data = message.get("bytes")
    if not data or len(data) % 2 or len(data) > MAX_MESSAGE_BYTES:
        raise _SessionError(
            UNSUPPORTED, f"expected 16-bit samples, at most {MAX_MESSAGE_BYTES} bytes per message, or the text `end`"
        )
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def _segments(ended: list[Segment], unfinished: Segment | None) -> dict[str, Any]:
    return {
        "segments": [segment._asdict() for segment in ended],
        "unfinished": None if unfinished is None else unfinished._asdict(),
    }
