"""A headless Chromium with a microphone that plays a file, and the page of a tiny model in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from served_app import served_app, streaming_model

from speechattn.alignment.espeak_process import ESPEAK_RATE, Request, synthesise
from speechattn.model.classifier import FrameClassifier
from speechattn.server.app import create_app

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# What a page does is noted before it happens: what is played is not to be heard in a test.
NOTES = """
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, from, duration) {
  window.played.push({ from, duration, rate: this.buffer.sampleRate, samples: this.buffer.length });
  return start.call(this, when, from, duration);
};
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

expect.set_options(timeout=20_000)  # on a busy machine


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About two seconds of speech, a WAV file at 22,050 Hz."""
    path = tmp_path_factory.mktemp("spoken") / "the cat sat.wav"
    (speech,) = synthesise("en-us", [Request("The cat sat on the mat.", 160, 50)])
    soundfile.write(path, np.array(speech.samples, dtype=np.int16), ESPEAK_RATE)
    return path


@pytest.fixture(scope="session")
def model() -> FrameClassifier:
    return streaming_model()


@pytest.fixture(scope="session")
def server(model: FrameClassifier) -> Iterator[str]:
    with served_app(create_app(model)) as address:
        yield address


@pytest.fixture(scope="session")
def browser(spoken: Path) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert program, f"no Chromium is installed: none of {', '.join(CHROMIUM)} is there"
    arguments = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def context_options() -> dict:
    """Overridden by tests that want another screen."""
    return {"viewport": {"width": 1200, "height": 900}}


@pytest.fixture
def context(browser: Browser, context_options: dict) -> Iterator[BrowserContext]:
    context = browser.new_context(**context_options)
    context.add_init_script(NOTES)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, server: str) -> Iterator[Page]:
    """The page, ready. In the end it must have had no error, and asked no other host for anything."""
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(server)
    expect(page.get_by_role("button", name="Choose a file")).to_be_enabled()
    yield page
    assert [error for error in errors if not error.startswith("Failed to load resource")] == []
    assert page.evaluate("window.violations") == []
    assert asked and {urlsplit(url.removeprefix("blob:")).netloc for url in asked} == {urlsplit(server).netloc}
