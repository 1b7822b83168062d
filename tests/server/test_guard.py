"""Other sites' pages are refused, and ours may do nothing elsewhere."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import pytest
import requests
from served_app import send, served_app

from speechattn.server.app import create_app


def asked(address: str, method: str = "GET", where: str = "/api/model", **headers: str) -> http.client.HTTPResponse:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request(method, where, body=b"not audio" if method == "POST" else None, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("192.168.1.17:8000", True),
        ("[::1]:8000", True),
        ("[fe80::1]", True),
        (f"{socket.gethostname()}:8000", True),
        ("phones.example", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_only_its_own_names_lead_to_the_server(tiny_model, host, allowed):
    with served_app(create_app(tiny_model, allow_hosts=["Phones.example"])) as address:
        assert asked(address, Host=host).status == (200 if allowed else 403)


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", 415),
        ("https://localhost", "localhost", 415),  # a proxy that ends TLS
        (None, "localhost", 415),  # curl
        ("http://evil.example", "localhost", 403),
        ("http://localhost:9000", "localhost:8000", 403),
        ("http://localhost.evil.example", "localhost", 403),
        ("http://[", "localhost", 403),  # no URL
        ("null", "localhost", 403),  # a sandboxed frame, a file
        ("", "localhost", 403),
    ],
)
def test_only_its_own_pages_may_send_it_anything(server, origin, host, status):
    headers = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    assert asked(server, "POST", "/api/phones", **headers).status == status
    assert asked(server, "GET", "/api/model", **headers).status == 200


def test_every_answer_has_the_headers(server, recording):
    answers = [
        requests.get(server, timeout=10),
        requests.get(f"{server}/static/app.js", timeout=10),
        requests.get(f"{server}/nowhere", timeout=10),
        send(server, recording),
        send(server, b"not audio"),
        send(server, recording, "view", name="<script>.wav"),
        requests.get(server, headers={"Host": "evil.example"}, timeout=10),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 415, 200, 403]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "//" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        assert not any(name.lower().startswith("access-control") for name in answer.headers)
        assert "server" not in answer.headers
