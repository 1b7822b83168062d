"""Live phones are those of the whole recording, and a session ends as it should."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from served_app import served_app
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from speechattn.frontend import FrontendConfig
from speechattn.labels.intervals import Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.server.app import create_app
from speechattn.server.limits import Limits


@contextmanager
def live(address: str, **options) -> Iterator[ClientConnection]:
    with connect(f"{address.replace('http', 'ws')}/api/live", **options) as session:
        yield session


def told(session: ClientConnection) -> dict:
    return json.loads(session.recv(timeout=30))


def spoken(recording: Path) -> np.ndarray:
    return soundfile.read(recording, dtype="int16")[0]


def hear(session: ClientConnection, samples: np.ndarray, sizes: list[int]) -> list[dict]:
    """Everything that a session tells when it gets samples in pieces of these sizes, over and over."""
    messages = [told(session)]
    first = number = 0
    while first < len(samples):
        size = sizes[number % len(sizes)]
        session.send(samples[first : first + size].astype("<i2").tobytes())
        messages.append(told(session))
        first, number = first + size, number + 1
    session.send("end")
    messages.append(told(session))
    return messages


@pytest.mark.parametrize("sizes", [[1600], [1, 399, 7, 3000], [32768]])
def test_live_phones_are_those_of_the_recording(server, tiny_model, recording, sizes):
    samples = spoken(recording)
    with live(server) as session:
        ready, *heard, end = hear(session, samples, sizes)
        with pytest.raises(ConnectionClosed) as closed:
            session.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
    assert ready == {
        "type": "ready",
        "sample_rate": 16000,
        "lookahead_ms": tiny_model.lookahead_ms,
        "longest_s": 600,
    }
    expected = tiny_model.classify(recording)
    segments = [Segment(**segment) for message in (*heard, end) for segment in message["segments"]]
    assert [segment[:3] for segment in segments] == [segment[:3] for segment in expected]
    confidences = [segment.confidence for segment in segments]
    np.testing.assert_allclose(confidences, [segment.confidence for segment in expected], atol=1e-4)
    assert end["type"] == "end" and end["unfinished"] is None and end["heard"] == 1.3
    final = 0.0
    for message in heard:
        assert message["type"] == "phones"
        final = message["segments"][-1]["end"] if message["segments"] else final
        if message["unfinished"]:
            assert message["unfinished"]["start"] == final
            # No later than the look-ahead, of which a segment lacks half a hop.
            assert message["heard"] - message["unfinished"]["end"] < tiny_model.lookahead_ms / 1000 + 0.01


def test_phones_come_before_the_end(server, recording):
    with live(server) as session:
        _, *heard, end = hear(session, spoken(recording), [1600])
    assert sum(len(message["segments"]) for message in heard) > len(end["segments"])


def test_a_session_without_speech(server):
    with live(server) as session:
        session.send("end")
        assert [told(session)["type"], told(session)] == [
            "ready",
            {"type": "end", "segments": [], "unfinished": None, "heard": 0.0},
        ]
    with live(server) as session:  # less than a frame
        _, heard, end = hear(session, np.zeros(100, dtype=np.int16), [100])
        assert heard["segments"] == end["segments"] == []


@pytest.mark.parametrize("message", ["stop", b"", b"123", bytes(65538), "x" * 70_000, b"\xff" * 65535])
def test_what_is_no_samples_ends_it(server, recording, message):
    with live(server) as session:
        told(session)
        session.send(message)
        try:
            answer = told(session)
            assert answer["type"] == "error" and "expected 16-bit samples" in answer["error"]
        except ConnectionClosed:  # too large for the protocol's own limit
            assert len(message) > 65536
        with pytest.raises(ConnectionClosed) as closed:
            session.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code in (1003, 1009)
    with live(server) as session:
        assert hear(session, spoken(recording), [4000])[-1]["type"] == "end"


def test_a_silent_connection_is_ended(tiny_model):
    with served_app(create_app(tiny_model, Limits(live_idle_s=0.2))) as address, live(address) as session:
        told(session)
        assert told(session) == {"type": "error", "error": "no samples received for 0.2 s"}


def test_a_session_ends_at_its_longest(tiny_model, recording):
    with served_app(create_app(tiny_model, Limits(live_s=0.5))) as address, live(address) as session:
        told(session)
        for first in range(0, 16000, 1600):
            session.send(spoken(recording)[first : first + 1600].tobytes())
        messages = [told(session)]
        while messages[-1]["type"] == "phones":
            messages.append(told(session))
    assert messages[-1]["type"] == "end" and messages[-1]["heard"] == 0.5
    assert messages[-1]["segments"][-1]["end"] == 0.5


def test_a_session_ends_at_its_longest_on_the_clock_too(tiny_model, recording):
    with served_app(create_app(tiny_model, Limits(live_s=0.5, live_idle_s=10))) as address, live(address) as session:
        told(session)
        session.send(spoken(recording)[:1600].tobytes())
        assert told(session)["type"] == "phones"
        end = told(session)
    assert end["type"] == "end" and end["heard"] == 0.1 == end["segments"][-1]["end"]


def test_one_session_too_many(tiny_model, recording):
    with served_app(create_app(tiny_model, Limits(live_sessions=2))) as address:
        with live(address) as first, live(address) as second:
            assert [told(first)["type"], told(second)["type"]] == ["ready", "ready"]
            with live(address) as third:
                error = "all 2 live sessions of this server are in use"
                assert told(third) == {"type": "error", "error": error}
        for _ in range(100):  # those that were left count no more
            with live(address) as session:
                if told(session)["type"] == "ready":
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("no place became free")


def test_a_model_that_cannot_stream_says_why():
    small = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=None, feed_forward=16, conv_kernel=0)
    model = FrameClassifier(ClassifierConfig(encoder=small, frontend=FrontendConfig(normalisation="none"))).eval()
    with served_app(create_app(model)) as address, live(address) as session:
        answer = told(session)
        assert answer["type"] == "error" and "right=None needs the whole utterance" in answer["error"]


def test_other_sites_cannot_listen(server):
    with pytest.raises(InvalidStatus) as refused, live(server, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with live(server, origin=server) as session:
        assert told(session)["type"] == "ready"
