"""Nobody can take more than the limits give, and who is refused is told so."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import soundfile
from served_app import send, served_app

from speechattn.server import analysis
from speechattn.server.app import create_app
from speechattn.server.limits import Limits


@pytest.fixture
def undecoded(monkeypatch):
    """Decoding anything is an error."""

    def decode(*arguments, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr("speechattn.audio.read_audio", decode)


@pytest.fixture
def slow(tiny_model, monkeypatch) -> Iterator[threading.Event]:
    """Jobs wait until the event is set; `started` counts those that began."""
    go, posteriors = threading.Event(), tiny_model.posteriors
    go.started = 0  # type: ignore[attr-defined]

    def waiting(samples):
        go.started += 1  # type: ignore[attr-defined]
        assert go.wait(60)
        return posteriors(samples)

    monkeypatch.setattr(tiny_model, "posteriors", waiting)
    yield go
    go.set()


def wait_until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_that_is_too_large(tiny_model, recording, declared):
    content = bytes(3_000_000)
    with served_app(create_app(tiny_model, Limits(upload_mb=1.5))) as address:
        pieces = content if declared else (content[i : i + 65536] for i in range(0, len(content), 65536))
        answer = requests.post(f"{address}/api/phones", data=pieces, timeout=30)
        assert answer.status_code == 413
        assert answer.json() == {"error": "the file is larger than 1.5 MB, the limit of this server"}
        assert send(address, recording).status_code == 200


def test_a_declared_length_below_the_true_one_gets_nowhere(server):
    with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port), timeout=10) as connection:
        request = b"POST /api/phones HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n" + bytes(100_000)
        connection.sendall(request)
        assert connection.recv(100).startswith(b"HTTP/1.1 415 ")


def test_a_recording_that_is_too_long_is_not_decoded(tiny_model, tmp_path, undecoded):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(16000 * 61), 16000)
    assert path.stat().st_size < 100_000
    with served_app(create_app(tiny_model, Limits(duration_s=60))) as address:
        answer = send(address, path)
    assert answer.status_code == 413
    assert answer.json() == {"error": "long.flac: lasts 61 s; this server accepts at most 60 s"}


def test_many_channels_and_odd_rates_are_not_decoded(server, tmp_path, monkeypatch, undecoded):
    monkeypatch.setattr(analysis, "MAX_SAMPLES", 100_000)
    soundfile.write(tmp_path / "wide.flac", np.zeros((20_000, 8)), 16000)
    answer = send(server, tmp_path / "wide.flac")
    assert answer.status_code == 413 and "8 channels of 20,000 samples" in answer.json()["error"]
    for rate in (100, 2_000_000):
        soundfile.write(tmp_path / "odd.wav", np.zeros(1000), rate)
        answer = send(server, tmp_path / "odd.wav")
        assert answer.status_code == 415 and f"its header states {rate} Hz" in answer.json()["error"]


def test_an_upload_that_does_not_arrive(tiny_model, recording):
    with served_app(create_app(tiny_model, Limits(upload_timeout_s=0.3, jobs=1, waiting=0))) as address:
        parts = urlsplit(address)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
            connection.sendall(b"POST /api/phones HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nRIFF")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 408
            assert json.loads(answer.read()) == {"error": "the file did not arrive within 0.3 s"}
        assert send(address, recording).status_code == 200


def test_a_full_server_refuses_and_goes_on(tiny_model, recording, slow):
    with (
        served_app(create_app(tiny_model, Limits(jobs=1, waiting=1))) as address,
        ThreadPoolExecutor(2) as clients,
    ):
        first = clients.submit(send, address, recording)
        wait_until(lambda: slow.started == 1)
        second = clients.submit(send, address, recording)
        time.sleep(0.5)  # for it to arrive
        answer = send(address, recording)
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["error"] == "the server is busy with 2 recordings: try again in a few seconds"
        assert requests.get(f"{address}/api/model", timeout=10).status_code == 200  # the loop is free
        slow.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        assert send(address, recording).status_code == 200


def test_a_job_that_takes_too_long(tiny_model, recording, slow):
    with served_app(create_app(tiny_model, Limits(jobs=1, job_timeout_s=0.3))) as address:
        late, waiting = send(address, recording), send(address, recording)
        for answer in (late, waiting):
            assert answer.status_code == 503 and "not finished within 0.3 s" in answer.json()["error"]
        slow.set()
        wait_until(lambda: send(address, recording).status_code == 200)
        assert slow.started == 2  # what timed out while waiting was never begun


def test_who_leaves_gives_up_the_place(tiny_model, recording, slow):
    with served_app(create_app(tiny_model, Limits(jobs=1, waiting=1))) as address, ThreadPoolExecutor(1) as clients:
        first = clients.submit(send, address, recording)
        wait_until(lambda: slow.started == 1)
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(f"{address}/api/phones", data=recording.read_bytes(), timeout=0.3)
        second = threading.Thread(target=send, args=(address, recording))
        second.start()
        time.sleep(0.3)
        slow.set()
        second.join(10)
        assert first.result().status_code == 200 and slow.started == 2


def test_fifty_at_once_and_then_one_more(tiny_model, recording):
    expected = [segment._asdict() for segment in tiny_model.classify(recording)]
    with served_app(create_app(tiny_model)) as address, ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: send(address, recording), range(50)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 503} and statuses.count(200) >= 18
        for answer in answers:
            if answer.status_code == 200:
                assert answer.json() == expected  # however many threads the model is in
            else:
                assert "busy" in answer.json()["error"] and answer.headers["retry-after"]
        assert send(address, recording).json() == expected


def test_garbage_on_the_line(server, recording):
    parts = urlsplit(server)
    for garbage in (
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00" * 50,
        b"POST / HTTP/1.1\r\nA: " + b"b" * 99_999,
    ):
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1000)[:12] in (b"", b"HTTP/1.1 400")
    assert json.loads(send(server, recording).content)


def test_limits_must_make_sense():
    assert Limits(waiting=0).waiting == 0
    for name in ("upload_mb", "jobs", "live_s", "job_timeout_s"):
        with pytest.raises(ValueError, match=f"limits.{name} must be positive and finite, got {name}=0"):
            Limits(**{name: 0})
    with pytest.raises(ValueError, match="limits.waiting must be positive"):
        Limits(waiting=-1)
    with pytest.raises(ValueError, match="duration_s=nan"):
        Limits(duration_s=float("nan"))
    with pytest.raises(ValueError, match="upload_mb=inf"):  # JSON could not tell the page of it
        Limits(upload_mb=float("inf"))
