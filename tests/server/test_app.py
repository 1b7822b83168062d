"""What the server answers: the model's own results, in each form, and a line for every mistake."""

from __future__ import annotations

import base64
import http.client
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import soundfile
from served_app import send, served_app

from speechattn.frontend import FrontendConfig
from speechattn.labels.files import read_csv
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.prediction.files import FORMATS, OutputOptions, predict_files
from speechattn.server.app import STATIC, create_app
from speechattn.server.uploads import clean_name

SMALL = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3)


@pytest.mark.parametrize("smooth", [False, True])
def test_files_are_those_that_predict_writes(server, tiny_model, recording, tmp_path, smooth):
    predict_files(tiny_model, {"some speech": recording}, OutputOptions(list(FORMATS), smooth=smooth), output=tmp_path)
    for name, (suffix, _) in FORMATS.items():
        answer = send(server, recording, format=name, smooth=str(int(smooth)))
        assert answer.status_code == 200
        assert answer.content == (tmp_path / f"some speech{suffix}").read_bytes()
        assert answer.headers["content-disposition"] == f"attachment; filename*=utf-8''some%20speech{suffix}"


@pytest.mark.parametrize("smooth", [False, True])
def test_the_page_gets_what_the_model_heard_and_found(server, tiny_model, recording, smooth):
    answer = send(server, recording, "view", smooth=str(int(smooth)))
    assert answer.status_code == 200
    shown = answer.json()
    samples = np.frombuffer(base64.b64decode(shown["samples"]), dtype="<i2")
    assert np.array_equal(samples, soundfile.read(recording, dtype="int16")[0])
    expected = tiny_model.posteriors(tiny_model.samples(recording))
    posteriors = np.frombuffer(base64.b64decode(shown["posteriors"]), dtype="<u2").reshape(expected.shape) / 65535
    np.testing.assert_allclose(posteriors, expected, atol=1e-5)
    segments = tiny_model.classify(recording, smooth=smooth)
    assert shown["segments"] == [segment._asdict() for segment in segments]
    assert len({segment.phone for segment in segments}) > 1
    assert shown["frames"] == {"count": len(expected), "first_centre": 200, "hop": 160}
    assert (shown["name"], shown["duration"], shown["sample_rate"]) == ("some speech.wav", 1.3, 16000)
    assert shown["symbols"] == list(tiny_model.phones.symbols) and shown["silences"] == ["SIL"]
    for name, (suffix, _) in FORMATS.items():
        assert shown["files"][name] == {
            "name": f"some speech{suffix}",
            "text": send(server, recording, format=name, smooth=str(int(smooth))).text,
        }


@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels"),
    [
        ("WAV", "PCM_24", 44100, 2),
        ("FLAC", "PCM_16", 8000, 1),
        ("NIST", "PCM_16", 16000, 1),
        ("WAV", "GSM610", 8000, 1),
    ],
)
def test_audio_of_any_kind_is_taken_by_its_content(server, tmp_path, container, codec, rate, channels):
    path = tmp_path / "x.bin"
    noise = 0.1 * np.random.default_rng(0).standard_normal((rate, channels))
    soundfile.write(path, noise, rate, format=container, subtype=codec)
    answer = send(server, path, format="csv")
    assert answer.status_code == 200, answer.text
    (tmp_path / "x.csv").write_bytes(answer.content)
    segments = read_csv(tmp_path / "x.csv")
    assert segments[0].start == 0 and segments[-1].end == pytest.approx(soundfile.info(path).frames / rate)


def test_speech_of_timit(server, tiny_model, speech, tmp_path):
    soundfile.write(tmp_path / "a.wav", speech[0], 16000)
    expected = [segment._asdict() for segment in tiny_model.classify(tmp_path / "a.wav")]
    assert send(server, tmp_path / "a.wav").json() == expected


def test_facts_of_the_model(server, tiny_model):
    facts = requests.get(f"{server}/api/model", timeout=10).json()
    assert facts["symbols"] == list(tiny_model.phones.symbols) and facts["about"] == ""
    assert facts["lookahead_ms"] == tiny_model.lookahead_ms and facts["no_live"] is None and facts["can_smooth"]
    assert facts["limits"] == {"upload_mb": 100, "duration_s": 600, "live_s": 600}


