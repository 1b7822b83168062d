"""A server of a tiny model, and a recording to send it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from served_app import served_app, streaming_model

from speechattn.model.classifier import FrameClassifier
from speechattn.server.app import create_app


@pytest.fixture(scope="session")
def tiny_model() -> FrameClassifier:
    return streaming_model()


@pytest.fixture(scope="session")
def server(tiny_model: FrameClassifier) -> Iterator[str]:
    with served_app(create_app(tiny_model)) as address:
        yield address


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.3 s of changing noise, 16-bit at 16 kHz."""
    path = tmp_path_factory.mktemp("recording") / "some speech.wav"
    generator = np.random.default_rng(0)
    loudness = np.repeat(generator.uniform(0.01, 0.3, 13), 1600)
    soundfile.write(path, loudness * generator.standard_normal(20800), 16000, subtype="PCM_16")
    return path
