"""Phones while somebody speaks: samples come in over a WebSocket, segments go out as they become final.

The client sends binary messages, 16-bit little-endian samples of one channel at the model's rate, and in the end the
text `end`. The server sends JSON objects with a `type`: `ready` first, `phones` after each message, `end` or `error`
last; docs/server.md has their fields.
"""

from __future__ import annotations

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

__all__ = ["LARGEST_MESSAGE", "LiveSessions"]

LARGEST_MESSAGE = 1 << 16  # bytes, two seconds at 16 kHz

# Codes of RFC 6455, section 7.4.1.
NORMAL, UNSUPPORTED, POLICY, TRY_AGAIN = 1000, 1003, 1008, 1013


class _Ending(Exception):
    """Why a session cannot go on, for the client."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class LiveSessions:
    """Those of one server.

    Args:
        model: In eval mode.
        limits: How many at a time, and how long.
    """

    def __init__(self, model: FrameClassifier, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self._open = 0

    async def serve(self, websocket: WebSocket) -> None:
        """Hold one session, from its connection to its end."""
        try:
            await websocket.accept()
            try:
                await self._hold(websocket)
            except _Ending as ending:
                await websocket.send_json({"type": "error", "error": str(ending)})
                await websocket.close(ending.code)
        except WebSocketDisconnect:
            pass

    async def _hold(self, websocket: WebSocket) -> None:
        if self._open >= self.limits.live_sessions:
            raise _Ending(TRY_AGAIN, f"{self._open} live sessions are open, the most that this server takes")
        self._open += 1
        try:
            await self._converse(websocket)
        finally:
            self._open -= 1

    async def _converse(self, websocket: WebSocket) -> None:
        model, limits = self.model, self.limits
        try:
            live = LiveSegments(model)
        except ValueError as error:
            raise _Ending(POLICY, str(error)) from error
        rate = model.frontend.geometry.sample_rate
        began = time.monotonic()
        await websocket.send_json(
            {"type": "ready", "sample_rate": rate, "lookahead_ms": model.lookahead_ms, "longest_s": limits.live_s}
        )
        while True:
            left = limits.live_s - max(time.monotonic() - began, live.num_samples / rate)
            if left <= 0:
                break
            try:
                with anyio.fail_after(min(left, limits.live_idle_s)):
                    samples = _samples(await websocket.receive())
            except TimeoutError as error:
                if left <= limits.live_idle_s:
                    break
                raise _Ending(POLICY, f"nothing came for {limits.live_idle_s:g} s") from error
            if samples is None:
                break
            ended = await anyio.to_thread.run_sync(live.push, samples)
            await websocket.send_json(
                {"type": "phones", **_told(ended, live.unfinished), "heard": live.num_samples / rate}
            )
        ended = await anyio.to_thread.run_sync(live.flush)
        await websocket.send_json({"type": "end", **_told(ended, None), "heard": live.num_samples / rate})
        await websocket.close(NORMAL)


def _samples(message: Message) -> np.ndarray | None:
    """The samples in a message, int16; None at the end."""
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", NORMAL))
    if message.get("text") == "end":
        return None
    data = message.get("bytes")
    if not data or len(data) % 2 or len(data) > LARGEST_MESSAGE:
        raise _Ending(
            UNSUPPORTED,
            f"expected 16-bit samples, at most {LARGEST_MESSAGE} bytes in a message, or the text `end`",
        )
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def _told(ended: list[Segment], unfinished: Segment | None) -> dict[str, Any]:
    return {
        "segments": [segment._asdict() for segment in ended],
        "unfinished": None if unfinished is None else unfinished._asdict(),
    }