def test_a_model_that_cannot_smooth_or_stream_says_so(recording):
    model = FrameClassifier(ClassifierConfig(encoder=SMALL, frontend=FrontendConfig(normalisation="utterance"))).eval()
    with served_app(create_app(model)) as address:
        facts = requests.get(f"{address}/api/model", timeout=10).json()
        assert not facts["can_smooth"] and "whole" in facts["no_live"]
        answer = send(address, recording, smooth="1")
        assert answer.status_code == 400 and "smooth" in answer.json()["error"]
        assert send(address, recording, smooth="0").status_code == 200


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"format": "mp4"}, "format must be one of textgrid, ctm, json, csv, audacity, got 'mp4'"),
        ({"smooth": "yes"}, "smooth must be 0, or 1 if the model can smooth, got 'yes'"),
    ],
)
def test_bad_questions_are_answered(server, recording, query, error):
    answer = send(server, recording, **query)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


def test_wrong_addresses_and_methods_are_answered(server):
    for method, where, status in [("GET", "/api/phones", 405), ("GET", "/nowhere", 404), ("POST", "/", 405)]:
        answer = requests.request(method, server + where, timeout=10)
        assert answer.status_code == status and list(answer.json()) == ["error"]
    assert send(server, b"").json() == {
        "error": "the file is empty (0 bytes): send the audio as the body of the request"
    }


def test_an_error_of_ours_is_not_the_visitors(tiny_model, recording, monkeypatch, caplog):
    def broken(samples):
        raise RuntimeError("secret")

    monkeypatch.setattr(tiny_model, "posteriors", broken)
    with served_app(create_app(tiny_model)) as address:
        answer = send(address, recording)
        assert answer.status_code == 500
        assert answer.json() == {"error": "some speech.wav could not be analysed; see the server's log"}
        assert "secret" in caplog.text
        monkeypatch.undo()
        assert send(address, recording).status_code == 200


def test_models_that_cannot_be_served_are_refused():
    with pytest.raises(ValueError, match="takes features cannot be served"):
        create_app(FrameClassifier(ClassifierConfig(encoder=SMALL, frontend=None, feature_dim=39)))
    with pytest.raises(ValueError, match="with pooling cannot be served"):
        create_app(FrameClassifier(ClassifierConfig(encoder=SMALL, pooling="mean", symbols=("yes", "no"))))


# ------------------------------------------------------------------------------------------ its own files


def test_the_page_and_all_that_it_needs_are_served(server):
    page = requests.get(server, timeout=10)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (STATIC / "index.html").read_bytes()
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "static/app.js" in linked
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in STATIC.iterdir():
        if path.name != "index.html":
            answer = requests.get(f"{server}/static/{path.name}", timeout=10)
            assert answer.content == path.read_bytes()
            assert answer.headers["content-type"].startswith(types[path.suffix])
    for name in linked:
        assert requests.get(f"{server}/{name}", timeout=10).status_code == 200
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'(?:from |new URL\()"(?:\./)?([a-z-]+\.js)"', path.read_text()):
            assert (STATIC / name).is_file()


def test_the_page_offers_every_format():
    links = re.findall(r'<a id="save-(\w+)"', (STATIC / "index.html").read_text(encoding="utf-8"))
    assert links == list(FORMATS)


def test_the_page_needs_no_other_host():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|@import", text), path.name


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
        "/static/..\\app.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/.",
        "/static/",
        "//etc/passwd",
        "/../../../../../../etc/passwd",
        "/static/" + "a" * 5000,
        "/api/../app.py",
    ],
)
def test_no_other_file_can_be_read(server, path):
    parts = urlsplit(server)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", path)  # as it is, which `requests` would not send
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    content = answer.read()
    assert b"root:" not in content and b"create_app" not in content
    connection.close()


def test_nothing_is_left_on_the_disk(server, recording, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert send(server, recording, "view").status_code == 200
    assert send(server, b"not audio").status_code == 415
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("/etc/passwd", "passwd"),
        ("..", "recording"),
        ("", "recording"),
        ("a\r\nSet-Cookie: b.wav", "aSet-Cookie b.wav"),
        ("\u202egpj.wav", "gpj.wav"),
        ("<b>x</b>.wav", "b.wav"),
        ("höre ʃ.wav", "höre ʃ.wav"),
        ("ʃ" * 200 + ".wav", "ʃ" * 50),
    ],
)
def test_names_are_cleaned(server, recording, name, clean):
    assert clean_name(name) == clean
    answer = send(server, recording, "view", name=name)
    assert answer.json()["files"]["csv"]["name"] == f"{Path(clean).stem}.csv"
    assert send(server, recording, name=name, format="textgrid").status_code == 200
