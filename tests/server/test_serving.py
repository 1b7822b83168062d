"""`speechattn serve` as a command: its address, its end, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
from refused import refused
from served_app import send

from speechattn.model.classifier import FrameClassifier

ROOT = Path(__file__).resolve().parents[2]


def test_it_prints_its_address_serves_and_ends_at_ctrl_c(tiny_model, recording, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    # A rate that takes long to resample, many times as long as the request below waits.
    soundfile.write(tmp_path / "slow.flac", np.zeros(44_101 * 599, dtype=np.int16), 44_101)
    command = [sys.executable, "-m", "speechattn", "serve", "--model", str(tmp_path / "model"), "--port", "0"]
    options = ["--max-duration", "599", "--allow-host", "a.example", "--allow-host", "b.example"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("http://127.0.0.1:") and line.endswith("/ (stop with Ctrl-C)\n")
            address = line.split("/ ")[0]
            for host, status in (("a.example", 200), ("b.example", 200), ("c.example", 403)):
                assert requests.get(address, headers={"Host": host}, timeout=10).status_code == status
            assert send(address, recording).status_code == 200
            with pytest.raises(requests.exceptions.ReadTimeout):  # it is at work
                requests.post(f"{address}/api/phones", data=(tmp_path / "slow.flac").read_bytes(), timeout=2)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stdout.read() == ""
            assert process.stderr.read() == "speechattn: audio at 44101 Hz is resampled to 16000 Hz\n"
        finally:
            process.kill()  # where it did not end
    assert list(tmp_path.glob("speechattn-*")) == []


def test_without_a_model_it_serves_the_one_of_the_package():
    command = [sys.executable, "-m", "speechattn", "serve", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().split("/ ")[0]
            facts = requests.get(f"{address}/api/model", timeout=10).json()
        finally:
            process.send_signal(signal.SIGINT)
    model = FrameClassifier.from_pretrained("english-small")
    assert facts["symbols"] == list(model.phones.symbols)
    assert facts["about"].startswith("Finds the phones of English")
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_a_port_that_is_taken_is_one_line(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refused(capsys, "serve", "--model", tmp_path, "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}: " in message and "choose another --host or --port" in message


def test_other_mistakes_are_one_line(capsys, tmp_path, monkeypatch):
    assert "no model at" in refused(capsys, "serve", "--model", tmp_path, "--port", 0)
    assert "port must lie in 0..65535" in refused(capsys, "serve", "--model", tmp_path, "--port", 70000)
    assert "cannot listen on 203.0.113.1" in refused(capsys, "serve", "--model", tmp_path, "--host", "203.0.113.1")
    assert "jobs must be positive" in refused(capsys, "serve", "--model", tmp_path, "--num-jobs", 0)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'pip install "speechattn[serve]"' in refused(capsys, "serve", "--model", tmp_path)
