"""The page for everybody: by keyboard, by screen reader, on a phone, in the dark."""

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, FileChooser, Page, expect

from browser.actions import upload, wait_for_plays
from speechattn.server.app import STATIC

pytestmark = pytest.mark.browser

CONTROLS = {"button", "link", "checkbox", "listbox", "option", "meter", "textbox"}
NAMED = CONTROLS | {"image", "region", "log", "heading"}


def test_everything_has_a_role_and_a_name(page: Page, context: BrowserContext, spoken: Path):
    upload(page, spoken)
    page.get_by_text("All phones as a table").click()
    tree = context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found: dict[str, list[str]] = {}
    for node in tree:
        role = node["role"]["value"]
        if not node["ignored"] and role in NAMED:
            found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role, names in found.items():
        assert all(names), f"a {role} without a name among {names}"
    assert {"button", "link", "checkbox", "listbox", "option", "image", "heading"} <= set(found)
    assert "Phones" in found["listbox"] and len(found["image"]) == 3
    assert page.locator("html").get_attribute("lang") == "en" and page.locator("h1").count() == 1


def test_every_control_is_reached_by_tab_in_order_and_shows_it(page: Page, spoken: Path):
    upload(page, spoken)
    reached = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(20):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.tagName.toLowerCase()")
        if name == "body" or name in reached:
            break
        reached.append(name)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"{name} does not show that it has the focus"
    expected = ["choose", "record", "live", "save-textgrid", "save-ctm", "save-json", "save-csv", "save-audacity"]
    assert reached[:12] == [*expected, "play", "zoom-out", "zoom-in", "smooth"]
    assert reached[12:14] == ["phones", "summary"]


def test_the_whole_way_by_keyboard(page: Page, spoken: Path):
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    for _ in range(10):  # Playwright does not wait until it listens: what is opened before is lost
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        if choosers:
            break
    choosers[0].set_files(spoken)
    expect(page.get_by_role("option").first).to_be_attached()
    page.locator("#zoom-in").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#phone-0")).to_have_attribute("aria-selected", "true")
    wait_for_plays(page, 1)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast(number: int):
    style = (STATIC / "style.css").read_text()
    themes = re.split(r"@media \(prefers-color-scheme: dark\)", style)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", themes[number]))
    pairs = [(text, ground) for text in ("ink", "quiet", "accent", "alarm") for ground in ("page", "surface")]
    for text, ground in [*pairs, ("on-accent", "accent")]:
        dark, light = sorted([luminance(colours[text]), luminance(colours[ground])])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"  # WCAG 2.2, 1.4.3


class TestOnAPhone:
    @pytest.fixture
    def context_options(self) -> dict:
        return {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "has_touch": True}

    @staticmethod
    def overflow(page: Page) -> int:
        return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def test_nothing_is_wider_than_the_screen(self, page: Page, spoken: Path, tmp_path: Path):
        assert self.overflow(page) == 0
        path = tmp_path / f"{'a_very_long_name_' * 5}.wav"
        path.write_bytes(spoken.read_bytes())
        upload(page, path)
        page.get_by_text("All phones as a table").click()
        assert self.overflow(page) == 0
        page.get_by_role("button", name="Live").click()
        expect(page.get_by_role("log").locator("span").first).to_be_attached()
        assert self.overflow(page) == 0
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Live")).to_be_enabled()

    def test_controls_are_large_enough_for_a_finger(self, page: Page, spoken: Path):
        upload(page, spoken)
        for control in page.locator("button:visible, a:visible, label:visible").all():
            box = control.bounding_box()
            assert box is not None and min(box["width"], box["height"]) >= 24, control  # WCAG 2.2, 2.5.8

    def test_a_tap_chooses_and_plays(self, page: Page, spoken: Path):
        upload(page, spoken)
        page.locator("#waveform").tap()
        expect(page.locator("[aria-selected=true]")).to_have_count(1)
        expect(page.locator("#readout .reading")).to_have_count(3)
        wait_for_plays(page, 1)


def test_the_dark_has_its_own_colours(page: Page, spoken: Path):
    upload(page, spoken)

    def corner() -> list[int]:
        read = "canvas => [...canvas.getContext('2d').getImageData(2, 2, 1, 1).data]"
        return page.locator("#spectrogram").evaluate(read)

    light = corner()
    page.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", "rgb(19, 21, 25)")
    page.wait_for_timeout(300)
    assert sum(corner()[:3]) < sum(light[:3])


def test_where_movement_is_not_wanted_live_stands_still(page: Page):
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="Live").click()
    boxes = page.locator("#live-phones .phone")
    expect(boxes.nth(3)).to_be_attached()
    first = boxes.last.evaluate("box => box.style.left")  # the latest come first, but for the unfinished one
    page.wait_for_timeout(500)
    assert page.locator("#live-phones .phone").evaluate_all(
        "(boxes, left) => boxes.some((box) => box.style.left === left)", first
    )
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Live")).to_be_enabled()
