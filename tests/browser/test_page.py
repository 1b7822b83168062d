"""What somebody does with the page, in a real browser: a file in, phones to see, hear and save."""

import base64
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from served_app import served_app
from starlette.applications import Starlette
from starlette.routing import Mount

from browser.actions import upload, wait_for_plays
from speechattn.labels.files import read_audacity, read_csv, read_ctm, read_json, read_textgrid
from speechattn.labels.intervals import Segment
from speechattn.model.classifier import FrameClassifier
from speechattn.server.app import create_app

pytestmark = pytest.mark.browser


def options(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Phones").get_by_role("option")


def label(segment: Segment) -> str:
    """How the label of a segment's option begins."""
    return f"{segment.phone}, {segment.start:.2f} to {segment.end:.2f} seconds; likeliest "


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if 0.005 <= share <= 0.995 else "<1 %" if share < 0.5 else ">99 %"


def is_drawn(canvas: Locator) -> bool:
    """Whether a canvas has pixels of more than one colour."""
    return canvas.evaluate(
        "canvas => new Set(new Uint32Array(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > 4"
    )


def test_a_file_is_shown(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    segments = model.classify(spoken, smooth=True)
    assert len(segments) > 5
    expect(options(page)).to_have_count(len(segments))
    labels = options(page).evaluate_all("options => options.map((option) => option.getAttribute('aria-label'))")
    for found, segment in zip(labels, segments, strict=True):
        assert found.startswith(label(segment))
    expect(page.locator("#result-facts")).to_have_text(f"{segments[-1].end:.2f} s, {len(segments)} phones")
    for name in ("Waveform", "Spectrogram", "Posteriors of all phones over time"):
        canvas = page.get_by_role("img", name=name, exact=True)
        expect(canvas).to_be_visible()
        assert is_drawn(canvas), name
    expect(page.get_by_role("status")).to_contain_text(f"{spoken.name}: ")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_boxes_lie_where_the_phones_are(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    segments = model.classify(spoken, smooth=True)
    track = page.locator("#phones").bounding_box()
    assert track is not None
    boxes = options(page).evaluate_all("options => options.map((option) => option.getBoundingClientRect().toJSON())")
    for box, segment in zip(boxes, segments, strict=True):
        times = (np.array([box["left"], box["right"]]) - track["x"]) / track["width"] * segments[-1].end
        np.testing.assert_allclose(times, [segment.start, segment.end], atol=0.003)


def test_a_file_may_be_dropped(page: Page, spoken: Path):
    transfer = page.evaluate_handle(
        """(content) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], "dropped.wav"));
          return transfer;
        }""",
        base64.b64encode(spoken.read_bytes()).decode(),
    )
    page.locator("#intake").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_role("heading", name="dropped.wav")).to_be_visible()


def test_pointing_shows_the_likeliest_phones(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    posteriors = model.posteriors(model.samples(spoken))
    box = page.locator("#posteriors").bounding_box()
    assert box is not None
    duration = soundfile.info(spoken).duration
    for frame in (30, 120):
        time = (160 * frame + 200) / 16000
        page.mouse.move(box["x"] + box["width"] * time / duration, box["y"] + 50)
        best = np.argsort(posteriors[frame])[::-1][:3]
        readings = [f"{model.phones.symbols[phone]} {percent(posteriors[frame][phone])}" for phone in best]
        expect(page.locator("#readout .reading")).to_have_text(readings)
        assert abs(float(page.locator("#readout .when").inner_text().split()[0]) - time) < 0.005
    expect(page.locator("#crosshair")).to_be_visible()
    page.mouse.move(0, 0)
    expect(page.locator("#crosshair")).to_be_hidden()
    expect(page.locator("#readout")).to_contain_text("Point at a track")


def test_a_phone_is_played_by_keyboard(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    segments = model.classify(spoken, smooth=True)
    page.locator("#phones").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#phones")).to_have_attribute("aria-activedescendant", "phone-1")
    expect(page.locator("#phone-1")).to_have_attribute("aria-selected", "true")
    expect(options(page).and_(page.locator("[aria-selected=true]"))).to_have_count(1)
    page.keyboard.press("Space")
    wait_for_plays(page, 1)
    expect(page.get_by_role("button", name=f"Play {segments[1].phone}")).to_be_visible()
    page.keyboard.press("Shift+ArrowRight")
    expect(options(page).and_(page.locator("[aria-selected=true]"))).to_have_count(2)
    names = f"{segments[1].phone} {segments[2].phone}"
    expect(page.get_by_role("button", name=f"Play {names}")).to_be_visible()
    page.keyboard.press("Enter")
    wait_for_plays(page, 2)
    expect(page.get_by_role("button", name=f"Play {names}")).to_be_visible()
    played = page.evaluate("window.played")
    for notes, (first, last) in zip(played, [(1, 1), (1, 2)], strict=True):
        assert notes["from"] == pytest.approx(segments[first].start)
        assert notes["duration"] == pytest.approx(segments[last].end - segments[first].start)
        assert (notes["rate"], notes["samples"]) == (16000, len(model.samples(spoken)))
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Play all")).to_be_visible()


def test_playing_shows_and_stops(page: Page, spoken: Path):
    upload(page, spoken)
    page.get_by_role("button", name="Play all").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator("#playhead")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Play all")).to_be_visible()
    expect(page.locator("#playhead")).to_be_hidden()
    (played,) = page.evaluate("window.played")
    assert played["from"] == 0 and played["duration"] == pytest.approx(soundfile.info(spoken).duration, abs=1e-3)


def test_a_click_plays_a_phone(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    segments = model.classify(spoken, smooth=True)
    longest = int(np.argmax([segment.end - segment.start for segment in segments]))
    options(page).nth(longest).click()
    expect(options(page).nth(longest)).to_have_attribute("aria-selected", "true")
    wait_for_plays(page, 1)
    (played,) = page.evaluate("window.played")
    assert played["from"] == pytest.approx(segments[longest].start)


def test_phones_are_saved(page: Page, model: FrameClassifier, spoken: Path, tmp_path: Path):
    upload(page, spoken)
    segments = model.classify(spoken, smooth=True)
    kinds = {
        "TextGrid": ("TextGrid", read_textgrid),
        "CTM": ("ctm", read_ctm),
        "JSON": ("json", read_json),
        "CSV": ("csv", read_csv),
        "Audacity": ("txt", read_audacity),
    }
    for name, (suffix, read) in kinds.items():
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        assert download.value.suggested_filename == f"the cat sat.{suffix}"
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        found = read(path)
        found = found["the_cat_sat"] if isinstance(found, dict) else found
        assert [segment.phone for segment in found] == [segment.phone for segment in segments]
        times = [segment.start for segment in found]
        assert times == pytest.approx([segment.start for segment in segments], abs=1e-6)


def test_smoothing_is_a_choice(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    assert len(model.classify(spoken)) != len(model.classify(spoken, smooth=True))
    expect(options(page)).to_have_count(len(model.classify(spoken, smooth=True)))
    page.get_by_label("Smooth").uncheck()
    expect(options(page)).to_have_count(len(model.classify(spoken)))


def test_a_table_has_them_all(page: Page, model: FrameClassifier, spoken: Path):
    upload(page, spoken)
    page.get_by_text("All phones as a table").click()
    segments = model.classify(spoken, smooth=True)
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(len(segments) + 1)
    last = segments[-1]
    cells = [last.phone, f"{last.start:.3f}", f"{last.end:.3f}", f"{last.confidence:.3f}"]
    assert rows.last.locator("th, td").all_inner_texts() == cells


def test_a_long_recording_scrolls_and_zooms(page: Page, model: FrameClassifier, tmp_path: Path):
    path = tmp_path / "long.wav"
    generator = np.random.default_rng(0)
    loudness = np.repeat(generator.uniform(0.01, 0.3, 170), 3200)
    soundfile.write(path, loudness * generator.standard_normal(544_000), 16000)
    upload(page, path)
    segments = model.classify(path, smooth=True)
    expect(options(page).first).to_have_attribute("aria-posinset", "1")
    assert 0 < options(page).count() < len(segments)
    page.locator("#phones").focus()
    page.keyboard.press("End")
    expect(page.locator("#phones")).to_have_attribute("aria-activedescendant", f"phone-{len(segments) - 1}")
    expect(options(page).last).to_have_attribute("aria-posinset", str(len(segments)))
    shown = options(page).count()
    for _ in range(3):
        page.keyboard.press("+")
    expect(page.locator(f"#phone-{len(segments) - 1}")).to_be_visible()
    assert options(page).count() < shown
    for _ in range(20):
        page.get_by_role("button", name="Zoom out").click()
    widest = page.locator("#scroller").evaluate("scroller => scroller.scrollWidth / scroller.clientWidth")
    assert widest == pytest.approx(34 / 30, abs=0.02)  # no more than half a minute is seen at a time


def test_what_the_server_cannot_read_the_browser_may(page: Page):
    """Speech as browsers record it, in a container that the server has no reader for."""
    page.evaluate(
        """async () => {
          const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
          const recorder = new MediaRecorder(stream, { mimeType: "audio/webm" });
          const pieces = [];
          recorder.ondataavailable = ({ data }) => pieces.push(data);
          const stopped = new Promise((resolve) => (recorder.onstop = resolve));
          recorder.start();
          await new Promise((resolve) => setTimeout(resolve, 1200));
          recorder.stop();
          await stopped;
          stream.getTracks().forEach((track) => track.stop());
          const transfer = new DataTransfer();
          transfer.items.add(new File(pieces, "memo.webm"));
          const input = document.getElementById("file");
          input.files = transfer.files;
          input.dispatchEvent(new Event("change"));
        }"""
    )
    expect(page.get_by_role("heading", name="memo.webm")).to_be_visible()
    expect(options(page).first).to_be_attached()


def test_bad_files_get_a_message_and_good_ones_go_on(page: Page, spoken: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("not audio")
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    expect(page.get_by_role("alert")).to_have_text("notes.txt: not an audio file that can be read (WAV, FLAC, ...)")
    (tmp_path / "memo.m4a").write_bytes(b"not audio")
    page.locator("#file").set_input_files(tmp_path / "memo.m4a")
    expect(page.get_by_role("alert")).to_contain_text("neither this browser nor the server can decode it")
    upload(page, spoken)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone(page: Page, context: BrowserContext, spoken: Path):
    context.set_offline(True)
    page.locator("#file").set_input_files(spoken)
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached. Is it still running?")
    context.set_offline(False)
    upload(page, spoken)


def test_the_page_may_lie_below_a_path(browser: Browser, model: FrameClassifier, spoken: Path):
    with served_app(Starlette(routes=[Mount("/phones", create_app(model))])) as address:
        page = browser.new_page()
        page.goto(f"{address}/phones/")
        upload(page, spoken)
        page.get_by_role("button", name="Live").click()
        expect(page.get_by_role("status")).to_have_text("Listening …")
        page.close()


def test_an_analysis_can_be_cancelled(page: Page, spoken: Path):
    page.route("**/api/view*", lambda route: None)  # never answered
    page.locator("#file").set_input_files(spoken)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    page.unroute_all()
    upload(page, spoken)


def test_the_spectrum_is_that_of_the_definition(page: Page):
    generator = np.random.default_rng(0)
    samples = generator.integers(-20_000, 20_000, 1000)
    found = page.evaluate(
        """async (samples) => {
          const { Spectrometer } = await import("/static/spectrum.js");
          const spectrometer = new Spectrometer(16000);
          const column = (centre) => [...spectrometer.column(new Int16Array(samples), centre, new Float64Array(257))];
          return [column(500), column(20)];
        }""",
        samples.tolist(),
    )
    place = (np.arange(160) - 79.5) / 161
    window = (np.exp(-48 * place**2) - np.exp(-12)) / (1 - np.exp(-12))
    slope = 6 * np.log2(np.maximum(np.arange(257), 1) * 16000 / 512 / 1000)
    padded = np.pad(samples / 32768, 200)
    for column, centre in zip(found, (500, 20), strict=True):
        power = np.abs(np.fft.rfft(window * padded[centre + 120 : centre + 280], 512)) ** 2 / window.sum() ** 2
        np.testing.assert_allclose(column, 10 * np.log10(power + 1e-12) + slope, atol=1e-6)
