"""The server of `speechattn serve` in a thread, at a free port of the loopback interface, and a model for it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import requests
import torch
import uvicorn
from starlette.types import ASGIApp

from speechattn.decoding.smoothing import phonotactics_of
from speechattn.frontend import FrontendConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.server.serving import configuration


def streaming_model() -> FrameClassifier:
    """A tiny untrained model that can stream and smooth; with strong weights, so that its posteriors differ."""
    torch.manual_seed(0)
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3)
    model = FrameClassifier(ClassifierConfig(encoder=encoder, frontend=FrontendConfig(normalisation="none"))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    labels = np.repeat(np.random.default_rng(0).integers(len(model.phones), size=400), 3)
    model.phonotactics = phonotactics_of([labels], len(model.phones))
    return model


@contextmanager
def served_app(app: ASGIApp) -> Iterator[str]:
    """Serve an application; its address, without a slash at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(configuration(app))
        thread = Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            if thread.is_alive():  # a job that nobody waits for any more, on a busy machine
                server.force_exit = True
                thread.join(90)
            assert not thread.is_alive()


def send(address: str, path: Path | bytes, where: str = "phones", **query: str) -> requests.Response:
    """A file to the server, and its answer."""
    content = path if isinstance(path, bytes) else path.read_bytes()
    if isinstance(path, Path):
        query.setdefault("name", path.name)
    return requests.post(f"{address}/api/{where}", data=content, params=query, timeout=60)
