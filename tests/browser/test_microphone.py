"""Recording and live phones, by a microphone that plays a file."""

import io
import re

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect
from served_app import served_app

from speechattn.frontend import FrontendConfig
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.server.app import create_app
from speechattn.server.limits import Limits

pytestmark = pytest.mark.browser


def test_a_recording_is_shown(page: Page):
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("status")).to_have_text("Recording …")
    expect(page.get_by_role("button", name="Live")).to_be_disabled()
    expect(page.locator("#input-time")).to_have_text(re.compile(r"^(1\.[5-9]|[2-9]|\d\d)"))
    assert page.get_by_role("meter", name="Input level").evaluate("meter => meter.value") > 0
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("heading", name="recording.wav")).to_be_visible()
    seconds = float(page.locator("#result-facts").inner_text().split()[0])
    assert 1.5 <= seconds < 10
    expect(page.get_by_role("option").first).to_be_attached()
    expect(page.get_by_role("button", name="Live")).to_be_enabled()


def test_live_phones_are_those_of_the_recording(page: Page):
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("status")).to_have_text("Listening …")
    transcript = page.get_by_role("log", name="Phones so far")
    expect(transcript.locator("span").nth(20)).to_be_attached()
    expect(page.locator("#live-latency")).to_have_text(re.compile(r"^phones appear \d+ ms after their end$"))
    assert page.locator("#live-spectrogram").evaluate(
        "canvas => new Set(new Uint32Array(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > 4"
    )
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Show this recording").wait_for()
    live = transcript.locator("span").all_inner_texts()
    assert len(live) < 400  # all of it
    page.get_by_label("Smooth").evaluate("box => (box.checked = false)")
    with page.expect_response("**/api/view*") as answer:
        page.get_by_role("button", name="Show this recording").click()
    segments = answer.value.json()["segments"]
    phones = ["·" if segment["phone"] == "SIL" else segment["phone"] for segment in segments]
    assert [text.strip() for text in live] == phones
    expect(page.get_by_role("heading", name="live.wav")).to_be_visible()


def test_live_sessions_end_at_their_longest(browser: Browser, model: FrameClassifier):
    with served_app(create_app(model, Limits(live_s=1.0, live_sessions=1))) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("button", name="Live").click()
        expect(page.get_by_role("status")).to_have_text(re.compile(r"^Live: \d+ phones\.$"))
        expect(page.get_by_role("button", name="Live")).to_be_enabled()
        page.close()


def test_a_refused_live_session_says_why(browser: Browser, model: FrameClassifier):
    with served_app(create_app(model, Limits(live_sessions=1))) as address:
        pages = [browser.new_page(), browser.new_page()]
        for page in pages:
            page.goto(address)
        pages[0].get_by_role("button", name="Live").click()
        expect(pages[0].get_by_role("status")).to_have_text("Listening …")
        pages[1].get_by_role("button", name="Live").click()
        expect(pages[1].get_by_role("alert")).to_contain_text("all 1 live sessions of this server are in use")
        expect(pages[1].get_by_role("button", name="Live")).to_be_enabled()
        for page in pages:
            page.close()


def test_a_model_that_cannot_stream_has_no_live_mode(browser: Browser):
    small = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=0)
    frontend = FrontendConfig(normalisation="utterance")
    model = FrameClassifier(ClassifierConfig(encoder=small, frontend=frontend)).eval()
    with served_app(create_app(model)) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.get_by_role("button", name="Record")).to_be_enabled()
        expect(page.get_by_role("button", name="Live")).to_be_disabled()
        expect(page.locator("#no-live")).to_contain_text("No live phones: ")
        page.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NotAllowedError", "Permission to use the microphone was denied."),
        ("NotFoundError", "No microphone found."),
        ("OddError", "The microphone cannot be used: odd"),
    ],
)
def test_a_microphone_that_cannot_be_had(page: Page, name: str, message: str):
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('odd', name)); }", name
    )
    for button in ("Record", "Live"):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("alert")).to_have_text(message)
        expect(page.get_by_role("button", name="Choose a file")).to_be_enabled()


def test_samples_become_the_bytes_of_a_wav_file(page: Page):
    samples = [0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 1 / 32768]
    content = page.evaluate(
        """async (samples) => {
          const { toInt16, wavFile } = await import("/static/wav.js");
          const pieces = [toInt16(new Float32Array(samples.slice(0, 3))), toInt16(new Float32Array(samples.slice(3)))];
          return [...new Uint8Array(await wavFile(pieces, 22050).arrayBuffer())];
        }""",
        samples,
    )
    found, rate = soundfile.read(io.BytesIO(bytes(content)), dtype="int16")
    assert rate == 22050
    assert np.array_equal(found, [0, 16384, -16384, 32767, -32768, 32767, 1])
